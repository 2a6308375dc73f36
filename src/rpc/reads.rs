//! Layer 4. Reading and loading a store block: they run on a bounded number of
//! blocking threads, never on the workers of the runtime.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::status::RpcError;
use crate::store::View;

/// A number of blocking threads.
#[derive(Clone, Debug)]
pub(super) struct Threads(Arc<Semaphore>);

impl Threads {
    pub(super) fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// Waits for a thread and works. Whoever loses interest frees its place in
    /// the queue; work that has begun keeps its thread until it ends.
    pub(super) async fn run<T, E>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, RpcError>
    where
        T: Send + 'static,
        E: Into<RpcError> + Send + 'static,
    {
        let thread = Arc::clone(&self.0).acquire_owned().await;
        let thread = thread.map_err(|_| RpcError::Mistake("the threads are gone"))?;
        let working = tokio::task::spawn_blocking(move || {
            let outcome = work();
            drop(thread);
            outcome
        });
        match working.await {
            Ok(outcome) => outcome.map_err(Into::into),
            Err(_) => Err(RpcError::Mistake("a thread did not end")),
        }
    }
}

/// A view, and the threads that may read it.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    view: View,
    threads: Threads,
}

impl Reads {
    pub(super) fn new(view: View, threads: usize) -> Self {
        Self {
            view,
            threads: Threads::new(threads),
        }
    }

    /// Waits for a thread and reads.
    pub(super) async fn run<T, E>(
        &self,
        read: impl FnOnce(&View) -> Result<T, E> + Send + 'static,
    ) -> Result<T, RpcError>
    where
        T: Send + 'static,
        E: Into<RpcError> + Send + 'static,
    {
        let view = self.view.clone();
        self.threads.run(move || read(&view)).await
    }
}
