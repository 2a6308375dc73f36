//! The one thread that writes: takes what waits, plans a group, makes it
//! durable, makes it visible, answers, and signs.
//!
//! What a crash leaves, step by step (`spec/05-store.md`, Crash analysis):
//! * before the group is written: nothing;
//! * while it is written or synced: all of it, or a torn tail that is cut;
//! * after the sync: the group, whether or not anyone was answered;
//! * a head that was signed and not synced was told to no one. Opening starts one
//!   epoch above the highest in the log, and two above if anything was cut, which
//!   may have been it; if nothing of it is left, its epoch is signed again.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::body::StoreRole;
use super::disk::{Disk, DiskLock};
use super::frozen::Freezing;
use super::growth::Growth;
use super::guard::Past;
use super::handle::{AppendDone, Command, StoreDone, refuse};
use super::hasher::Hasher;
use super::head_note::HeadNote;
use super::index::Index;
use super::indexer::{Indexer, hold};
use super::ingest::{IngestPlan, ingest_cost};
use super::log::{LogWriter, WriteError};
use super::pace::Pace;
use super::plan::{Answer, Hashed, Plan, Planned};
use super::publish::HEAD_NOTE_EVERY;
use super::queue::{Queue, Taken};
use super::record::{Group, RecordType};
use super::recover::{FAILED_FILE, Mended};
use super::view::View;
use super::{Change, Listener, StoreError, StoreOptions};
use crate::head::SignedHead;
use crate::ledger::Ingest;
use crate::note::SignerKey;

/// Requests taken into one group.
const GROUP_REQUESTS_MAX: usize = 1024;
/// Bytes of requests taken into one group, and of a single request.
pub(super) const GROUP_COST_BYTES_MAX: usize = 16 << 20;
/// Bytes of a mirror's group: while one is written and synced, what is to be in
/// the next ones arrives and is verified.
const INGEST_GROUP_BYTES: u64 = 4 << 20;
/// Quiet after which a group gets a voucher.
const MARK_AFTER: Duration = Duration::from_millis(100);

/// Pause after a head that folding needed could not be published.
const FOLD_RETRY: Duration = Duration::from_secs(1);
/// After a head could not be published for those who follow.
const HEAD_RETRY: Duration = Duration::from_secs(1);

/// Where requests come from, and what ends that.
pub(super) type Stops = (Arc<Queue<Command>>, Arc<OnceLock<String>>, Arc<Freezing>);

pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: StoreOptions,
    pub(super) signer: Option<SignerKey>,
    pub(super) queue: Arc<Queue<Command>>,
    pub(super) failed: Arc<OnceLock<String>>,
    pub(super) frozen: Arc<Freezing>,
    pub(super) index: Arc<RwLock<Index>>,
    pub(super) view: View,
    pub(super) indexer: Indexer,
    /// When the tail is folded next, if anything changes.
    pub(super) fold_at: Instant,
    /// Folding needed a head that could not be published.
    fold_not_before: Instant,
    pub(super) log: LogWriter,
    hasher: Hasher,
    pub(super) term: u64,
    pub(super) next_epoch: u64,
    /// Recovery changed the log: the next head needs a second opinion.
    pub(super) in_doubt: bool,
    /// Recovery cut what may have been a signed head, or `head.note` is gone; the
    /// epoch that was skipped for it is forgotten unless a later one becomes
    /// durable.
    pub(super) epoch_at_stake: bool,
    pub(super) head_at: Instant,
    /// How often heads may follow each other for those who follow.
    pub(super) pace: Pace,
    /// After a head could not be published.
    head_not_before: Instant,
    pub(super) note_at: Option<Instant>,
    /// A newer note than the one in the file.
    pub(super) note_due: Option<HeadNote>,
    /// `head.note` is durable, or there is nothing to be in it.
    pub(super) note_there: bool,
    pub(super) mark_due: Option<Instant>,
    pub(super) _lock: Box<dyn DiskLock>,
}

