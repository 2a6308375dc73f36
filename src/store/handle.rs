//! The handle to an open store: queueing what is to be written, and closing. The
//! work is done by the `writer` thread.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use super::body::StoreRole;
use super::disk::Disk;
use super::frozen::{Freezing, Frozen};
use super::indexer::Mailbox;
use super::ingest::{RunNotes, ingest_cost, notes_of};
use super::load::{LoadDone, LoadStep};
use super::queue::{Queue, Refused};
use super::view::View;
use super::writer::GROUP_COST_BYTES_MAX;
use super::{AppendError, Appended, StoreError};
use crate::entry::{ContextId, Draft};
use crate::hash::Hash;
use crate::head::SignedHead;
use crate::ledger::{Ingest, StoreMirror};
use crate::note::SignerKey;

/// Entries of a single request.
const REQUEST_ENTRIES_MAX: usize = 16_384;

/// Called once with the outcome of an append, on the writer's thread: it must
/// not wait for the store, since the store waits for it.
pub type AppendDone = Box<dyn FnOnce(Result<Vec<Appended>, AppendError>) + Send>;
/// Called once when something is durable, or was refused; on the writer's
/// thread, like [`AppendDone`].
pub type StoreDone = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
pub(super) type PublishDone = Box<dyn FnOnce(Result<SignedHead, StoreError>) + Send>;

pub(super) enum Command {
    Append {
        drafts: Vec<(ContextId, Draft)>,
        done: AppendDone,
    },
    Ingest {
        item: Box<Ingest>,
        notes: Vec<RunNotes>,
        done: StoreDone,
    },
    Load {
        step: LoadStep,
        done: LoadDone,
    },
    Publish {
        done: PublishDone,
    },
    Rotate {
        new: Box<SignerKey>,
        done: PublishDone,
    },
    Resolve {
        evidence: Hash,
        root: Hash,
        done: StoreDone,
    },
}

/// An open store: the handle to its writer. Clones share it.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) queue: Arc<Queue<Command>>,
    pub(super) view: View,
    pub(super) failed: Arc<OnceLock<String>>,
    pub(super) frozen: Arc<Freezing>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) thread: Mutex<Option<WriterThread>>,
    /// Tests wait for the indexer.
    #[cfg_attr(not(test), allow(dead_code))]
    pub(super) mailbox: Arc<Mailbox>,
}

pub(super) type WriterThread = JoinHandle<Result<(), StoreError>>;

impl From<Inner> for Store {
    fn from(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }
}

impl StoreMirror for Store {
    type View = View;

    fn view(&self) -> &View {
        Self::view(self)
    }

    fn ingest(&self, item: Ingest, done: StoreDone) {
        Self::ingest(self, item, done);
    }
}

