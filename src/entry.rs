//! Layer 0. What a ledger entry is: its header, its limits, and the draft it
//! is made from. Nothing here knows where entries are stored.
//!
//! The **header** is the leaf preimage (`spec/01-entry.md`): the bytes whose
//! keyed hash is the entry's `id` and its leaf in the tree. The payload is
//! committed by its plain BLAKE3 hash inside the header.
//!
//! ```text
//!  0 version 1   1 reserved      2 key len     4 request id len  6 pairs
//!  8 sequence   16 lamport      24 time ns    32 payload len    36 metadata len
//! 40 BLAKE3(payload)            72 key, request id, metadata pairs
//! ```
//!
//! Invariants: a [`Header`] that was decoded re-encodes to the same bytes; a
//! [`Draft`], [`Metadata`], [`ContextId`] cannot exist outside its limits.

use std::fmt;
use std::sync::Arc;

use crate::encoding::{DecodeError, Reader, in_range};
use crate::hash::{self, Hash, Role};
use crate::limits::{
    CONTEXT_ID_BYTES_MAX, HEADER_BYTES_MAX, HEADER_FIXED_BYTES, KEY_BYTES_MAX, LAMPORT_LIMIT,
    METADATA_BYTES_MAX, METADATA_KEY_BYTES_MAX, METADATA_PAIRS_MAX, PAYLOAD_BYTES_MAX,
    REQUEST_ID_BYTES_MAX, SEQUENCE_MAX,
};

/// What an entry takes besides its own bytes, at most: the fixed part of its
/// header, and records of its own for its context, its run and its payload.
const DRAFT_OVERHEAD_BYTES: usize = HEADER_FIXED_BYTES + 3 * 2 * 64 + 128;

/// The version byte of an entry header.
pub const HEADER_VERSION: u8 = 1;

/// Why an entry or one of its parts was refused. The caller is at fault and
/// nothing was stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A length or count is outside its limit.
    #[error("{what} is {got}, allowed are {min}..={max}")]
    OutOfRange {
        /// The field and its unit.
        what: &'static str,
        /// The value found.
        got: u64,
        /// The smallest allowed value.
        min: u64,
        /// The largest allowed value.
        max: u64,
    },
    /// A context id holds a control character.
    #[error("a context id must not hold control characters")]
    ControlCharacter,
    /// Two metadata pairs share a key.
    #[error("metadata key {key:?} appears twice")]
    DuplicateMetadataKey {
        /// The key.
        key: String,
    },
}

fn bounded(what: &'static str, got: usize, min: usize, max: usize) -> Result<(), EntryError> {
    if got < min || got > max {
        return Err(EntryError::OutOfRange {
            what,
            got: got as u64,
            min: min as u64,
            max: max as u64,
        });
    }
    Ok(())
}

/// The name of a context: 1..=1024 bytes of UTF-8 without control characters.
/// Compared byte by byte; never used as a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextId(Arc<str>);

impl ContextId {
    /// Checks and wraps a name.
    pub fn new(id: &str) -> Result<Self, EntryError> {
        bounded("context id in bytes", id.len(), 1, CONTEXT_ID_BYTES_MAX)?;
        if id.chars().any(char::is_control) {
            return Err(EntryError::ControlCharacter);
        }
        Ok(Self(id.into()))
    }

    /// Reads a name from untrusted bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        in_range(
            "context id in bytes",
            bytes.len() as u64,
            1,
            CONTEXT_ID_BYTES_MAX as u64,
        )?;
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid {
            what: "context id is not UTF-8",
        })?;
        Self::new(text).map_err(|_| DecodeError::Invalid {
            what: "context id has control characters",
        })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The context's place in the directory.
    #[must_use]
    pub fn path(&self) -> Hash {
        hash::keyed(Role::DirectoryPath, self.0.as_bytes())
    }
}

impl fmt::Display for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Metadata in its encoded form: pairs in ascending order of their keys.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct MetadataRef<'a> {
    pairs: u16,
    bytes: &'a [u8],
}

