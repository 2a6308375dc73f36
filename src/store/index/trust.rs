//! Whose word counts: the keys of the origin, from the pinned one on, and the
//! rotation heads that lead from each to the next (`spec/04`, R3 to R6).
//!
//! Invariants:
//! * the chain only grows at its end: each rotation is signed by the key that
//!   counted until then, is ordered above the one before it, and brings a key
//!   that was never in the chain;
//! * a key counts from the rotation that brought it up to, and with, the one
//!   that ended it. So a head is judged under the key of its place.

use super::forks::Fork;
use super::{ApplyError, Effect, Inconsistency, Index, IndexError, Location, StoreRole};
use crate::head::{Head, HeadOrder, SignedHead};
use crate::limits::{ROTATIONS_MAX, TRUST_RECORDS_MAX};
use crate::note::VerifierKey;
use crate::store::body;
use crate::store::record::{Position, RecordType};

/// A rotation and where it lies in the log.
#[derive(Clone, Debug)]
struct Link {
    head: SignedHead,
    at: Position,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct TrustedKeys {
    pinned: VerifierKey,
    links: Vec<Link>,
}

/// A key of a chain and the heads it counts for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reign<'c> {
    pub(crate) key: &'c VerifierKey,
    /// The rotation that brought it.
    pub(crate) from: Option<&'c SignedHead>,
    /// The rotation that ended it.
    pub(crate) until: Option<&'c SignedHead>,
}

impl Reign<'_> {
    /// True if a plain head of this order may be signed by the key.
    pub(crate) fn holds(&self, order: HeadOrder) -> bool {
        self.from.is_none_or(|head| head.order() < order)
            && self.until.is_none_or(|head| order < head.order())
    }
}

impl TrustedKeys {
    pub(crate) fn new(pinned: VerifierKey) -> Self {
        Self {
            pinned,
            links: Vec::new(),
        }
    }

    /// The key that the store was made with.
    pub(crate) fn pinned(&self) -> &VerifierKey {
        &self.pinned
    }

    /// So often the key may be rotated yet.
    pub(crate) fn rotations_left(&self) -> usize {
        ROTATIONS_MAX.saturating_sub(self.rotations().count())
    }

    /// The key whose heads count now.
    pub(crate) fn current(&self) -> &VerifierKey {
        self.newest().map_or(&self.pinned, SignedHead::next_key)
    }

    /// The rotation that brought the current key.
    pub(crate) fn newest(&self) -> Option<&SignedHead> {
        self.links.last().map(|link| &link.head)
    }

    /// All rotations, in order.
    pub(crate) fn rotations(&self) -> impl Iterator<Item = &SignedHead> {
        self.links.iter().map(|link| &link.head)
    }

    /// The keys in order, each with what it counts for.
    pub(crate) fn reigns(&self) -> impl DoubleEndedIterator<Item = Reign<'_>> {
        (0..=self.links.len()).map(|at| {
            let from = at.checked_sub(1).and_then(|before| self.links.get(before));
            Reign {
                key: from.map_or(&self.pinned, |link| link.head.next_key()),
                from: from.map(|link| &link.head),
                until: self.links.get(at).map(|link| &link.head),
            }
        })
    }

    /// The key that counted for a record at this place of the log.
    fn key_at(&self, at: Position) -> &VerifierKey {
        let before = self.links.iter().rfind(|link| link.at < at);
        before.map_or(&self.pinned, |link| link.head.next_key())
    }

    /// Verifies the note of a record at this place of the log.
    pub(crate) fn open_at(&self, note: &[u8], at: Position) -> Result<SignedHead, Inconsistency> {
        open(note, self.key_at(at))
    }

    /// Verifies a note under the key that counts now.
    pub(crate) fn open(&self, note: &[u8]) -> Result<SignedHead, Inconsistency> {
        open(note, self.current())
    }

    /// Verifies a note under the key of its place in the chain, whichever that
    /// is: for notes that are not part of the log.
    pub(crate) fn open_any(&self, note: &[u8]) -> Option<SignedHead> {
        self.reigns().rev().find_map(|reign| {
            let head = SignedHead::open(note, reign.key).ok()?;
            match &head.head().rotation {
                None => reign.holds(head.order()).then_some(head),
                // Into the pinned key: from before the chain (R5).
                Some(into) if into.new == self.pinned => reign.holds(head.order()).then_some(head),
                Some(_) => {
                    let known = [reign.from, reign.until].into_iter().flatten();
                    let own = |known: &SignedHead| known.head() == head.head();
                    known.clone().any(own).then_some(head)
                }
            }
        })
    }

    /// Why a rotation does not continue the chain, if it does not.
    pub(crate) fn check(&self, head: &SignedHead) -> Result<(), &'static str> {
        let Some(rotation) = &head.head().rotation else {
            return Err("a note that rotates no key");
        };
        if rotation.old != *self.current() {
            return Err("a rotation of another key than the current one");
        }
        if self.reigns().any(|reign| *reign.key == rotation.new) {
            return Err("a rotation to a key that counted before");
        }
        if self
            .newest()
            .is_some_and(|newest| head.order() <= newest.order())
        {
            return Err("rotations must ascend by term and epoch");
        }
        if self.links.len() >= ROTATIONS_MAX {
            return Err("the key was rotated as often as it may be");
        }
        Ok(())
    }

    /// The last head that a key of the chain counted for, if it counts no more.
    pub(crate) fn ended(&self, key: &VerifierKey) -> Option<HeadOrder> {
        let reign = self.reigns().find(|reign| reign.key == key)?;
        reign.until.map(SignedHead::order)
    }

    /// A chain that goes on with a rotation that is in no log, if it fits.
    pub(crate) fn extend(&mut self, head: &SignedHead) {
        // One that does not fit leads nowhere.
        let _ = self.push(head.clone(), Position::from_u64(u64::MAX));
    }

    /// Takes a rotation over, whose record lies at `at`.
    fn push(&mut self, head: SignedHead, at: Position) -> Result<(), Inconsistency> {
        self.check(&head).map_err(Inconsistency::Rule)?;
        self.links.push(Link { head, at });
        Ok(())
    }

    /// A head of a mirror's source counts under the current key: above the
    /// rotation that brought it, or that rotation itself. Any other rotation
    /// must have been written down as a note first, but for one into the
    /// pinned key (R5).
    fn check_followed(&self, head: &Head) -> Result<(), &'static str> {
        let newest = self.newest().map(SignedHead::head);
        if newest == Some(head) {
            return Ok(());
        }
        if let Some(rotation) = &head.rotation
            && (newest.is_some() || rotation.new != self.pinned)
        {
            return Err("a rotation must be written down as a note first");
        }
        if newest.is_some_and(|newest| head.order() <= newest.order()) {
            return Err("a head from before the key that signed it counted");
        }
        Ok(())
    }
}