impl Store {
    /// Reads.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.0.view
    }

    /// Why the store failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.0.failed.get().map(String::as_str)
    }

    /// What froze the store, if something has.
    #[must_use]
    pub fn frozen(&self) -> Option<Frozen> {
        self.0.frozen.get()
    }

    /// From here on nothing is stored or signed; `notes` say why, also to
    /// whoever opens the store next.
    pub(super) fn freeze(&self, frozen: Frozen, notes: &[Vec<u8>]) {
        self.0.frozen.freeze(&*self.0.disk, frozen, notes);
        self.0.queue.nudge();
    }

    /// Queues an append; `done` hears of it when it is durable. With `wait`,
    /// waits for room in the queue; otherwise a full queue is [`StoreError::Busy`].
    pub fn submit(&self, drafts: Vec<(ContextId, Draft)>, wait: bool, done: AppendDone) {
        let cost: usize = drafts
            .iter()
            .map(|(id, draft)| id.as_str().len() + draft.cost_bytes())
            .sum();
        if drafts.len() > REQUEST_ENTRIES_MAX || cost > GROUP_COST_BYTES_MAX {
            return done(Err(AppendError::TooLarge {
                entries: drafts.len(),
                bytes: cost,
            }));
        }
        if self.0.view.role() == StoreRole::Mirror {
            let origin = self.0.view.origin().name().to_string();
            return done(Err(AppendError::Mirror { origin }));
        }
        match self
            .0
            .queue
            .push(cost, Command::Append { drafts, done }, wait)
        {
            Ok(()) => (),
            Err(refused) => self.refused(refused),
        }
    }

    fn refused(&self, refused: Refused<Command>) {
        match refused {
            Refused::Full(command) => refuse(command, &StoreError::Busy),
            Refused::Behind(command) => refuse(command, &StoreError::Behind),
            Refused::Closed(command) => refuse(command, &self.closed()),
        }
    }

    pub(super) fn closed(&self) -> StoreError {
        if let Some(frozen) = self.frozen() {
            return frozen.into();
        }
        match self.failure() {
            Some(reason) => StoreError::Failed {
                reason: reason.to_owned(),
            },
            None => StoreError::Closed,
        }
    }

    /// Appends and waits: all entries are durable, in one group, or none is.
    pub fn append(&self, drafts: Vec<(ContextId, Draft)>) -> Result<Vec<Appended>, AppendError> {
        let (sender, receiver) = sync_channel(1);
        self.submit(
            drafts,
            true,
            Box::new(move |outcome| _ = sender.send(outcome)),
        );
        receiver
            .recv()
            .unwrap_or_else(|_| Err(self.closed().into()))
    }

    /// Queues verified history for a mirror.
    pub fn ingest(&self, item: Ingest, done: StoreDone) {
        let cost = ingest_cost(&item);
        let notes = match notes_of(&item) {
            Ok(notes) => notes,
            Err(error) => return done(Err(error)),
        };
        let item = Box::new(item);
        self.queue(cost, Command::Ingest { item, notes, done });
    }

    /// Queues a command, waiting for room.
    pub(super) fn queue(&self, cost: usize, command: Command) {
        if let Err(refused) = self.0.queue.push(cost, command, true) {
            self.refused(refused);
        }
    }

    /// Signs a head over everything durable now and waits for it.
    pub fn publish(&self) -> Result<SignedHead, StoreError> {
        let (sender, receiver) = sync_channel(1);
        let done: PublishDone = Box::new(move |outcome| _ = sender.send(outcome));
        self.queue(0, Command::Publish { done });
        receiver.recv().unwrap_or_else(|_| Err(self.closed()))
    }

    /// Finishes what was queued, signs a last head, and closes the log. Dropping
    /// the last handle does the same, without an answer.
    pub fn close(&self) -> Result<(), StoreError> {
        self.0.close()
    }
}

#[cfg(test)]
impl Store {
    /// Where the indexer says that something has changed.
    pub(super) fn mailbox(&self) -> &Mailbox {
        &self.0.mailbox
    }
}

impl Inner {
    fn close(&self) -> Result<(), StoreError> {
        self.queue.close();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match thread {
            // The last handle may live in an answer that the writer itself
            // drops: it ends on its own.
            Some(thread) if thread.thread().id() == thread::current().id() => Ok(()),
            Some(thread) => thread.join().unwrap_or_else(|_| {
                Err(StoreError::Failed {
                    reason: "the writer panicked".into(),
                })
            }),
            None => Ok(()),
        }
    }
}

impl Drop for Inner {
    /// No writer outlives its users.
    fn drop(&mut self) {
        let _ = self.close();
    }
}

pub(super) fn refuse(command: Command, error: &StoreError) {
    match command {
        Command::Append { done, .. } => done(Err(error.clone().into())),
        Command::Ingest { done, .. } | Command::Resolve { done, .. } => done(Err(error.clone())),
        Command::Load { done, .. } => done(Err(error.clone().into())),
        Command::Publish { done } | Command::Rotate { done, .. } => done(Err(error.clone())),
    }
}
