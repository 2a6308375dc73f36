//! The rows that a log leads to, as `spec/10-index.md` says: from the records of
//! a whole log to keys and values, and back from a row to what it says.
//!
//! Written from the chapter, so that it is a second opinion on the index that
//! the crate keeps; runs, frontiers and directories are the crate's.

use std::collections::{BTreeMap, BTreeSet};

use converge_ledger::directory::{
    Change, MemoryDirectory, Node, Opening, OpeningsPart, Seen, apply, commitment, empty_root,
};
use converge_ledger::entry::ContextId;
use converge_ledger::hash::{self, Hash};
use converge_ledger::head::SignedHead;
use converge_ledger::note::VerifierKey;
use converge_ledger::run::{Accumulator, Run};
use converge_ledger::tree::Frontier;
use serde_json::{Value, json};

use super::log::{Fixed, log_of, records_of};
use super::{hex, number, unhex};
use converge_ledger::store::Clock;

/// The tables, by number from 1.
pub(crate) const TABLES: [&str; 12] = [
    "state.3",
    "contexts.3",
    "context_ids.3",
    "paths.3",
    "accumulators.3",
    "runs.3",
    "tiles.3",
    "payloads.3",
    "requests.3",
    "directory.3",
    "retired.3",
    "heads.3",
];

/// Rows by table (from 1) and key; values without their checks.
pub(crate) type Rows = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

/// The keys of row checks and of page checks.
pub(crate) fn index_keys(log: &str) -> [[u8; 32]; 2] {
    let first = &log_of(log)["log/0000000001.seg"];
    ["rows", "pages"].map(|of| {
        let context = format!("converge-ledger v1 index-{of}");
        hash::derive_key(&context, &first[32..64])
    })
}

/// The check of a row.
pub(crate) fn row_check(row_key: &[u8; 32], table: u8, key: &[u8], value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(key.len()).unwrap().to_le_bytes();
    let input = [&[table][..], &len, key, value].concat();
    hash::keyed_with(row_key, &input).as_bytes()[..8].to_vec()
}

struct Context {
    id: String,
    after: Accumulator,
    requests: u64,
    run_bytes: u64,
    payload_bytes: u64,
    /// Position of the record that names it; 0 without a name.
    since: u64,
}

impl Context {
    fn change(&self) -> Change {
        change(&self.id, self.after.size(), &self.after.root())
    }

    fn accumulator(&self) -> Vec<u8> {
        let fields = [
            self.after.lamport,
            self.after.appended_at_ns,
            self.requests,
            self.run_bytes,
            self.payload_bytes,
            self.since,
        ];
        let mut value = fields.map(u64::to_le_bytes).concat();
        value.extend(self.after.frontier.to_bytes());
        value
    }
}

fn change(id: &str, size: u64, root: &Hash) -> Change {
    Change {
        path: ContextId::new(id).unwrap().path(),
        commitment: commitment(id, size, root),
        entries: size,
    }
}

/// What the records lead to.
struct Rebuilt {
    origin: VerifierKey,
    rows: Rows,
    contexts: Vec<Context>,
    /// Own store: those that grew since the last head.
    changed: BTreeSet<usize>,
    directory: MemoryDirectory,
    root: Hash,
    /// Position and length of the last head's record; zeros without one.
    head: [u64; 2],
    /// A mirror's seen heads that are not complete yet.
    pending: Vec<Pending>,
    loose: Vec<(Vec<u8>, OpeningsPart)>,
    retired: [u64; 2],
    /// The minute of the last head.
    minute: Option<u64>,
    /// Places of what makes up whom the store believes.
    trust: Vec<Vec<u8>>,
}

/// A seen head: its places and openings.
struct Pending {
    head: SignedHead,
    places: Vec<Vec<u8>>,
    openings: Vec<Opening>,
}

/// Position and body length.
fn place(position: u64, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    [&position.to_le_bytes()[..], &len.to_le_bytes()].concat()
}

