//! Layer 3. A source that shows less than is held: is it behind, or on another
//! branch? Its directory is compared with the own one at its own sizes.

use std::collections::VecDeque;

use super::accuse::{Holder, Side, place};
use super::{
    Asked, LocalFault, Mirror, NODE_REQUESTS_MAX, OriginFault, PeerFault, Phase, ReadMirror,
    SyncError,
};
use crate::directory::{Aim, Fault, Opening, Review, ReviewError};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::limits::NODES_PER_REQUEST_MAX;
use crate::sync::message::{NodeAnswer, Request};

/// Nodes of an older directory that are asked for: what is beyond them is not
/// compared.
pub(super) const OLDER_NODES_MAX: u64 = 1 << 14;

/// An older head being compared.
pub(super) struct Older<'m, M: ReadMirror + ?Sized> {
    holder: Holder,
    review: Review<Side<'m, M>>,
}

impl<M: ReadMirror + ?Sized> Mirror<'_, M> {
    /// Compares the shown head with a later one that is held.
    pub(super) fn review(&mut self, holder: Holder) -> Result<(), SyncError> {
        let (Some(held), Some(shown)) = (self.held_by(holder), &self.shown) else {
            return Ok(());
        };
        let (own, older) = (place(held), place(shown));
        let side = self.side(holder)?;
        match Review::new(side, own, older, OLDER_NODES_MAX) {
            Ok(review) => {
                self.phase = Phase::Older(Box::new(Older { holder, review }));
                self.pump_older()
            }
            Err(error) => self.older_refused(holder, error),
        }
    }

    /// Asks for nodes, or comes to an end.
    pub(super) fn pump_older(&mut self) -> Result<(), SyncError> {
        while self.requests.len() < NODE_REQUESTS_MAX {
            let Phase::Older(older) = &mut self.phase else {
                return Ok(());
            };
            let hashes = older.review.wanted(NODES_PER_REQUEST_MAX);
            if hashes.is_empty() {
                break;
            }
            let asked = hashes.iter().copied().collect();
            self.ask(&Request::Nodes { hashes }, Asked::Nodes { hashes: asked })?;
        }
        if let Phase::Older(older) = &mut self.phase {
            let (found, done) = (older.review.take_found(), older.review.is_done());
            let holder = older.holder;
            for opening in found {
                if !self.passed_through(&opening)? {
                    let aim = Aim::Context(opening.path());
                    return self.begin_case(holder, false, aim, None);
                }
            }
            if done {
                self.phase = Phase::Head;
                return self.reviewed();
            }
        }
        Ok(())
    }

    /// True unless the own history had another root at that size.
    fn passed_through(&self, opening: &Opening) -> Result<bool, SyncError> {
        let Ok(id) = ContextId::new(&opening.id) else {
            return Ok(true);
        };
        let own = self.ledger.root_at(&id, opening.size);
        let own = own.map_err(LocalFault::read)?;
        Ok(own.is_none_or(|own| own == opening.root))
    }

    /// The next nodes of an answer.
    pub(super) fn older_shown(
        &mut self,
        asked: &mut VecDeque<Hash>,
        answers: Vec<NodeAnswer>,
    ) -> Result<(), SyncError> {
        for answer in answers {
            let Phase::Older(older) = &mut self.phase else {
                return Ok(());
            };
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
            let holder = older.holder;
            if let Err(error) = older.review.supply(&hash, &node.node, node.openings) {
                return self.older_refused(holder, error);
            }
        }
        Ok(())
    }

    fn older_refused<E>(&mut self, holder: Holder, error: ReviewError<E>) -> Result<(), SyncError>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        match error {
            ReviewError::Contradiction(aim) => self.begin_case(holder, false, aim, None),
            ReviewError::Local(error) => Err(LocalFault::read(error)),
            ReviewError::Unasked { .. } => {
                let what = "a node that is not needed";
                Err(PeerFault::WrongReply { what }.into())
            }
            ReviewError::Shown(error) => Err(match error.fault() {
                Fault::Presenter => PeerFault::Directory(error).into(),
                Fault::Origin => OriginFault::Directory(error).into(),
            }),
        }
    }
}