impl<'a> MetadataRef<'a> {
    /// Checks the metadata part of a header.
    fn decode(pairs: u16, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        in_range(
            "metadata pairs",
            u64::from(pairs),
            0,
            METADATA_PAIRS_MAX as u64,
        )?;
        let mut reader = Reader::new(bytes);
        let mut previous: Option<&[u8]> = None;
        let mut total = 0usize;
        for _ in 0..pairs {
            let key_len = usize::from(reader.u16("metadata key length")?);
            let value_len = usize::from(reader.u16("metadata value length")?);
            in_range(
                "metadata key in bytes",
                key_len as u64,
                1,
                METADATA_KEY_BYTES_MAX as u64,
            )?;
            let key = reader.utf8("metadata key", key_len)?;
            reader.utf8("metadata value", value_len)?;
            total += key_len + value_len;
            if previous.is_some_and(|p| p >= key.as_bytes()) {
                return Err(DecodeError::NotCanonical {
                    what: "metadata keys must ascend",
                });
            }
            previous = Some(key.as_bytes());
        }
        reader.finish("metadata")?;
        in_range(
            "metadata in bytes",
            total as u64,
            0,
            METADATA_BYTES_MAX as u64,
        )?;
        Ok(Self { pairs, bytes })
    }

    /// Number of pairs.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.pairs as usize
    }

    /// True without pairs.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pairs == 0
    }

    /// The pairs, ascending by key.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        // Checked when made: every read below succeeds.
        std::iter::from_fn(move || {
            let key_len = usize::from(reader.u16("key").ok()?);
            let value_len = usize::from(reader.u16("value").ok()?);
            let key = reader.utf8("key", key_len).ok()?;
            let value = reader.utf8("value", value_len).ok()?;
            Some((key, value))
        })
    }

    /// An owned copy.
    #[must_use]
    pub fn to_owned(&self) -> Metadata {
        Metadata {
            pairs: self.pairs,
            bytes: self.bytes.to_vec(),
        }
    }
}

impl fmt::Debug for MetadataRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Owned metadata, sorted and unique by key.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    pairs: u16,
    bytes: Vec<u8>,
}

impl Metadata {
    /// Sorts and checks pairs.
    pub fn from_pairs<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, EntryError>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let mut list = Vec::new();
        let mut total = 0usize;
        for (key, value) in pairs {
            bounded("metadata pairs", list.len() + 1, 0, METADATA_PAIRS_MAX)?;
            let (k, v) = (key.as_ref().len(), value.as_ref().len());
            bounded("metadata key in bytes", k, 1, METADATA_KEY_BYTES_MAX)?;
            total = total.saturating_add(k).saturating_add(v);
            bounded("metadata in bytes", total, 0, METADATA_BYTES_MAX)?;
            list.push((key, value));
        }
        list.sort_by(|a, b| a.0.as_ref().as_bytes().cmp(b.0.as_ref().as_bytes()));
        let mut bytes = Vec::with_capacity(total + 4 * list.len());
        let mut previous: Option<&str> = None;
        for (key, value) in &list {
            let (key, value) = (key.as_ref(), value.as_ref());
            if previous == Some(key) {
                return Err(EntryError::DuplicateMetadataKey {
                    key: key.to_owned(),
                });
            }
            previous = Some(key);
            for text in [key, value] {
                // Both lengths are bounded above by 64 KiB - 1.
                bytes.extend_from_slice(&u16::try_from(text.len()).unwrap_or(0).to_le_bytes());
            }
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
        Ok(Self {
            pairs: u16::try_from(list.len()).unwrap_or(0),
            bytes,
        })
    }

    /// Borrows it.
    #[must_use]
    pub fn as_ref(&self) -> MetadataRef<'_> {
        MetadataRef {
            pairs: self.pairs,
            bytes: &self.bytes,
        }
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

/// An entry's header: everything the leaf hash covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// Place in the context, from 1.
    pub sequence: u64,
    /// Lamport time, below 2^62.
    pub lamport: u64,
    /// Wall clock, ns since 1970; never decreases within a context.
    pub appended_at_ns: u64,
    /// What the entry is, in the writer's words.
    pub key: &'a str,
    /// The writer's id of the request, for exactly-once appends.
    pub request_id: Option<&'a str>,
    /// Sorted pairs.
    pub metadata: MetadataRef<'a>,
    /// Bytes in the payload.
    pub payload_len: u32,
    /// Plain BLAKE3 of the payload.
    pub payload_hash: Hash,
}

