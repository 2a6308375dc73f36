//! Archives that nobody wrote: arbitrary bytes, a written one with bytes
//! exchanged, the same with every hash made right again, and its sections
//! rearranged.
//!
//! The mender spells the layout of `spec/06-archive.md` a second time, on
//! purpose: it must not share a mistake with the writer.

use std::convert::Infallible;
use std::sync::LazyLock;

use super::Input;
use crate::archive::{Parts, ReadError, verify, write};
use crate::entry::{ContextId, Draft};
use crate::hash::{self, Hash};
use crate::ledger::ReadHistory;
use crate::limits::{ARCHIVE_RUNS_BYTES_MAX, ARCHIVE_SECTION_BYTES_MAX};
use crate::run::{Accumulator, Run, RunBuilder};

const HEADER_BYTES: usize = 48;
const END_BYTES: usize = 48;
const END: u8 = 255;
/// Rearrangements of one input.
const MOVES_MAX: usize = 16;

/// What is verified can be read again, to entries that fold into the root; a
/// changed archive says of itself what the written one said, or is refused.
pub fn archive_read(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => _ = check(input.rest()),
        1 => {
            let mut archive = HONEST.clone();
            input.mutate(&mut archive);
            // Without the hashes mended there is no other archive.
            assert_eq!(check(&archive).is_ok(), archive == *HONEST);
        }
        2 => {
            let mut archive = HONEST.clone();
            input.mutate(&mut archive);
            mend(&mut archive);
            let _ = check(&archive);
        }
        _ => rearrange(&mut input),
    }
}

/// Ten entries in four runs, with three large payloads.
struct History {
    id: ContextId,
    root: Hash,
    runs: Vec<Vec<u8>>,
    payloads: Vec<Vec<u8>>,
}

const ENTRIES: u64 = 10;

impl History {
    fn new() -> Self {
        let (mut runs, mut payloads) = (Vec::new(), Vec::new());
        let mut builder = RunBuilder::default();
        let mut after = Accumulator::default();
        for sequence in 1..=ENTRIES {
            let bytes = if sequence % 3 == 0 { 4097 } else { 20 };
            let payload = vec![b'a' + sequence.to_le_bytes()[0] % 4; bytes];
            let draft = Draft::new("key", payload.clone()).unwrap();
            builder
                .push(&draft.header(sequence, sequence, sequence), &payload)
                .unwrap();
            payloads.push(payload);
            if sequence % 3 == 0 || sequence == ENTRIES {
                let mut run = Vec::new();
                builder.finish_into(&mut run);
                let decoded = Run::decode(&run).unwrap();
                after.extend(&decoded, |_, _| (), |_, _| ()).unwrap();
                runs.push(run);
            }
        }
        Self {
            id: ContextId::new("fuzzed").unwrap(),
            root: after.root(),
            runs,
            payloads,
        }
    }
}

impl ReadHistory for History {
    type Error = Infallible;

    fn id(&self) -> &ContextId {
        &self.id
    }

    fn size(&self) -> u64 {
        ENTRIES
    }

    fn root(&self) -> Hash {
        self.root
    }

    fn runs(&self, after: u64, _: usize) -> Result<Vec<Vec<u8>>, Infallible> {
        let is_behind = |run: &&Vec<u8>| Run::decode(run).unwrap().last() > after;
        Ok(self.runs.iter().filter(is_behind).cloned().collect())
    }

    fn outside_payload(&self, hash: &Hash) -> Result<Vec<u8>, Infallible> {
        let found = self.payloads.iter().find(|p| hash::content(p) == *hash);
        Ok(found.cloned().unwrap_or_default())
    }
}

static HONEST: LazyLock<Vec<u8>> = LazyLock::new(honest);

/// An archive as it is written.
pub(super) fn honest() -> Vec<u8> {
    let mut out = Vec::new();
    write(&History::new(), &mut out).unwrap();
    out
}

/// Verifies an archive and, if it is good, reads it again from several places.
fn check(archive: &[u8]) -> Result<(), ReadError> {
    let half = verify(archive, None)?.size() / 2;
    let verified = verify(archive, Some(half)).unwrap();
    assert_eq!(verified.bytes(), archive.len() as u64);
    let mut whole = Accumulator::default();
    read(archive, 0, |run| {
        if run.last() <= half {
            whole.extend(run, |_, _| (), |_, _| ()).unwrap();
            assert!(whole.size() < half || Some(whole.root()) == verified.root_at());
            return;
        }
        for entry in run.entries() {
            let leaf = crate::entry::leaf_hash(entry.unwrap().header_bytes);
            whole.frontier.append(leaf).unwrap();
            if whole.size() == half {
                assert_eq!(Some(whole.root()), verified.root_at());
            }
        }
    });
    assert_eq!(whole.size(), verified.size());
    assert_eq!(whole.root(), verified.root());
    let mut next = half + 1;
    read(archive, half, |run| {
        assert_eq!(run.first(), next);
        next = run.last() + 1;
    });
    assert_eq!(next, verified.size() + 1);
    read(archive, verified.size(), |_| panic!("runs behind the end"));
    Ok(())
}

