//! Layer 3. The first half of a sync: the head, what it says against what is
//! known, and the descent to the contexts that changed.

use std::collections::{HashMap, VecDeque};

use super::accuse::{self, Holder};
use super::{Asked, Known, Mirror, NODE_REQUESTS_MAX, Outcome, Phase, fetch, within};
use crate::directory::diff::Contradiction;
use crate::directory::{Aim, Diff, DiffError, Opening, Sums, empty_root, path_hash};
use crate::hash::Hash;
use crate::head::{Relation, SignedHead, compare};
use crate::ledger::{Ingest, ReadMirror, SeenHead};
use crate::limits::NODES_PER_REQUEST_MAX;
use crate::sync::error::{LocalFault, OriginFault, PeerFault, SyncError};
use crate::sync::message::{NodeAnswer, Request};

impl<M: ReadMirror + ?Sized> Mirror<'_, M> {
    /// Reads what is known and asks for what is new.
    pub(super) fn ask_head(&mut self) -> Result<(), SyncError> {
        if let Some(fork) = self.ledger.fork().map_err(LocalFault::read)? {
            if !fork.resolved {
                let (evidence, verdict) = (fork.evidence, fork.verdict);
                return Err(LocalFault::Forked { evidence, verdict }.into());
            }
            self.resolved = true;
        }
        self.read_keys()?;
        let complete = self.ledger.complete_head().map_err(LocalFault::read)?;
        let (mut pending, mut openings) = (None, Vec::new());
        // What is complete was chosen; an unfinished head may be of the other branch.
        if let Some(seen) = self.ledger.pending_head().map_err(LocalFault::read)?
            && !self.resolved
        {
            pending = Some(seen.head);
            openings = seen.openings;
        }
        let newest = pending.as_ref().or(complete.as_ref());
        let newest = newest.or(self.keys.rotations.last());
        let newest = newest.map(SignedHead::note_bytes).unwrap_or_default();
        self.known = Known {
            complete,
            pending,
            pending_openings: openings,
        };
        self.phase = Phase::Head;
        self.ask(&Request::Head { newest }, Asked::Head { answered: false })
    }

    /// Judges the notes of a source by the keys and by what is known.
    pub(super) fn head_shown(&mut self, notes: &[Vec<u8>]) -> Result<(), SyncError> {
        let Some((newest, before)) = notes.split_last() else {
            let holds = self.known.complete.is_some() || self.known.pending.is_some();
            self.ending = Some(if holds {
                Outcome::Behind
            } else {
                Outcome::Nothing
            });
            return Ok(());
        };
        self.follow_rotations(before)?;
        let head = self.open_newest(newest)?;
        if let Some(needed) = head.requires_takeover() {
            let term = needed.term;
            return Err(LocalFault::TakeoverNotFollowed { term }.into());
        }
        self.check_texts(&head)?;
        let to_complete = relation(self.known.complete.as_ref(), &head)?;
        let to_pending = relation(self.known.pending.as_ref(), &head)?;
        if self.rotates(&head) {
            self.follow(head.clone())?;
        }
        within(
            "contexts of the origin",
            head.head().contexts,
            self.limits.contexts_max,
        )?;
        within(
            "entries of the origin",
            head.head().entries,
            self.limits.entries_max,
        )?;
        self.shown = Some(head.clone());
        self.show_rotation_above(&head)?;
        match (to_complete, to_pending) {
            (Relation::Older, _) => self.review(Holder::Complete),
            // A rotation that is known comes after it.
            (Relation::Newer, _) if self.keys.is_beyond(&head) => {
                self.ending = Some(Outcome::Behind);
                Ok(())
            }
            // What is held contains it.
            (Relation::Same, Relation::Older) => {
                self.ending = Some(Outcome::Behind);
                Ok(())
            }
            (_, Relation::Older) => self.review(Holder::Pending),
            (Relation::Same, _) => {
                self.ending = Some(Outcome::Current);
                Ok(())
            }
            (_, Relation::Same) => {
                // Everything below it was proven when it was written down.
                let openings = self.known.pending_openings.clone();
                self.begin_fetch(openings);
                Ok(())
            }
            _ => self.descend(&head),
        }
    }

    /// A source whose head lies below a rotation knows no key of what comes after
    /// it. If it is the origin's own store, put back to an old copy, the rotation
    /// tells it so: the key that it knows has signed that.
    fn show_rotation_above(&mut self, head: &SignedHead) -> Result<(), SyncError> {
        let mut rotations = self.keys.rotations.iter();
        let above = rotations.find(|rotation| rotation.order() > head.order());
        let Some(newest) = above.map(SignedHead::note_bytes) else {
            return Ok(());
        };
        self.ask(&Request::Head { newest }, Asked::Shown)
    }

    fn descend(&mut self, head: &SignedHead) -> Result<(), SyncError> {
        let complete = self.known.complete.as_ref();
        let own_root = complete.map_or_else(empty_root, |h| h.head().directory_root);
        let sums = Sums {
            contexts: head.head().contexts,
            entries: head.head().entries,
        };
        let root = head.head().directory_root;
        let diff = match Diff::new(self.ledger, &own_root, &root, sums) {
            Ok(diff) => diff,
            Err(DiffError::Contradiction(what)) => return self.contradicted(&what),
            Err(error) => return Err(blame(error)),
        };
        self.phase = Phase::Diff {
            diff: Box::new(diff),
            changed: Vec::new(),
        };
        self.pump_nodes()
    }

    /// Asks for nodes, or goes on to the entries when none are needed.
    pub(super) fn pump_nodes(&mut self) -> Result<(), SyncError> {
        while self.requests.len() < NODE_REQUESTS_MAX {
            let Phase::Diff { diff, .. } = &mut self.phase else {
                return Ok(());
            };
            let hashes = diff.wanted(NODES_PER_REQUEST_MAX);
            if hashes.is_empty() {
                break;
            }
            let asked = hashes.iter().copied().collect();
            self.ask(&Request::Nodes { hashes }, Asked::Nodes { hashes: asked })?;
        }
        if let Phase::Diff { diff, changed } = &mut self.phase
            && diff.is_done()
        {
            let mut openings = std::mem::take(changed);
            openings.extend(diff.take_changed().into_iter().map(|c| c.opening));
            self.seen(openings)?;
        }
        Ok(())
    }

    /// The next nodes of an answer.
    pub(super) fn nodes_shown(
        &mut self,
        asked: &mut VecDeque<Hash>,
        answers: Vec<NodeAnswer>,
    ) -> Result<(), SyncError> {
        for answer in answers {
            let Some(hash) = asked.pop_front() else {
                let what = "the nodes";
                return Err(PeerFault::Surplus { what }.into());
            };
            if answer.hash != hash {
                let what = "another node";
                return Err(PeerFault::WrongReply { what }.into());
            }
            let Phase::Diff { diff, changed } = &mut self.phase else {
                continue;
            };
            let what = "directory node";
            let node = answer.node.ok_or(PeerFault::Missing { what, hash })?;
            match diff.supply(&hash, &node.node, node.openings) {
                Ok(()) => {}
                Err(DiffError::Contradiction(what)) => return self.contradicted(&what),
                Err(error) => return Err(blame(error)),
            }
            changed.extend(diff.take_changed().into_iter().map(|c| c.opening));
        }
        Ok(())
    }

    /// The directory takes back what the complete head said.
    fn contradicted(&mut self, what: &Contradiction) -> Result<(), SyncError> {
        let aim = match what {
            Contradiction::Vanished { path, .. } => Aim::Context(*path),
            Contradiction::Shrunk { id, .. } | Contradiction::Rewritten { id, .. } => {
                Aim::Context(path_hash(id))
            }
            Contradiction::Fewer { prefix, .. } | Contradiction::OtherNode { prefix, .. } => {
                Aim::Below(*prefix)
            }
        };
        self.begin_case(Holder::Complete, true, aim, None)
    }

    /// Writes the head down, with all that differs from the last complete one.
    fn seen(&mut self, mut openings: Vec<Opening>) -> Result<(), SyncError> {
        openings.sort_by_cached_key(Opening::path);
        if let Some(context) = self.taken_back(&openings) {
            let aim = Aim::Context(context);
            return self.begin_case(Holder::Pending, true, aim, None);
        }
        let Some(head) = self.shown.clone() else {
            return Ok(());
        };
        let seen = SeenHead {
            head,
            openings: openings.clone(),
        };
        self.store(Ingest::Seen(seen), fetch::Stored::default());
        self.begin_fetch(openings);
        Ok(())
    }

    /// A head that replaces an unfinished one must not take back what that one
    /// said: a context of which it does. Contexts it does not list are as in the
    /// last complete head.
    fn taken_back(&self, openings: &[Opening]) -> Option<Hash> {
        let by_id: HashMap<&str, &Opening> = openings.iter().map(|o| (o.id.as_str(), o)).collect();
        let back = self.known.pending_openings.iter().find(|held| {
            by_id.get(held.id.as_str()).is_none_or(|now| {
                now.size < held.size || (now.size == held.size && now.root != held.root)
            })
        });
        back.map(Opening::path)
    }

    fn begin_fetch(&mut self, openings: Vec<Opening>) {
        self.changed = openings.len() as u64;
        self.fetch = fetch::Fetch::new(openings);
        self.phase = Phase::Fetch;
    }
}