impl Writer {
    #[allow(clippy::too_many_arguments)] // once, from `StoreOpening`
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        options: StoreOptions,
        signer: Option<SignerKey>,
        (queue, failed, frozen): Stops,
        (index, view, indexer): (Arc<RwLock<Index>>, View, Indexer),
        log: LogWriter,
        (mended, past): (&Mended, Past),
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
            .and_then(|note| view.index().chain.open_any(&note.note))
            .map_or(0, |head| head.head().epoch);
        let own = signer.is_some();
        let lost = own && past.note_lost;
        let skip = u64::from(mended.torn_bytes > 0 || lost);
        let fold_at = later(Instant::now(), options.checkpoint_every);
        Self {
            disk,
            options,
            signer,
            queue,
            failed,
            frozen,
            index,
            view,
            indexer,
            fold_at,
            fold_not_before: Instant::now(),
            log,
            hasher: Hasher::default(),
            term: logged.0,
            next_epoch: logged.1.max(noted).saturating_add(1 + skip),
            in_doubt: mended.was_unclean(),
            epoch_at_stake: skip > 0 && own,
            head_at: Instant::now(),
            pace: Pace::new(Instant::now()),
            head_not_before: Instant::now(),
            note_at: None,
            note_there: mended.head_note.is_some(),
            // Not before a head has been published for the loss: a crash until
            // then is to raise the alarm once more.
            note_due: past.note_missing.filter(|_| !lost),
            mark_due: None,
            _lock: lock,
        }
    }

    pub(super) fn run(mut self) -> Result<(), StoreError> {
        let _watch = Watch {
            queue: self.queue.clone(),
            failed: self.failed.clone(),
            listener: self.options.listener.clone(),
        };
        self.replace_note(Instant::now());
        if self.epoch_at_stake
            && let Err(error) = self.publish()
        {
            tracing::warn!(%error, "no head published after a recovery that cut");
        }
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
            if self.frozen.get().is_some() {
                return self.end_frozen();
            }
            self.timers(Instant::now());
            self.fold_if_due(Instant::now());
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
        let fold = {
            let index = self.view.index();
            // While one is under way its end is waited for, which nudges.
            (index.is_dirty() && index.below.frozen.is_none())
                .then_some(self.fold_at.max(self.fold_not_before))
        };
        [self.mark_due, self.head_due(), note, fold]
            .into_iter()
            .flatten()
            .min()
    }

    fn head_due(&self) -> Option<Instant> {
        self.signer.as_ref()?;
        let changed = self.view.index().has_changes();
        let followers = self.options.followers.as_ref();
        if changed && followers.is_some_and(|followers| followers.count() > 0) {
            return Some(self.pace.next().max(self.head_not_before));
        }
        let every = self.options.head_every.filter(|_| changed);
        let wait = [every, self.options.heartbeat_every]
            .into_iter()
            .flatten()
            .min()?;
        // Beyond the end of time is never.
        self.head_at.checked_add(wait)
    }

    fn timers(&mut self, now: Instant) {
        if self.head_due().is_some_and(|at| at <= now)
            && let Err(error) = self.publish()
        {
            // Full disks clear by themselves; anything else has failed the store.
            tracing::warn!(%error, "no head published");
            self.head_at = now;
            self.head_not_before = later(now, HEAD_RETRY);
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
            if let Some(error) = self.stopped() {
                refuse(command, &error);
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
                Command::Load { step, done } => done(self.load(step)),
                Command::Publish { done } => done(self.publish()),
                Command::Rotate { new, done } => done(self.rotate(*new)),
                Command::Resolve {
                    evidence,
                    root,
                    done,
                } => done(self.resolve(evidence, root)),
            }
        }
    }

    /// Takes all appends at the front into one group.
    fn append_group(&mut self, waiting: &mut VecDeque<Command>) {
        let mut answers: Vec<(AppendDone, Vec<Answer>)> = Vec::new();
        let mut planned = {
            let memory = self.log.take_spare();
            let mut plan = Plan::new(&self.view, self.options.clock.now_ns(), memory);
            while let Some(Command::Append { .. }) = waiting.front() {
                let Some(Command::Append { drafts, done }) = waiting.pop_front() else {
                    break;
                };
                match plan.append(drafts) {
                    Ok(answer) => answers.push((done, answer)),
                    Err(error) => done(Err(error)),
                }
            }
            plan.finish()
        };
        // Freed when everyone has been answered.
        let _spent = std::mem::take(&mut planned.spent);
        match self.commit(planned) {
            Ok(hashed) => {
                for (done, answer) in answers {
                    match hashed.fill(answer) {
                        Some(appended) => done(Ok(appended)),
                        None => done(Err(self.fail("an answer lacks its id".into()).into())),
                    }
                }
            }
            Err(error) => {
                for (done, _) in answers {
                    done(Err(error.clone().into()));
                }
            }
        }
    }

    /// Takes spans at the front into one group. Everything else is a group of
    /// its own: it is about the state before it.
    fn ingest_group(&mut self, waiting: &mut VecDeque<Command>) {
        let mut answers: Vec<StoreDone> = Vec::new();
        let mut head = None;
        let planned = {
            let view = self.view.clone();
            let index = view.index();
            let mut plan = IngestPlan::new(&index, self.log.take_spare());
            while let Some(Command::Ingest { .. }) = waiting.front() {
                // What waits goes into the next group, unless this one is empty.
                if let Some(Command::Ingest { item, .. }) = waiting.front()
                    && plan.len() > 0
                    && plan.len() + ingest_cost(item) as u64 > INGEST_GROUP_BYTES
                {
                    break;
                }
                let Some(Command::Ingest { item, notes, done }) = waiting.pop_front() else {
                    break;
                };
                let outcome = if index.role == StoreRole::Mirror {
                    match *item {
                        Ingest::Span { span, payloads } => plan.span(span, notes, &payloads),
                        Ingest::Payloads(payloads) => plan.payloads(&payloads),
                        alone => {
                            head = Some((alone, done));
                            break;
                        }
                    }
                } else {
                    Err(StoreError::Refused("this store is not a mirror"))
                };
                match outcome {
                    Ok(()) => answers.push(done),
                    Err(error) => done(Err(error)),
                }
            }
            plan.finish()
        };
        let outcome = self.commit(planned).map(|_| ());
        for done in answers {
            done(outcome.clone());
        }
        match head {
            Some((Ingest::Seen(seen), done)) => done(outcome.and_then(|()| self.seen(&seen))),
            Some((Ingest::Complete(head), done)) => {
                done(outcome.and_then(|()| self.complete(head)));
            }
            Some((Ingest::Rotation(head), done)) => {
                done(outcome.and_then(|()| self.note(&head)));
            }
            Some((Ingest::Evidence(evidence), done)) => {
                done(outcome.and_then(|()| self.evidence(&evidence)));
            }
            _ => (),
        }
    }

    /// Makes a group durable, then visible. Nothing is acknowledged before. Its
    /// leaves are hashed meanwhile: no byte of it depends on them.
    pub(super) fn commit(&mut self, planned: Planned) -> Result<Hashed, StoreError> {
        let Planned {
            group,
            mut effects,
            unhashed,
            touched,
            ..
        } = planned;
        if let Some(frozen) = self.frozen.get() {
            return Err(frozen.into());
        }
        let hashing = self.hasher.start(unhashed, group.len());
        let start = if group.is_empty() {
            self.log.end()
        } else {
            match self.log.append(group) {
                Ok(start) => start,
                Err(error) => return Err(self.note_failure(error)),
            }
        };
        let Some(mut hashed) = hashing.finish() else {
            return Err(self.fail("a group is not what was planned".into()));
        };
        effects.append(&mut hashed.effects);
        if effects.is_empty() {
            return Ok(hashed);
        }
        let effects = Planned::place(effects, start);
        let listener = self.options.listener.clone();
        let growth = listener.map(|l| (l, Growth::of(&effects, self.view.role())));
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        // So that no effect needs to look at what is on disk.
        index.adopt(touched);
        for effect in effects {
            if let Err(error) = index.apply(effect) {
                drop(index);
                return Err(self.fail(format!("the index refuses its own group: {error}")));
            }
        }
        index.set_cover(self.log.cover());
        // Under the lock: the indexer's word may not come between.
        self.queue.hold(hold(&index, self.options.tail_bytes_max));
        let grown = growth.map(|(listener, growth)| (listener, growth.named(&index)));
        drop(index);
        if let Some((listener, grown)) = grown {
            grown.tell(&listener);
        }
        self.mark_due = Some(Instant::now() + MARK_AFTER);
        Ok(hashed)
    }

    /// Freezes the tail and hands it to be folded, when it is time or it has
    /// grown. An own store needs a head first: what is on disk is what a head
    /// commits to.
    fn fold_if_due(&mut self, now: Instant) {
        let (due, unsigned) = {
            let index = self.view.index();
            let grown = index.has_grown(self.options.fold_bytes());
            let due = index.is_dirty() && (grown || self.fold_at <= now);
            let due = due && self.fold_not_before <= now;
            (
                due && index.below.frozen.is_none(),
                index.has_changes() || index.published.head().is_none(),
            )
        };
        if self.fold_at <= now {
            self.fold_at = later(now, self.options.checkpoint_every);
        }
        if !due || self.failed.get().is_some() {
            return;
        }
        if unsigned
            && self.signer.is_some()
            && let Err(error) = self.publish()
        {
            tracing::warn!(%error, "no head published, so nothing is folded into the index");
            self.fold_not_before = later(now, FOLD_RETRY);
            return;
        }
        self.fold();
    }

    fn fold(&mut self) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if index.may_freeze() {
            let job = index.freeze(self.log.store_id(), self.options.clock.now_ns());
            drop(index);
            self.indexer.mailbox().fold(job);
        }
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
    pub(super) fn fail(&mut self, reason: String) -> StoreError {
        tracing::error!(%reason, "the store has failed");
        let _ = self.disk.create(FAILED_FILE);
        let reason = self.failed.get_or_init(|| reason).clone();
        if let Some(listener) = &self.options.listener {
            (listener.0)(Change::Failed);
        }
        StoreError::Failed { reason }
    }

    /// Why nothing is stored any more, if that is so.
    pub(super) fn stopped(&self) -> Option<StoreError> {
        let frozen = self.frozen.get().map(StoreError::from);
        let failed = || {
            let reason = self.failed.get()?.clone();
            Some(StoreError::Failed { reason })
        };
        frozen.or_else(failed)
    }

    /// Frozen: whoever listens hears it, and nothing is written any more, not
    /// even what a clean close would write.
    fn end_frozen(self) -> Result<(), StoreError> {
        if let Some(listener) = &self.options.listener {
            (listener.0)(Change::Failed);
        }
        self.die()
    }

    /// Refuses everything that still waits.
    fn die(self) -> Result<(), StoreError> {
        let error = self.stopped().unwrap_or(StoreError::Closed);
        refuse_all(&self.queue, &error);
        Err(error)
    }

    fn close(mut self) -> Result<(), StoreError> {
        if self.frozen.get().is_some() {
            return self.end_frozen();
        }
        let mut outcome = Ok(());
        if self.signer.is_some() {
            let due = {
                let index = self.view.index();
                self.epoch_at_stake || index.has_changes() || index.published.head().is_none()
            };
            if due {
                outcome = self.publish().map(|_| ());
            }
        }
        self.replace_note(Instant::now());
        // The voucher for everything before it; durable with the last sync.
        if self.mark_due.is_some()
            && self.frozen.get().is_none()
            && let Err(error) = self.log.write(mark())
        {
            outcome = outcome.and(Err(self.note_failure(error)));
        }
        if self.failed.get().is_none()
            && let Err(error) = self.log.close()
        {
            outcome = outcome.and(Err(self.note_failure(error)));
        }
        // The tail that is being folded is waited for, and then the last one.
        if self.failed.get().is_none() {
            self.indexer.settle();
            self.fold();
            self.indexer.settle();
        }
        outcome
    }
}

