//! Layer 2. A run: consecutive entries of one context encoded together, the
//! unit of disk, wire and archive; and [`CheckedSpan`], runs that have been
//! proven to lie under a signed root and that only the verifier can make.
//!
//! ```text
//!  0 version 1   1 reserved   2 count    4 bytes of headers   8 first sequence
//! 16 bytes of inline payloads            20 reserved
//! 24 end of each header, 4 bytes each    headers    inline payloads
//! ```
//!
//! Invariants (`spec/01-entry.md`, Run):
//! * a run holds 1..=256 entries and does not cross a multiple of 256;
//! * payloads of at most 4 KiB are inside the run, larger ones never are;
//! * within a context Lamport times rise and wall-clock times do not fall:
//!   [`Accumulator::extend`] is the one place that checks this, for recovery,
//!   mirrors and audits alike.

use crate::encoding::{DecodeError, Reader, in_range};
use crate::entry::{EntryError, Header, leaf_hash, leaf_hashes};
use crate::hash::Hash;
use crate::limits::{
    PAYLOAD_INLINE_BYTES_MAX, RUN_BYTES_MAX, RUN_ENTRIES_MAX, RUN_FIXED_BYTES,
    RUN_SINGLE_BYTES_MAX, SEQUENCE_MAX,
};
use crate::tree::{Frontier, NodeId, ProofError};

mod payloads;
mod span;

pub use payloads::PayloadCheck;
pub use span::{
    CheckedPayload, CheckedRun, CheckedSpan, SPAN_FIXED_BYTES, SPAN_VERSION, SignedContext,
    encode_span,
};

/// The version byte of a run.
pub const RUN_VERSION: u8 = 1;

/// Why a run or span was refused. Nothing of it was used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The bytes are not a run or span.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The run starts elsewhere than where the context ends.
    #[error("run starts at sequence {got}, expected {expected}")]
    OutOfPlace {
        /// The sequence that would continue the context.
        expected: u64,
        /// The sequence found.
        got: u64,
    },
    /// An entry's times contradict those before it.
    #[error("entry {sequence}: {what}")]
    Times {
        /// The entry.
        sequence: u64,
        /// The rule that was broken.
        what: &'static str,
    },
    /// A payload does not match the hash in its entry's header.
    #[error("entry {sequence}: payload does not match its hash")]
    Payload {
        /// The entry.
        sequence: u64,
    },
    /// The span ends beyond the signed size, or does not advance.
    #[error("span ({start}, {end}] does not fit the signed size {size}")]
    Span {
        /// Entries before the span.
        start: u64,
        /// Entries after it.
        end: u64,
        /// The signed size.
        size: u64,
    },
    /// The right hashes are not those that (end, size) determines.
    #[error("proof: {0}")]
    Proof(#[from] ProofError),
    /// The bytes are well formed but do not lie under the signed root.
    #[error("entries {first}..={last} do not fold into the signed root")]
    NotUnderRoot {
        /// First entry of the span.
        first: u64,
        /// Last entry of the span.
        last: u64,
    },
}

/// The index of the block of 256 sequences that `sequence` lies in.
const fn block(sequence: u64) -> u64 {
    (sequence - 1) / RUN_ENTRIES_MAX as u64
}

/// The last sequence that may share a run with `sequence`.
#[must_use]
pub const fn run_boundary(sequence: u64) -> u64 {
    (block(sequence) + 1) * RUN_ENTRIES_MAX as u64
}

/// Builds the bytes of one run.
#[derive(Debug, Default)]
pub struct RunBuilder {
    first: u64,
    ends: Vec<u32>,
    headers: Vec<u8>,
    payloads: Vec<u8>,
}

