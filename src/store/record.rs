//! Bytes of a segment: its header, its records, and the three checks of a
//! record (`spec/05-store.md`). Encode and decode only; no I/O.
//!
//! ```text
//! segment header, 128 B        record header, 64 B, at a multiple of 64
//!  0 CLEDGSEG  8 version 1      0 CLR1   4 type   5 flags   6 reserved
//! 12 number   16 store id       8 body length    12 index in the group
//! 32 tag key  64 chain         16 synced_through 24 header check
//! 80 previous end  88 reserved 32 body tag       48 chain
//! 96 BLAKE3 of bytes 0..96     64 body, zero-padded to 64
//! ```
//!
//! * **header check**: this is a record of this segment at this position. Makes
//!   a record found by scanning a voucher for its `synced_through`.
//! * **body tag**: these are the bytes written at this position. Every read
//!   verifies it, on its own.
//! * **chain**: the records before this one are those that were there when it
//!   was written. Recovery and audit verify it through all segments; bytes of a
//!   cut group can never chain on.

use std::fmt;

use crate::encoding::{DecodeError, Reader};
use crate::hash;
use crate::limits::{
    RECORD_BODY_BYTES_MAX, RECORD_HEADER_BYTES, SEGMENT_BYTES_LIMIT, SEGMENT_HEADER_BYTES,
};

/// First bytes of a segment.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"CLEDGSEG";
/// The version of segments this build reads and writes.
pub(crate) const SEGMENT_VERSION: u16 = 1;
/// First bytes of a record.
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"CLR1";
/// First record of its group.
pub(crate) const FLAG_FIRST: u8 = 1;
/// Last record of its group: the commit mark.
pub(crate) const FLAG_LAST: u8 = 2;

/// A place in the log: segment number << 32 | offset in the segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(u64);

impl Position {
    /// The place at `offset` of segment `segment`.
    #[must_use]
    pub const fn new(segment: u32, offset: u32) -> Self {
        Self((segment as u64) << 32 | offset as u64)
    }

    /// From its number.
    #[must_use]
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }

    /// As a number.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The segment's number; 0 only before the log.
    #[must_use]
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The offset in the segment.
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // the low half, by definition
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }

    /// The place `bytes` further on in the same segment; `None` at 4 GiB.
    #[must_use]
    pub fn forward(self, bytes: u64) -> Option<Self> {
        let offset = u64::from(self.offset()).checked_add(bytes)?;
        (offset < SEGMENT_BYTES_LIMIT).then(|| Self(u64::from(self.segment()) << 32 | offset))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} offset {}", self.segment(), self.offset())
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment(), self.offset())
    }
}

/// 16 bytes: chains, tags, store ids.
pub(crate) type Short = [u8; 16];

/// What a record holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum RecordType {
    /// Role and pinned key of the store; the first record of segment 1.
    Store = 1,
    /// A context's number and id.
    Context = 2,
    /// A run.
    Run = 3,
    /// A payload above 4 KiB.
    Payload = 4,
    /// A published or complete head.
    Head = 5,
    /// Contexts that differ under a seen head.
    Openings = 6,
    /// A seen head; commits the openings before it.
    Seen = 7,
    /// A rotation of the origin's key, in a mirror.
    Note = 8,
    /// An evidence file.
    Evidence = 9,
    /// Empty: vouches for what is before it.
    Mark = 10,
    /// Empty: the last record of a segment.
    Seal = 11,
    /// Names a context that was loaded; with it, the context exists.
    Named = 12,
    /// What an operator said to evidence.
    Resolved = 13,
}

impl RecordType {
    fn from_u8(value: u8) -> Result<Self, DecodeError> {
        Ok(match value {
            1 => Self::Store,
            2 => Self::Context,
            3 => Self::Run,
            4 => Self::Payload,
            5 => Self::Head,
            6 => Self::Openings,
            7 => Self::Seen,
            8 => Self::Note,
            9 => Self::Evidence,
            10 => Self::Mark,
            11 => Self::Seal,
            12 => Self::Named,
            13 => Self::Resolved,
            _ => {
                return Err(DecodeError::UnknownVersion {
                    what: "record type (written by a newer build)",
                    found: u16::from(value),
                    known: Self::Resolved as u16,
                });
            }
        })
    }
}

/// The header of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// From 1.
    pub(crate) number: u32,
    /// The same in all segments of a store.
    pub(crate) store_id: Short,
    /// Random; the keys of the segment's checks come from it.
    pub(crate) tag_key: [u8; 32],
    /// The chain at the end of the previous segment, zeros in segment 1.
    pub(crate) chain: Short,
    /// Where the previous segment ends, 0 in segment 1.
    pub(crate) previous_end: Position,
}