fn be(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

impl Rebuilt {
    fn put(&mut self, table: u8, key: &[u8], value: Vec<u8>) {
        self.rows.insert((table, key.to_vec()), value);
    }

    fn context(&mut self, position: u64, body: &[u8]) {
        let id = std::str::from_utf8(&body[8..]).unwrap();
        let context = u64::from_le_bytes(body[..8].try_into().unwrap());
        self.name(context, id);
        self.begin(id, position);
    }

    fn name(&mut self, context: u64, id: &str) {
        let path = ContextId::new(id).unwrap().path();
        self.put(2, id.as_bytes(), context.to_le_bytes().to_vec());
        self.put(3, &be(context), id.as_bytes().to_vec());
        self.put(4, path.as_bytes(), context.to_le_bytes().to_vec());
    }

    /// What is loaded gets its name: size and root are as it says.
    fn named(&mut self, position: u64, body: &[u8]) {
        let n = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().unwrap());
        let (context, size) = (n(0), n(8));
        let id = std::str::from_utf8(&body[48..]).unwrap();
        let at = usize::try_from(context).unwrap() - 1;
        let loaded = &mut self.contexts[at];
        assert_eq!((loaded.id.as_str(), loaded.after.size()), ("", size));
        assert_eq!(loaded.after.root().as_bytes(), &body[16..48]);
        id.clone_into(&mut loaded.id);
        loaded.since = position;
        self.changed.insert(at);
        self.name(context, id);
    }

    /// A number is used; without a name its context does not exist yet.
    fn begin(&mut self, id: &str, since: u64) {
        self.contexts.push(Context {
            id: id.to_owned(),
            after: Accumulator::default(),
            requests: 0,
            run_bytes: 0,
            payload_bytes: 0,
            since,
        });
    }

    fn run(&mut self, position: u64, body: &[u8]) {
        let context = u64::from_le_bytes(body[..8].try_into().unwrap());
        let at = usize::try_from(context).unwrap() - 1;
        if at == self.contexts.len() {
            self.put(3, &be(context), Vec::new());
            self.begin("", 0);
        }
        let run = Run::decode(&body[8..]).unwrap();
        let (mut keys, mut ids) = (Vec::new(), Vec::new());
        let (mut payloads, mut nodes) = (0, Vec::new());
        let on_entry = |entry: &converge_ledger::run::RunEntry<'_>, _: &Hash| {
            let header = &entry.header;
            payloads += u64::from(header.payload_len);
            let hashed = hash::content(header.key.as_bytes()).as_bytes()[..4].to_vec();
            if !keys.contains(&hashed) {
                keys.push(hashed);
            }
            if let Some(id) = header.request_id {
                let hashed = hash::content(id.as_bytes()).as_bytes()[..16].to_vec();
                ids.push((hashed, header.sequence));
            }
        };
        let on_node = |id, hash| nodes.push((id, hash));
        let grown = &mut self.contexts[at];
        grown.after.extend(&run, on_entry, on_node).unwrap();
        grown.requests += ids.len() as u64;
        grown.run_bytes += body.len() as u64;
        grown.payload_bytes += payloads;
        if !grown.id.is_empty() {
            self.changed.insert(at);
        }
        let mut value = place(position, body);
        value.extend(u16::try_from(run.count()).unwrap().to_le_bytes());
        if keys.len() > 8 {
            value.push(255);
        } else {
            value.push(u8::try_from(keys.len()).unwrap());
            value.extend(keys.concat());
        }
        self.put(6, &[be(context), be(run.first())].concat(), value);
        for (id, sequence) in ids {
            let key = [be(context), id].concat();
            self.put(9, &key, sequence.to_le_bytes().to_vec());
        }
        for (id, hash) in nodes {
            if id.level < 4 || (id.level - 4) % 8 != 0 {
                continue;
            }
            let level = (id.level - 4) / 8 + 1;
            let key = [be(context), vec![level], be(id.index / 256)].concat();
            let tile = self.rows.entry((7, key)).or_default();
            assert_eq!(tile.len() as u64, id.index % 256 * 32);
            tile.extend(hash.as_bytes());
        }
    }

    fn head(&mut self, position: u64, body: &[u8], mirror: bool) {
        let head = SignedHead::open(&body[8..], &self.origin).unwrap();
        let changes: Vec<Change> = if mirror {
            let openings = self.pending.pop().unwrap().openings;
            self.pending.retain(|seen| seen.head.order() > head.order());
            let changed = openings.iter().map(|o| change(&o.id, o.size, &o.root));
            changed.collect()
        } else {
            let changed = std::mem::take(&mut self.changed).into_iter();
            changed.map(|at| self.contexts[at].change()).collect()
        };
        let update = apply(&self.directory, &self.root, &changes).unwrap();
        assert_eq!(update.root, head.head().directory_root);
        let bytes = |hash: &Hash| self.rows[&(10, hash.as_bytes().to_vec())].len() as u64;
        let retired: u64 = update.retired.iter().map(bytes).sum();
        let mut row = [head.head().time_ns, retired]
            .map(u64::to_le_bytes)
            .concat();
        for hash in &update.retired {
            row.extend(hash.as_bytes());
        }
        let order = self.retired[0];
        self.put(11, &be(order), row);
        self.retired = [order + 1, self.retired[1] + retired];
        for (hash, node) in &update.added {
            self.put(10, hash.as_bytes(), node.clone());
        }
        self.directory.add(&update);
        self.root = update.root;
        // Too few to let any go.
        let text = head.head();
        let minute = text.time_ns / 60_000_000_000;
        let mut row = place(position, body);
        row.extend(&body[..8]);
        row.extend(text.time_ns.to_le_bytes());
        row.push(u8::from(self.minute != Some(minute)));
        self.put(12, &[be(text.term), be(text.epoch)].concat(), row);
        self.minute = Some(minute);
        if let (Some(rotation), false) = (&text.rotation, mirror) {
            self.origin = rotation.new.clone();
            self.trust.push(place(position, body));
        }
        self.head = [position, body.len() as u64];
    }

    /// A rotation of a mirror's origin ends what was seen under the old key.
    fn note(&mut self, position: u64, body: &[u8]) {
        let head = SignedHead::open(body, &self.origin).unwrap();
        self.origin = head.next_key().clone();
        self.trust.push(place(position, body));
        self.loose.clear();
    }

    fn seen(&mut self, position: u64, body: &[u8]) {
        let seen = Seen::decode(body).unwrap();
        let head = SignedHead::open(&seen.note, &self.origin).unwrap();
        let order = (head.head().term, head.head().epoch);
        let (mut places, mut openings) = (Vec::new(), Vec::new());
        for (at, part) in std::mem::take(&mut self.loose) {
            if (part.term, part.epoch) == order {
                places.push(at);
                openings.extend(part.openings);
            }
        }
        assert_eq!(openings.len() as u64, seen.openings_count);
        places.push(place(position, body));
        self.pending.retain(|held| held.head != head);
        let records = |held: &[Pending]| held.iter().map(|held| held.places.len()).sum::<usize>();
        while self.pending.len() >= 4 || records(&self.pending) > 64 {
            self.pending.remove(0);
        }
        let seen = Pending {
            head,
            places,
            openings,
        };
        self.pending.push(seen);
    }

    /// The rows, with what they cover: end, last record, chain.
    fn finish(mut self, store_id: &[u8], end: u64, last: u64, chain: &[u8]) -> Rows {
        let contexts = std::mem::take(&mut self.contexts);
        for (context, state) in (1..).zip(&contexts) {
            self.put(5, &be(context), state.accumulator());
        }
        let named = || contexts.iter().filter(|context| !context.id.is_empty());
        let entries = named().map(|context| context.after.size()).sum();
        let mut state = vec![3, 0, 0, 0, 0, 0, 0, 0];
        state.extend([store_id, chain].concat());
        let fields = [
            end,
            last,
            self.head[0],
            self.head[1],
            named().count() as u64,
            contexts.len() as u64,
            entries,
        ];
        state.extend(fields.map(u64::to_le_bytes).concat());
        let fields = [self.retired[0], self.retired[1], Fixed.now_ns()];
        state.extend(fields.map(u64::to_le_bytes).concat());
        let origin = self.origin.to_string();
        let held = self.pending.iter().flat_map(|held| held.places.clone());
        let pending: Vec<Vec<u8>> = held.collect();
        let counts = [self.trust.len(), pending.len(), self.loose.len()];
        for len in [origin.len()].into_iter().chain(counts) {
            state.extend(u16::try_from(len).unwrap().to_le_bytes());
        }
        state.extend(origin.as_bytes());
        state.extend(self.trust.concat());
        state.extend(pending.concat());
        let loose: Vec<Vec<u8>> = self.loose.iter().map(|(at, _)| at.clone()).collect();
        state.extend(loose.concat());
        self.put(1, b"covered", state);
        self.rows
    }
}

