//! The rows of the index: tables, keys, values (`spec/10-index.md`). Encode and
//! decode only; where rows are kept is `checkpoint`'s business.
//!
//! Every value ends with an 8-byte check, keyed for this store, over table, key
//! and value: a row that was damaged, or belongs to another key, table or
//! store, is told from a row that was written. It does not tell an old row from
//! a new one; that is done by the directory (`base`).

use super::heads::HeadRow;
use super::place::{KEYS_PER_RUN_MAX, KeySet, Location, RequestKey, RunPlace};
use super::tail::ContextState;
use crate::encoding::{DecodeError, Reader, in_range};
use crate::entry::ContextId;
use crate::hash::{self, Hash};
use crate::head::HeadOrder;
use crate::limits::{RUN_ENTRIES_MAX, SEQUENCE_MAX, TRUST_RECORDS_MAX};
use crate::run::Accumulator;
use crate::store::record::{Position, Short};
use crate::tree::Frontier;
use crate::tree::tile::{TILE_WIDTH, TileId};

/// The version of every table; part of its name.
pub(crate) const INDEX_VERSION: u8 = 3;
/// Bytes of a row's check.
const CHECK_BYTES: usize = 8;
/// Locations of one pending seen head: 16 GiB of openings.
const PENDING_MAX: usize = 16_384;
/// Bytes of a vkey in the state row, at most.
const VKEY_BYTES_MAX: u16 = 512;

/// The tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Table {
    /// `"covered"`: what the index covers.
    State = 1,
    /// Context id: number.
    Contexts = 2,
    /// Number: context id; empty for one that is not named yet.
    ContextIds = 3,
    /// Path hash: number.
    Paths = 4,
    /// Number: accumulator.
    Accumulators = 5,
    /// Number, first sequence: run.
    Runs = 6,
    /// Number, level, index: hashes.
    Tiles = 7,
    /// Payload hash: location.
    Payloads = 8,
    /// Number, request key: sequence.
    Requests = 9,
    /// Node hash: node.
    Directory = 10,
    /// Order of retirement: node hashes.
    Retired = 11,
    /// Term, epoch: head.
    Heads = 12,
}

impl Table {
    /// All tables.
    pub(crate) const ALL: [Self; 12] = [
        Self::State,
        Self::Contexts,
        Self::ContextIds,
        Self::Paths,
        Self::Accumulators,
        Self::Runs,
        Self::Tiles,
        Self::Payloads,
        Self::Requests,
        Self::Directory,
        Self::Retired,
        Self::Heads,
    ];

    /// Its name, with the version.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::State => "state.3",
            Self::Contexts => "contexts.3",
            Self::ContextIds => "context_ids.3",
            Self::Paths => "paths.3",
            Self::Accumulators => "accumulators.3",
            Self::Runs => "runs.3",
            Self::Tiles => "tiles.3",
            Self::Payloads => "payloads.3",
            Self::Requests => "requests.3",
            Self::Directory => "directory.3",
            Self::Retired => "retired.3",
            Self::Heads => "heads.3",
        }
    }
}

/// The keys of a store's index: of its rows and of its pages. They come from
/// the tag key of segment 1, so that no other store's index fits.
#[derive(Clone)]
pub(crate) struct IndexKeys {
    pub(crate) rows: RowKey,
    pub(crate) pages: [u8; 32],
}

impl IndexKeys {
    pub(crate) fn of_store(tag_key: &[u8; 32]) -> Self {
        Self {
            rows: RowKey(hash::derive_key("converge-ledger v1 index-rows", tag_key)),
            pages: hash::derive_key("converge-ledger v1 index-pages", tag_key),
        }
    }
}

impl std::fmt::Debug for IndexKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IndexKeys")
    }
}

/// The key of a store's row checks.
#[derive(Clone)]
pub(crate) struct RowKey([u8; 32]);

impl std::fmt::Debug for RowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RowKey")
    }
}

impl RowKey {
    fn check(&self, table: Table, key: &[u8], value: &[u8]) -> [u8; CHECK_BYTES] {
        // Keys are at most a context id.
        let key_len = u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes();
        let mut stream = hash::Stream::keyed_with(&self.0);
        stream
            .update(&[table as u8])
            .update(&key_len)
            .update(key)
            .update(value);
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&stream.finish().as_bytes()[..CHECK_BYTES]);
        check
    }

    /// Puts the check behind a value.
    pub(crate) fn seal(&self, table: Table, key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
        let check = self.check(table, key, &value);
        value.extend_from_slice(&check);
        value
    }

    /// The value of a row whose check is right.
    pub(crate) fn open<'v>(&self, table: Table, key: &[u8], row: &'v [u8]) -> Option<&'v [u8]> {
        let (value, check) = row.split_at_checked(row.len().checked_sub(CHECK_BYTES)?)?;
        (self.check(table, key, value) == *check).then_some(value)
    }
}

