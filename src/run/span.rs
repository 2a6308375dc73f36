//! Spans: runs of one context that are proven to lie under a signed root. Only
//! [`CheckedSpan::verify`] makes one, so whoever holds it holds verified bytes.
//!
//! ```text
//!  0 version 1   1 right hashes   2 runs   4 bytes of runs
//!  8 start      16 end           24 right hashes   runs, each with its length
//! ```

use std::ops::Range;

use super::{Accumulator, Run, RunError};
use crate::encoding::{DecodeError, Reader, in_range};
use crate::entry::ContextId;
use crate::hash::{self, Hash};
use crate::limits::{PAYLOAD_BYTES_MAX, PROOF_HASHES_MAX, SPAN_BYTES_MAX};
use crate::tree::range::root_with_right;
use crate::tree::tile::is_tile_node;
use crate::tree::{NodeId, TreeSize};

/// The version byte of a span.
pub const SPAN_VERSION: u8 = 1;
/// Fixed part of a span.
pub const SPAN_FIXED_BYTES: usize = 24;

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
    out.reserve_exact(SPAN_FIXED_BYTES + Hash::LEN * right.len() + runs_len);
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
    before: Accumulator,
    /// The runs, each behind its length.
    bytes: Vec<u8>,
    runs: Vec<CheckedRun>,
    after: Accumulator,
    outside: Vec<(Hash, u32)>,
}

/// A run of a [`CheckedSpan`], and what verifying it came to: who stores it need
/// not hash it again, as long as its context stands where the span begins.
#[derive(Clone, Debug)]
pub struct CheckedRun {
    at: Range<usize>,
    after: Accumulator,
    nodes: Vec<(NodeId, Hash)>,
}

impl CheckedRun {
    /// Where it lies in the bytes of its span, the context's state after it, and
    /// the tree nodes that tiles keep and that became final with it.
    #[must_use]
    pub fn into_parts(self) -> (Range<usize>, Accumulator, Vec<(NodeId, Hash)>) {
        (self.at, self.after, self.nodes)
    }
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
        let all = r.bytes("runs", runs_len)?;
        let mut body = Reader::new(all);
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
            let upto = all.len() - body.remaining();
            let (nodes, lacking) = extend_checked(&mut after, &run)?;
            outside.extend(lacking);
            runs.push(CheckedRun {
                at: upto - len..upto,
                after: after.clone(),
                nodes,
            });
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
            before: own.clone(),
            bytes: all.to_vec(),
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
        self.before.size()
    }

    /// Entries of the context after the span.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.after.size()
    }

    /// The context's state before the span: what it was verified against.
    #[must_use]
    pub fn before(&self) -> &Accumulator {
        &self.before
    }

    /// The runs, as they are stored.
    #[must_use]
    pub fn runs(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let bytes = |run: &CheckedRun| self.bytes.get(run.at.clone()).unwrap_or_default();
        self.runs.iter().map(bytes)
    }

    /// Bytes of the runs.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes that the runs lie in, and the runs.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Vec<CheckedRun>) {
        (self.bytes, self.runs)
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

/// What a run adds: nodes that tiles keep, and payloads that lie outside of it.
type Added = (Vec<(NodeId, Hash)>, Vec<(Hash, u32)>);

/// Extends `after` by a run whose inline payloads are checked first.
fn extend_checked(after: &mut Accumulator, run: &Run<'_>) -> Result<Added, RunError> {
    let entries = run.checked_entries()?;
    let (mut nodes, mut outside) = (Vec::new(), Vec::new());
    after.extend_with(
        run,
        entries.into_iter().map(Ok),
        |entry, _| {
            let header = &entry.header;
            if entry.inline_payload.is_none() {
                outside.push((header.payload_hash, header.payload_len));
            }
        },
        |id, hash| {
            if is_tile_node(id) {
                nodes.push((id, hash));
            }
        },
    )?;
    Ok((nodes, outside))
}
