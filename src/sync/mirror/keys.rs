//! Layer 3. Whose signature counts: the keys of the origin, from the pinned one
//! on, and the notes of a source judged by them (`spec/04`, R1 to R6).
//!
//! Invariants:
//! * a rotation is followed only from the key that counts now, and stored before
//!   anything that the new key alone has signed;
//! * rotations from before the pinned key say nothing to a mirror that pinned a
//!   later one, and are passed over;
//! * a key that was retired signs nothing after its rotation: whoever shows such
//!   a head is not believed, and said to hold a stolen key.

use super::{Ingest, LocalFault, Mirror, PeerFault, ReadMirror, SignedHead, SyncError};
use crate::evidence::Evidence;
use crate::head::{Head, HeadError, HeadOrder, KeyChain, is_takeover};
use crate::note::{Note, VerifierKey};
use crate::sync::mirror::fetch::Stored;

/// The keys that a mirror believes.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) pinned: VerifierKey,
    pub(super) rotations: Vec<SignedHead>,
}

impl Keys {
    pub(super) const fn new(pinned: VerifierKey) -> Self {
        Self {
            pinned,
            rotations: Vec::new(),
        }
    }

    fn current(&self) -> &VerifierKey {
        let newest = self.rotations.last();
        newest.map_or(&self.pinned, SignedHead::next_key)
    }

    /// The notes of all rotations, oldest first.
    pub(super) fn notes(&self) -> Vec<Vec<u8>> {
        self.rotations.iter().map(SignedHead::note_bytes).collect()
    }

    pub(super) fn chain(&self) -> Result<KeyChain, HeadError> {
        KeyChain::open(&self.pinned, &self.notes())
    }

    /// True if a head comes before a rotation that is known.
    pub(super) fn is_beyond(&self, head: &SignedHead) -> bool {
        let newest = self.rotations.last();
        newest.is_some_and(|newest| head.order() < newest.order())
    }

    /// The rotation that ended a key.
    fn end_of(&self, key: &VerifierKey) -> Option<&SignedHead> {
        let ends = |head: &&SignedHead| old_key(head).is_some_and(|old| old == key);
        self.rotations.iter().find(ends)
    }
}

fn old_key(head: &SignedHead) -> Option<&VerifierKey> {
    head.head().rotation.as_ref().map(|rotation| &rotation.old)
}

