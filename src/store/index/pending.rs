//! A mirror's heads: seen with their openings, then complete.
//!
//! A seen head may be followed by another one before it is complete: whoever
//! showed it may not serve it, or lie. What it says stays held, against all that
//! the origin signs, until a head that is ordered above it is complete.

use super::{ApplyError, Index, Location, change};
use crate::directory::{Opening, OpeningsPart, Update};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::SignedHead;
use crate::ledger::SeenHead;
use crate::limits::{SEEN_HEADS_MAX, SEEN_RECORDS_MAX};

/// A seen head that is not complete, and where its records lie.
#[derive(Clone, Debug)]
pub(super) struct Unfinished {
    seen: SeenHead,
    places: Vec<Location>,
}

impl Index {
    /// The seen heads that are not complete, in the order in which they were
    /// written down.
    pub(crate) fn seen_heads(&self) -> impl DoubleEndedIterator<Item = &SeenHead> {
        self.seen.iter().map(|unfinished| &unfinished.seen)
    }

    /// The one that runs are stored under.
    pub(crate) fn pending(&self) -> Option<&SeenHead> {
        self.seen_heads().next_back()
    }

    /// Where the records of all of them lie, in order.
    pub(super) fn pending_places(&self) -> impl Iterator<Item = Location> {
        self.seen.iter().flat_map(|seen| &seen.places).copied()
    }

    /// The newest head is complete, which all seen before it were compared with.
    pub(super) fn completed(&mut self) {
        let newest = self.published.head().map(SignedHead::order);
        self.seen
            .retain(|unfinished| Some(unfinished.seen.head.order()) > newest);
        self.loose_openings.clear();
    }

    /// An operator has chosen the branch with this directory root.
    pub(super) fn keep_branch(&mut self, root: &Hash) {
        self.seen
            .retain(|unfinished| unfinished.seen.head.head().directory_root == *root);
    }

    pub(super) fn add_openings(&mut self, part: OpeningsPart, at: Location) {
        // A part of another head, or one that starts over, belongs to an
        // attempt of its own; what was left of the one before it is ignored.
        let goes_on = self.loose_openings.last().is_some_and(|(last, _)| {
            let ends = last.openings.last().map(Opening::path);
            let starts = part.openings.first().map(Opening::path);
            (last.term, last.epoch) == (part.term, part.epoch) && ends < starts
        });
        if !goes_on {
            self.loose_openings.clear();
        }
        self.loose_openings.push((part, at));
    }

    /// Openings of this head whose `seen` record is still to come.
    pub(crate) fn loose_count(&self, order: (u64, u64)) -> u64 {
        let own = self.loose_openings.iter().map(|(part, _)| part);
        own.filter(|part| (part.term, part.epoch) == order)
            .map(|part| part.openings.len() as u64)
            .sum()
    }

    pub(super) fn apply_seen(&mut self, head: SignedHead, at: Location) -> Result<(), ApplyError> {
        let order = (head.head().term, head.head().epoch);
        let (mut openings, mut places) = (Vec::new(), Vec::new());
        for (part, at) in std::mem::take(&mut self.loose_openings) {
            if (part.term, part.epoch) == order {
                openings.extend(part.openings);
                places.push(at);
            }
        }
        if !openings.iter().is_sorted_by(|a, b| a.path() < b.path()) {
            return Err(ApplyError::rule("openings must ascend by path"));
        }
        places.push(at);
        // The same head again takes the place of what it was before.
        self.seen.retain(|unfinished| unfinished.seen.head != head);
        let followed = |seen: &[Unfinished]| seen.iter().map(|s| s.places.len()).sum::<usize>();
        while self.seen.len() >= SEEN_HEADS_MAX || followed(&self.seen) > SEEN_RECORDS_MAX {
            self.seen.remove(0);
        }
        let seen = SeenHead { head, openings };
        self.seen.push(Unfinished { seen, places });
        Ok(())
    }

    /// Mirror: every context of the seen head must be present with its signed
    /// root, and together they must give its directory. Returns those that are
    /// ahead, whose root at that size the caller checks, and the change.
    pub(crate) fn check_complete(
        &self,
        head: &SignedHead,
    ) -> Result<(Vec<Opening>, Update), ApplyError> {
        let seen = self
            .pending()
            .filter(|seen| seen.head.note_bytes() == head.note_bytes())
            .ok_or(ApplyError::rule("a complete head other than the seen one"))?;
        let mut changes = Vec::with_capacity(seen.openings.len());
        let mut ahead = Vec::new();
        for opening in &seen.openings {
            let id = ContextId::new(&opening.id)
                .map_err(|_| ApplyError::rule("a complete head names no context"))?;
            let state = self
                .by_id(&id)?
                .ok_or(ApplyError::rule("a complete head lacks a context"))?;
            let size = state.after.size();
            if size < opening.size {
                return Err(ApplyError::rule("a complete head lacks entries"));
            }
            if size > opening.size {
                ahead.push(opening.clone());
            } else if state.after.root() != opening.root {
                return Err(ApplyError::rule("a context has another root than its head"));
            }
            changes.push(change(&id, opening.size, &opening.root));
        }
        let update = self.update(&changes)?;
        if update.root != head.head().directory_root {
            return Err(ApplyError::rule(
                "these contexts do not give the head's directory",
            ));
        }
        Ok((ahead, update))
    }
}
