//! Layer 3. From a contradiction to evidence that anybody can verify with the
//! pinned key alone.
//!
//! ```text
//!  a context, or a prefix --> both paths to a context --> Evidence --> verified
//!   (diff, review, blame)      (own nodes, and those        |            |
//!                               the peer shows again)       |            v
//!                                                           v       Store, Fail
//!                                                       disputed
//! ```
//!
//! Invariants:
//! * nothing is called evidence that does not verify under the pinned key;
//! * what is held counts by the head whose note is at hand, complete or seen,
//!   never by how far a sync has come;
//! * once an operator has chosen a branch, whoever shows the other one is a peer
//!   of that branch, and no more evidence is made of it.

use std::collections::HashMap;

use super::{
    Asked, Ingest, LocalFault, Mirror, OriginFault, PeerFault, Phase, ReadMirror, SignedHead,
    SyncError,
};
use crate::directory::{
    Aim, Change, Fault, Next, Opening, ReadDirectory, Sums, Trace, TraceError, Traced, apply,
    empty_root,
};
use crate::entry::ContextId;
use crate::evidence::{ContextEvidence, Evidence, Rewritten};
use crate::hash::Hash;
use crate::proof::State;
use crate::sync::error::Forked;
use crate::sync::message::{NodeAnswer, Request};
use crate::sync::mirror::fetch::Stored;
use crate::tree::{BuildError, NodeId, ReadNodes, TreeSize, consistency};

/// The head that stands for what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// The last complete head.
    Complete,
    /// A head that was written down and is not complete: which one.
    Seen(usize),
}

/// The directory of a held head.
pub(super) struct Side<'m, M: ?Sized> {
    below: &'m M,
    /// Nodes that only the seen head has.
    added: HashMap<Hash, Vec<u8>>,
    /// Openings of the seen head, by path hash.
    openings: HashMap<Hash, Opening>,
}

impl<M: ReadMirror + ?Sized> ReadDirectory for Side<'_, M> {
    type Error = M::Failure;

    fn directory_node(&self, hash: &Hash) -> Result<Option<Vec<u8>>, M::Failure> {
        match self.added.get(hash) {
            Some(node) => Ok(Some(node.clone())),
            None => self.below.directory_node(hash),
        }
    }
}

/// Two heads that contradict each other, and the way to a context that shows it.
pub(super) struct Case<'m, M: ?Sized> {
    held: SignedHead,
    shown: SignedHead,
    shown_is_later: bool,
    side: Side<'m, M>,
    trace: Trace,
    rewritten: Option<Rewritten>,
}

/// The own tree of a context.
struct OwnNodes<'a, M: ?Sized> {
    ledger: &'a M,
    id: &'a ContextId,
}

impl<M: ReadMirror + ?Sized> ReadNodes for OwnNodes<'_, M> {
    type Error = M::Failure;

    fn read_nodes(&self, ids: &[NodeId]) -> Result<Vec<Hash>, M::Failure> {
        self.ledger.tree_nodes(self.id, ids)
    }
}

impl<'m, M: ReadMirror + ?Sized> Mirror<'m, M> {
    pub(super) fn held_by(&self, holder: Holder) -> Option<&SignedHead> {
        match holder {
            Holder::Complete => self.known.complete.as_ref(),
            Holder::Seen(at) => match self.known.seen.get(at) {
                Some(seen) => Some(&seen.head),
                None => None,
            },
        }
    }