/// The rows that a whole log leads to, one checkpoint at its end.
pub(crate) fn rows_of(log: &str) -> Rows {
    let files = log_of(log);
    let origin = crate::committed(log)["vkey"].as_str().unwrap().to_owned();
    let mut rebuilt = Rebuilt {
        origin: VerifierKey::parse(&origin).unwrap(),
        rows: Rows::new(),
        contexts: Vec::new(),
        changed: BTreeSet::new(),
        directory: MemoryDirectory::new(),
        root: empty_root(),
        head: [0; 2],
        pending: Vec::new(),
        loose: Vec::new(),
        retired: [0; 2],
        minute: None,
        trust: Vec::new(),
    };
    let (mut mirror, mut covers) = (false, None);
    for record in records_of(&files) {
        let segment = number(&record, "segment");
        let offset = number(&record, "offset");
        let bytes = &files[&format!("log/{segment:010}.seg")];
        let start = usize::try_from(offset).unwrap() + 64;
        let len = usize::try_from(number(&record, "body_bytes")).unwrap();
        let (position, body) = (segment << 32 | offset, &bytes[start..start + len]);
        match number(&record, "type") {
            1 => mirror = body[1] == 2,
            2 => rebuilt.context(position, body),
            3 => rebuilt.run(position, body),
            4 => rebuilt.put(8, &body[..32], place(position, body)),
            5 => rebuilt.head(position, body, mirror),
            6 => {
                let part = OpeningsPart::decode(body).unwrap();
                rebuilt.loose.push((place(position, body), part));
            }
            7 => rebuilt.seen(position, body),
            8 => rebuilt.note(position, body),
            9 | 13 => rebuilt.trust.push(place(position, body)),
            12 => rebuilt.named(position, body),
            // A mark or a seal.
            _ => continue,
        }
        if number(&record, "flags") & 2 != 0 {
            let end = position + 64 + len.next_multiple_of(64) as u64;
            covers = Some((end, position, unhex(&record["chain"])));
        }
    }
    let (end, last, chain) = covers.unwrap();
    let store_id = &files["log/0000000001.seg"][16..32];
    rebuilt.finish(store_id, end, last, &chain)
}

