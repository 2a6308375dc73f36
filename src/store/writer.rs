//! The one thread that writes: takes what waits, plans a group, makes it
//! durable, makes it visible, answers, and signs.
//!
//! What a crash leaves, step by step (`spec/05-store.md`, Crash analysis):
//! * before the group is written: nothing;
//! * while it is written or synced: all of it, or a torn tail that is cut;
//! * after the sync: the group, whether or not anyone was answered;
//! * a head that was signed and not synced was told to no one; its epoch is not
//!   used again, because opening starts one above the highest in the log and
//!   two above if anything was cut.

use std::collections::VecDeque;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::body::{self, StoreRole};
use super::disk::{Disk, DiskLock};
use super::head_note::HeadNote;
use super::index::{Effect, Index, RequestKey};
use super::ingest::{IngestPlan, span_cost};
use super::log::{LogReader, LogWriter, WriteError};
use super::plan::{Plan, PlanState, Planned};
use super::queue::{Queue, Refused, Taken};
use super::record::{Group, RecordType};
use super::recover::{self, FAILED_FILE, Mended};
use super::view::View;
use super::{AppendError, Appended, StoreError, StoreOptions};
use crate::entry::{ContextId, Draft, Entry};
use crate::hash::Hash;
use crate::head::{Head, SignedHead, sign_head};
use crate::ledger::{Ingest, StoreMirror};
use crate::note::SignerKey;
use crate::run::Accumulator;
use crate::tree::second_opinion::root_by_rs_merkle;

/// Requests taken into one group.
const GROUP_REQUESTS_MAX: usize = 1024;
/// Bytes of requests taken into one group, and of a single request.
const GROUP_COST_BYTES_MAX: usize = 16 << 20;
/// Entries of a single request.
const REQUEST_ENTRIES_MAX: usize = 16_384;
/// Quiet after which a group gets a voucher.
const MARK_AFTER: Duration = Duration::from_millis(100);
/// `head.note` is replaced at most this often, and at close.
const HEAD_NOTE_EVERY: Duration = Duration::from_secs(1);
/// Contexts up to this size are recomputed by a second implementation before
/// the first head after an unclean start.
const SECOND_OPINION_ENTRIES_MAX: u64 = 65_536;

/// Called once with the outcome of an append.
pub type AppendDone = Box<dyn FnOnce(Result<Vec<Appended>, AppendError>) + Send>;
/// Called once when something is durable, or was refused.
pub type StoreDone = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type PublishDone = Box<dyn FnOnce(Result<SignedHead, StoreError>) + Send>;

enum Command {
    Append {
        drafts: Vec<(ContextId, Draft)>,
        done: AppendDone,
    },
    Ingest {
        item: Box<Ingest>,
        done: StoreDone,
    },
    Publish {
        done: PublishDone,
    },
}

/// An open store: the handle to its writer. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    queue: Arc<Queue<Command>>,
    view: View,
    failed: Arc<OnceLock<String>>,
    thread: Arc<Mutex<Option<JoinHandle<Result<(), StoreError>>>>>,
}

impl StoreMirror for Store {
    type View = View;

