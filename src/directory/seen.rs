//! The stored form of a descent's result: a mirror writes down what a head
//! says before it stores the first entry proven under it.
//!
//! ```text
//! openings   version 1, reserved 3, count u32, term u64, epoch u64,
//!            count x (id length u16, id, size u64, root 32)
//! seen       version 1, reserved 3, note length u32, base term u64,
//!            base epoch u64, openings u64, note
//! ```
//!
//! `openings` are strictly ascending by path hash over all parts of a head,
//! 1 MiB a part; the `seen` after them counts them. What a crash leaves:
//! parts without a `seen`, which are ignored.
//!
//! Invariants: `decode(x)?.encode()? == x`; a part holds at least one opening;
//! the base is a head (both numbers from 1) or none (both 0).

use super::Opening;
use crate::encoding::{DecodeError, Reader, in_range};
use crate::hash::Hash;
use crate::head::HeadOrder;
use crate::limits::{NOTE_BYTES_MAX, OPENINGS_BYTES_MAX};

#[cfg(test)]
mod tests;

const VERSION: u8 = 1;
const PART_FIXED_BYTES: usize = 24;
/// An opening without its id.
const OPENING_FIXED_BYTES: usize = 2 + 8 + Hash::LEN;
const SEEN_FIXED_BYTES: usize = 32;

/// Some of the openings of one head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpeningsPart {
    /// The head's term.
    pub term: u64,
    /// The head's epoch.
    pub epoch: u64,
    /// Strictly ascending by path hash.
    pub openings: Vec<Opening>,
}

impl OpeningsPart {
    /// Sorts openings and packs them into as few parts as hold them.
    pub fn pack(head: HeadOrder, openings: Vec<Opening>) -> Result<Vec<Self>, DecodeError> {
        let mut sorted: Vec<_> = openings.into_iter().map(|o| (o.path(), o)).collect();
        sorted.sort_unstable_by_key(|(path, _)| *path);
        let mut parts: Vec<Self> = Vec::new();
        let mut bytes = 0;
        for (_, opening) in sorted {
            let more = OPENING_FIXED_BYTES + opening.id.len();
            match parts.last_mut() {
                Some(part) if bytes + more <= OPENINGS_BYTES_MAX => part.openings.push(opening),
                _ => {
                    bytes = PART_FIXED_BYTES;
                    parts.push(Self {
                        term: head.term,
                        epoch: head.epoch,
                        openings: vec![opening],
                    });
                }
            }
            bytes += more;
        }
        Self::check_parts(&parts)?;
        Ok(parts)
    }

    /// The bytes of the record, unless a rule or the limit is broken.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        self.check()?;
        let count = u32::try_from(self.openings.len()).unwrap_or(u32::MAX);
        let mut out = vec![VERSION, 0, 0, 0];
        out.extend(count.to_le_bytes());
        out.extend(self.term.to_le_bytes());
        out.extend(self.epoch.to_le_bytes());
        for opening in &self.openings {
            let length = u16::try_from(opening.id.len()).unwrap_or(u16::MAX);
            out.extend(length.to_le_bytes());
            out.extend(opening.id.as_bytes());
            out.extend(opening.size.to_le_bytes());
            out.extend(opening.root.as_bytes());
        }
        check_part_bytes(out.len())?;
        Ok(out)
    }

    /// Decodes the only spelling of a part.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        check_part_bytes(bytes.len())?;
        let mut reader = Reader::new(bytes);
        reader.version("openings", VERSION)?;
        reader.reserved("openings", 3)?;
        let count = reader.u32("number of openings")?;
        let (term, epoch) = (reader.u64("term")?, reader.u64("epoch")?);
        // Before the allocation: so many openings need so many bytes.
        let max = reader.remaining() / (OPENING_FIXED_BYTES + 1);
        in_range("number of openings", count.into(), 1, max as u64)?;
        let mut openings = Vec::with_capacity(max.min(count as usize));
        for _ in 0..count {
            let length = reader.u16("context id length")?;
            openings.push(Opening {
                id: reader.utf8("context id", length.into())?.to_owned(),
                size: reader.u64("size")?,
                root: reader.hash("root")?,
            });
        }
        reader.finish("openings")?;
        let part = Self {
            term,
            epoch,
            openings,
        };
        part.check()?;
        Ok(part)
    }

    /// Checks that parts are those of one head, in order.
    pub fn check_parts(parts: &[Self]) -> Result<(), DecodeError> {
        let mut last = None;
        for part in parts {
            let same = parts
                .first()
                .is_none_or(|first| (first.term, first.epoch) == (part.term, part.epoch));
            if !same {
                return Err(DecodeError::Invalid {
                    what: "openings of two heads",
                });
            }
            last = part.check_after(last)?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), DecodeError> {
        self.check_after(None).map(|_| ())
    }

    /// Checks everything but the length in bytes; the last path hash.
    fn check_after(&self, mut last: Option<Hash>) -> Result<Option<Hash>, DecodeError> {
        in_range("term", self.term, 1, u64::MAX)?;
        in_range("epoch", self.epoch, 1, u64::MAX)?;
        in_range("openings", self.openings.len() as u64, 1, u32::MAX.into())?;
        for opening in &self.openings {
            opening.check()?;
            let path = Some(opening.path());
            if path <= last {
                return Err(DecodeError::NotCanonical {
                    what: "openings are not strictly ascending by path hash",
                });
            }
            last = path;
        }
        Ok(last)
    }
}