/// `accumulators`, `context_ids`: numbers ascend in byte order.
pub(crate) fn number_key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Reads a number from a key.
pub(crate) fn get_number_key(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

pub(crate) fn run_key(number: u64, first: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&first.to_be_bytes());
    key
}

/// Number and first sequence of a run's key.
pub(crate) fn get_run_key(key: &[u8]) -> Option<(u64, u64)> {
    let (number, first) = key.split_at_checked(8)?;
    Some((get_number_key(number)?, get_number_key(first)?))
}

pub(crate) fn tile_key(number: u64, tile: TileId) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8] = tile.level();
    key[9..].copy_from_slice(&tile.index().to_be_bytes());
    key
}

pub(crate) fn request_row_key(number: u64, request: &RequestKey) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(request);
    key
}

/// Number and request key of a key.
pub(crate) fn get_request_key(key: &[u8]) -> Option<(u64, RequestKey)> {
    let (number, request) = key.split_at_checked(8)?;
    Some((get_number_key(number)?, request.try_into().ok()?))
}

pub(crate) fn put_u64(value: u64) -> Vec<u8> {
    value.to_le_bytes().to_vec()
}

pub(crate) fn get_u64(value: &[u8]) -> Result<u64, DecodeError> {
    let mut r = Reader::new(value);
    let number = r.u64("number")?;
    r.finish("number")?;
    Ok(number)
}

/// A name, or nothing while there is none.
pub(crate) fn put_name(name: Option<&ContextId>) -> Vec<u8> {
    name.map_or(Vec::new(), |id| id.as_str().as_bytes().to_vec())
}

/// What a number stands for.
pub(crate) enum NameRow {
    Context(ContextId),
    /// A context that is being loaded, or never was to its end.
    Unnamed,
}

pub(crate) fn get_name(value: &[u8]) -> Result<NameRow, DecodeError> {
    if value.is_empty() {
        return Ok(NameRow::Unnamed);
    }
    ContextId::decode(value).map(NameRow::Context)
}

/// Lamport, last time, request ids, bytes of runs, bytes of payloads, since when
/// it exists, frontier. A number without a name has never existed: a row of
/// `context_ids` from before the name does not fit an accumulator from after it,
/// nor the other way round.
pub(crate) fn put_accumulator(state: &ContextState) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    for field in [
        state.after.lamport,
        state.after.appended_at_ns,
        state.requests,
        state.run_bytes,
        state.payload_bytes,
        state.since.as_u64(),
    ] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&state.after.frontier.to_bytes());
    out
}

pub(crate) fn get_accumulator(
    number: u64,
    name: Option<ContextId>,
    value: &[u8],
) -> Result<ContextState, DecodeError> {
    let mut r = Reader::new(value);
    let lamport = r.u64("Lamport time")?;
    let appended_at_ns = r.u64("wall-clock time")?;
    let requests = r.u64("request ids")?;
    let run_bytes = r.u64("bytes of runs")?;
    let payload_bytes = r.u64("bytes of payloads")?;
    let since = Position::from_u64(r.u64("since when")?);
    if name.is_some() != (since != Position::default()) {
        return Err(DecodeError::Invalid {
            what: "an accumulator and a name that do not belong together",
        });
    }
    let frontier = Frontier::from_bytes(r.rest())?;
    let after = Accumulator {
        frontier,
        lamport,
        appended_at_ns,
    };
    Ok(ContextState {
        number,
        name,
        since,
        after,
        requests,
        run_bytes,
        payload_bytes,
    })
}

pub(crate) fn put_location(at: Location) -> Vec<u8> {
    let mut out = at.position.as_u64().to_le_bytes().to_vec();
    out.extend_from_slice(&at.body_len.to_le_bytes());
    out
}

fn take_location(r: &mut Reader<'_>) -> Result<Location, DecodeError> {
    let position = Position::from_u64(r.u64("position")?);
    let body_len = r.u32("body length")?;
    Ok(Location { position, body_len })
}

pub(crate) fn get_location(value: &[u8]) -> Result<Location, DecodeError> {
    let mut r = Reader::new(value);
    let at = take_location(&mut r)?;
    r.finish("location")?;
    Ok(at)
}

