//! Layer 4. Wakes watchers: a store's listener on one side, the watchers of
//! each of its contexts on the other. It carries no entries, so nothing can be lost,
//! queued or doubled here: who is woken looks at the store.
//!
//! Invariants:
//! * a watcher takes its seat before it looks, and marks what it has heard as
//!   heard before it looks: whatever becomes visible later wakes it;
//! * a context is listed while somebody watches it, and not longer;
//! * the writer's thread waits for nothing but the lock of a table, and not
//!   even for that while nobody watches.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::entry::ContextId;
use crate::store::{Change, Listener};

/// Whether there is a point in watching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// The store has failed.
    Failed,
    /// The server is shutting down.
    Closing,
}

/// See the module. Clones share it.
#[derive(Clone)]
pub(super) struct Hub(Arc<Shared>);

struct Shared {
    watchers: AtomicUsize,
    contexts: Mutex<HashMap<ContextId, Watched>>,
    phase: watch::Sender<Phase>,
}

struct Watched {
    watchers: usize,
    state: Arc<Changes>,
}

/// What the watchers of one context share.
struct Changes {
    /// Goes up with every change.
    count: watch::Sender<u64>,
    /// One of them reads, the others find what it has read.
    turn: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watchers = self.0.watchers.load(Ordering::SeqCst);
        f.debug_struct("Hub").field("watchers", &watchers).finish()
    }
}

impl Hub {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            watchers: AtomicUsize::new(0),
            contexts: Mutex::default(),
            phase: watch::Sender::new(Phase::Serving),
        }))
    }

    /// What the store is opened with.
    pub(super) fn listener(&self) -> Listener {
        let hub = self.clone();
        Listener(Arc::new(move |change| hub.hear(change)))
    }

    fn hear(&self, change: Change<'_>) {
        match change {
            Change::Grown(ids) => {
                if self.0.watchers.load(Ordering::SeqCst) == 0 {
                    return;
                }
                let contexts = self.0.contexts();
                for id in ids {
                    if let Some(watched) = contexts.get(id) {
                        watched.state.wake();
                    }
                }
            }
            Change::Any => self.wake_all(),
            Change::Head => (),
            Change::Failed => self.enter(Phase::Failed),
        }
    }

    /// Changes the phase, and wakes everybody.
    pub(super) fn enter(&self, phase: Phase) {
        self.0.phase.send_if_modified(|now| {
            // A server that is closing stays so until it begins anew.
            let better = *now == Phase::Serving || phase == Phase::Closing;
            let changes = better && *now != phase;
            if changes {
                *now = phase;
            }
            changes
        });
        self.wake_all();
    }

    /// A server that was closed begins anew.
    pub(super) fn reopen(&self) {
        self.0.phase.send_if_modified(|now| {
            let closed = *now == Phase::Closing;
            if closed {
                *now = Phase::Serving;
            }
            closed
        });
    }

    fn wake_all(&self) {
        for watched in self.0.contexts().values() {
            watched.state.wake();
        }
    }

    pub(super) fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Hears when the phase changes.
    pub(super) fn phases(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// A seat among the watchers of a context.
    pub(super) fn seat(&self, id: ContextId) -> Seat {
        let mut contexts = self.0.contexts();
        self.0.watchers.fetch_add(1, Ordering::SeqCst);
        let watched = contexts.entry(id.clone()).or_insert_with(|| Watched {
            watchers: 0,
            state: Arc::new(Changes {
                count: watch::Sender::new(0),
                turn: tokio::sync::Mutex::default(),
            }),
        });
        watched.watchers += 1;
        let state = Arc::clone(&watched.state);
        drop(contexts);
        let heard = state.count.subscribe();
        Seat {
            hub: self.clone(),
            id,
            state,
            heard,
        }
    }

    #[cfg(test)]
    pub(super) fn watched(&self) -> (usize, usize) {
        let contexts = self.0.contexts().len();
        (contexts, self.0.watchers.load(Ordering::SeqCst))
    }
}

impl Shared {
    fn contexts(&self) -> MutexGuard<'_, HashMap<ContextId, Watched>> {
        // Every change of the table is one step.
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Changes {
    fn wake(&self) {
        self.count
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// A watcher's place; given back when it is dropped.
pub(super) struct Seat {
    hub: Hub,
    id: ContextId,
    state: Arc<Changes>,
    heard: watch::Receiver<u64>,
}

impl Seat {
    pub(super) fn id(&self) -> &ContextId {
        &self.id
    }

    /// To be called before looking: what changes from here on wakes.
    pub(super) fn about_to_look(&mut self) {
        self.heard.mark_unchanged();
    }

    /// Waits for a change since [`Self::about_to_look`].
    pub(super) async fn changed(&mut self) {
        // The sender lives in `state`.
        let _ = self.heard.changed().await;
    }

    /// Waits until no other watcher of the context reads.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.state.turn.lock().await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut contexts = self.hub.0.contexts();
        if let Some(watched) = contexts.get_mut(&self.id) {
            watched.watchers -= 1;
            if watched.watchers == 0 {
                contexts.remove(&self.id);
            }
        }
        self.hub.0.watchers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ContextId {
        ContextId::new(name).unwrap()
    }

    #[tokio::test]
    async fn who_sits_hears_of_its_context_only() {
        let hub = Hub::new();
        let listener = hub.listener();
        let mut a = hub.seat(id("a"));
        let mut b = hub.seat(id("b"));
        a.about_to_look();
        b.about_to_look();
        (listener.0)(Change::Grown(&[id("a"), id("c")]));
        a.changed().await;
        assert!(!b.heard.has_changed().unwrap());
        (listener.0)(Change::Any);
        b.changed().await;
        assert_eq!(hub.watched(), (2, 2));
        drop((a, b));
        assert_eq!(hub.watched(), (0, 0));
    }

    #[tokio::test]
    async fn a_change_between_looking_and_waiting_is_not_lost() {
        let hub = Hub::new();
        let mut seat = hub.seat(id("a"));
        seat.about_to_look();
        hub.hear(Change::Grown(&[id("a")]));
        seat.changed().await;
    }

    #[tokio::test]
    async fn phases_only_get_worse_and_wake() {
        let hub = Hub::new();
        let mut seat = hub.seat(id("a"));
        seat.about_to_look();
        hub.hear(Change::Failed);
        seat.changed().await;
        assert_eq!(hub.phase(), Phase::Failed);
        hub.enter(Phase::Closing);
        hub.enter(Phase::Failed);
        assert_eq!(hub.phase(), Phase::Closing);
    }
}