impl fmt::Debug for SegmentHeader {
    /// Without the tag key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentHeader")
            .field("number", &self.number)
            .field("previous_end", &self.previous_end)
            .finish_non_exhaustive()
    }
}

impl SegmentHeader {
    /// The header's bytes.
    #[must_use]
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0u8; SEGMENT_HEADER_BYTES];
        out[0..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..10].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..32].copy_from_slice(&self.store_id);
        out[32..64].copy_from_slice(&self.tag_key);
        out[64..80].copy_from_slice(&self.chain);
        out[80..88].copy_from_slice(&self.previous_end.as_u64().to_le_bytes());
        let check = hash::content(&out[..96]);
        out[96..].copy_from_slice(check.as_bytes());
        out
    }

    /// Reads a header; refuses a wrong hash before it looks at the fields.
    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        if r.array::<8>("segment magic")? != SEGMENT_MAGIC {
            return Err(DecodeError::Invalid {
                what: "not a segment: wrong magic",
            });
        }
        if hash::content(&bytes[..96]).as_bytes() != &bytes[96..] {
            return Err(DecodeError::Invalid {
                what: "segment header does not match its hash",
            });
        }
        let found = r.u16("segment version")?;
        if found != SEGMENT_VERSION {
            let known = SEGMENT_VERSION;
            return Err(DecodeError::UnknownVersion {
                what: "segment",
                found,
                known,
            });
        }
        r.reserved("segment bytes 10..12", 2)?;
        let number = r.u32("segment number")?;
        let store_id = r.array("store id")?;
        let tag_key = r.array("tag key")?;
        let chain = r.array("chain")?;
        let previous_end = Position::from_u64(r.u64("previous end")?);
        r.reserved("segment bytes 88..96", 8)?;
        Ok(Self {
            number,
            store_id,
            tag_key,
            chain,
            previous_end,
        })
    }

    /// The keys of the segment's checks.
    #[must_use]
    pub(crate) fn keys(&self) -> SegmentKeys {
        let chain = hash::derive_key("converge-ledger v1 log-chain", &self.tag_key);
        let start = short(&hash::keyed_with(&chain, &self.encode()));
        SegmentKeys {
            check: hash::derive_key("converge-ledger v1 log-check", &self.tag_key),
            body: hash::derive_key("converge-ledger v1 log-body", &self.tag_key),
            chain,
            start,
        }
    }
}

/// What a body tag is computed over in front of the body.
pub(crate) const TAG_INPUT_START_BYTES: usize = 32;
/// Where that is put while a group is made, or records are read: right in front
/// of the body.
pub(crate) const TAG_INPUT_AT: usize = RECORD_HEADER_BYTES - TAG_INPUT_START_BYTES;

fn tag_input_start(position: Position, fields: &[u8; 24]) -> [u8; TAG_INPUT_START_BYTES] {
    let mut out = [0; TAG_INPUT_START_BYTES];
    out[..8].copy_from_slice(&position.as_u64().to_le_bytes());
    out[8..].copy_from_slice(fields);
    out
}

fn short(hash: &hash::Hash) -> Short {
    let mut out = [0; 16];
    out.copy_from_slice(&hash.as_bytes()[..16]);
    out
}

/// The keys of one segment's checks, and its chain before the first record.
#[derive(Clone)]
pub(crate) struct SegmentKeys {
    check: [u8; 32],
    body: [u8; 32],
    chain: [u8; 32],
    start: Short,
}

impl fmt::Debug for SegmentKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SegmentKeys")
    }
}

impl SegmentKeys {
    /// The chain before the first record of the segment.
    #[must_use]
    pub(crate) fn start(&self) -> Short {
        self.start
    }

    /// `keyed(K_check, position, bytes 0..24)[..8]`.
    fn check(&self, position: Position, fields: &[u8; 24]) -> [u8; 8] {
        let mut input = [0u8; 32];
        input[..8].copy_from_slice(&position.as_u64().to_le_bytes());
        input[8..].copy_from_slice(fields);
        let mut out = [0; 8];
        out.copy_from_slice(&hash::keyed_with(&self.check, &input).as_bytes()[..8]);
        out
    }

    /// `keyed(K_body, position, bytes 0..24, padded body)[..16]`.
    fn tag(&self, position: Position, fields: &[u8; 24], padded_body: &[u8]) -> Short {
        let mut input = hash::Stream::keyed_with(&self.body);
        input
            .update(&tag_input_start(position, fields))
            .update(padded_body);
        short(&input.finish())
    }

