//! Layer 3. The first half of a sync: the head, what it says against what is
//! known, and the descent to the contexts that changed.

use std::collections::{HashMap, VecDeque};

use super::accuse::{self, Holder};
use super::{Asked, Known, Mirror, NODE_REQUESTS_MAX, Outcome, Phase, fetch, within};
use crate::directory::diff::Contradiction;
use crate::directory::path::{Found, find};
use crate::directory::{Aim, Diff, DiffError, Opening, Sums, empty_root, path_hash};
use crate::hash::Hash;
use crate::head::{HeadError, Relation, SignedHead, compare};
use crate::ledger::{Ingest, ReadMirror, SeenHead};
use crate::limits::NODES_PER_REQUEST_MAX;
use crate::sync::error::{LocalFault, OriginFault, PeerFault, SyncError};
use crate::sync::message::{NodeAnswer, Request};

impl<M: ReadMirror + ?Sized> Mirror<'_, M> {
    /// Reads what is known and asks for what is new.
    pub(super) fn ask_head(&mut self) -> Result<(), SyncError> {
        let newest = self.read_known()?;
        self.asked_for_all = newest.is_empty();
        self.phase = Phase::Head;
        self.ask(&Request::Head { newest }, Asked::Head { answered: false })
    }

    /// Reads what is known; returns the newest note of it, empty without one.
    pub(super) fn read_known(&mut self) -> Result<Vec<u8>, SyncError> {
        if let Some(fork) = self.ledger.fork().map_err(LocalFault::read)? {
            if !fork.resolved {
                let (evidence, verdict) = (fork.evidence, fork.verdict);
                return Err(LocalFault::Forked { evidence, verdict }.into());
            }
            self.resolved = true;
        }
        self.read_keys()?;
        let complete = self.ledger.complete_head().map_err(LocalFault::read)?;
        let seen = self.ledger.seen_heads().map_err(LocalFault::read)?;
        let held = complete.iter().chain(seen.iter().map(|seen| &seen.head));
        let newest = held.max_by_key(|head| head.order());
        let newest = newest.or(self.keys.rotations.last());
        let newest = newest.map(SignedHead::note_bytes).unwrap_or_default();
        self.known = Known { complete, seen };
        Ok(newest)
    }

    /// Judges the notes of a source by the keys and by what is known.
    pub(super) fn head_shown(&mut self, notes: &[Vec<u8>]) -> Result<(), SyncError> {
        let Some((newest, before)) = notes.split_last() else {
            let holds = self.known.complete.is_some() || !self.known.seen.is_empty();
            self.ending = Some(if holds {
                Outcome::Behind
            } else {
                Outcome::Nothing
            });
            return Ok(());
        };
        self.follow_rotations(before)?;
        let head = match self.open_newest(newest) {
            // A source sends the rotations above the note it was shown; another
            // rotation of the same key may lie at or below it.
            Err(SyncError::Peer(fault))
                if !self.asked_for_all
                    && matches!(*fault, PeerFault::Head(HeadError::NotSigned { .. })) =>
            {
                self.asked_for_all = true;
                let newest = Vec::new();
                return self.ask(&Request::Head { newest }, Asked::Head { answered: false });
            }
            opened => opened?,
        };
        if let Some(needed) = head.requires_takeover() {
            let term = needed.term;
            return Err(LocalFault::TakeoverNotFollowed { term }.into());
        }
        self.check_texts(&head)?;
        let to_complete = relation(self.known.complete.as_ref(), &head)?;
        let mut to_seen = Vec::new();
        for seen in &self.known.seen {
            to_seen.push(relation(Some(&seen.head), &head)?);
        }
        if self.rotates(&head) {
            self.follow(head.clone())?;
        }
        if let Err(error) = self.within_quota(&head) {
            self.too_large = Some(head);
            return Err(error);
        }
        self.shown = Some(head.clone());
        self.show_rotation_above(&head)?;
        let above = |(at, relation): (usize, &Relation)| {
            matches!(relation, Relation::Older).then_some(Holder::Seen(at))
        };
        let above = to_seen.iter().enumerate().filter_map(above);
        match to_complete {
            Relation::Older => self.review(Holder::Complete),
            // A rotation that is known comes after it.
            Relation::Newer if self.keys.is_beyond(&head) => {
                self.ending = Some(Outcome::Behind);
                Ok(())
            }
            Relation::Newer => {
                self.reviews = above.collect();
                let known = to_seen.iter().position(|r| matches!(r, Relation::Same));
                match known {
                    Some(known) => self.go_on(known),
                    None => self.reviewed()?,
                }
                Ok(())
            }
            // What is held contains it.
            _ if above.count() > 0 => {
                self.ending = Some(Outcome::Behind);
                Ok(())
            }
            _ => {
                self.ending = Some(Outcome::Current);
                Ok(())
            }
        }
    }

    /// Compares what is signed with what is allowed, before anything is fetched.
    fn within_quota(&self, head: &SignedHead) -> Result<(), SyncError> {
        let (head, limits) = (head.head(), &self.limits);
        within("contexts of the origin", head.contexts, limits.contexts_max)?;
        within("entries of the origin", head.entries, limits.entries_max)
    }

    /// A head that was seen before: everything below it was proven when it was
    /// written down, and compared with what is above it.
    fn go_on(&mut self, known: usize) {
        let last = known + 1 == self.known.seen.len();
        let Some(seen) = self.known.seen.get(known).cloned() else {
            return;
        };
        let openings = seen.openings.clone();
        if !last {
            // Others have been written down since, and would be fetched under.
            self.store(Ingest::Seen(seen), fetch::Stored::default());
        }
        self.begin_fetch(openings);
    }

    /// Compares the shown head with what is held above it, and goes on to it: it
    /// may be the newest that anybody serves.
    pub(super) fn reviewed(&mut self) -> Result<(), SyncError> {
        if let Some(holder) = self.reviews.pop_front() {
            return self.review(holder);
        }
        match (self.shown.clone(), &self.known.complete) {
            (Some(shown), complete)
                if complete
                    .as_ref()
                    .is_none_or(|complete| complete.order() < shown.order()) =>
            {
                self.descend(&shown)
            }
            _ => {
                self.ending = Some(Outcome::Behind);
                Ok(())
            }
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
        if let Some((holder, context)) = self.taken_back(&openings)? {
            let aim = Aim::Context(context);
            return self.begin_case(holder, true, aim, None);
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

    /// A head must not take back what those below it said that were seen and are
    /// not complete: a context of which it does, and the head that said it.
    fn taken_back(&self, openings: &[Opening]) -> Result<Option<(Holder, Hash)>, SyncError> {
        let by_id: HashMap<&str, &Opening> = openings.iter().map(|o| (o.id.as_str(), o)).collect();
        for (holder, seen) in self.seen_below() {
            for held in &seen.openings {
                let back = match by_id.get(held.id.as_str()) {
                    Some(now) => {
                        now.size < held.size || (now.size == held.size && now.root != held.root)
                    }
                    // It is as in the last complete head.
                    None => self.complete_state(&held.path())? < held.size,
                };
                if back {
                    return Ok(Some((holder, held.path())));
                }
            }
        }
        Ok(None)
    }

    /// The heads that were seen, are not complete, and come before the shown one.
    pub(super) fn seen_below(&self) -> impl Iterator<Item = (Holder, &SeenHead)> {
        let shown = self.shown.as_ref().map(SignedHead::order);
        let seen = self.known.seen.iter().enumerate();
        seen.filter(move |(_, seen)| Some(seen.head.order()) < shown)
            .map(|(at, seen)| (Holder::Seen(at), seen))
    }

    /// Entries of a context in the last complete head.
    fn complete_state(&self, path: &Hash) -> Result<u64, SyncError> {
        let Some(complete) = &self.known.complete else {
            return Ok(0);
        };
        let root = complete.head().directory_root;
        match find(&self.ledger, &root, path).map_err(LocalFault::read)? {
            Found::Present { entries, .. } => Ok(entries),
            Found::Absent { .. } => Ok(0),
        }
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