fn open(note: &[u8], key: &VerifierKey) -> Result<SignedHead, Inconsistency> {
    SignedHead::open(note, key).map_err(|e| Inconsistency::Head(e.to_string()))
}

impl Index {
    /// The key whose heads count.
    pub(crate) fn origin(&self) -> &VerifierKey {
        self.chain.current()
    }

    /// Verifies a stored note under the key that counts. A mirror's must be one
    /// that it may follow.
    pub(crate) fn open_head(&self, note: &[u8]) -> Result<SignedHead, Inconsistency> {
        let head = self.chain.open(note)?;
        if self.role == StoreRole::Mirror {
            let followed = self.chain.check_followed(head.head());
            followed.map_err(Inconsistency::Rule)?;
        }
        Ok(head)
    }

    /// Why a mirror may not write this rotation down, if it may not: it must
    /// continue the chain, and be ordered above every head that the mirror has
    /// taken under the key it ends.
    pub(crate) fn check_note(&self, head: &SignedHead) -> Result<(), &'static str> {
        if self.role != StoreRole::Mirror {
            return Err("a rotation of an own store is a head");
        }
        self.chain.check(head)?;
        let seen = self.seen_heads().map(|seen| &seen.head);
        let newest = self.published.head().into_iter().chain(seen);
        if newest.map(SignedHead::order).max() >= Some(head.order()) {
            return Err("a rotation from before a head that the old key signed");
        }
        Ok(())
    }

    /// A rotation that a mirror has written down. What was seen under the old key
    /// stays held, because that key counted when it signed it.
    pub(super) fn apply_note(&mut self, head: SignedHead, at: Location) -> Result<(), ApplyError> {
        self.check_note(&head).map_err(ApplyError::rule)?;
        self.chain.push(head, at.position)?;
        self.trust.push(at);
        self.loose_openings.clear();
        Ok(())
    }

    /// What a head that counts from here on does to the keys.
    pub(super) fn follow(&mut self, head: &SignedHead, at: Location) -> Result<(), ApplyError> {
        // A mirror's rotations are notes.
        if self.role == StoreRole::Own && head.head().rotation.is_some() {
            self.chain.push(head.clone(), at.position)?;
            self.trust.push(at);
        }
        Ok(())
    }

    /// Reads back what makes up trust, from the pinned key on.
    pub(crate) fn restore_trust(
        &mut self,
        places: &[Location],
        read: &dyn Fn(Location) -> Result<(RecordType, Vec<u8>), IndexError>,
    ) -> Result<(), IndexError> {
        let wrong = || IndexError::Stale("what it says of the keys is not what the log says");
        let ascend = places.is_sorted_by(|a, b| a.position < b.position);
        if !ascend || places.len() > TRUST_RECORDS_MAX {
            return Err(wrong());
        }
        for at in places {
            let (kind, bytes) = read(*at)?;
            let restored = match (kind, self.role) {
                (RecordType::Head, StoreRole::Own) => {
                    let (_, note) = body::get_head(&bytes).map_err(|_| wrong())?;
                    let head = self.chain.open(note).map_err(|_| wrong())?;
                    if head.head().rotation.is_none() {
                        return Err(wrong());
                    }
                    self.follow(&head, *at)
                }
                (RecordType::Note, StoreRole::Mirror) => {
                    let head = Box::new(self.chain.open(&bytes).map_err(|_| wrong())?);
                    self.apply(Effect::Note { head, at: *at })
                }
                (RecordType::Evidence, StoreRole::Mirror) => {
                    let fork = Fork::open(self, &bytes, *at).map_err(|_| wrong())?;
                    self.apply(Effect::Evidence {
                        fork: Box::new(fork),
                        at: *at,
                    })
                }
                (RecordType::Resolved, StoreRole::Mirror) => {
                    let (evidence, _) = body::get_resolved(&bytes).map_err(|_| wrong())?;
                    self.mark_resolved(&evidence, *at)
                }
                _ => return Err(wrong()),
            };
            restored.map_err(|_| wrong())?;
        }
        Ok(())
    }
}