    /// The tags of many records, each from [`tag_input_start`] and its padded
    /// body in one piece: short ones are hashed side by side.
    fn tags(&self, inputs: &[&[u8]]) -> impl Iterator<Item = Short> + use<> {
        let tags = hash::keyed_many_with(&self.body, inputs);
        tags.into_iter().map(|tag| short(&tag))
    }

    /// `keyed(K_chain, previous chain, position, bytes 0..24, tag)[..16]`: 64
    /// bytes in, one compression.
    fn chain(&self, before: &Short, position: Position, fields: &[u8; 24], tag: &Short) -> Short {
        let mut input = [0u8; 64];
        input[..16].copy_from_slice(before);
        input[16..24].copy_from_slice(&position.as_u64().to_le_bytes());
        input[24..48].copy_from_slice(fields);
        input[48..].copy_from_slice(tag);
        short(&hash::keyed_with(&self.chain, &input))
    }
}

/// The header of a record, as read. Only [`RecordHeader::vouched`] values have
/// had their header check verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// What the record holds.
    pub(crate) kind: RecordType,
    /// [`FLAG_FIRST`] and [`FLAG_LAST`].
    pub(crate) flags: u8,
    /// Bytes in the body.
    pub(crate) body_len: u32,
    /// Place in the group, from 0.
    pub(crate) index: u32,
    /// The log is durable up to here, since before this record was written.
    pub(crate) synced_through: Position,
    fields: [u8; 24],
    tag: Short,
    chain: Short,
}

impl RecordHeader {
    /// Reads the header of a record at `position` if its magic and header
    /// check are right: then it is a record of this segment, written here.
    /// `Ok(None)` means there is no record here.
    pub(crate) fn vouched(
        keys: &SegmentKeys,
        position: Position,
        bytes: &[u8; RECORD_HEADER_BYTES],
    ) -> Result<Option<Self>, DecodeError> {
        let mut r = Reader::new(bytes);
        if r.array::<4>("record magic")? != RECORD_MAGIC {
            return Ok(None);
        }
        let mut fields = [0u8; 24];
        fields.copy_from_slice(&bytes[..24]);
        if keys.check(position, &fields) != bytes[24..32] {
            return Ok(None);
        }
        let kind = RecordType::from_u8(r.u8("record type")?)?;
        let flags = r.u8("record flags")?;
        if flags & !(FLAG_FIRST | FLAG_LAST) != 0 {
            return Err(DecodeError::NotCanonical {
                what: "record flags",
            });
        }
        r.reserved("record bytes 6..8", 2)?;
        let body_len = r.u32("body length")?;
        if body_len as usize > RECORD_BODY_BYTES_MAX {
            return Err(DecodeError::OutOfRange {
                what: "record body in bytes",
                got: u64::from(body_len),
                min: 0,
                max: RECORD_BODY_BYTES_MAX as u64,
            });
        }
        let index = r.u32("index in the group")?;
        let synced_through = Position::from_u64(r.u64("synced_through")?);
        r.bytes("header check", 8)?;
        let tag = r.array("body tag")?;
        let chain = r.array("chain")?;
        Ok(Some(Self {
            kind,
            flags,
            body_len,
            index,
            synced_through,
            fields,
            tag,
            chain,
        }))
    }

    /// The chain the record names, which only reading all before it verifies.
    #[must_use]
    pub(crate) fn stored_chain(&self) -> Short {
        self.chain
    }

    /// True for the first record of a group.
    #[must_use]
    pub(crate) fn is_first(&self) -> bool {
        self.flags & FLAG_FIRST != 0
    }

    /// True for the last record of a group.
    #[must_use]
    pub(crate) fn is_last(&self) -> bool {
        self.flags & FLAG_LAST != 0
    }

    /// Bytes of the body with its padding.
    #[must_use]
    pub(crate) fn padded_len(&self) -> usize {
        (self.body_len as usize).next_multiple_of(64)
    }

    /// True if `padded_body` is what was written here.
    #[must_use]
    pub(crate) fn tag_matches(&self, keys: &SegmentKeys, at: Position, padded_body: &[u8]) -> bool {
        keys.tag(at, &self.fields, padded_body) == self.tag
    }

    /// What its body tag is computed over in front of the body.
    pub(crate) fn tag_input_start(&self, at: Position) -> [u8; TAG_INPUT_START_BYTES] {
        tag_input_start(at, &self.fields)
    }