    fn view(&self) -> &View {
        &self.view
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
    /// The store has signed before, but `head.note` is gone.
    pub head_note_missing: bool,
}

impl Store {
    /// Opens a store for writing. An own store needs its signer, a mirror none.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: StoreOptions,
        signer: Option<SignerKey>,
    ) -> Result<Opened, StoreError> {
        let lock = disk.lock("lock").map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => StoreError::Locked,
            _ => StoreError::io("lock the store", error),
        })?;
        recover::remove_temporaries(&*disk)?;
        let replayed = recover::replay(&*disk)?;
        check_signer(&replayed.index, signer.as_ref())?;
        let bytes_read = replayed.bytes_read;
        let (index, log, mended) = replayed.mend(&disk, &options)?;
        let head_note_missing = index.published.head().is_some() && mended.head_note.is_none();
        let (torn_bytes, rewritten_bytes) = (mended.torn_bytes, mended.rewritten_bytes);
        let index = Arc::new(RwLock::new(index));
        let view = View::new(index.clone(), LogReader::new(disk.clone()));
        let queue = Arc::new(Queue::new());
        let failed = Arc::new(OnceLock::new());
        let writer = Writer::new(
            disk,
            options,
            signer,
            (queue.clone(), failed.clone()),
            (index, view.clone()),
            log,
            &mended,
            lock,
        );
        let thread = thread::Builder::new()
            .name("ledger-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::io("start the writer", error))?;
        let thread = Arc::new(Mutex::new(Some(thread)));
        let store = Self {
            queue,
            view,
            failed,
            thread,
        };
        Ok(Opened {
            store,
            bytes_read,
            torn_bytes,
            rewritten_bytes,
            head_note_missing,
        })
    }

    /// Opens a store for reading only: neither lock nor change. What lies
    /// behind the last complete group is not shown.
    pub fn open_read_only(disk: Arc<dyn Disk>) -> Result<View, StoreError> {
        let replayed = recover::replay(&*disk)?;
        Ok(View::new(
            Arc::new(RwLock::new(replayed.index)),
            LogReader::new(disk),
        ))
    }

    /// Reads.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Why the store failed, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
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
        if self.view.role() == StoreRole::Mirror {
            let origin = self.view.origin().name().to_string();
            return done(Err(AppendError::Mirror { origin }));
        }
        match self
            .queue
            .push(cost, Command::Append { drafts, done }, wait)
        {
            Ok(()) => (),
            Err(Refused::Full(command)) => refuse(command, &StoreError::Busy),
            Err(Refused::Closed(command)) => refuse(command, &self.closed()),
        }
    }

    fn closed(&self) -> StoreError {
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
            Ingest::Complete(_) => 0,
        };
        match self.queue.push(
            cost,
            Command::Ingest {
                item: Box::new(item),
                done,
            },
            true,
        ) {
            Ok(()) => (),
            Err(Refused::Full(command) | Refused::Closed(command)) => {
                refuse(command, &self.closed());
            }
        }
    }

    /// Signs a head over everything durable now and waits for it.
    pub fn publish(&self) -> Result<SignedHead, StoreError> {
        let (sender, receiver) = sync_channel(1);
        let done: PublishDone = Box::new(move |outcome| _ = sender.send(outcome));
        match self.queue.push(0, Command::Publish { done }, true) {
            Ok(()) => (),
            Err(Refused::Full(command) | Refused::Closed(command)) => {
                refuse(command, &self.closed());
            }
        }
        receiver.recv().unwrap_or_else(|_| Err(self.closed()))
    }

    /// Finishes what was queued, signs a last head, and closes the log.
    pub fn close(&self) -> Result<(), StoreError> {
        self.queue.close();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match thread.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(StoreError::Failed {
                reason: "the writer panicked".into(),
            }),
        }
    }
}

impl Drop for Store {
    /// The last handle closes the store, so that no writer outlives its users.
    fn drop(&mut self) {
        if Arc::strong_count(&self.thread) == 1 {
            let _ = self.close();
        }
    }
}

fn check_signer(index: &Index, signer: Option<&SignerKey>) -> Result<(), StoreError> {
    match (index.role, signer) {
        (StoreRole::Own, Some(signer)) if *signer.verifier() == index.origin => Ok(()),
        (StoreRole::Own, Some(signer)) => Err(StoreError::WrongKey {
            expected: index.origin.to_string(),
            got: signer.verifier().to_string(),
        }),
        (StoreRole::Own, None) => Err(StoreError::WrongKey {
            expected: index.origin.to_string(),
            got: "missing".into(),
        }),
        (StoreRole::Mirror, _) => Ok(()),
    }
}

fn refuse(command: Command, error: &StoreError) {
    match command {
        Command::Append { done, .. } => done(Err(error.clone().into())),
        Command::Ingest { done, .. } => done(Err(error.clone())),
        Command::Publish { done } => done(Err(error.clone())),
    }
}

/// Planning reads through the view: look-ups in the index, verified reads of
/// what it points to.
impl PlanState for View {
    fn context(&self, id: &ContextId) -> Option<(u64, Accumulator)> {
        let index = self.index();
        let number = index.number(id)?;
        Some((number, index.context(number)?.after.clone()))
    }

    fn next_number(&self) -> u64 {
        self.index().next_number()
    }

    fn request(&self, number: u64, key: &RequestKey) -> Option<u64> {
        self.index().request(number, key)
    }

    fn entry(&self, number: u64, sequence: u64) -> Result<Entry, StoreError> {
        let missing = || StoreError::Refused("the index names an entry that is not there");
        let id = self
            .index()
            .context(number)
            .map(|c| c.id.clone())
            .ok_or_else(missing)?;
        View::entry(self, &id, sequence)?.ok_or_else(missing)
    }

    fn payload_intact(&self, hash: &Hash) -> Result<bool, StoreError> {
        View::payload_intact(self, hash)
    }
}