    /// The directory of a held head: stored, or computed again from what was
    /// written down with it.
    pub(super) fn side(&self, holder: Holder) -> Result<Side<'m, M>, SyncError> {
        let mut side = Side {
            below: self.ledger,
            added: HashMap::new(),
            openings: HashMap::new(),
        };
        let Holder::Seen(at) = holder else {
            return Ok(side);
        };
        let openings = self.known.seen.get(at).map(|seen| seen.openings.as_slice());
        let openings = openings.unwrap_or_default();
        let complete = self.known.complete.as_ref();
        let root = complete.map_or_else(empty_root, |head| head.head().directory_root);
        let change = |opening: &Opening| Change {
            path: opening.path(),
            commitment: opening.commitment(),
            entries: opening.size,
        };
        let changes: Vec<Change> = openings.iter().map(change).collect();
        let update = apply(&self.ledger, &root, &changes).map_err(LocalFault::read)?;
        side.added = update.added.into_iter().collect();
        side.openings = openings.iter().map(|o| (o.path(), o.clone())).collect();
        Ok(side)
    }

    /// Starts to look for both paths. The sync is lost: only this matters now.
    pub(super) fn begin_case(
        &mut self,
        holder: Holder,
        shown_is_later: bool,
        aim: Aim,
        rewritten: Option<Rewritten>,
    ) -> Result<(), SyncError> {
        if self.resolved {
            return Err(PeerFault::OtherBranch.into());
        }
        let (Some(held), Some(shown)) = (self.held_by(holder).cloned(), self.shown.clone()) else {
            return Err(disputed("no head is held that the shown one contradicts"));
        };
        let trace = Trace::new(aim, place(&held), place(&shown), shown_is_later);
        let case = Case {
            side: self.side(holder)?,
            held,
            shown,
            shown_is_later,
            trace,
            rewritten,
        };
        self.phase = Phase::Tracing(Box::new(case));
        self.trace_on()
    }

    /// Asks for the next node of the shown path, or comes to an end.
    fn trace_on(&mut self) -> Result<(), SyncError> {
        let Phase::Tracing(case) = &mut self.phase else {
            return Ok(());
        };
        match case.trace.next(&case.side).map_err(LocalFault::read)? {
            Next::Node(hash) => {
                let hashes = vec![hash];
                self.ask(&Request::Nodes { hashes }, Asked::Path(hash))
            }
            Next::Nothing => Err(disputed("no context shows the contradiction")),
            Next::Found(traced) => {
                let evidence = self.evidence(*traced)?;
                Err(self.accuse(evidence))
            }
        }
    }

    /// A node of the shown path.
    pub(super) fn path_shown(
        &mut self,
        hash: Hash,
        answers: Vec<NodeAnswer>,
    ) -> Result<(), SyncError> {
        let Phase::Tracing(case) = &mut self.phase else {
            return Ok(());
        };
        let mut answers = answers.into_iter();
        let node = match (answers.next(), answers.next()) {
            (Some(answer), None) if answer.hash == hash => answer.node,
            _ => None,
        };
        let node = node.ok_or_else(unproven)?;
        match case.trace.supply(&case.side, &node.node, node.openings) {
            Ok(()) => self.trace_on(),
            Err(TraceError::Local(error)) => Err(LocalFault::read(error)),
            Err(TraceError::Shown(error)) if error.fault() == Fault::Origin => {
                Err(OriginFault::Directory(error).into())
            }
            Err(TraceError::Shown(_)) => Err(unproven()),
        }
    }

    /// What both paths show, as evidence that is not verified yet.
    fn evidence(&self, traced: Traced) -> Result<Evidence, SyncError> {
        let Phase::Tracing(case) = &self.phase else {
            return Err(unproven());
        };
        let id = self.name(case, &traced)?;
        let shown = traced.shown.as_ref().map(|o| State {
            size: o.size,
            root: o.root,
        });
        let held = match traced.held {
            Some(size) => Some(self.held_state(case, &id, size)?),
            None => None,
        };
        let (earlier, later) = if case.shown_is_later {
            (held, shown)
        } else {
            (shown, held)
        };
        let earlier = earlier.ok_or_else(|| disputed("the context was not there before"))?;
        let mut rewritten = case.rewritten.clone();
        if let (Some(later), None) = (later, &rewritten)
            && later.size > earlier.size
        {
            rewritten = Some(self.own_proof(&id, earlier.size, later.size)?);
        }
        let (held_path, shown_path) = (traced.held_path, traced.shown_path);
        let (earlier_directory, later_directory, earlier_head, later_head) = if case.shown_is_later
        {
            (held_path, shown_path, &case.held, &case.shown)
        } else {
            (shown_path, held_path, &case.shown, &case.held)
        };
        let context = ContextEvidence {
            id,
            earlier,
            earlier_directory,
            later,
            later_directory,
            rewritten,
        };
        let rotations = self.keys.notes();
        Ok(Evidence::of_context(
            &rotations,
            &[],
            earlier_head,
            later_head,
            context,
        ))
    }

    fn name(&self, case: &Case<'_, M>, traced: &Traced) -> Result<ContextId, SyncError> {
        let shown = traced.shown.as_ref();
        let opening = shown.or_else(|| case.side.openings.get(&traced.path));
        let known = if let Some(opening) = opening {
            ContextId::new(&opening.id).ok()
        } else {
            let known = self.ledger.context_at(&traced.path);
            known.map_err(LocalFault::read)?
        };
        known.ok_or_else(|| disputed("the context's name is not known"))
    }

    fn held_state(
        &self,
        case: &Case<'_, M>,
        id: &ContextId,
        size: u64,
    ) -> Result<State, SyncError> {
        let written = case.side.openings.get(&id.path());
        if let Some(opening) = written.filter(|o| o.size == size) {
            let root = opening.root;
            return Ok(State { size, root });
        }
        let root = self.ledger.root_at(id, size).map_err(LocalFault::read)?;
        let root = root.ok_or_else(|| disputed("the own root is not known"))?;
        Ok(State { size, root })
    }

    /// That the own tree of `to` entries begins with another one than was shown
    /// for `from` entries.
    fn own_proof(&self, id: &ContextId, from: u64, to: u64) -> Result<Rewritten, SyncError> {
        let root = |size| self.ledger.root_at(id, size).map_err(LocalFault::read);
        let (Some(root), Some(_)) = (root(from)?, root(to)?) else {
            return Err(disputed("the own tree does not reach that far"));
        };
        let nodes = OwnNodes {
            ledger: self.ledger,
            id,
        };
        match consistency::build(TreeSize::new(from), TreeSize::new(to), &nodes) {
            Ok(consistency) => Ok(Rewritten { root, consistency }),
            Err(BuildError::Read(error)) => Err(LocalFault::read(error)),
            Err(_) => Err(disputed("the own tree has no such proof")),
        }
    }

    /// A context that one of the seen heads below the shown one said something
    /// of, if what has been fetched did not pass through it; and that head.
    pub(super) fn left_behind(&self) -> Result<Option<(Holder, Hash)>, SyncError> {
        for (holder, seen) in self.seen_below() {
            for held in &seen.openings {
                let Ok(id) = ContextId::new(&held.id) else {
                    continue;
                };
                let own = self.ledger.root_at(&id, held.size);
                if own
                    .map_err(LocalFault::read)?
                    .is_some_and(|own| own != held.root)
                {
                    return Ok(Some((holder, held.path())));
                }
            }
        }
        Ok(None)
    }

    /// Has evidence stored, if it is any.
    pub(super) fn accuse(&mut self, evidence: Evidence) -> SyncError {
        if self.resolved {
            return PeerFault::OtherBranch.into();
        }
        match evidence.verify(&self.keys.pinned) {
            Ok(verdict) => {
                self.store(Ingest::Evidence(evidence.clone()), Stored::default());
                SyncError::Forked(Box::new(Forked { evidence, verdict }))
            }
            Err(error) => disputed(&error.to_string()),
        }
    }
}

/// Root and counts of a head.
pub(super) fn place(head: &SignedHead) -> (Hash, Sums) {
    let head = head.head();
    let sums = Sums {
        contexts: head.contexts,
        entries: head.entries,
    };
    (head.directory_root, sums)
}

/// Something does not fit, and nobody can be shown to be at fault.
pub(super) fn disputed(what: &str) -> SyncError {
    let what = what.to_owned();
    PeerFault::Disputed { what }.into()
}

/// The peer shows a contradiction and not what proves it.
pub(super) fn unproven() -> SyncError {
    disputed("the peer does not show again what its head implies")
}
