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
//! Invariants (`spec/01-entry.md`, Runs):
//! * a run holds 1..=256 entries and does not cross a multiple of 256;
//! * payloads of at most 4 KiB are inside the run, larger ones never are;
//! * within a context Lamport times rise and wall-clock times do not fall:
//!   [`Accumulator::extend`] is the one place that checks this, for recovery,
//!   mirrors and audits alike.

use crate::encoding::{DecodeError, Reader, in_range};
use crate::entry::{ContextId, EntryError, Header, leaf_hash};
use crate::hash::{self, Hash};
use crate::limits::{
    PAYLOAD_BYTES_MAX, PAYLOAD_INLINE_BYTES_MAX, PROOF_HASHES_MAX, RUN_BYTES_MAX, RUN_ENTRIES_MAX,
    RUN_FIXED_BYTES, RUN_SINGLE_BYTES_MAX, SEQUENCE_MAX, SPAN_BYTES_MAX,
};
use crate::tree::range::root_with_right;
use crate::tree::{Frontier, NodeId, ProofError, TreeSize};

/// The version byte of a run.
pub const RUN_VERSION: u8 = 1;
/// The version byte of a span.
pub const SPAN_VERSION: u8 = 1;
/// Fixed part of a span.
pub const SPAN_FIXED_BYTES: usize = 24;

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
        Ok(leaf_hash(&self.headers[start..]))
    }

    /// Appends the run's bytes to `out` and starts anew.
    pub fn finish_into(&mut self, out: &mut Vec<u8>) {
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
        self.ends.clear();
        self.headers.clear();
        self.payloads.clear();
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

    /// Checks every inline payload against its header.
    pub fn check_payloads(&self) -> Result<(), RunError> {
        for entry in self.entries() {
            let entry = entry?;
            if let Some(payload) = entry.inline_payload
                && hash::content(payload) != entry.header.payload_hash
            {
                return Err(RunError::Payload {
                    sequence: entry.header.sequence,
                });
            }
        }
        Ok(())
    }
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

    /// Appends a run, checking place and times, and reports every entry and
    /// every tree node that became final. On an error `self` is unchanged;
    /// what was reported must be dropped.
    pub fn extend<'a>(
        &mut self,
        run: &Run<'a>,
        mut on_entry: impl FnMut(&RunEntry<'a>, &Hash),
        mut on_node: impl FnMut(NodeId, Hash),
    ) -> Result<(), RunError> {
        let expected = self.size() + 1;
        if run.first() != expected {
            return Err(RunError::OutOfPlace {
                expected,
                got: run.first(),
            });
        }
        let mut next = self.clone();
        for entry in run.entries() {
            let entry = entry?;
            let (sequence, header) = (entry.header.sequence, &entry.header);
            if header.lamport <= next.lamport {
                return Err(RunError::Times {
                    sequence,
                    what: "Lamport time does not rise",
                });
            }
            if header.appended_at_ns < next.appended_at_ns {
                return Err(RunError::Times {
                    sequence,
                    what: "wall-clock time falls",
                });
            }
            next.lamport = header.lamport;
            next.appended_at_ns = header.appended_at_ns;
            let leaf = leaf_hash(entry.header_bytes);
            on_entry(&entry, &leaf);
            next.frontier.append_with(leaf, &mut on_node)?;
        }
        *self = next;
        Ok(())
    }
}

/// A payload whose hash has been computed, not believed.
#[derive(Clone, PartialEq, Eq)]
pub struct CheckedPayload {
    hash: Hash,
    bytes: Vec<u8>,
}

impl CheckedPayload {
    /// Hashes a payload of at most 4 MiB.
    pub fn new(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        in_range(
            "payload in bytes",
            bytes.len() as u64,
            0,
            PAYLOAD_BYTES_MAX as u64,
        )?;
        Ok(Self {
            hash: hash::content(&bytes),
            bytes,
        })
    }

    /// The payload's hash.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The payload.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Debug for CheckedPayload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckedPayload")
            .field("hash", &self.hash)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// What a signed head says of one context: the only thing a span is checked
/// against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedContext {
    /// The context.
    pub id: ContextId,
    /// Its signed size.
    pub size: u64,
    /// Its signed root at that size.
    pub root: Hash,
}