/// The newest note a mirror has verified, and how many openings it wrote down
/// for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The term of the last complete head; 0 for none.
    pub base_term: u64,
    /// The epoch of the last complete head; 0 for none.
    pub base_epoch: u64,
    /// Openings written before; 0 for a note alone.
    pub openings_count: u64,
    /// The note, as verified.
    pub note: Vec<u8>,
}

impl Seen {
    /// The last complete head, if there was one.
    #[must_use]
    pub fn base(&self) -> Option<HeadOrder> {
        (self.base_term != 0).then_some(HeadOrder {
            term: self.base_term,
            epoch: self.base_epoch,
        })
    }

    /// The bytes of the record, unless a rule or the limit is broken.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        self.check()?;
        let length = u32::try_from(self.note.len()).unwrap_or(u32::MAX);
        let mut out = vec![VERSION, 0, 0, 0];
        out.extend(length.to_le_bytes());
        out.extend(self.base_term.to_le_bytes());
        out.extend(self.base_epoch.to_le_bytes());
        out.extend(self.openings_count.to_le_bytes());
        out.extend(&self.note);
        Ok(out)
    }

    /// Decodes the only spelling.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let max = (SEEN_FIXED_BYTES + NOTE_BYTES_MAX) as u64;
        let min = SEEN_FIXED_BYTES as u64;
        in_range("seen bytes", bytes.len() as u64, min, max)?;
        let mut reader = Reader::new(bytes);
        reader.version("seen", VERSION)?;
        reader.reserved("seen", 3)?;
        let length = reader.u32("note length")?;
        in_range("note bytes", length.into(), 1, NOTE_BYTES_MAX as u64)?;
        let (base_term, base_epoch) = (reader.u64("base term")?, reader.u64("base epoch")?);
        let openings_count = reader.u64("number of openings")?;
        let note = reader.bytes("note", length as usize)?.to_vec();
        reader.finish("seen")?;
        let seen = Self {
            base_term,
            base_epoch,
            openings_count,
            note,
        };
        seen.check()?;
        Ok(seen)
    }

    /// Checks that `parts` are complete and in order.
    pub fn check_openings(&self, parts: &[OpeningsPart]) -> Result<(), DecodeError> {
        OpeningsPart::check_parts(parts)?;
        let got = parts.iter().map(|part| part.openings.len() as u64).sum();
        let count = self.openings_count;
        in_range("openings of a seen head", got, count, count)
    }

    fn check(&self) -> Result<(), DecodeError> {
        let max = NOTE_BYTES_MAX as u64;
        in_range("note bytes", self.note.len() as u64, 1, max)?;
        if (self.base_term == 0) != (self.base_epoch == 0) {
            return Err(DecodeError::Invalid {
                what: "a base with a term and no epoch, or an epoch and no term",
            });
        }
        Ok(())
    }
}

fn check_part_bytes(len: usize) -> Result<(), DecodeError> {
    let (min, max) = (PART_FIXED_BYTES as u64, OPENINGS_BYTES_MAX as u64);
    in_range("openings bytes", len as u64, min, max)
}