impl<'a> Header<'a> {
    /// Bytes of the encoded header.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        HEADER_FIXED_BYTES
            + self.key.len()
            + self.request_id.map_or(0, str::len)
            + self.metadata.bytes.len()
    }

    /// Appends the header's only spelling to `out`.
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), EntryError> {
        let request_id = self.request_id.unwrap_or("");
        bounded("key in bytes", self.key.len(), 1, KEY_BYTES_MAX)?;
        if self.request_id.is_some() {
            bounded(
                "request id in bytes",
                request_id.len(),
                1,
                REQUEST_ID_BYTES_MAX,
            )?;
        }
        bounded(
            "payload in bytes",
            self.payload_len as usize,
            0,
            PAYLOAD_BYTES_MAX,
        )?;
        let word = |n: usize| u16::try_from(n).unwrap_or(0).to_le_bytes();
        let mut fixed = [0u8; HEADER_FIXED_BYTES];
        fixed[0] = HEADER_VERSION;
        fixed[2..4].copy_from_slice(&word(self.key.len()));
        fixed[4..6].copy_from_slice(&word(request_id.len()));
        fixed[6..8].copy_from_slice(&self.metadata.pairs.to_le_bytes());
        fixed[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        fixed[16..24].copy_from_slice(&self.lamport.to_le_bytes());
        fixed[24..32].copy_from_slice(&self.appended_at_ns.to_le_bytes());
        fixed[32..36].copy_from_slice(&self.payload_len.to_le_bytes());
        let metadata_len = u32::try_from(self.metadata.bytes.len()).unwrap_or(0);
        fixed[36..40].copy_from_slice(&metadata_len.to_le_bytes());
        fixed[40..72].copy_from_slice(self.payload_hash.as_bytes());
        out.extend_from_slice(&fixed);
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(request_id.as_bytes());
        out.extend_from_slice(self.metadata.bytes);
        Ok(())
    }

    /// Reads a header that fills `bytes` exactly.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        in_range(
            "entry header in bytes",
            bytes.len() as u64,
            0,
            HEADER_BYTES_MAX as u64,
        )?;
        let mut r = Reader::new(bytes);
        r.version("entry header", HEADER_VERSION)?;
        r.reserved("entry header byte 1", 1)?;
        let key_len = usize::from(r.u16("key length")?);
        let request_len = usize::from(r.u16("request id length")?);
        let pairs = r.u16("metadata pairs")?;
        let sequence = r.u64("sequence")?;
        let lamport = r.u64("lamport")?;
        let appended_at_ns = r.u64("appended_at_ns")?;
        let payload_len = r.u32("payload length")?;
        let metadata_len = r.u32("metadata length")? as usize;
        let payload_hash = r.hash("payload hash")?;
        in_range("key in bytes", key_len as u64, 1, KEY_BYTES_MAX as u64)?;
        in_range(
            "request id in bytes",
            request_len as u64,
            0,
            REQUEST_ID_BYTES_MAX as u64,
        )?;
        in_range("sequence", sequence, 1, SEQUENCE_MAX)?;
        in_range("lamport", lamport, 0, LAMPORT_LIMIT - 1)?;
        in_range(
            "payload in bytes",
            u64::from(payload_len),
            0,
            PAYLOAD_BYTES_MAX as u64,
        )?;
        let key = r.utf8("key", key_len)?;
        let request_id = r.utf8("request id", request_len)?;
        let metadata = MetadataRef::decode(pairs, r.bytes("metadata", metadata_len)?)?;
        r.finish("entry header")?;
        Ok(Self {
            sequence,
            lamport,
            appended_at_ns,
            key,
            request_id: (request_len > 0).then_some(request_id),
            metadata,
            payload_len,
            payload_hash,
        })
    }
}

/// The leaf hash of an encoded header: the entry's `id`.
#[must_use]
pub fn leaf_hash(header: &[u8]) -> Hash {
    hash::keyed(Role::Leaf, header)
}

/// The leaf hashes of many encoded headers.
#[must_use]
pub fn leaf_hashes(headers: &[&[u8]]) -> Vec<Hash> {
    hash::keyed_many(Role::Leaf, headers)
}

