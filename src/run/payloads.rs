//! The payloads of runs against the hashes in their headers: many at a time,
//! because side by side they take half the time.

use super::{Run, RunEntry, RunError};
use crate::encoding::{DecodeError, Reader};
use crate::hash::{self, Hash};
use crate::limits::PAYLOAD_INLINE_BYTES_MAX;

impl<'a> Run<'a> {
    /// Checks every inline payload against its header.
    pub fn check_payloads(&self) -> Result<(), RunError> {
        self.checked_entries().map(|_| ())
    }

    /// The entries, if every inline payload has the hash that its header names.
    pub(super) fn checked_entries(&self) -> Result<Vec<RunEntry<'a>>, RunError> {
        let mut entries = Vec::with_capacity(self.count());
        let mut payloads = PayloadCheck::default();
        for entry in self.entries() {
            let entry = entry?;
            if let Some(payload) = entry.inline_payload {
                let header = &entry.header;
                payloads.add(header.sequence, header.payload_hash, payload);
            }
            entries.push(entry);
        }
        payloads.finish()?;
        Ok(entries)
    }

    /// Adds every inline payload to `payloads`. Of the headers nothing is looked
    /// at but length and hash of the payload: for a run whose entries have been
    /// decoded before.
    pub fn payloads_into(&self, payloads: &mut PayloadCheck<'a>) -> Result<(), DecodeError> {
        let mut rest = Reader::new(self.payloads);
        for (sequence, header) in (self.first..).zip(self.headers()) {
            let (len, hash) = payload_of(header)?;
            let len = len as usize;
            if len <= PAYLOAD_INLINE_BYTES_MAX {
                payloads.add(sequence, hash, rest.bytes("inline payload", len)?);
            }
        }
        rest.finish("the payloads of a run")
    }

    /// Bytes of the payloads that lie elsewhere, each entry's counted. Of the
    /// headers nothing else is looked at.
    pub fn outside_bytes(&self) -> Result<u64, DecodeError> {
        let mut bytes = 0;
        for header in self.headers() {
            let len = payload_of(header)?.0;
            if len as usize > PAYLOAD_INLINE_BYTES_MAX {
                bytes += u64::from(len);
            }
        }
        Ok(bytes)
    }
}

/// Length and hash of the payload alone, from a header that was decoded before.
fn payload_of(header: &[u8]) -> Result<(u32, Hash), DecodeError> {
    let mut r = Reader::new(header);
    r.bytes("lengths and times", 32)?;
    let len = r.u32("payload length")?;
    r.bytes("metadata length", 4)?;
    Ok((len, r.hash("payload hash")?))
}

/// Payloads that are to be hashed, and the hashes they must have.
#[derive(Clone, Debug, Default)]
pub struct PayloadCheck<'a> {
    expected: Vec<(u64, Hash)>,
    payloads: Vec<&'a [u8]>,
}

impl<'a> PayloadCheck<'a> {
    /// Adds the payload of an entry and the hash it must have.
    pub fn add(&mut self, sequence: u64, expected: Hash, payload: &'a [u8]) {
        self.expected.push((sequence, expected));
        self.payloads.push(payload);
    }

    /// Payloads so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.payloads.len()
    }

    /// Hashes what was added and starts anew; an error names the first that does
    /// not match.
    pub fn finish(&mut self) -> Result<(), RunError> {
        let hashes = hash::content_many(&self.payloads);
        let mut pairs = hashes.iter().zip(&self.expected);
        let wrong = pairs.find(|(hash, (_, expected))| *hash != expected);
        let wrong = wrong.map(|(_, (sequence, _))| *sequence);
        self.payloads.clear();
        self.expected.clear();
        match wrong {
            Some(sequence) => Err(RunError::Payload { sequence }),
            None => Ok(()),
        }
    }
}
