//! A new key for an origin, and the end of the old one (`spec/12-guard.md`).
//!
//! ```text
//! origin.key.next durable -> head signed by both, durable -> told
//!                         -> origin.key.next becomes origin.key
//! ```
//!
//! What a crash leaves:
//! * before the head is durable: `origin.key.next`, which nobody asks for;
//! * after it: a log whose current key is in `origin.key.next`. Opening finds it
//!   there, makes the log durable, and then installs it. Not the other way
//!   round: a rotation that only the page cache holds may be lost with the
//!   power, and the old key with it.

use super::StoreError;
use super::disk::Disk;
use super::handle::{Command, PublishDone, Store};
use super::keys::{self, FoundKey};
use super::opening::{Opened, StoreOpening};
use super::{StoreOptions, StoreRole};
use crate::head::SignedHead;
use crate::note::SignerKey;
use crate::store::body;
use crate::store::index::{Effect, Location};
use crate::store::plan::Planned;
use crate::store::record::{Group, RecordType};
use crate::store::writer::Writer;

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

/// What a store signs with.
#[derive(Debug, Default)]
pub(super) struct Signing {
    pub(super) signer: Option<SignerKey>,
    /// It is to become `origin.key` when the log is durable.
    pub(super) is_next: bool,
}

impl From<Option<SignerKey>> for Signing {
    fn from(signer: Option<SignerKey>) -> Self {
        Self {
            signer,
            is_next: false,
        }
    }
}

const ROTATED_OUT: StoreError = StoreError::Refused("the key was rotated as often as it may be");

impl StoreOpening {
    /// Starts the store with the key files in its directory, an own store or a
    /// mirror. Finishes a rotation that was cut off.
    pub fn start_with_key_files(self) -> Result<Opened, StoreError> {
        let files = self.disk().clone();
        self.start_with(move |current| {
            let FoundKey { key, is_next } = keys::read_origin_key_for(&*files, current)?;
            Ok(Signing {
                signer: Some(key),
                is_next,
            })
        })
    }
}

impl Store {
    /// Opens a store for writing with the key files in its directory, an own
    /// store or a mirror. Finishes a rotation that was cut off.
    pub fn open_with_key_files(
        disk: Arc<dyn Disk>,
        options: StoreOptions,
    ) -> Result<Opened, StoreError> {
        StoreOpening::read(disk, options)?.start_with_key_files()
    }

    /// Signs a head that ends the current key and brings `new`, with both, and
    /// waits until it is durable. From then on only `new` signs; whoever calls
    /// this has made `new` durable before ([`rotate_origin_key`]).
    pub fn rotate(&self, new: SignerKey) -> Result<SignedHead, StoreError> {
        let (sender, receiver) = sync_channel(1);
        let done: PublishDone = Box::new(move |outcome| _ = sender.send(outcome));
        let new = Box::new(new);
        self.queue(0, Command::Rotate { new, done });
        receiver.recv().unwrap_or_else(|_| Err(self.closed()))
    }
}

/// Rotates the key of an open own store, in the order that no crash can hurt:
/// the new key durable in `origin.key.next`, the head that brings it, and then
/// `origin.key`. `disk` is the store's directory.
///
/// A key that is in `origin.key.next` already is used: it may be of a rotation
/// that failed, and whose head is in the log for all that. If it counts by now,
/// it is installed first.
pub fn rotate_origin_key(disk: &dyn Disk, store: &Store) -> Result<SignedHead, StoreError> {
    if store.view().role() == StoreRole::Mirror {
        return Err(StoreError::Refused("a mirror signs no heads"));
    }
    let current = store.view().origin();
    let name = current.name().clone();
    let counted = |key: &SignerKey| {
        let view = store.view();
        let index = view.index();
        index
            .chain
            .reigns()
            .any(|reign| reign.key == key.verifier())
    };
    let new = match keys::read_next_origin_key(disk)? {
        Some(key) if *key.verifier().name() == name && !counted(&key) => key,
        waiting => {
            if waiting.is_some_and(|key| *key.verifier() == current) {
                // The rotation to it is durable; it is nowhere else.
                keys::install_next_origin_key(disk)?;
            }
            if store.view().rotations_left() == 0 {
                // Before there is a key that will never count.
                return Err(ROTATED_OUT);
            }
            let key = keys::generate_signer(name)?;
            keys::create_next_origin_key(disk, &key)?;
            key
        }
    };
    let head = store.rotate(new)?;
    keys::install_next_origin_key(disk)?;
    Ok(head)
}

impl Writer {
    /// A head that ends the current key. It is refused before anything is
    /// signed, or the key changes with it.
    pub(super) fn rotate(&mut self, new: SignerKey) -> Result<SignedHead, StoreError> {
        {
            let index = self.view.index();
            if new.verifier().name() != index.origin().name() {
                return Err(StoreError::Refused("the new key bears another name"));
            }
            let mut counted = index.chain.reigns().map(|reign| reign.key);
            if counted.any(|key| key == new.verifier()) {
                return Err(StoreError::Refused("the new key counted before"));
            }
            if index.chain.rotations_left() == 0 {
                return Err(ROTATED_OUT);
            }
        }
        let head = self.publish_with(Some(&new))?;
        self.signer = Some(new);
        Ok(head)
    }

    /// A rotation of a mirror's origin.
    pub(super) fn note(&mut self, head: &SignedHead) -> Result<(), StoreError> {
        let note = head.note_bytes();
        let head = {
            let index = self.view.index();
            let head = index.chain.open(&note);
            let head =
                head.map_err(|_| StoreError::Refused("the rotation is not this origin's"))?;
            index.check_note(&head).map_err(StoreError::Refused)?;
            head
        };
        let mut group = Group::new();
        let (offset, len) = group.add(RecordType::Note, |out| body::put_note(&note, out));
        let effect = Effect::Note {
            head: Box::new(head),
            at: Location::default(),
        };
        self.commit(Planned::new(group, vec![(offset, len, effect)]))?;
        Ok(())
    }
}
