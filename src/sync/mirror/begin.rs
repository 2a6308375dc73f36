//! Layer 3. The first half of a sync: the head, what it says against what is
//! known, and the descent to the contexts that changed.

use std::collections::{HashMap, VecDeque};

use super::{Asked, Known, Mirror, NODE_REQUESTS_MAX, Outcome, Phase, fetch, within};
use crate::directory::{Diff, DiffError, Opening, Sums, empty_root};
use crate::hash::Hash;
use crate::head::{HeadError, HeadOrder, Relation, SignedHead, Takeover, compare};
use crate::ledger::{Ingest, ReadMirror, SeenHead};
use crate::limits::NODES_PER_REQUEST_MAX;
use crate::note::Note;
use crate::sync::error::{LocalFault, OriginFault, PeerFault, SyncError};
use crate::sync::message::{NodeAnswer, Request};

impl<M: ReadMirror + ?Sized> Mirror<'_, M> {
    /// Reads what is known and asks for what is new.
    pub(super) fn ask_head(&mut self) -> Result<(), SyncError> {
        let complete = self.ledger.complete_head().map_err(LocalFault::read)?;
        let (mut pending, mut openings) = (None, Vec::new());
        if let Some(seen) = self.ledger.pending_head().map_err(LocalFault::read)? {
            pending = Some(seen.head);
            openings = seen.openings;
        }
        let newest = pending.as_ref().or(complete.as_ref());
        let newest = newest.map(SignedHead::note_bytes).unwrap_or_default();
        self.known = Known {
            complete,
            pending,
            pending_openings: openings,
        };
        self.phase = Phase::Head;
        self.ask(&Request::Head { newest }, Asked::Head { answered: false })
    }

    /// Judges the notes of a source by the pinned key and by what is known.
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
        if let Some(note) = before.first() {
            return Err(self.not_followed(note));
        }
        let head = SignedHead::open(newest, &self.origin).map_err(PeerFault::Head)?;
        if head.head().rotation.is_some() {
            let order = head.order();
            return Err(LocalFault::RotationNotFollowed { order }.into());
        }
        if let Some(needed) = head.requires_takeover() {
            let term = needed.term;
            return Err(LocalFault::TakeoverNotFollowed { term }.into());
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
        let to_complete = relation(self.known.complete.as_ref(), &head)?;
        let to_pending = relation(self.known.pending.as_ref(), &head)?;
        self.shown = Some(head.clone());
        if to_complete == Relation::Older || to_pending == Relation::Older {
            self.ending = Some(Outcome::Behind);
            return Ok(());
        }
        if to_complete == Relation::Same {
            self.ending = Some(Outcome::Current);
            return Ok(());
        }
        if to_pending == Relation::Same {
            // Everything below it was proven when it was written down.
            let openings = std::mem::take(&mut self.known.pending_openings);
            self.begin_fetch(openings);
            return Ok(());
        }
        self.descend(&head)
    }

    /// A note that comes before the newest head: a takeover or a rotation.
    fn not_followed(&self, note: &[u8]) -> SyncError {
        match SignedHead::open(note, &self.origin) {
            Ok(head) if head.head().rotation.is_some() => {
                let order = head.order();
                return LocalFault::RotationNotFollowed { order }.into();
            }
            Ok(_) => {
                let what = "a plain head before the newest";
                return PeerFault::WrongReply { what }.into();
            }
            Err(_) => {}
        }
        let takeover = Note::parse(note).and_then(|note| {
            note.open(&[&self.origin])?;
            Ok(note)
        });
        match takeover.map(|note| Takeover::parse(note.text())) {
            Ok(Ok(takeover)) => {
                let term = takeover.term;
                LocalFault::TakeoverNotFollowed { term }.into()
            }
            Ok(Err(error)) => PeerFault::Head(error).into(),
            Err(error) => PeerFault::Head(HeadError::Note(error)).into(),
        }
    }

    fn descend(&mut self, head: &SignedHead) -> Result<(), SyncError> {
        let complete = self.known.complete.as_ref();
        let own_root = complete.map_or_else(empty_root, |h| h.head().directory_root);
        let sums = Sums {
            contexts: head.head().contexts,
            entries: head.head().entries,
        };
        let root = head.head().directory_root;
        let diff = Diff::new(self.ledger, &own_root, &root, sums).map_err(blame)?;
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
        let Phase::Diff { diff, changed } = &mut self.phase else {
            return Ok(());
        };
        for answer in answers {
            let Some(hash) = asked.pop_front() else {
                let what = "the nodes";
                return Err(PeerFault::Surplus { what }.into());
            };
            if answer.hash != hash {
                let what = "another node";
                return Err(PeerFault::WrongReply { what }.into());
            }
            let what = "directory node";
            let node = answer.node.ok_or(PeerFault::Missing { what, hash })?;
            diff.supply(&hash, &node.node, node.openings)
                .map_err(blame)?;
            changed.extend(diff.take_changed().into_iter().map(|c| c.opening));
        }
        Ok(())
    }

    /// Writes the head down, with all that differs from the last complete one.
    fn seen(&mut self, mut openings: Vec<Opening>) -> Result<(), SyncError> {
        openings.sort_by_cached_key(Opening::path);
        self.check_pending(&openings)?;
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
    /// said. Contexts it does not list are as in the last complete head.
    fn check_pending(&self, openings: &[Opening]) -> Result<(), SyncError> {
        let by_id: HashMap<&str, &Opening> = openings.iter().map(|o| (o.id.as_str(), o)).collect();
        let order = self.shown_order();
        for held in &self.known.pending_openings {
            let now = by_id.get(held.id.as_str());
            let size = now.map_or(0, |o| o.size);
            if size < held.size {
                return Err(OriginFault::Shrunk {
                    context: held.id.clone(),
                    held: held.size,
                    size,
                    order,
                }
                .into());
            }
            if let Some(now) = now
                && now.size == held.size
                && now.root != held.root
            {
                return Err(OriginFault::OtherRoot {
                    context: held.id.clone(),
                    size,
                    held: held.root,
                    other: now.root,
                    order,
                    proof: Vec::new(),
                }
                .into());
            }
        }
        Ok(())
    }

    fn begin_fetch(&mut self, openings: Vec<Opening>) {
        self.changed = openings.len() as u64;
        self.fetch = fetch::Fetch::new(openings);
        self.phase = Phase::Fetch;
    }

    /// Where the head that is being fetched stands.
    pub(super) fn shown_order(&self) -> HeadOrder {
        let none = HeadOrder { term: 0, epoch: 0 };
        self.shown.as_ref().map_or(none, SignedHead::order)
    }
}

/// How a shown head stands to a known one; newer than none.
fn relation(known: Option<&SignedHead>, shown: &SignedHead) -> Result<Relation, SyncError> {
    let Some(known) = known else {
        return Ok(Relation::Newer);
    };
    match compare(known, shown).map_err(OriginFault::Heads)? {
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
        DiffError::Contradiction(what) => OriginFault::Contexts(what).into(),
        DiffError::Local(error) => LocalFault::read(error),
    }
}