/// An entry to be appended: everything but its place and its times. The
/// payload is hashed here, in the caller's thread.
#[derive(Clone, PartialEq, Eq)]
pub struct Draft {
    key: String,
    payload: Vec<u8>,
    payload_hash: Hash,
    metadata: Metadata,
    request_id: Option<String>,
    observed_lamport: u64,
}

impl Draft {
    /// Checks key and payload.
    pub fn new(key: impl Into<String>, payload: impl Into<Vec<u8>>) -> Result<Self, EntryError> {
        let (key, payload) = (key.into(), payload.into());
        bounded("key in bytes", key.len(), 1, KEY_BYTES_MAX)?;
        bounded("payload in bytes", payload.len(), 0, PAYLOAD_BYTES_MAX)?;
        Ok(Self {
            payload_hash: hash::content(&payload),
            key,
            payload,
            metadata: Metadata::default(),
            request_id: None,
            observed_lamport: 0,
        })
    }

    /// Adds metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Adds a request id; the empty string means none.
    pub fn with_request_id(mut self, id: impl Into<String>) -> Result<Self, EntryError> {
        let id = id.into();
        bounded("request id in bytes", id.len(), 0, REQUEST_ID_BYTES_MAX)?;
        self.request_id = (!id.is_empty()).then_some(id);
        Ok(self)
    }

    /// Says which Lamport time the writer has seen elsewhere; 0 for none.
    #[must_use]
    pub fn with_observed_lamport(mut self, lamport: u64) -> Self {
        self.observed_lamport = lamport;
        self
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Plain BLAKE3 of the payload.
    #[must_use]
    pub fn payload_hash(&self) -> Hash {
        self.payload_hash
    }

    /// The metadata.
    #[must_use]
    pub fn metadata(&self) -> MetadataRef<'_> {
        self.metadata.as_ref()
    }

    /// The request id, if any.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// The observed Lamport time, 0 for none.
    #[must_use]
    pub fn observed_lamport(&self) -> u64 {
        self.observed_lamport
    }

    /// Bytes this draft holds, for the bounds of queues and groups.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        DRAFT_OVERHEAD_BYTES
            + self.key.len()
            + self.payload.len()
            + self.metadata.bytes.len()
            + self.request_id.as_ref().map_or(0, String::len)
    }

    /// The header of this draft at its place.
    #[must_use]
    pub fn header(&self, sequence: u64, lamport: u64, appended_at_ns: u64) -> Header<'_> {
        Header {
            sequence,
            lamport,
            appended_at_ns,
            key: &self.key,
            request_id: self.request_id.as_deref(),
            metadata: self.metadata.as_ref(),
            // Bounded by `new` to 4 MiB.
            payload_len: u32::try_from(self.payload.len()).unwrap_or(u32::MAX),
            payload_hash: self.payload_hash,
        }
    }

    /// True if `header` says the same as this draft (`request_id` retries).
    #[must_use]
    pub fn same_content(&self, header: &Header<'_>) -> bool {
        self.key == header.key
            && self.payload_hash == header.payload_hash
            && self.metadata.as_ref() == header.metadata
    }
}

impl fmt::Debug for Draft {
    /// Sizes only: payloads and metadata values do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("key", &self.key)
            .field("payload_bytes", &self.payload.len())
            .field("metadata_pairs", &self.metadata.pairs)
            .finish_non_exhaustive()
    }
}

/// A stored entry, read and verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Place in the context, from 1.
    pub sequence: u64,
    /// The leaf hash: the entry's content address.
    pub id: Hash,
    /// Lamport time.
    pub lamport: u64,
    /// Wall clock, ns since 1970.
    pub appended_at_ns: u64,
    /// What the entry is.
    pub key: String,
    /// The writer's request id.
    pub request_id: Option<String>,
    /// Sorted pairs.
    pub metadata: Metadata,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Entry {
    /// Joins a header and its payload. The caller has verified both.
    #[must_use]
    pub fn from_parts(header: &Header<'_>, id: Hash, payload: Vec<u8>) -> Self {
        Self {
            sequence: header.sequence,
            id,
            lamport: header.lamport,
            appended_at_ns: header.appended_at_ns,
            key: header.key.to_owned(),
            request_id: header.request_id.map(str::to_owned),
            metadata: header.metadata.to_owned(),
            payload,
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("sequence", &self.sequence)
            .field("id", &self.id)
            .field("key", &self.key)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