struct Writer {
    disk: Arc<dyn Disk>,
    options: StoreOptions,
    signer: Option<SignerKey>,
    queue: Arc<Queue<Command>>,
    failed: Arc<OnceLock<String>>,
    index: Arc<RwLock<Index>>,
    view: View,
    log: LogWriter,
    term: u64,
    next_epoch: u64,
    /// Recovery changed the log: the next head needs a second opinion.
    in_doubt: bool,
    head_at: Instant,
    note_at: Option<Instant>,
    /// A newer note than the one in the file.
    note_due: Option<HeadNote>,
    mark_due: Option<Instant>,
    _lock: Box<dyn DiskLock>,
}

impl Writer {
    #[allow(clippy::too_many_arguments)] // once, from `Store::open`
    fn new(
        disk: Arc<dyn Disk>,
        options: StoreOptions,
        signer: Option<SignerKey>,
        (queue, failed): (Arc<Queue<Command>>, Arc<OnceLock<String>>),
        (index, view): (Arc<RwLock<Index>>, View),
        log: LogWriter,
        mended: &Mended,
        lock: Box<dyn DiskLock>,
    ) -> Self {
        let newest = view.head();
        let head = newest.as_ref().map(SignedHead::head);
        let logged = head.map_or((1, 0), |head| (head.term, head.epoch));
        // `head.note` can only be behind the log or damage, but an epoch is
        // worth a second look: it must never be used twice.
        let noted = mended
            .head_note
            .as_ref()
            .and_then(|note| view.index().open_head(&note.note).ok())
            .map_or(0, |head| head.head().epoch);
        let cut = u64::from(mended.torn_bytes > 0);
        Self {
            disk,
            options,
            signer,
            queue,
            failed,
            index,
            view,
            log,
            term: logged.0,
            next_epoch: logged.1.max(noted).saturating_add(1 + cut),
            in_doubt: mended.was_unclean(),
            head_at: Instant::now(),
            note_at: None,
            note_due: None,
            mark_due: None,
            _lock: lock,
        }
    }

    fn run(mut self) -> Result<(), StoreError> {
        loop {
            let deadline = self.deadline();
            match self
                .queue
                .take(GROUP_REQUESTS_MAX, GROUP_COST_BYTES_MAX, deadline)
            {
                Taken::Some(commands) => self.handle(commands),
                Taken::Idle => (),
                Taken::Closed => break,
            }
            self.timers(Instant::now());
            if self.failed.get().is_some() {
                return self.die();
            }
        }
        self.close()
    }

    /// When the writer must wake although nobody asks it to.
    fn deadline(&self) -> Option<Instant> {
        let note = self
            .note_due
            .as_ref()
            .and(self.note_at)
            .map(|at| at + HEAD_NOTE_EVERY);
        [self.mark_due, self.head_due(), note]
            .into_iter()
            .flatten()
            .min()
    }

    fn head_due(&self) -> Option<Instant> {
        self.signer.as_ref()?;
        let every = self
            .options
            .head_every
            .filter(|_| self.view.index().has_changes());
        let wait = [every, self.options.heartbeat_every]
            .into_iter()
            .flatten()
            .min()?;
        Some(self.head_at + wait)
    }

    fn timers(&mut self, now: Instant) {
        if self.head_due().is_some_and(|at| at <= now)
            && let Err(error) = self.publish()
        {
            // Full disks clear by themselves; anything else has failed the store.
            tracing::warn!(%error, "no head published");
            self.head_at = now;
        }
        if self.note_at.is_none_or(|at| at + HEAD_NOTE_EVERY <= now) {
            self.replace_note(now);
        }
        if self.mark_due.is_some_and(|at| at <= now) {
            self.mark_due = None;
            // Not synced: it vouches as soon as it happens to be durable.
            if let Err(error) = self.log.write(mark()) {
                self.note_failure(error);
            }
        }
    }

    fn handle(&mut self, commands: Vec<Command>) {
        let mut waiting: VecDeque<Command> = commands.into();
        while let Some(command) = waiting.pop_front() {
            if let Some(reason) = self.failed.get() {
                refuse(
                    command,
                    &StoreError::Failed {
                        reason: reason.clone(),
                    },
                );
                continue;
            }
            match command {
                Command::Append { .. } => {
                    waiting.push_front(command);
                    self.append_group(&mut waiting);
                }
                Command::Ingest { .. } => {
                    waiting.push_front(command);
                    self.ingest_group(&mut waiting);
                }
                Command::Publish { done } => done(self.publish()),
            }
        }
    }