/// Encodes a span: runs of one context, with the hashes to their right.
pub fn encode_span(start: u64, end: u64, right: &[Hash], runs: &[Vec<u8>], out: &mut Vec<u8>) {
    let runs_len: usize = runs.iter().map(|r| r.len() + 4).sum();
    out.push(SPAN_VERSION);
    out.push(u8::try_from(right.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(&u16::try_from(runs.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(&u32::try_from(runs_len).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&end.to_le_bytes());
    for hash in right {
        out.extend_from_slice(hash.as_bytes());
    }
    for run in runs {
        out.extend_from_slice(&u32::try_from(run.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(run);
    }
}

/// Runs that continue one context and lie under a signed root. Only
/// [`CheckedSpan::verify`] makes one, so whoever holds it holds verified bytes.
#[derive(Clone, Debug)]
pub struct CheckedSpan {
    id: ContextId,
    start: u64,
    runs: Vec<Vec<u8>>,
    after: Accumulator,
    outside: Vec<(Hash, u32)>,
}

impl CheckedSpan {
    /// Verifies a span from a peer: it starts where `own` ends, ends no later
    /// than the signed size, every leaf is recomputed from header bytes, every
    /// inline payload is hashed, and own frontier, new leaves and right hashes
    /// fold into the signed root. Since the left side is `own`, that one
    /// equality proves inclusion and extension.
    pub fn verify(
        own: &Accumulator,
        signed: &SignedContext,
        span: &[u8],
    ) -> Result<Self, RunError> {
        in_range("span in bytes", span.len() as u64, 0, SPAN_BYTES_MAX as u64)?;
        let mut r = Reader::new(span);
        r.version("span", SPAN_VERSION)?;
        let right_count = usize::from(r.u8("right hashes")?);
        let run_count = usize::from(r.u16("runs in span")?);
        let runs_len = r.u32("bytes of runs")? as usize;
        let start = r.u64("span start")?;
        let end = r.u64("span end")?;
        in_range(
            "right hashes",
            right_count as u64,
            0,
            PROOF_HASHES_MAX as u64,
        )?;
        if start != own.size() {
            return Err(RunError::OutOfPlace {
                expected: own.size().saturating_add(1),
                got: start.saturating_add(1),
            });
        }
        if end <= start || end > signed.size {
            return Err(RunError::Span {
                start,
                end,
                size: signed.size,
            });
        }
        let mut right = Vec::with_capacity(right_count);
        for _ in 0..right_count {
            right.push(r.hash("right hash")?);
        }
        let mut body = Reader::new(r.bytes("runs", runs_len)?);
        r.finish("span")?;

        let mut after = own.clone();
        let mut runs = Vec::new();
        let mut outside: Vec<(Hash, u32)> = Vec::new();
        for _ in 0..run_count {
            let len = body.u32("run length")? as usize;
            let bytes = body.bytes("run", len)?;
            let run = Run::decode(bytes)?;
            if run.last() > end {
                return Err(RunError::Span {
                    start,
                    end: run.last(),
                    size: end,
                });
            }
            run.check_payloads()?;
            after.extend(
                &run,
                |entry, _| {
                    let header = &entry.header;
                    if entry.inline_payload.is_none() {
                        outside.push((header.payload_hash, header.payload_len));
                    }
                },
                |_, _| (),
            )?;
            runs.push(bytes.to_vec());
        }
        body.finish("runs of a span")?;
        if after.size() != end {
            return Err(RunError::Span {
                start,
                end: after.size(),
                size: end,
            });
        }
        if root_with_right(&after.frontier, TreeSize::new(signed.size), &right)? != signed.root {
            return Err(RunError::NotUnderRoot {
                first: start + 1,
                last: end,
            });
        }
        outside.sort_unstable();
        outside.dedup();
        Ok(Self {
            id: signed.id.clone(),
            start,
            runs,
            after,
            outside,
        })
    }

    /// The context.
    #[must_use]
    pub fn id(&self) -> &ContextId {
        &self.id
    }

    /// Entries of the context before the span.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Entries of the context after the span.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.after.size()
    }

    /// The runs, as they are stored.
    #[must_use]
    pub fn runs(&self) -> &[Vec<u8>] {
        &self.runs
    }

    /// The context's state after the span.
    #[must_use]
    pub fn after(&self) -> &Accumulator {
        &self.after
    }

    /// Payloads that lie outside the runs: hash and length, each once.
    #[must_use]
    pub fn outside_payloads(&self) -> &[(Hash, u32)] {
        &self.outside
    }
}

#[cfg(test)]
mod tests;