    /// The first of many records whose body is not what was written, each with
    /// what its tag is computed over.
    pub(crate) fn first_bad_tag(keys: &SegmentKeys, records: &[(&Self, &[u8])]) -> Option<usize> {
        let inputs: Vec<&[u8]> = records.iter().map(|(_, input)| *input).collect();
        let tags = keys.tags(&inputs);
        let mut both = records.iter().zip(tags);
        both.position(|((header, _), tag)| tag != header.tag)
    }

    /// The chain after this record if it follows `before`.
    #[must_use]
    pub(crate) fn chains_on(
        &self,
        keys: &SegmentKeys,
        before: &Short,
        at: Position,
    ) -> Option<Short> {
        let chain = keys.chain(before, at, &self.fields, &self.tag);
        (chain == self.chain).then_some(chain)
    }
}

/// The records of one group while it is being made: bodies in place, headers
/// filled in by [`Group::seal`].
#[derive(Debug, Default)]
pub(crate) struct Group {
    bytes: Vec<u8>,
    records: Vec<(usize, RecordType)>,
}

impl Group {
    /// A group without records.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A group without records that builds in memory used before.
    pub(crate) fn reusing(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self {
            bytes: buffer,
            records: Vec::new(),
        }
    }

    /// Adds a record whose body `fill` appends. Returns where the record will
    /// start, from the start of the group, and the length of its body.
    pub(crate) fn add(&mut self, kind: RecordType, fill: impl FnOnce(&mut Vec<u8>)) -> (u64, u32) {
        let start = self.bytes.len();
        self.bytes.resize(start + RECORD_HEADER_BYTES, 0);
        fill(&mut self.bytes);
        let body_len = self.bytes.len() - start - RECORD_HEADER_BYTES;
        debug_assert!(body_len <= RECORD_BODY_BYTES_MAX);
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        self.records.push((start, kind));
        // Bodies are bounded by 8 MiB.
        let body_len = u32::try_from(body_len).unwrap_or(u32::MAX);
        self.bytes[start + 8..start + 12].copy_from_slice(&body_len.to_le_bytes());
        (start as u64, body_len)
    }

    /// Bytes of the group.
    #[must_use]
    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Where the last record starts, from the start of the group.
    pub(crate) fn last_offset(&self) -> u64 {
        self.records.last().map_or(0, |(start, _)| *start as u64)
    }

    /// True without records.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Fills in every header for a group that starts at `position`; returns the
    /// bytes and the chain after them. `None` if the group does not fit below
    /// 4 GiB.
    #[must_use]
    pub(crate) fn seal(
        mut self,
        keys: &SegmentKeys,
        position: Position,
        synced_through: Position,
        mut chain: Short,
    ) -> Option<(Vec<u8>, Short)> {
        position.forward(self.len())?;
        let count = self.records.len();
        for (i, (start, kind)) in self.records.iter().enumerate() {
            let at = position.forward(*start as u64)?;
            let rest = self.bytes.get_mut(*start..)?;
            let header = rest.first_chunk_mut::<RECORD_HEADER_BYTES>()?;
            header[..4].copy_from_slice(&RECORD_MAGIC);
            header[4] = *kind as u8;
            header[5] =
                if i == 0 { FLAG_FIRST } else { 0 } | if i + 1 == count { FLAG_LAST } else { 0 };
            header[12..16].copy_from_slice(&u32::try_from(i).ok()?.to_le_bytes());
            header[16..24].copy_from_slice(&synced_through.as_u64().to_le_bytes());
            let fields = *header.first_chunk()?;
            header[24..32].copy_from_slice(&keys.check(at, &fields));
            // Until tag and chain come here: in front of the body, it lies as
            // the tag is computed over it.
            header[TAG_INPUT_AT..].copy_from_slice(&tag_input_start(at, &fields));
        }
        let starts = self.records.iter().map(|(start, _)| *start);
        let ends = starts.clone().skip(1).chain([self.bytes.len()]);
        let inputs: Option<Vec<&[u8]>> = starts
            .clone()
            .zip(ends)
            .map(|(start, end)| self.bytes.get(start + TAG_INPUT_AT..end))
            .collect();
        let tags = keys.tags(&inputs?);
        for (start, tag) in starts.zip(tags) {
            let at = position.forward(start as u64)?;
            let rest = self.bytes.get_mut(start..)?;
            let header = rest.first_chunk_mut::<RECORD_HEADER_BYTES>()?;
            let fields = *header.first_chunk()?;
            chain = keys.chain(&chain, at, &fields, &tag);
            header[32..48].copy_from_slice(&tag);
            header[48..].copy_from_slice(&chain);
        }
        Some((self.bytes, chain))
    }
}

#[cfg(test)]
mod tests;
