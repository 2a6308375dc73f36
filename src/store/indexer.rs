//! The thread that keeps the index on disk in step: it folds frozen tails into
//! it, off the way of appends, and makes it anew beside the running store when
//! it is lost.
//!
//! ```text
//! writer  -- frozen tail -->  [mailbox]  --> fold --> take over as base
//! readers -- "it is wrong" ->             --> rebuild to the covered place
//! ```
//!
//! Invariants:
//! * nothing waits for this thread but closing: when it falls behind, the tail
//!   fills, and then appends are refused, or wait if their caller chose to;
//! * after any error the file is thrown away, never looked at again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::index::base::Lose;
use super::index::filter::RequestFilter;
use super::index::{Base, Cover, FoldJob, Index};
use super::keeper::Keeper;
use super::queue::{Hold, Queue};
use super::{Clock, StoreError};

/// The first pause after an index could not be made, doubled each time. Tests
/// have no time.
const RETRY_FIRST: Duration = Duration::from_millis(if cfg!(test) { 2 } else { 500 });
/// The longest such pause.
const RETRY_LAST: Duration = Duration::from_mins(1);

/// What has arrived for the thread.
#[derive(Debug, Default)]
struct Mail {
    job: Option<FoldJob>,
    /// Which file, and why.
    lost: Option<(u64, String)>,
    stop: bool,
    /// The thread has ended.
    gone: bool,
}

/// What the thread does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Doing {
    #[default]
    Nothing,
    Something,
    /// It waits before it tries again.
    Pausing,
}

