//! The handle to an open store: opening, queueing what is to be written, and
//! closing. The work is done by the `writer` thread.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use super::body::StoreRole;
use super::disk::{Access, Disk};
use super::frozen::{self, Frozen};
use super::guard::{self, Past};
use super::index::base::Alone;
use super::index::filter::RequestFilter;
use super::index::{Base, Index};
use super::indexer::{Indexer, Mailbox, Work};
use super::ingest::span_cost;
use super::keeper::{Found, Keeper};
use super::keys;
use super::layout;
use super::load::{LoadDone, LoadStep};
use super::log::LogReader;
use super::queue::{Queue, Refused};
use super::recover::{self, FAILED_FILE, Replayed, Start};
use super::rotate::Signing;
use super::view::View;
use super::writer::{GROUP_COST_BYTES_MAX, Writer};
use super::{AppendError, Appended, StoreError, StoreOptions};
use crate::entry::{ContextId, Draft};
use crate::hash::Hash;
use crate::head::SignedHead;
use crate::ledger::{Ingest, StoreMirror};
use crate::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, TAIL_BYTES_MIN};
use crate::note::{SignerKey, VerifierKey};

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
struct Inner {
    queue: Arc<Queue<Command>>,
    view: View,
    failed: Arc<OnceLock<String>>,
    frozen: Arc<OnceLock<Frozen>>,
    disk: Arc<dyn Disk>,
    thread: Mutex<Option<WriterThread>>,
    /// Tests wait for the indexer.
    #[cfg_attr(not(test), allow(dead_code))]
    mailbox: Arc<Mailbox>,
}

type WriterThread = JoinHandle<Result<(), StoreError>>;

impl StoreMirror for Store {
    type View = View;

    fn view(&self) -> &View {
        Self::view(self)
    }

    fn ingest(&self, item: Ingest, done: StoreDone) {
        Self::ingest(self, item, done);
    }
}

/// What opening found and did.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Bytes of log read.
    pub bytes_read: u64,
    /// Bytes of a torn tail that were cut (and copied to `cut/`).
    pub torn_bytes: u64,
    /// Bytes written again because nothing vouched for them.
    pub rewritten_bytes: u64,
    /// `head.note` was there before and is gone: nobody but who can write the
    /// store's directory does that, and perhaps with an older log in the place of
    /// the newest. An own store skips an epoch and publishes a head at once.
    pub head_note_missing: bool,
    /// Why an index that was there was thrown away, if it was.
    pub index_discarded: Option<String>,
}