/// Location, entries, number of key hashes (255: too many), key hashes.
pub(crate) fn put_run(run: &RunPlace) -> Vec<u8> {
    let mut out = put_location(run.at);
    // At most 256, or the run would not have been taken.
    let count = u16::try_from(run.last - run.first + 1).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_le_bytes());
    match run.keys.hashes() {
        Some(hashes) => {
            out.push(u8::try_from(hashes.len()).unwrap_or(u8::MAX));
            for hash in hashes {
                out.extend_from_slice(&hash.to_le_bytes());
            }
        }
        None => out.push(u8::MAX),
    }
    out
}

pub(crate) fn get_run(first: u64, value: &[u8]) -> Result<RunPlace, DecodeError> {
    let mut r = Reader::new(value);
    let at = take_location(&mut r)?;
    let count = u64::from(r.u16("entries of a run")?);
    in_range("entries of a run", count, 1, RUN_ENTRIES_MAX as u64)?;
    in_range("first sequence", first, 1, SEQUENCE_MAX)?;
    let keys = match r.u8("keys of a run")? {
        u8::MAX => KeySet::MANY,
        keys => {
            in_range("keys of a run", keys.into(), 0, KEYS_PER_RUN_MAX as u64)?;
            let mut set = KeySet::default();
            for _ in 0..keys {
                set.add(r.u32("key hash")?);
            }
            set
        }
    };
    r.finish("run")?;
    let last = first + count - 1;
    Ok(RunPlace {
        first,
        last,
        at,
        keys,
    })
}

pub(crate) fn put_hashes<'h>(hashes: impl Iterator<Item = &'h Hash>) -> Vec<u8> {
    let mut out = Vec::new();
    for hash in hashes {
        out.extend_from_slice(hash.as_bytes());
    }
    out
}

/// The hashes of a tile, 1..=256.
pub(crate) fn get_tile(value: &[u8]) -> Result<Vec<Hash>, DecodeError> {
    let count = value.len() / Hash::LEN;
    in_range("hashes of a tile", count as u64, 1, TILE_WIDTH as u64)?;
    get_hashes(value)
}

fn get_hashes(value: &[u8]) -> Result<Vec<Hash>, DecodeError> {
    let what = "hashes";
    if !value.len().is_multiple_of(Hash::LEN) {
        return Err(DecodeError::Invalid { what });
    }
    value
        .chunks_exact(Hash::LEN)
        .map(|bytes| Hash::from_slice(bytes).ok_or(DecodeError::Invalid { what }))
        .collect()
}

/// Directory nodes that one head replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RetiredRow {
    /// The head's time.
    pub(crate) at_ns: u64,
    /// Bytes of these nodes.
    pub(crate) bytes: u64,
    pub(crate) nodes: Vec<Hash>,
}

pub(crate) fn put_retired(row: &RetiredRow) -> Vec<u8> {
    let mut out = row.at_ns.to_le_bytes().to_vec();
    out.extend_from_slice(&row.bytes.to_le_bytes());
    out.extend(put_hashes(row.nodes.iter()));
    out
}

pub(crate) fn get_retired(value: &[u8]) -> Result<RetiredRow, DecodeError> {
    let mut r = Reader::new(value);
    Ok(RetiredRow {
        at_ns: r.u64("time of retirement")?,
        bytes: r.u64("bytes of retired nodes")?,
        nodes: get_hashes(r.rest())?,
    })
}

/// Heads ascend in byte order.
pub(crate) fn head_key(order: HeadOrder) -> [u8; 16] {
    run_key(order.term, order.epoch)
}

pub(crate) fn get_head_key(key: &[u8]) -> Option<HeadOrder> {
    let (term, epoch) = get_run_key(key)?;
    Some(HeadOrder { term, epoch })
}

/// Location, position covered, time, whether it is the first of its minute.
pub(crate) fn put_head(row: &HeadRow) -> Vec<u8> {
    let mut out = put_location(row.at);
    out.extend_from_slice(&row.covered.as_u64().to_le_bytes());
    out.extend_from_slice(&row.time_ns.to_le_bytes());
    out.push(u8::from(row.first));
    out
}

pub(crate) fn get_head(value: &[u8]) -> Result<HeadRow, DecodeError> {
    let mut r = Reader::new(value);
    let at = take_location(&mut r)?;
    let covered = Position::from_u64(r.u64("position covered")?);
    let time_ns = r.u64("time of a head")?;
    let first = r.u8("first of its minute")?;
    in_range("first of its minute", first.into(), 0, 1)?;
    r.finish("head")?;
    Ok(HeadRow {
        at,
        covered,
        time_ns,
        first: first == 1,
    })
}