impl RunBuilder {
    /// Entries so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// The first sequence; meaningless while empty.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Bytes of the run if it ended here.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        RUN_FIXED_BYTES + 4 * self.ends.len() + self.headers.len() + self.payloads.len()
    }

    /// True if an entry of this size at this sequence may join the run.
    #[must_use]
    pub fn has_room(&self, sequence: u64, header_bytes: usize, payload_bytes: usize) -> bool {
        if self.ends.is_empty() {
            return true;
        }
        let inline = if payload_bytes <= PAYLOAD_INLINE_BYTES_MAX {
            payload_bytes
        } else {
            0
        };
        sequence <= run_boundary(self.first)
            && self.ends.len() < RUN_ENTRIES_MAX
            && self.encoded_len() + 4 + header_bytes + inline <= RUN_BYTES_MAX
    }

    /// Adds an entry and returns its leaf hash. The caller has asked
    /// [`Self::has_room`] and keeps sequences consecutive.
    pub fn push(&mut self, header: &Header<'_>, payload: &[u8]) -> Result<Hash, EntryError> {
        let start = self.headers.len();
        self.push_unhashed(header, payload)?;
        Ok(leaf_hash(&self.headers[start..]))
    }

    /// Adds an entry whose leaf is hashed later, from [`Run::headers`].
    pub fn push_unhashed(&mut self, header: &Header<'_>, payload: &[u8]) -> Result<(), EntryError> {
        header.encode_into(&mut self.headers)?;
        if self.ends.is_empty() {
            self.first = header.sequence;
        }
        // At most 256 headers of 67 KiB.
        self.ends
            .push(u32::try_from(self.headers.len()).unwrap_or(u32::MAX));
        if payload.len() <= PAYLOAD_INLINE_BYTES_MAX {
            self.payloads.extend_from_slice(payload);
        }
        Ok(())
    }

    /// Adds an entry of another run as it stands there.
    fn push_encoded(&mut self, entry: &RunEntry<'_>) {
        if self.ends.is_empty() {
            self.first = entry.header.sequence;
        }
        self.headers.extend_from_slice(entry.header_bytes);
        // As many headers and payloads as in the other run, or fewer.
        self.ends
            .push(u32::try_from(self.headers.len()).unwrap_or(u32::MAX));
        self.payloads
            .extend_from_slice(entry.inline_payload.unwrap_or(&[]));
    }

    /// Appends the run's bytes to `out` and starts anew.
    pub fn finish_into(&mut self, out: &mut Vec<u8>) {
        self.write_into(out);
        self.ends.clear();
        self.headers.clear();
        self.payloads.clear();
    }

    /// [`Self::finish_into`], handing the headers out to be hashed.
    pub fn finish_and_keep(&mut self, out: &mut Vec<u8>) -> RunHeaders {
        self.write_into(out);
        self.payloads.clear();
        // The next run of a context is likely as long.
        let (bytes, ends) = (self.headers.len(), self.ends.len());
        RunHeaders {
            ends: std::mem::replace(&mut self.ends, Vec::with_capacity(ends)),
            bytes: std::mem::replace(&mut self.headers, Vec::with_capacity(bytes)),
        }
    }

    fn write_into(&self, out: &mut Vec<u8>) {
        let count = u16::try_from(self.ends.len()).unwrap_or(u16::MAX);
        let headers = u32::try_from(self.headers.len()).unwrap_or(u32::MAX);
        let payloads = u32::try_from(self.payloads.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&[RUN_VERSION, 0]);
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&headers.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&payloads.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for end in &self.ends {
            out.extend_from_slice(&end.to_le_bytes());
        }
        out.extend_from_slice(&self.headers);
        out.extend_from_slice(&self.payloads);
    }
}

/// The headers of a finished run: what its leaves are hashed from.
#[derive(Debug, Default)]
pub struct RunHeaders {
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

impl RunHeaders {
    /// The bytes of each header, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        self.ends.iter().map_while(move |end| {
            let header = self.bytes.get(from..*end as usize)?;
            from = *end as usize;
            Some(header)
        })
    }
}

/// A decoded run, borrowing its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    bytes: &'a [u8],
    first: u64,
    count: u16,
    ends: &'a [u8],
    headers: &'a [u8],
    payloads: &'a [u8],
}

/// One entry of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunEntry<'a> {
    /// The decoded header.
    pub header: Header<'a>,
    /// The header's bytes: the leaf preimage.
    pub header_bytes: &'a [u8],
    /// The payload, unless it is larger than 4 KiB and lies elsewhere.
    pub inline_payload: Option<&'a [u8]>,
}