impl Drop for Writer {
    /// The lock goes after this.
    fn drop(&mut self) {
        self.frozen.wait_for_file();
    }
}

/// Beyond the end of time is in a year.
fn later(now: Instant, wait: Duration) -> Instant {
    const YEAR: Duration = Duration::from_hours(365 * 24);
    now.checked_add(wait.min(YEAR)).unwrap_or(now)
}

fn refuse_all(queue: &Queue<Command>, error: &StoreError) {
    queue.close();
    while let Taken::Some(commands) = queue.take(usize::MAX, usize::MAX, None) {
        for command in commands {
            refuse(command, error);
        }
    }
}

/// A writer that panics (an answer may, it is the caller's) leaves nobody
/// waiting for it.
struct Watch {
    queue: Arc<Queue<Command>>,
    failed: Arc<OnceLock<String>>,
    listener: Option<Listener>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let reason = self.failed.get_or_init(|| "the writer panicked".into());
        let error = StoreError::Failed {
            reason: reason.clone(),
        };
        // An answer that panics now would end the process.
        let refuse = std::panic::AssertUnwindSafe(|| {
            refuse_all(&self.queue, &error);
            if let Some(listener) = &self.listener {
                (listener.0)(Change::Failed);
            }
        });
        let _ = std::panic::catch_unwind(refuse);
    }
}

fn mark() -> Group {
    let mut group = Group::new();
    group.add(RecordType::Mark, |_| ());
    group
}