/// How a shown head stands to a known one; newer than none.
fn relation(known: Option<&SignedHead>, shown: &SignedHead) -> Result<Relation, SyncError> {
    let Some(known) = known else {
        return Ok(Relation::Newer);
    };
    // Contradictions have been looked for before.
    let unproven = |_| accuse::disputed("the heads contradict each other");
    match compare(known, shown).map_err(unproven)? {
        Relation::AcrossTerms(needed) => {
            let term = needed.term;
            Err(LocalFault::TakeoverNotFollowed { term }.into())
        }
        // Both were opened under the pinned key, which bears the name.
        Relation::OtherOrigin => {
            let what = "a head of another origin";
            Err(PeerFault::WrongReply { what }.into())
        }
        relation => Ok(relation),
    }
}

/// Whose fault it is that a descent cannot go on.
fn blame<E>(error: DiffError<E>) -> SyncError
where
    E: std::error::Error + Send + Sync + 'static,
{
    match error {
        DiffError::Unasked { .. } => {
            let what = "a node that is not needed";
            PeerFault::WrongReply { what }.into()
        }
        DiffError::Malformed { source, .. } => PeerFault::Directory(source).into(),
        DiffError::InvalidOrigin { source, .. } => OriginFault::Directory(source).into(),
        DiffError::Contradiction(what) => accuse::disputed(&what.to_string()),
        DiffError::Local(error) => LocalFault::read(error),
    }
}