/// The runs behind `after`, whose payloads have all come by then.
fn read(archive: &[u8], after: u64, mut on_run: impl FnMut(&Run<'_>)) {
    let verified = verify(archive, None).unwrap();
    let mut payloads = Vec::new();
    for part in Parts::new(archive, &verified, after) {
        let part = part.expect("what was verified");
        let bytes: usize = part.payloads.iter().map(|p| p.bytes().len()).sum();
        assert!(bytes <= ARCHIVE_SECTION_BYTES_MAX);
        payloads.extend(part.payloads.iter().map(|p| (p.hash(), p.bytes().len())));
        let bytes: usize = part.runs.iter().map(Vec::len).sum();
        assert!(bytes <= ARCHIVE_RUNS_BYTES_MAX);
        for run in &part.runs {
            let run = Run::decode(run).unwrap();
            run.check_payloads().unwrap();
            for entry in run.entries().map(Result::unwrap) {
                let wanted = (entry.header.payload_hash, entry.header.payload_len as usize);
                assert!(entry.inline_payload.is_some() || payloads.contains(&wanted));
            }
            on_run(&run);
        }
    }
}

/// Where the first lines end.
fn title_end(archive: &[u8]) -> Option<usize> {
    Some(archive.windows(2).position(|two| two == b"\n\n")? + 2)
}

/// The sections of an archive as far as they can be told apart: kind and body.
fn sections(archive: &[u8]) -> Vec<(usize, u8, Vec<u8>)> {
    let (mut at, mut found) = (title_end(archive).unwrap_or(archive.len()), Vec::new());
    while let Some(header) = archive
        .get(at..)
        .and_then(<[u8]>::first_chunk::<HEADER_BYTES>)
    {
        let stated = u64::from_le_bytes(header[8..16].try_into().unwrap());
        let left = archive.len() - at - HEADER_BYTES;
        let bytes = usize::try_from(stated).map_or(left, |stated| stated.min(left));
        let body = &archive[at + HEADER_BYTES..][..bytes];
        found.push((at, header[0], body.to_vec()));
        at += HEADER_BYTES + bytes;
    }
    found
}

/// Makes right every hash and number that says what other bytes are.
fn mend(archive: &mut [u8]) {
    for (number, (at, kind, mut body)) in sections(archive).into_iter().enumerate() {
        if kind == END && body.len() == END_BYTES {
            body[8..16].copy_from_slice(&(number as u64).to_le_bytes());
            body[16..].copy_from_slice(hash::content(&archive[..at]).as_bytes());
            archive[at + HEADER_BYTES..][..END_BYTES].copy_from_slice(&body);
        }
        let hash = hash::content(&[&archive[at..at + 16], &body].concat());
        archive[at + 16..at + HEADER_BYTES].copy_from_slice(hash.as_bytes());
    }
}

/// A written archive with its sections moved, left out, doubled, of another
/// kind or changed inside, and all hashes right.
fn rearrange(input: &mut Input<'_>) {
    let mut pieces: Vec<(u8, Vec<u8>)> = sections(&HONEST)
        .into_iter()
        .map(|(_, kind, body)| (kind, body))
        .collect();
    let mut title = HONEST[..title_end(&HONEST).unwrap()].to_vec();
    if input.byte().is_multiple_of(8) {
        let at = input.below(title.len());
        title[at] = input.byte();
    }
    // Whatever else changes, the end stays where it is now and then.
    let keep_end = input.byte().is_multiple_of(2);
    let end = keep_end.then(|| pieces.pop()).flatten();
    for _ in 0..input.below(MOVES_MAX) {
        if pieces.is_empty() {
            break;
        }
        let (way, at) = (input.byte(), input.below(pieces.len()));
        match way % 6 {
            0 => {
                let other = input.below(pieces.len());
                pieces.swap(at, other);
            }
            1 => _ = pieces.remove(at),
            2 => {
                let (piece, other) = (pieces[at].clone(), input.below(pieces.len()));
                pieces.insert(other, piece);
            }
            3 => pieces[at].0 = input.byte(),
            4 => {
                let place = input.below(pieces[at].1.len());
                if let Some(byte) = pieces[at].1.get_mut(place) {
                    *byte = input.byte();
                }
            }
            _ => {
                // In two where it says so.
                let place = input.below(pieces[at].1.len());
                let rest = pieces[at].1.split_off(place);
                let kind = pieces[at].0;
                pieces.insert(at + 1, (kind, rest));
            }
        }
    }
    pieces.extend(end);
    let mut archive = title;
    for (kind, body) in pieces {
        archive.extend([kind, 1, 0, 0, 0, 0, 0, 0]);
        archive.extend((body.len() as u64).to_le_bytes());
        archive.extend([0; Hash::LEN]);
        archive.extend(body);
    }
    mend(&mut archive);
    let _ = check(&archive);
}