impl<'a> Run<'a> {
    /// Checks the frame of a run that fills `bytes` exactly. Headers are
    /// decoded, and their place and payload lengths checked, by
    /// [`Self::entries`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        in_range("run in bytes", bytes.len() as u64, 0, RUN_BYTES_MAX as u64)?;
        let mut r = Reader::new(bytes);
        r.version("run", RUN_VERSION)?;
        r.reserved("run byte 1", 1)?;
        let count = r.u16("run count")?;
        in_range("run count", u64::from(count), 1, RUN_ENTRIES_MAX as u64)?;
        let headers_len = r.u32("bytes of headers")? as usize;
        let first = r.u64("first sequence")?;
        in_range("first sequence", first, 1, SEQUENCE_MAX)?;
        let payloads_len = r.u32("bytes of inline payloads")? as usize;
        r.reserved("run bytes 20..24", 4)?;
        let last = first + u64::from(count) - 1;
        if last > run_boundary(first) {
            return Err(DecodeError::Invalid {
                what: "a run crosses a multiple of 256",
            });
        }
        let ends = r.bytes("ends of headers", 4 * usize::from(count))?;
        let headers = r.bytes("headers", headers_len)?;
        let payloads = r.bytes("inline payloads", payloads_len)?;
        r.finish("run")?;
        if count == 1 {
            in_range(
                "run in bytes",
                bytes.len() as u64,
                0,
                RUN_SINGLE_BYTES_MAX as u64,
            )?;
        }
        Ok(Self {
            bytes,
            first,
            count,
            ends,
            headers,
            payloads,
        })
    }

    /// The run's bytes.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The first sequence.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// The last sequence.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.first + self.count as u64 - 1
    }

    /// Entries in the run.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count as usize
    }

    /// The entries in order; ends after the first error. The whole run is
    /// well formed only if the iterator ends without one.
    #[must_use]
    pub fn entries(&self) -> Entries<'a> {
        Entries {
            run: *self,
            next: 0,
            header_at: 0,
            payload_at: 0,
            failed: false,
        }
    }

    /// The bytes of each header, not decoded: for runs of one's own making.
    pub fn headers(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let headers = self.headers;
        let mut from = 0;
        self.ends.chunks_exact(4).map_while(move |end| {
            let end = u32::from_le_bytes(end.try_into().ok()?) as usize;
            let header = headers.get(from..end)?;
            from = end;
            Some(header)
        })
    }

    /// The run with only its entries in `after+1..=through`: for who has the
    /// others already, or may not have them. Empty if it has none.
    pub fn part(&self, after: u64, through: u64) -> Result<Vec<u8>, DecodeError> {
        let mut rest = RunBuilder::default();
        for entry in self.entries() {
            let entry = entry?;
            if entry.header.sequence > after && entry.header.sequence <= through {
                rest.push_encoded(&entry);
            }
        }
        let mut out = Vec::new();
        if rest.count() > 0 {
            rest.finish_into(&mut out);
        }
        Ok(out)
    }
}

/// Takes what is not in `after+1..=through` off runs that follow each other, of
/// which only the first and the last may reach beyond: how a history is cut
/// into runs is nobody's claim, and others may have cut it elsewhere.
pub fn trim(runs: &mut [Vec<u8>], after: u64, through: u64) -> Result<(), DecodeError> {
    let last = runs.len().saturating_sub(1);
    for at in if last == 0 { vec![0] } else { vec![0, last] } {
        let Some(bytes) = runs.get_mut(at) else {
            break;
        };
        let run = Run::decode(bytes)?;
        if run.first() <= after || run.last() > through {
            *bytes = run.part(after, through)?;
        }
    }
    Ok(())
}

/// Iterator over the entries of a run.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    run: Run<'a>,
    next: usize,
    header_at: usize,
    payload_at: usize,
    failed: bool,
}

