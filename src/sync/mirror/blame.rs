//! Layer 3. Whose fault it is when a span is refused.
//!
//! A peer can change any byte, so most faults are the peer's. Two are not:
//! * header bytes that fold into the signed root and break a rule: nobody but
//!   the origin can have made them ([`OriginFault::InvalidEntries`]);
//! * a tree that is proven to begin with another root than the one this mirror
//!   holds at the same size ([`OriginFault::OtherRoot`]). Only the peer can
//!   have that proof; if it has none, the matter stays disputed.
//!
//! Nobody is accused here on a peer's word: both verdicts are recomputed from
//! the signed root.

use super::fetch::Active;
use super::{OriginFault, PeerFault, Reply, Request, SyncError};
use crate::encoding::{DecodeError, Reader, in_range};
use crate::entry::{Header, leaf_hash};
use crate::hash::Hash;
use crate::head::HeadOrder;
use crate::limits::{PROOF_HASHES_MAX, RUN_ENTRIES_MAX, SEQUENCE_MAX};
use crate::run::{RUN_VERSION, RunError, SPAN_VERSION, SignedContext};
use crate::tree::range::root_with_right;
use crate::tree::{Frontier, TreeSize, consistency};

/// A span that does not fold, and what is held of its context.
#[derive(Debug)]
pub(super) struct Dispute {
    signed: SignedContext,
    size: u64,
    root: Hash,
    order: HeadOrder,
    error: RunError,
}

/// Judges a span that was refused. `Ok` if a consistency proof is needed.
pub(super) fn of_span(
    active: &Active,
    span: &[u8],
    error: RunError,
    order: HeadOrder,
) -> Result<Option<Dispute>, SyncError> {
    let context = active.signed.id.to_string();
    if matches!(error, RunError::NotUnderRoot { .. }) {
        if active.extends {
            return Err(PeerFault::Span { context, error }.into());
        }
        return Ok(Some(Dispute {
            signed: active.signed.clone(),
            size: active.own.size(),
            root: active.own.root(),
            order,
            error,
        }));
    }
    match invalid_under_root(active, span) {
        Ok(Some(error)) => Err(OriginFault::InvalidEntries { context, error }.into()),
        Ok(None) | Err(_) => Err(PeerFault::Span { context, error }.into()),
    }
}

impl Dispute {
    /// What to ask the peer.
    pub(super) fn request(&self) -> Request {
        Request::Consistency {
            context: self.signed.id.clone(),
            from: self.size,
            to: self.signed.size,
        }
    }

    /// The peer has no proof.
    pub(super) fn unproven(&self) -> PeerFault {
        PeerFault::Disputed {
            context: self.signed.id.to_string(),
            error: self.error.clone(),
        }
    }

    /// Judges the peer's answer.
    pub(super) fn judge(&self, reply: Reply<'_>) -> SyncError {
        let Reply::Consistency {
            context,
            from,
            to,
            from_root,
            hashes,
        } = reply
        else {
            return self.unproven().into();
        };
        if context != self.signed.id || from != self.size || to != self.signed.size {
            return self.unproven().into();
        }
        let (older, newer) = (TreeSize::new(from), TreeSize::new(to));
        let proven = consistency::verify(older, newer, &hashes, &from_root, &self.signed.root);
        match proven {
            Err(_) => self.unproven().into(),
            // The origin is consistent: it was the peer who changed the runs.
            Ok(()) if from_root == self.root => PeerFault::Span {
                context: context.to_string(),
                error: self.error.clone(),
            }
            .into(),
            Ok(()) => OriginFault::OtherRoot {
                context: context.to_string(),
                size: from,
                held: self.root,
                other: from_root,
                order: self.order,
                proof: hashes,
            }
            .into(),
        }
    }
}