/// Where tails, complaints and the end arrive.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    mail: Mutex<(Mail, Doing)>,
    changed: Condvar,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, (Mail, Doing)> {
        // Every change is one assignment.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a frozen tail over. There is one at a time.
    pub(crate) fn fold(&self, job: FoldJob) {
        let mut state = self.lock();
        state.0.job = Some(job);
        Self::arrived(state);
        self.changed.notify_all();
    }

    /// There is something to do, if there is anyone to do it.
    fn arrived(mut state: MutexGuard<'_, (Mail, Doing)>) {
        if !state.0.gone {
            state.1 = Doing::Something;
        }
    }

    /// Waits until everything handed over is folded, or cannot be for now.
    pub(crate) fn settle(&self) {
        let mut state = self.lock();
        while state.1 == Doing::Something {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until `done`, a minute at most; true if it came to that.
    #[cfg(test)]
    pub(crate) fn wait_until(&self, done: impl Fn() -> bool) -> bool {
        let until = Instant::now() + Duration::from_mins(1);
        // Without the lock: `done` may want others.
        while !done() {
            if Instant::now() > until {
                return false;
            }
            let state = self.lock();
            drop(self.changed.wait_timeout(state, Duration::from_millis(5)));
        }
        true
    }

    fn stop(&self) {
        self.lock().0.stop = true;
        self.changed.notify_all();
    }

    /// The thread is gone: nobody waits for it.
    fn done(&self) {
        {
            let mut state = self.lock();
            state.0.gone = true;
            state.1 = Doing::Nothing;
        }
        self.changed.notify_all();
    }

    /// Takes what has arrived; waits for it until `until`, or for ever.
    fn take(&self, until: Option<Instant>) -> Mail {
        let mut state = self.lock();
        loop {
            let (mail, doing) = &mut *state;
            if mail.job.is_some() || mail.lost.is_some() || mail.stop {
                *doing = Doing::Something;
                return Mail {
                    job: mail.job.take(),
                    lost: mail.lost.take(),
                    ..*mail
                };
            }
            let now_doing = match until {
                Some(_) => Doing::Pausing,
                None => Doing::Nothing,
            };
            if *doing != now_doing {
                *doing = now_doing;
                self.changed.notify_all();
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                *doing = Doing::Something;
                return Mail::default();
            }
            state = match left {
                None => self.changed.wait(state),
                Some(left) => self
                    .changed
                    .wait_timeout(state, left)
                    .map(|(state, _)| state)
                    .map_err(|poisoned| PoisonError::new(poisoned.into_inner().0)),
            }
            .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Lose for Mailbox {
    fn lose(&self, file: u64, reason: &str) {
        let mut state = self.lock();
        let mail = &mut state.0;
        if mail.lost.as_ref().is_none_or(|(known, _)| *known < file) {
            mail.lost = Some((file, reason.to_owned()));
        }
        Self::arrived(state);
        self.changed.notify_all();
    }
}

/// How appends are let in while the tail is as full as this.
pub(crate) fn hold(index: &Index, tail_bytes_max: usize) -> Hold {
    if index.tail_bytes() < tail_bytes_max {
        Hold::Open
    } else if index.stalled {
        Hold::Refuse
    } else {
        Hold::Wait
    }
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct Indexer {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread works on.
pub(crate) struct Work<C> {
    pub(crate) keeper: Keeper,
    pub(crate) index: Arc<RwLock<Index>>,
    pub(crate) queue: Arc<Queue<C>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tail_bytes_max: usize,
    pub(crate) mailbox: Arc<Mailbox>,
    /// What the base covers, if there is one.
    pub(crate) covered: Option<Cover>,
    pub(crate) filter: Arc<RequestFilter>,
}

impl Indexer {
    pub(crate) fn start<C: Send + 'static>(work: Work<C>) -> Result<Self, StoreError> {
        let mailbox = work.mailbox.clone();
        let thread = thread::Builder::new()
            .name("ledger-indexer".into())
            .spawn(move || {
                let _done = Done(work.mailbox.clone());
                work.run();
            })
            .map_err(|error| StoreError::io("start the indexer", error))?;
        Ok(Self {
            mailbox,
            thread: Some(thread),
        })
    }

    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// See [`Mailbox::settle`].
    pub(crate) fn settle(&self) {
        self.mailbox.settle();
    }
}

impl Drop for Indexer {
    /// Ends the thread when it has done what it was handed.
    fn drop(&mut self) {
        self.mailbox.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the indexer panicked; the index will be made anew");
        }
    }
}

/// However the thread ends, nobody waits for it any more.
struct Done(Arc<Mailbox>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.done();
    }
}

impl<C> Work<C> {
    /// From here on new request ids need no look at what is on disk.
    fn fill_filter(&self) {
        let base = self.read().below.base.clone();
        let filled = match &base {
            Base::Ready(reader) => reader.noting(reader.fill(&self.filter)),
            Base::Empty => Ok(true),
            Base::Lost => Ok(false),
        };
        if matches!(filled, Ok(true)) {
            self.filter.complete();
        }
    }

    fn run(mut self) {
        self.fill_filter();
        let mut job: Option<FoldJob> = None;
        let mut lost = false;
        let mut pause = RETRY_FIRST;
        loop {
            let waits = lost || job.is_some();
            let mail = self.mailbox.take(waits.then(|| Instant::now() + pause));
            // Who still reads an older file complains of what is gone already.
            if let Some((file, reason)) = mail.lost
                && !lost
                && file == self.keeper.file()
            {
                self.lose(&reason);
                lost = true;
            }
            job = mail.job.or(job);
            if lost {
                if mail.stop {
                    return;
                }
                match self.rebuild() {
                    Ok(()) => lost = false,
                    Err(error) => {
                        tracing::warn!(%error, "the index could not be made anew");
                        // What there is of it only takes up space.
                        self.discard();
                        pause = (pause * 2).min(RETRY_LAST);
                        continue;
                    }
                }
            }
            if let Some(folding) = &job {
                match self.fold(folding) {
                    Ok(()) => (job, pause) = (None, RETRY_FIRST),
                    // A disk that is full enough for a rebuild and not for a
                    // fold would have the log read over and over.
                    Err(reason) => {
                        self.lose(&reason);
                        lost = true;
                        pause = (pause * 2).min(RETRY_LAST);
                    }
                }
            }
            if mail.stop {
                return;
            }
        }
    }

    fn fold(&mut self, job: &FoldJob) -> Result<(), String> {
        let role = self.read().role;
        for (number, key) in job.tail.requests.keys() {
            self.filter.add(*number, key);
        }
        let base = self.keeper.fold(job, role).map_err(|e| e.to_string())?;
        self.keeper.name().map_err(|e| e.to_string())?;
        self.covered = Some(job.state.cover);
        self.change(|index| {
            index.folded(base);
            index.stalled = false;
        });
        Ok(())
    }

    /// What is on disk cannot be trusted any more.
    fn lose(&mut self, reason: &str) {
        tracing::error!(%reason, "the index is lost and will be made anew from the log");
        let base = match self.covered {
            Some(_) => Base::Lost,
            None => Base::Empty,
        };
        self.change(|index| {
            index.below.base = base;
            index.stalled = true;
        });
        self.discard();
    }

    fn discard(&mut self) {
        if let Err(error) = self.keeper.discard() {
            tracing::warn!(%error, "the lost index was not removed");
        }
    }

    /// Makes what was covered anew; nothing, if nothing was.
    fn rebuild(&mut self) -> Result<(), StoreError> {
        let now_ns = self.clock.now_ns();
        let Some(cover) = self.covered else {
            // The next fold makes it, or fails as this one did.
            return self.keeper.discard();
        };
        let base = self.keeper.rebuild(cover, now_ns)?;
        self.change(|index| {
            index.below.base = base;
            index.stalled = false;
        });
        tracing::info!("the index is whole again");
        Ok(())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Index)) {
        {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            change(&mut index);
            // Under the lock: the writer's word may not come between.
            self.queue.hold(hold(&index, self.tail_bytes_max));
        }
        // The next tail may be waiting to be folded.
        self.queue.nudge();
    }
}