impl<M: ReadMirror + ?Sized> Mirror<'_, M> {
    /// The keys that the store knows, which the asked-for one must be among.
    pub(super) fn read_keys(&mut self) -> Result<(), SyncError> {
        self.keys = Keys {
            pinned: self.ledger.pinned_key(),
            rotations: self.ledger.rotations().map_err(LocalFault::read)?,
        };
        let chain = self.keys.chain().map_err(LocalFault::read)?;
        if !chain.holds(&self.origin) {
            let pinned = Box::new(self.keys.pinned.clone());
            return Err(LocalFault::OtherKey { pinned }.into());
        }
        Ok(())
    }

    /// The notes before the newest head: rotations, ascending.
    pub(super) fn follow_rotations(&mut self, notes: &[Vec<u8>]) -> Result<(), SyncError> {
        let mut last: Option<HeadOrder> = None;
        let mut followed = !self.keys.rotations.is_empty();
        for note in notes {
            self.check_takeover(note)?;
            let text = parse(note)?;
            let order = text.order();
            let Some(rotation) = &text.rotation else {
                let what = "a plain head before the newest";
                return Err(PeerFault::WrongReply { what }.into());
            };
            if last.is_some_and(|last| order <= last) {
                let what = "rotations must ascend";
                return Err(PeerFault::WrongReply { what }.into());
            }
            last = Some(order);
            // Signed by both keys it names; whether these count is judged next.
            let head = SignedHead::open(note, &rotation.old).map_err(PeerFault::Head)?;
            // It counts only with a takeover, which may have given up others. Of a key
            // that is none of the origin's it is anybody's.
            if let Some(needed) = head.requires_takeover() {
                let mut keys = self.keys.rotations.iter().map(SignedHead::next_key);
                if rotation.old != self.keys.pinned && keys.all(|key| *key != rotation.old) {
                    let what = "it rotates a key that is not the origin's";
                    return Err(PeerFault::Rotation { order, what }.into());
                }
                let term = needed.term;
                return Err(LocalFault::TakeoverNotFollowed { term }.into());
            }
            let known = self.keys.rotations.iter().any(|r| r.head() == head.head());
            if known || rotation.new == *self.keys.current() {
                followed = true;
            } else if rotation.old == *self.keys.current() {
                self.follow(head)?;
                followed = true;
            } else if self.keys.end_of(&rotation.old).is_some() {
                self.check_texts(&head)?;
                let what = "it rotates a key that does not count any more";
                return Err(PeerFault::Rotation { order, what }.into());
            } else if followed {
                let what = "it does not continue the chain of keys";
                return Err(PeerFault::Rotation { order, what }.into());
            }
        }
        Ok(())
    }

    /// A rotation of the key that counts now: from here on, another one does.
    pub(super) fn follow(&mut self, head: SignedHead) -> Result<(), SyncError> {
        self.check_texts(&head)?;
        let order = head.order();
        if self.held_heads().any(|held| order < held.order()) {
            let what = "it comes before a head that is held";
            return Err(PeerFault::Rotation { order, what }.into());
        }
        self.keys.rotations.push(head.clone());
        self.keys.chain().map_err(PeerFault::Head)?;
        self.store(Ingest::Rotation(head), Stored::default());
        Ok(())
    }

    /// The newest head, under the key that counts for its place.
    pub(super) fn open_newest(&mut self, note: &[u8]) -> Result<SignedHead, SyncError> {
        self.check_takeover(note)?;
        let keys: Vec<VerifierKey> = std::iter::once(&self.keys.pinned)
            .chain(self.keys.rotations.iter().map(SignedHead::next_key))
            .cloned()
            .collect();
        let mut refused = None;
        let mut opened = None;
        for key in keys.iter().rev() {
            match SignedHead::open(note, key) {
                Ok(head) => {
                    opened = Some((head, key));
                    break;
                }
                // Of the key that counts now.
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let Some((head, key)) = opened else {
            let unsigned = HeadError::NotSigned {
                key: Box::new(self.keys.current().clone()),
            };
            return Err(PeerFault::Head(refused.unwrap_or(unsigned)).into());
        };
        // Two rotations of one key come before the question which of them counts.
        if old_key(&head).is_some_and(|old| self.keys.end_of(old).is_some()) {
            self.check_texts(&head)?;
        }
        let chain = self.keys.chain().map_err(PeerFault::Head)?;
        match chain.head(&head.note_bytes()) {
            Ok(head) => Ok(head),
            Err(_)
                if self
                    .keys
                    .end_of(key)
                    .is_some_and(|end| end.order() < head.order()) =>
            {
                let order = head.order();
                Err(PeerFault::RetiredKey { order }.into())
            }
            Err(error) => Err(PeerFault::Head(error).into()),
        }
    }

    /// The complete head, and those that were seen and are not complete.
    fn held_heads(&self) -> impl Iterator<Item = &SignedHead> {
        let seen = self.known.seen.iter().map(|seen| &seen.head);
        self.known.complete.iter().chain(seen)
    }

    /// The origin's takeovers are not followed yet; others are no notes of it.
    fn check_takeover(&self, note: &[u8]) -> Result<(), SyncError> {
        if !is_takeover(note) {
            return Ok(());
        }
        let chain = self.keys.chain().map_err(PeerFault::Head)?;
        let signed = chain.takeover(note).map_err(PeerFault::Head)?;
        let term = signed.takeover().term;
        Err(LocalFault::TakeoverNotFollowed { term }.into())
    }

    /// True if the head ends the key that counts now.
    pub(super) fn rotates(&self, head: &SignedHead) -> bool {
        old_key(head).is_some_and(|old| old == self.keys.current())
    }

    /// Evidence, if the texts alone contradict what is held.
    pub(super) fn check_texts(&mut self, shown: &SignedHead) -> Result<(), SyncError> {
        let held = self.held_heads().chain(&self.keys.rotations);
        let notes = self.keys.notes();
        let found = held.filter_map(|held| Evidence::of_heads(&notes, &[], held, shown));
        let found: Vec<Evidence> = found.collect();
        // A head may contradict one that its key never counted for.
        let proven = found.iter().find(|e| e.verify(&self.keys.pinned).is_ok());
        match proven.or(found.first()).cloned() {
            Some(evidence) => Err(self.accuse(evidence)),
            None => Ok(()),
        }
    }
}

fn parse(note: &[u8]) -> Result<Head, SyncError> {
    let text = Note::parse(note).map_err(|error| PeerFault::Head(HeadError::Note(error)))?;
    Ok(Head::parse(text.text()).map_err(PeerFault::Head)?)
}