/// Takes bytes off the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn le(&mut self, len: usize) -> Option<u64> {
        let byte = |value, byte: &u8| value << 8 | u64::from(*byte);
        Some(self.take(len)?.iter().rev().fold(0, byte))
    }

    fn be(&mut self, len: usize) -> Option<u64> {
        let byte = |value, byte: &u8| value << 8 | u64::from(*byte);
        Some(self.take(len)?.iter().fold(0, byte))
    }

    /// Segment, offset, body length.
    fn place(&mut self) -> Option<Value> {
        let position = self.le(8)?;
        Some(json!([position >> 32, position & 0xffff_ffff, self.le(4)?]))
    }

    fn hashes(&mut self) -> Option<Vec<String>> {
        let mut hashes = Vec::new();
        while !self.0.is_empty() {
            hashes.push(hex(self.take(32)?));
        }
        Some(hashes)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

fn id_of(bytes: &[u8]) -> Option<String> {
    Some(ContextId::decode(bytes).ok()?.as_str().to_owned())
}

/// What a row says; `None` if it cannot be.
pub(crate) fn read_row(table: u8, key: &[u8], value: &[u8]) -> Option<Value> {
    let (mut k, mut v) = (Bytes(key), Bytes(value));
    let said = match table {
        1 => {
            let covered = k.take(7)? == b"covered";
            covered.then(|| read_state(&mut v))??
        }
        2 => json!({ "id": id_of(k.take(key.len())?)?, "context": v.le(8)? }),
        // A number without a name.
        3 if value.is_empty() => json!({ "context": k.be(8)?, "id": null }),
        3 => json!({ "context": k.be(8)?, "id": id_of(v.take(value.len())?)? }),
        4 => json!({ "path": hex(k.take(32)?), "context": v.le(8)? }),
        5 => {
            let context = k.be(8)?;
            let mut fields = || v.le(8);
            let (lamport, time) = (fields()?, fields()?);
            let (requests, runs, payloads) = (fields()?, fields()?, fields()?);
            let since = fields()?;
            let frontier = Frontier::from_bytes(v.take(v.0.len())?).ok()?;
            json!({ "context": context, "lamport": lamport, "appended_at_ns": time,
                "requests": requests, "run_bytes": runs, "payload_bytes": payloads,
                "since": [since >> 32, since & 0xffff_ffff],
                "size": frontier.size().get(), "root": frontier.root().to_string() })
        }
        6 => {
            let (context, first, at) = (k.be(8)?, k.be(8)?, v.place()?);
            let entries = v.le(2)?;
            let keys = match v.le(1)? {
                255 => Value::Null,
                count @ 0..=8 => {
                    let hashes: Option<Vec<String>> =
                        (0..count).map(|_| v.take(4).map(hex)).collect();
                    hashes?.into()
                }
                _ => return None,
            };
            let in_range = (1..=256).contains(&entries) && (1..1 << 62).contains(&first);
            in_range.then_some(())?;
            json!({ "context": context, "first": first, "at": at, "entries": entries,
                "key_hashes": keys })
        }
        7 => {
            let (context, level, index) = (k.be(8)?, k.le(1)?, k.be(8)?);
            let hashes = v.hashes()?;
            (1..=256).contains(&hashes.len()).then_some(())?;
            json!({ "context": context, "level": level, "index": index, "hashes": hashes })
        }
        8 => json!({ "payload_hash": hex(k.take(32)?), "at": v.place()? }),
        9 => {
            json!({ "context": k.be(8)?, "request": hex(k.take(16)?), "sequence": v.le(8)? })
        }
        10 => {
            let (hash, node) = (k.take(32)?, Node::decode(v.take(value.len())?).ok()?);
            (node.hash().as_bytes() == hash).then_some(())?;
            json!({ "node": hex(hash), "contexts": node.sums().contexts,
                "entries": node.sums().entries })
        }
        11 => {
            json!({ "order": k.be(8)?, "time_ns": v.le(8)?, "bytes": v.le(8)?,
                "nodes": v.hashes()? })
        }
        12 => {
            let (term, epoch, at) = (k.be(8)?, k.be(8)?, v.place()?);
            let (covered, time, first) = (v.le(8)?, v.le(8)?, v.le(1)?);
            (first < 2).then_some(())?;
            json!({ "term": term, "epoch": epoch, "at": at, "time_ns": time,
                "covered": [covered >> 32, covered & 0xffff_ffff], "first": first == 1 })
        }
        _ => return None,
    };
    k.end()?;
    v.end()?;
    Some(said)
}

fn read_state(v: &mut Bytes<'_>) -> Option<Value> {
    (v.take(8)? == [3, 0, 0, 0, 0, 0, 0, 0]).then_some(())?;
    let (store_id, chain) = (hex(v.take(16)?), hex(v.take(16)?));
    let mut n = || v.le(8);
    let (end, last, head, head_len) = (n()?, n()?, n()?, n()?);
    u32::try_from(head_len).ok()?;
    let (contexts, numbers, entries) = (n()?, n()?, n()?);
    let (retired_next, retired_bytes, made_at_ns) = (n()?, n()?, n()?);
    let (vkey, trust, pending, loose) = (v.le(2)?, v.le(2)?, v.le(2)?, v.le(2)?);
    ((1..=512).contains(&vkey) && trust <= 95 && pending + loose <= 16_384).then_some(())?;
    let vkey = std::str::from_utf8(v.take(usize::try_from(vkey).ok()?)?).ok()?;
    let mut places = |count: u64| (0..count).map(|_| v.place()).collect::<Option<Vec<_>>>();
    let (trust, pending, loose) = (places(trust)?, places(pending)?, places(loose)?);
    let position = |at: u64| json!([at >> 32, at & 0xffff_ffff]);
    Some(
        json!({ "store_id": store_id, "chain": chain, "end": position(end),
        "last_record": position(last), "head": [head >> 32, head & 0xffff_ffff, head_len],
        "contexts": contexts, "numbers": numbers, "entries": entries, "retired_next": retired_next,
        "retired_bytes": retired_bytes, "made_at_ns": made_at_ns, "vkey": vkey,
        "trust": trust, "pending": pending, "loose": loose }),
    )
}