    /// Takes all appends at the front into one group.
    fn append_group(&mut self, waiting: &mut VecDeque<Command>) {
        let mut answers: Vec<(AppendDone, Vec<Appended>)> = Vec::new();
        let planned = {
            let mut plan = Plan::new(&self.view, self.options.clock.now_ns());
            while let Some(Command::Append { .. }) = waiting.front() {
                let Some(Command::Append { drafts, done }) = waiting.pop_front() else {
                    break;
                };
                match plan.append(drafts) {
                    Ok(appended) => answers.push((done, appended)),
                    Err(error) => done(Err(error)),
                }
            }
            plan.finish()
        };
        match self.commit(planned) {
            Ok(()) => answers
                .into_iter()
                .for_each(|(done, appended)| done(Ok(appended))),
            Err(error) => {
                answers
                    .into_iter()
                    .for_each(|(done, _)| done(Err(error.clone().into())));
            }
        }
    }

    /// Takes ingests at the front into one group; a completion is a group of
    /// its own, since it is about the state before it.
    fn ingest_group(&mut self, waiting: &mut VecDeque<Command>) {
        let mut answers: Vec<StoreDone> = Vec::new();
        let mut complete = None;
        let planned = {
            let view = self.view.clone();
            let index = view.index();
            let mut plan = IngestPlan::new(&index);
            while let Some(Command::Ingest { .. }) = waiting.front() {
                if plan.len() > GROUP_COST_BYTES_MAX as u64 {
                    break;
                }
                let Some(Command::Ingest { item, done }) = waiting.pop_front() else {
                    break;
                };
                if index.role != StoreRole::Mirror {
                    done(Err(StoreError::Refused("this store is not a mirror")));
                    continue;
                }
                let outcome = match *item {
                    Ingest::Seen(seen) => plan.seen(&seen),
                    Ingest::Span { span, payloads } => plan.span(&span, &payloads),
                    Ingest::Payloads(payloads) => {
                        plan.payloads(&payloads);
                        Ok(())
                    }
                    Ingest::Complete(head) => {
                        complete = Some((head, done));
                        break;
                    }
                };
                match outcome {
                    Ok(()) => answers.push(done),
                    Err(error) => done(Err(error)),
                }
            }
            plan.finish()
        };
        let outcome = self.commit(planned);
        answers.into_iter().for_each(|done| done(outcome.clone()));
        if let Some((head, done)) = complete {
            done(outcome.and_then(|()| self.complete(head)));
        }
    }

    /// A mirror's head whose every context is present.
    fn complete(&mut self, head: SignedHead) -> Result<(), StoreError> {
        self.view
            .index()
            .check_complete(&head)
            .map_err(|_| StoreError::Refused("the head is not complete"))?;
        self.put_head(head)
    }

    /// Makes a group durable, then visible. Nothing is acknowledged before.
    fn commit(&mut self, planned: Planned) -> Result<(), StoreError> {
        if planned.group.is_empty() {
            return Ok(());
        }
        let Planned { group, effects } = planned;
        let start = match self.log.append(group) {
            Ok(start) => start,
            Err(error) => return Err(self.note_failure(error)),
        };
        let effects = Planned::place(effects, start);
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        for effect in effects {
            if let Err(error) = index.apply(effect) {
                drop(index);
                return Err(self.fail(format!("the index refuses its own group: {error}")));
            }
        }
        index.state_end = self.log.end();
        drop(index);
        self.mark_due = Some(Instant::now() + MARK_AFTER);
        Ok(())
    }

    /// Signs a head over everything durable. The order is what makes it safe:
    /// directory computed, note signed, record durable, and only then told.
    fn publish(&mut self) -> Result<SignedHead, StoreError> {
        if self.in_doubt {
            self.second_opinion()?;
            self.in_doubt = false;
        }
        let signer = self
            .signer
            .as_ref()
            .ok_or(StoreError::Refused("a mirror signs no heads"))?;
        let signed = {
            let index = self.view.index();
            let changes: Vec<_> = index
                .changed()
                .map(|c| (c.id.clone(), c.after.size(), c.after.root()))
                .collect();
            let update = index
                .published
                .update(&changes)
                .map_err(|error| StoreError::Failed {
                    reason: error.to_string(),
                })?;
            let before = index.published.head().map_or(0, |head| head.head().time_ns);
            let head = Head {
                origin: signer.verifier().name().clone(),
                term: self.term,
                epoch: self.next_epoch,
                directory_root: update.root,
                contexts: update.sums.contexts,
                entries: update.sums.entries,
                time_ns: self.options.clock.now_ns().max(before),
                rotation: None,
            };
            // Whatever happens next, this epoch has been signed.
            self.next_epoch = self.next_epoch.saturating_add(1);
            let note = sign_head(&head, signer).map_err(|error| StoreError::Failed {
                reason: error.to_string(),
            })?;
            index.open_head(&note).map_err(|error| StoreError::Failed {
                reason: error.to_string(),
            })?
        };
        self.put_head(signed.clone())?;
        Ok(signed)
    }