impl Store {
    /// Opens a store for writing. An own store needs its signer, the key that
    /// counts now; a mirror none.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: StoreOptions,
        signer: Option<SignerKey>,
    ) -> Result<Opened, StoreError> {
        Self::open_with(disk, options, |_| Ok(Signing::from(signer)))
    }

    /// The same; `signer` is asked for the key when the log has told which one
    /// counts.
    pub(super) fn open_with(
        disk: Arc<dyn Disk>,
        options: StoreOptions,
        signer: impl FnOnce(&VerifierKey) -> Result<Signing, StoreError>,
    ) -> Result<Opened, StoreError> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&options.segment_bytes)
            || options.reserve_bytes > SEGMENT_BYTES_MAX
            || options.tail_bytes_max < TAIL_BYTES_MIN
        {
            return Err(StoreError::Refused(
                "segments are 4 KiB to 3 GiB, the reserve at most 3 GiB, the tail at least 4 KiB",
            ));
        }
        let lock = disk.lock("lock").map_err(StoreError::from_lock)?;
        let mailbox = Arc::new(Mailbox::default());
        let (read, past) = read_and_look_back(&disk, &options, &mailbox)?;
        let (replayed, keeper, index_discarded) = read;
        let Signing { signer, is_next } = match replayed.index.role {
            StoreRole::Own => signer(replayed.index.origin())?,
            StoreRole::Mirror => Signing::default(),
        };
        check_signer(&replayed.index, signer.as_ref())?;
        let head_note_missing = past.note_lost;
        if head_note_missing && replayed.index.role == StoreRole::Own {
            tracing::error!("head.note is gone: the log may be an old copy of itself");
        }
        let bytes_read = replayed.bytes_read;
        let (mut index, log, mended) = replayed.mend(&disk, &options)?;
        if is_next {
            // Not before the rotation is known to be durable: this is the end
            // of the old key.
            keys::install_next_origin_key(&*disk)?;
        }
        if past.thawed
            && let Err(error) = frozen::clear(&*disk)
        {
            // Next time it says the same.
            tracing::warn!(%error, "frozen.note was not removed");
        }
        let filter = Arc::new(RequestFilter::new());
        index.below.filter = Some(filter.clone());
        let (torn_bytes, rewritten_bytes) = (mended.torn_bytes, mended.rewritten_bytes);
        let covered = index.covered();
        let index = Arc::new(RwLock::new(index));
        let view = View::new(index.clone(), LogReader::over(disk.clone()));
        view.write_evidence(&*disk);
        let queue = Arc::new(Queue::new());
        let (failed, frozen) = (Arc::new(OnceLock::new()), Arc::new(OnceLock::new()));
        let indexer = Indexer::start(Work {
            keeper,
            index: index.clone(),
            queue: queue.clone(),
            clock: options.clock.clone(),
            tail_bytes_max: options.tail_bytes_max,
            mailbox: mailbox.clone(),
            covered,
            filter,
        })?;
        let writer = Writer::new(
            disk.clone(),
            options,
            signer,
            (queue.clone(), failed.clone(), frozen.clone()),
            (index, view.clone(), indexer),
            log,
            (&mended, past),
            lock,
        );
        let thread = thread::Builder::new()
            .name("ledger-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::io("start the writer", error))?;
        let thread = Mutex::new(Some(thread));
        let store = Self(Arc::new(Inner {
            queue,
            view,
            failed,
            frozen,
            disk,
            thread,
            mailbox,
        }));
        Ok(Opened {
            store,
            bytes_read,
            torn_bytes,
            rewritten_bytes,
            head_note_missing,
            index_discarded,
        })
    }

    /// Opens a store for reading only: neither lock nor change. What lies
    /// behind the last complete group is not shown. The index is used unless a
    /// process writes to it; then, and without a good one, all of the log is
    /// read into memory.
    pub fn open_read_only(disk: Arc<dyn Disk>) -> Result<View, StoreError> {
        let of = layout::peek(&*disk)?;
        let log = LogReader::over(disk.clone());
        let mut keeper = Keeper::new(disk.clone(), Arc::new(Alone))?;
        let mut find = || {
            if disk.open(FAILED_FILE, Access::Read).is_ok() {
                return Start::default();
            }
            let found = keeper.open_read_only(&log, of.clone());
            Start {
                index: found.index,
                voucher: found.voucher,
                heads_through: None,
            }
        };
        let replayed = match recover::replay_to_read(&*disk, &mut find) {
            // It may be the index that contradicts the log.
            Err(StoreError::IndexLost { .. } | StoreError::Inconsistent { .. }) => {
                recover::replay_to_read(&*disk, &mut Start::default)?
            }
            other => other?,
        };
        let index = Arc::new(RwLock::new(replayed.index));
        Ok(View::new(index, LogReader::over(disk)))
    }

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
        self.0.frozen.get().copied()
    }

    /// From here on nothing is stored or signed; `notes` say why, also to
    /// whoever opens the store next.
    pub(super) fn freeze(&self, frozen: Frozen, notes: &[Vec<u8>]) {
        if self.0.frozen.set(frozen).is_err() {
            return;
        }
        tracing::error!(%frozen, "frozen");
        if let Err(error) = frozen::write(&*self.0.disk, notes) {
            tracing::error!(%error, "frozen.note was not written");
        }
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
        let cost = match &item {
            Ingest::Span { span, payloads } => span_cost(span, payloads),
            Ingest::Payloads(payloads) => payloads.iter().map(|p| p.bytes().len()).sum(),
            Ingest::Seen(seen) => seen.openings.len() * 96,
            Ingest::Complete(_) | Ingest::Rotation(_) | Ingest::Evidence(_) => 0,
        };
        let item = Box::new(item);
        self.queue(cost, Command::Ingest { item, done });
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

/// A log that was read, its index, and why one that was there was thrown away.
type Read = (Replayed, Keeper, Option<String>);

/// Reads the log behind what the index covers; all of it, into a new index, if
/// there is none or it is not good.
fn read_log(
    disk: &Arc<dyn Disk>,
    options: &StoreOptions,
    mailbox: &Arc<Mailbox>,
) -> Result<Read, StoreError> {
    layout::remove_temporaries(&**disk)?;
    let of = layout::peek(&**disk)?;
    let mut keeper = Keeper::new(disk.clone(), mailbox.clone())?;
    let mut found = keeper.open(&LogReader::over(disk.clone()), of);
    if found.index.is_some() && disk.open(FAILED_FILE, Access::Read).is_ok() {
        // Pages of it may be marked clean that never reached the disk.
        found.index = None;
        found.discarded = Some("the last process failed".into());
        keeper.let_go();
    }
    if let Some(index) = found.index.take() {
        let start = Start {
            index: Some(index),
            ..Start::default()
        };
        match keeper.replay(options, start) {
            Ok(replayed) => return Ok((replayed, keeper, None)),
            Err(StoreError::IndexLost { reason }) => {
                found.discarded = Some(reason);
                keeper.let_go();
            }
            // It may be the index that contradicts the log: without it the log
            // is asked alone.
            Err(error @ StoreError::Inconsistent { .. }) => {
                found.discarded = Some(error.to_string());
                keeper.let_go();
            }
            Err(error) => return Err(error),
        }
    }
    read_all(options, keeper, found)
}

/// The same, and what the log says of `head.note` and `frozen.note`.
fn read_and_look_back(
    disk: &Arc<dyn Disk>,
    options: &StoreOptions,
    mailbox: &Arc<Mailbox>,
) -> Result<(Read, Past), StoreError> {
    let read = read_log(disk, options, mailbox)?;
    let look = |read: &Read| guard::look_back(&**disk, &LogReader::over(disk.clone()), &read.0);
    match look(&read) {
        Err(StoreError::IndexLost { reason }) => {
            let (replayed, mut keeper, _) = read;
            let covered = replayed.index.covered().unwrap_or_default();
            drop(replayed);
            keeper.let_go();
            let found = Found {
                discarded: Some(reason),
                voucher: covered.end,
                ..Found::default()
            };
            let read = read_all(options, keeper, found)?;
            let past = look(&read)?;
            Ok((read, past))
        }
        past => past.map(|past| (read, past)),
    }
}

/// Reads the log from its beginning; `found` is what was left of an index.
fn read_all(options: &StoreOptions, mut keeper: Keeper, found: Found) -> Result<Read, StoreError> {
    if let Some(reason) = &found.discarded {
        // Whoever opens hears it when it is done ([`Opened::index_discarded`]).
        tracing::info!(%reason, "the index is made anew from the log");
    }
    let start = Start {
        voucher: found.voucher,
        ..Start::default()
    };
    let replayed = keeper.replay(options, start)?;
    keeper.name()?;
    if found.discarded.is_some() && matches!(replayed.index.below.base, Base::Empty) {
        // Nothing was folded that would have taken its place. One that cannot
        // be removed is of no use next time either.
        if let Err(error) = keeper.discard() {
            tracing::warn!(%error, "the index was not removed");
        }
    }
    Ok((replayed, keeper, found.discarded))
}

fn check_signer(index: &Index, signer: Option<&SignerKey>) -> Result<(), StoreError> {
    match (index.role, signer) {
        (StoreRole::Own, Some(signer)) if signer.verifier() == index.origin() => Ok(()),
        (StoreRole::Own, Some(signer)) => Err(StoreError::WrongKey {
            expected: index.origin().to_string(),
            got: signer.verifier().to_string(),
        }),
        (StoreRole::Own, None) => Err(StoreError::WrongKey {
            expected: index.origin().to_string(),
            got: "missing".into(),
        }),
        (StoreRole::Mirror, _) => Ok(()),
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