/// The first rule broken by header bytes that do fold into the signed root.
///
/// Reads the frame of span and runs strictly and the headers not at all, so
/// that whatever is wrong with them is under the root.
fn invalid_under_root(active: &Active, span: &[u8]) -> Result<Option<RunError>, DecodeError> {
    let mut r = Reader::new(span);
    r.version("span", SPAN_VERSION)?;
    let right_count = usize::from(r.u8("right hashes")?);
    let run_count = r.u16("runs in span")?;
    let _runs_bytes = r.u32("bytes of runs")?;
    let _start = r.u64("span start")?;
    let _end = r.u64("span end")?;
    in_range(
        "right hashes",
        right_count as u64,
        0,
        PROOF_HASHES_MAX as u64,
    )?;
    let mut right = Vec::with_capacity(right_count);
    for _ in 0..right_count {
        right.push(r.hash("right hash")?);
    }
    let mut frontier = active.own.frontier.clone();
    let mut rules = Rules {
        sequence: active.own.size(),
        lamport: active.own.lamport,
        appended_at_ns: active.own.appended_at_ns,
        broken: None,
    };
    for _ in 0..run_count {
        let len = r.u32("run length")? as usize;
        fold_run(r.bytes("run", len)?, &mut frontier, &mut rules)?;
    }
    r.finish("span")?;
    let signed = TreeSize::new(active.signed.size);
    let folds = root_with_right(&frontier, signed, &right).ok() == Some(active.signed.root);
    Ok(rules.broken.filter(|_| folds))
}

fn fold_run(run: &[u8], frontier: &mut Frontier, rules: &mut Rules) -> Result<(), DecodeError> {
    let mut r = Reader::new(run);
    r.version("run", RUN_VERSION)?;
    r.reserved("run byte 1", 1)?;
    let count = usize::from(r.u16("run count")?);
    in_range("run count", count as u64, 1, RUN_ENTRIES_MAX as u64)?;
    let headers_len = r.u32("bytes of headers")? as usize;
    let first = r.u64("first sequence")?;
    let expected = frontier.size().get() + 1;
    in_range(
        "first sequence",
        first,
        expected,
        expected.min(SEQUENCE_MAX),
    )?;
    let _payloads_len = r.u32("bytes of inline payloads")?;
    r.reserved("run bytes 20..24", 4)?;
    let mut ends = Reader::new(r.bytes("ends of headers", 4 * count)?);
    let headers = r.bytes("headers", headers_len)?;
    let mut at = 0;
    for _ in 0..count {
        let end = ends.u32("end of header")? as usize;
        let what = "ends of headers must ascend and stay within the headers";
        let header = headers.get(at..end).ok_or(DecodeError::Invalid { what })?;
        frontier
            .append(leaf_hash(header))
            .map_err(|_| DecodeError::Invalid {
                what: "too many leaves",
            })?;
        rules.check(header);
        at = end;
    }
    Ok(())
}

/// The rules of a context, and the first one broken.
struct Rules {
    sequence: u64,
    lamport: u64,
    appended_at_ns: u64,
    broken: Option<RunError>,
}

impl Rules {
    fn check(&mut self, bytes: &[u8]) {
        self.sequence += 1;
        let sequence = self.sequence;
        let times = |what| RunError::Times { sequence, what };
        let broken = match Header::decode(bytes) {
            Err(error) => Some(RunError::Decode(error)),
            Ok(header) if header.sequence != sequence => {
                let what = "a header has another sequence than its leaf";
                Some(RunError::Decode(DecodeError::Invalid { what }))
            }
            Ok(header) if header.lamport <= self.lamport => {
                Some(times("Lamport time does not rise"))
            }
            Ok(header) if header.appended_at_ns < self.appended_at_ns => {
                Some(times("wall-clock time falls"))
            }
            Ok(header) => {
                self.lamport = header.lamport;
                self.appended_at_ns = header.appended_at_ns;
                None
            }
        };
        if self.broken.is_none() {
            self.broken = broken;
        }
    }
}
