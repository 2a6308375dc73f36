//! Layer 3. Whose fault it is when a span is refused.
//!
//! A peer can change any byte, so most faults are the peer's. Two are not:
//! * header bytes that fold into the signed root and break a rule: nobody but
//!   the origin can have made them ([`OriginFault::InvalidEntries`]);
//! * a tree that is proven to begin with another root than a head at hand signed
//!   for the same size: evidence. Only the peer can have that proof; if it has
//!   none, the matter stays disputed.
//!
//! Nobody is accused here on a peer's word: both verdicts are recomputed from
//! signed roots.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::accuse::{Holder, disputed};
use super::fetch::Active;
use super::{
    Asked, LocalFault, Mirror, OriginFault, PeerFault, ReadMirror, Reply, Request, SyncError,
};
use crate::directory::Aim;
use crate::directory::path::{Found, find};
use crate::encoding::{DecodeError, Reader, in_range};
use crate::entry::{Header, leaf_hash};
use crate::evidence::Rewritten;
use crate::hash::Hash;
use crate::ledger::SeenHead;
use crate::limits::{PROOF_HASHES_MAX, RUN_ENTRIES_MAX, SEQUENCE_MAX};
use crate::run::{RUN_VERSION, RunError, SPAN_VERSION, SignedContext};
use crate::tree::range::root_with_right;
use crate::tree::{Frontier, TreeSize, consistency};

/// A state that the signed tree should begin with.
#[derive(Clone, Copy, Debug)]
struct Claim {
    /// The head that signed it; none for how far the sync had come.
    holder: Option<Holder>,
    size: u64,
    root: Hash,
}

/// A span that does not fold, or does not come because the peer has other runs,
/// and what is held of its context.
#[derive(Debug)]
pub(super) struct Dispute {
    signed: SignedContext,
    own_size: u64,
    /// What is still to be asked about; never empty while it is open.
    claims: VecDeque<Claim>,
    /// What it is if the origin is consistent.
    cause: PeerFault,
}

impl<M: ReadMirror + ?Sized> Mirror<'_, M> {
    /// Judges a span that was refused. `Ok` if consistency proofs are needed.
    pub(super) fn blame_span(
        &self,
        active: &Active,
        span: &[u8],
        error: RunError,
    ) -> Result<Option<Dispute>, SyncError> {
        let context = active.signed.id.to_string();
        if matches!(error, RunError::NotUnderRoot { .. }) {
            if active.extends {
                return Err(PeerFault::Span { context, error }.into());
            }
            return Ok(Some(
                self.dispute(active, PeerFault::Span { context, error })?,
            ));
        }
        match invalid_under_root(active, span) {
            Ok(Some(error)) => Err(OriginFault::InvalidEntries { context, error }.into()),
            Ok(None) | Err(_) => Err(PeerFault::Span { context, error }.into()),
        }
    }

    /// Opens a dispute about a context of which a part is held.
    pub(super) fn dispute(&self, active: &Active, cause: PeerFault) -> Result<Dispute, SyncError> {
        Ok(Dispute {
            signed: active.signed.clone(),
            own_size: active.own.size(),
            claims: self.claims(active)?,
            cause,
        })
    }

    /// What was signed of the context before, newest first, and at last what is
    /// held of it.
    fn claims(&self, active: &Active) -> Result<VecDeque<Claim>, SyncError> {
        let id = &active.signed.id;
        let mut claims = VecDeque::new();
        let mut seen: Vec<(usize, &SeenHead)> = self.known.seen.iter().enumerate().collect();
        seen.retain(|(_, seen)| Some(&seen.head) != self.shown.as_ref());
        seen.sort_by_key(|(_, seen)| Reverse(seen.head.order()));
        for (at, seen) in seen {
            let mut openings = seen.openings.iter();
            let of_it = openings.find(|opening| opening.id == id.as_str());
            claims.extend(of_it.map(|opening| Claim {
                holder: Some(Holder::Seen(at)),
                size: opening.size,
                root: opening.root,
            }));
        }
        if let Some(complete) = &self.known.complete {
            let root = complete.head().directory_root;
            let found = find(&self.ledger, &root, &id.path()).map_err(LocalFault::read)?;
            if let Found::Present { entries, .. } = found {
                let root = self.ledger.root_at(id, entries).map_err(LocalFault::read)?;
                claims.extend(root.map(|root| Claim {
                    holder: Some(Holder::Complete),
                    size: entries,
                    root,
                }));
            }
        }
        claims.push_back(Claim {
            holder: None,
            size: active.own.size(),
            root: active.own.root(),
        });
        claims.retain(|claim| (1..active.signed.size).contains(&claim.size));
        Ok(claims)
    }

    /// Asks for the next proof.
    pub(super) fn accuse_by_proof(&mut self, dispute: Dispute) -> Result<(), SyncError> {
        match dispute.request() {
            Some(request) => self.ask(&request, Asked::Consistency(Box::new(dispute))),
            None => Err(dispute.unproven()),
        }
    }

    /// Judges a proof: evidence, the next question, or the peer's fault.
    pub(super) fn proof_shown(
        &mut self,
        mut dispute: Dispute,
        reply: Reply<'_>,
    ) -> Result<(), SyncError> {
        let (claim, proof) = dispute.judge(reply)?;
        match (proof, claim.holder) {
            (Some(proof), Some(holder)) => {
                let aim = Aim::Context(dispute.signed.id.path());
                self.begin_case(holder, true, aim, Some(proof))
            }
            (Some(_), None) => {
                let id = &dispute.signed.id;
                let what = format!("context {id}: no head at hand signed what is held of it");
                Err(disputed(&what))
            }
            // The origin is consistent: it was the peer who changed the runs.
            (None, _) if claim.size == dispute.own_size => Err(dispute.cause.into()),
            (None, _) => self.accuse_by_proof(dispute),
        }
    }
}

impl Dispute {
    /// What to ask the peer.
    fn request(&self) -> Option<Request> {
        Some(Request::Consistency {
            context: self.signed.id.clone(),
            from: self.claims.front()?.size,
            to: self.signed.size,
        })
    }

    /// The peer has no proof.
    pub(super) fn unproven(&self) -> SyncError {
        match &self.cause {
            // Whoever does not serve a head any more has no proof for it either.
            PeerFault::Refused { refusal } => PeerFault::Refused { refusal: *refusal }.into(),
            cause => disputed(&cause.to_string()),
        }
    }

    /// The claim that the answer is about, and the proof if it refutes it.
    fn judge(&mut self, reply: Reply<'_>) -> Result<(Claim, Option<Rewritten>), SyncError> {
        let Some(claim) = self.claims.pop_front() else {
            return Err(self.unproven());
        };
        let Reply::Consistency {
            context,
            from,
            to,
            from_root,
            hashes,
        } = reply
        else {
            return Err(self.unproven());
        };
        if context != self.signed.id || from != claim.size || to != self.signed.size {
            return Err(self.unproven());
        }
        let (older, newer) = (TreeSize::new(from), TreeSize::new(to));
        consistency::verify(older, newer, &hashes, &from_root, &self.signed.root)
            .map_err(|_| self.unproven())?;
        let refuted = from_root != claim.root;
        let proof = refuted.then_some(Rewritten {
            root: from_root,
            consistency: hashes,
        });
        Ok((claim, proof))
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
