//! Layer 4. Brings the writer's answers to the calls that wait for them. A group
//! answers many appends at once, on the writer's thread; waking a task from a
//! thread that is none of the runtime's costs a call of the system each time.
//! So they are put together here, and one task, woken once, hands them out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use crate::store::{AppendDone, AppendError, Appended};

type Outcome = Result<Vec<Appended>, AppendError>;
type Waiting = oneshot::Sender<Outcome>;

/// Answers on their way, and the task that hands them out for as long as this
/// is there.
pub(super) struct Answers {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    given: Mutex<Vec<(Waiting, Outcome)>>,
    some: Notify,
}

impl Shared {
    fn given(&self) -> MutexGuard<'_, Vec<(Waiting, Outcome)>> {
        // Every change is one push or take.
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Answers {
    /// Starts the task, on the runtime that this is called on.
    pub(super) fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(hand_out(Arc::clone(&shared))).abort_handle();
        Self { shared, task }
    }

    /// What the store is to call, and where the answer arrives.
    pub(super) fn register(&self) -> (AppendDone, oneshot::Receiver<Outcome>) {
        let (sender, receiver) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let done: AppendDone = Box::new(move |outcome| {
            let mut given = shared.given();
            let first = given.is_empty();
            given.push((sender, outcome));
            drop(given);
            if first {
                shared.some.notify_one();
            }
        });
        (done, receiver)
    }
}

/// Hands answers out. Never ends.
async fn hand_out(shared: Arc<Shared>) {
    loop {
        shared.some.notified().await;
        let given = std::mem::take(&mut *shared.given());
        for (waiting, outcome) in given {
            // Nobody listens if the caller is gone; it is stored all the same.
            let _ = waiting.send(outcome);
        }
    }
}