impl<'a> Entries<'a> {
    fn step(&mut self) -> Result<RunEntry<'a>, DecodeError> {
        let run = &self.run;
        let mut ends = Reader::new(run.ends);
        ends.bytes("ends of headers", 4 * self.next)?;
        let end = ends.u32("end of header")? as usize;
        let header_bytes = run
            .headers
            .get(self.header_at..end)
            .ok_or(DecodeError::Invalid {
                what: "ends of headers must ascend and stay within the headers",
            })?;
        let header = Header::decode(header_bytes)?;
        if header.sequence != run.first + self.next as u64 {
            return Err(DecodeError::Invalid {
                what: "sequences of a run must be consecutive",
            });
        }
        let payload_len = header.payload_len as usize;
        let inline_payload = if payload_len <= PAYLOAD_INLINE_BYTES_MAX {
            let mut payloads = Reader::new(run.payloads);
            payloads.bytes("inline payloads", self.payload_at)?;
            self.payload_at += payload_len;
            Some(payloads.bytes("inline payload", payload_len)?)
        } else {
            None
        };
        self.header_at = end;
        self.next += 1;
        if self.next == run.count() {
            if end != run.headers.len() {
                return Err(DecodeError::Trailing {
                    what: "the headers of a run",
                    surplus: run.headers.len() - end,
                });
            }
            if self.payload_at != run.payloads.len() {
                return Err(DecodeError::Trailing {
                    what: "the payloads of a run",
                    surplus: run.payloads.len() - self.payload_at,
                });
            }
        }
        Ok(RunEntry {
            header,
            header_bytes,
            inline_payload,
        })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<RunEntry<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.next >= self.run.count() {
            return None;
        }
        let item = self.step();
        self.failed = item.is_err();
        Some(item)
    }
}

/// What a context has come to: tree, Lamport time, wall-clock time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accumulator {
    /// The tree over all leaves.
    pub frontier: Frontier,
    /// Lamport time of the last entry, 0 without one.
    pub lamport: u64,
    /// Wall-clock time of the last entry in ns, 0 without one.
    pub appended_at_ns: u64,
}

impl Accumulator {
    /// Entries so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.frontier.size().get()
    }

    /// The root so far.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// Appends a run, checking place and times, and reports every tree node that
    /// became final, level by level, and then every entry. On an error `self` is
    /// unchanged, and nothing was reported.
    pub fn extend<'a>(
        &mut self,
        run: &Run<'a>,
        on_entry: impl FnMut(&RunEntry<'a>, &Hash),
        on_node: impl FnMut(NodeId, Hash),
    ) -> Result<(), RunError> {
        self.extend_with(run, run.entries(), on_entry, on_node)
    }

    /// The same with the entries of the run, for who has decoded them already.
    fn extend_with<'a>(
        &mut self,
        run: &Run<'a>,
        decoded: impl Iterator<Item = Result<RunEntry<'a>, DecodeError>>,
        mut on_entry: impl FnMut(&RunEntry<'a>, &Hash),
        on_node: impl FnMut(NodeId, Hash),
    ) -> Result<(), RunError> {
        let expected = self.size() + 1;
        if run.first() != expected {
            return Err(RunError::OutOfPlace {
                expected,
                got: run.first(),
            });
        }
        let mut entries = Vec::with_capacity(run.count());
        let (mut lamport, mut appended_at_ns) = (self.lamport, self.appended_at_ns);
        for entry in decoded {
            let entry = entry?;
            let (sequence, header) = (entry.header.sequence, &entry.header);
            if header.lamport <= lamport {
                return Err(RunError::Times {
                    sequence,
                    what: "Lamport time does not rise",
                });
            }
            if header.appended_at_ns < appended_at_ns {
                return Err(RunError::Times {
                    sequence,
                    what: "wall-clock time falls",
                });
            }
            lamport = header.lamport;
            appended_at_ns = header.appended_at_ns;
            entries.push(entry);
        }
        // All at once: side by side they take half the time.
        let headers: Vec<&[u8]> = entries.iter().map(|entry| entry.header_bytes).collect();
        let leaves = leaf_hashes(&headers);
        self.frontier.append_all(&leaves, on_node)?;
        for (entry, leaf) in entries.iter().zip(&leaves) {
            on_entry(entry, leaf);
        }
        (self.lamport, self.appended_at_ns) = (lamport, appended_at_ns);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