    /// Writes a head record as a group of its own, and `head.note` when due.
    fn put_head(&mut self, head: SignedHead) -> Result<(), StoreError> {
        let covered = self.view.index().state_end;
        let note = head.note_bytes();
        let mut group = Group::new();
        let (offset, body_len) =
            group.add(RecordType::Head, |out| body::put_head(covered, &note, out));
        let effects = vec![(offset, body_len, Effect::Head(Box::new(head)))];
        self.commit(Planned::new(group, effects))?;
        let now = Instant::now();
        self.head_at = now;
        let (position, chain) = (self.log.end(), self.log.chain());
        self.note_due = Some(HeadNote {
            position,
            chain,
            note,
        });
        if self.note_at.is_none_or(|at| at + HEAD_NOTE_EVERY <= now) {
            self.replace_note(now);
        }
        Ok(())
    }

    /// A `head.note` that cannot be replaced is behind, which is safe.
    fn replace_note(&mut self, now: Instant) {
        let Some(note) = self.note_due.take() else {
            return;
        };
        self.note_at = Some(now);
        if let Err(error) = note.replace(&*self.disk) {
            tracing::warn!(%error, "head.note not replaced");
            self.note_due = Some(note);
        }
    }

    /// Contexts that grew since the last head are recomputed by rs_merkle from
    /// the headers as they can be read back now.
    fn second_opinion(&mut self) -> Result<(), StoreError> {
        let changed: Vec<(ContextId, u64, Hash)> = {
            let index = self.view.index();
            index
                .changed()
                .map(|c| (c.id.clone(), c.after.size(), c.after.root()))
                .collect()
        };
        for (id, size, root) in changed {
            if size > SECOND_OPINION_ENTRIES_MAX {
                continue;
            }
            let leaves = self.view.all_leaves(&id, size)?;
            if leaves.len() as u64 != size || root_by_rs_merkle(&leaves) != root {
                let reason = format!("context {id:?} has two roots in two implementations");
                return Err(self.fail(reason));
            }
        }
        Ok(())
    }

    /// Turns a failed write into an answer, failing the store unless the disk
    /// is merely full.
    fn note_failure(&mut self, error: WriteError) -> StoreError {
        match error {
            WriteError::Full(error) => {
                tracing::warn!(%error, "disk full: a group was refused");
                StoreError::DiskFull
            }
            WriteError::Failed { what, error } => self.fail(format!("{what}: {error}")),
        }
    }

    /// Fail-stop: from here nothing is acknowledged. The mark tells the next
    /// open that pages may be marked clean that never reached the disk.
    fn fail(&mut self, reason: String) -> StoreError {
        tracing::error!(%reason, "the store has failed");
        let _ = self.disk.create(FAILED_FILE);
        StoreError::Failed {
            reason: self.failed.get_or_init(|| reason).clone(),
        }
    }

    /// Refuses everything that still waits.
    fn die(self) -> Result<(), StoreError> {
        self.queue.close();
        let reason = self.failed.get().cloned().unwrap_or_default();
        let error = StoreError::Failed { reason };
        while let Taken::Some(commands) = self.queue.take(usize::MAX, usize::MAX, None) {
            commands
                .into_iter()
                .for_each(|command| refuse(command, &error));
        }
        Err(error)
    }

    fn close(mut self) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        if self.signer.is_some() {
            let due = {
                let index = self.view.index();
                index.has_changes() || index.published.head().is_none()
            };
            if due {
                outcome = self.publish().map(|_| ());
            }
        }
        self.replace_note(Instant::now());
        // The voucher for everything before it; durable with the last sync.
        if self.mark_due.is_some()
            && let Err(error) = self.log.write(mark())
        {
            outcome = outcome.and(Err(self.note_failure(error)));
        }
        if self.failed.get().is_none()
            && let Err(error) = self.log.close()
        {
            outcome = outcome.and(Err(self.note_failure(error)));
        }
        outcome
    }
}

fn mark() -> Group {
    let mut group = Group::new();
    group.add(RecordType::Mark, |_| ());
    group
}