/// A place in the log that everything before it leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cover {
    /// The end of a group.
    pub(crate) end: Position,
    /// The group's last record.
    pub(crate) last: Position,
    /// The chain after it: the tag of all bytes up to `end`.
    pub(crate) chain: Short,
}

/// The one row of `state`: what the index covers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StateRow {
    pub(crate) store_id: Short,
    pub(crate) cover: Cover,
    /// The newest published or complete head, if there is one.
    pub(crate) head: Option<Location>,
    pub(crate) contexts: u64,
    /// The highest number in use, with or without a name.
    pub(crate) numbers: u64,
    pub(crate) entries: u64,
    /// Where the openings of a mirror's pending head lie, its own record last.
    pub(crate) pending: Vec<Location>,
    /// Openings whose `seen` record is still to come.
    pub(crate) loose: Vec<Location>,
    /// Order of the next row of `retired`, and the bytes of all nodes in it.
    pub(crate) retired_next: u64,
    pub(crate) retired_bytes: u64,
    /// When the checkpoint was made, by the wall clock.
    pub(crate) made_at_ns: u64,
    /// The key whose heads count.
    pub(crate) origin: String,
    /// Where the records lie that lead to it from the pinned key.
    pub(crate) trust: Vec<Location>,
}

/// The key of the one row of `state`.
pub(crate) const STATE_KEY: &[u8] = b"covered";

impl StateRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![INDEX_VERSION, 0, 0, 0, 0, 0, 0, 0];
        out.extend_from_slice(&self.store_id);
        out.extend_from_slice(&self.cover.chain);
        let head = self.head.unwrap_or_default();
        for field in [
            self.cover.end.as_u64(),
            self.cover.last.as_u64(),
            head.position.as_u64(),
            u64::from(head.body_len),
            self.contexts,
            self.numbers,
            self.entries,
            self.retired_next,
            self.retired_bytes,
            self.made_at_ns,
        ] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        let origin = u16::try_from(self.origin.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&origin.to_le_bytes());
        for places in [&self.trust, &self.pending, &self.loose] {
            let count = u16::try_from(places.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&count.to_le_bytes());
        }
        out.extend_from_slice(self.origin.as_bytes());
        for at in self.trust.iter().chain(&self.pending).chain(&self.loose) {
            out.extend(put_location(*at));
        }
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(value);
        r.version("index", INDEX_VERSION)?;
        r.reserved("state bytes 1..8", 7)?;
        let store_id = r.array("store id")?;
        let chain = r.array("chain")?;
        let end = Position::from_u64(r.u64("covered end")?);
        let last = Position::from_u64(r.u64("covered record")?);
        let head_at = Position::from_u64(r.u64("head record")?);
        let head_len = r.u64("head length")?;
        let head_len = u32::try_from(head_len).map_err(|_| DecodeError::Invalid {
            what: "head length",
        })?;
        let contexts = r.u64("contexts")?;
        let numbers = r.u64("numbers")?;
        let entries = r.u64("entries")?;
        let retired_next = r.u64("retired rows")?;
        let retired_bytes = r.u64("retired bytes")?;
        let made_at_ns = r.u64("time")?;
        let origin_len = r.u16("length of the vkey")?;
        in_range("vkey in bytes", origin_len.into(), 1, VKEY_BYTES_MAX.into())?;
        let trust_len = r.u16("records of trust")?;
        in_range(
            "records of trust",
            trust_len.into(),
            0,
            TRUST_RECORDS_MAX as u64,
        )?;
        let pending_len = r.u16("pending records")?;
        let loose_len = r.u16("loose records")?;
        let records = u64::from(pending_len) + u64::from(loose_len);
        in_range("pending records", records, 0, PENDING_MAX as u64)?;
        let origin = r.utf8("vkey", origin_len.into())?.to_owned();
        let mut places = |count: u16| {
            (0..count)
                .map(|_| take_location(&mut r))
                .collect::<Result<Vec<_>, _>>()
        };
        let trust = places(trust_len)?;
        let pending = places(pending_len)?;
        let loose = places(loose_len)?;
        r.finish("state")?;
        let head = Location {
            position: head_at,
            body_len: head_len,
        };
        Ok(Self {
            store_id,
            cover: Cover { end, last, chain },
            head: (head != Location::default()).then_some(head),
            contexts,
            numbers,
            entries,
            pending,
            loose,
            retired_next,
            retired_bytes,
            made_at_ns,
            origin,
            trust,
        })
    }
}

/// True if a pending head's records can be named in the state row.
pub(crate) fn pending_fits(records: usize) -> bool {
    records <= PENDING_MAX
}
