//! The bounded queue in front of the writer: by number of requests and by the
//! bytes they hold, so that memory is bounded whatever callers do.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Requests that may wait.
pub(crate) const QUEUE_REQUESTS_MAX: usize = 4096;
/// Bytes that may wait: 64 MiB.
pub(crate) const QUEUE_BYTES_MAX: usize = 64 << 20;

/// What the writer finds when it looks.
pub(crate) enum Taken<T> {
    /// Requests in order of arrival.
    Some(Vec<T>),
    /// Nothing came before the deadline, or before a nudge.
    Idle,
    /// The queue is closed and empty.
    Closed,
}

/// Why a request was not queued; it is given back.
pub(crate) enum Refused<T> {
    Full(T),
    /// The index has fallen too far behind.
    Behind(T),
    Closed(T),
}

/// How requests that make the index grow are let in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Hold {
    #[default]
    Open,
    /// They wait, or are refused if they will not.
    Wait,
    /// They are refused: nobody can say for how long.
    Refuse,
}

struct State<T> {
    waiting: VecDeque<(usize, T)>,
    bytes: usize,
    hold: Hold,
    closed: bool,
    /// The writer is to look around although nothing came.
    nudged: bool,
    /// Threads that wait for a change; waking nobody costs a call of the system
    /// all the same.
    asleep: usize,
}

/// A queue of requests with their cost in bytes.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queue")
    }
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                bytes: 0,
                hold: Hold::Open,
                closed: false,
                nudged: false,
                asleep: 0,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic elsewhere leaves the queue whole: every change is one push or
        // pop with its counters.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, until `deadline` if there is one.
    fn sleep<'q>(
        &self,
        mut state: MutexGuard<'q, State<T>>,
        deadline: Option<Duration>,
    ) -> MutexGuard<'q, State<T>> {
        state.asleep += 1;
        let mut state = match deadline {
            None => self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
            Some(left) => {
                let woken = self.changed.wait_timeout(state, left);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.asleep -= 1;
        state
    }

    /// Says that something has changed.
    fn wake(&self, state: MutexGuard<'_, State<T>>) {
        let anybody = state.asleep > 0;
        drop(state);
        if anybody {
            self.changed.notify_all();
        }
    }

    /// Queues a request; waits for room if `wait`. A request that is larger
    /// than the queue's bound is taken when the queue is empty. One that costs
    /// nothing is never held.
    pub(crate) fn push(&self, cost: usize, item: T, wait: bool) -> Result<(), Refused<T>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Err(Refused::Closed(item));
            }
            let held = state.hold != Hold::Open && cost > 0;
            if held && (state.hold == Hold::Refuse || !wait) {
                return Err(Refused::Behind(item));
            }
            let fits = state.waiting.len() < QUEUE_REQUESTS_MAX
                && state.bytes.saturating_add(cost) <= QUEUE_BYTES_MAX;
            if !held && (fits || state.waiting.is_empty()) {
                break;
            }
            if !wait {
                return Err(Refused::Full(item));
            }
            state = self.sleep(state, None);
        }
        state.waiting.push_back((cost, item));
        state.bytes = state.bytes.saturating_add(cost);
        self.wake(state);
        Ok(())
    }

    /// Takes what waits, up to `count_max` requests and about `bytes_max`
    /// bytes, waiting until `deadline` for the first.
    pub(crate) fn take(
        &self,
        count_max: usize,
        bytes_max: usize,
        deadline: Option<Instant>,
    ) -> Taken<T> {
        let mut state = self.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            if std::mem::take(&mut state.nudged) {
                return Taken::Idle;
            }
            let Some(deadline) = deadline else {
                state = self.sleep(state, None);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Taken::Idle;
            }
            state = self.sleep(state, Some(left));
        }
        let mut taken = Vec::new();
        let mut bytes = 0usize;
        while taken.len() < count_max {
            let Some((cost, _)) = state.waiting.front() else {
                break;
            };
            if !taken.is_empty() && bytes.saturating_add(*cost) > bytes_max {
                break;
            }
            if let Some((cost, item)) = state.waiting.pop_front() {
                bytes = bytes.saturating_add(cost);
                state.bytes = state.bytes.saturating_sub(cost);
                taken.push(item);
            }
        }
        self.wake(state);
        Taken::Some(taken)
    }

    /// Says how requests are let in from now on.
    pub(crate) fn hold(&self, hold: Hold) {
        let mut state = self.lock();
        if state.hold != hold {
            state.hold = hold;
            self.wake(state);
        }
    }

    /// Lets the writer look around, although nothing came.
    pub(crate) fn nudge(&self) {
        let mut state = self.lock();
        state.nudged = true;
        self.wake(state);
    }

    /// Refuses requests from now on; those that wait are still taken.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.wake(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_and_order_is_kept() {
        let queue = Queue::new();
        assert!(queue.push(QUEUE_BYTES_MAX + 1, 0, false).is_ok());
        assert!(matches!(queue.push(1, 1, false), Err(Refused::Full(1))));
        assert!(matches!(queue.take(9, 9, None), Taken::Some(v) if v == [0]));
        for i in 0..QUEUE_REQUESTS_MAX {
            assert!(queue.push(1, i, false).is_ok());
        }
        assert!(matches!(queue.push(1, 1, false), Err(Refused::Full(1))));
        assert!(matches!(queue.take(2, 100, None), Taken::Some(v) if v == [0, 1]));
        assert!(matches!(queue.take(100, 3, None), Taken::Some(v) if v == [2, 3, 4]));
        queue.close();
        assert!(matches!(queue.push(1, 1, true), Err(Refused::Closed(1))));
        assert!(matches!(
            queue.take(usize::MAX, usize::MAX, None),
            Taken::Some(_)
        ));
        assert!(matches!(queue.take(1, 1, None), Taken::Closed));
    }

    #[test]
    fn an_idle_queue_returns_at_its_deadline() {
        let queue = Queue::<u8>::new();
        assert!(matches!(
            queue.take(1, 1, Some(Instant::now())),
            Taken::Idle
        ));
        queue.nudge();
        assert!(matches!(queue.take(1, 1, None), Taken::Idle));
    }
}
