//! Layer 4. Reads of the store block: they run on a bounded number of blocking
//! threads, never on the workers of the runtime.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::status::RpcError;
use crate::store::View;

/// A view, and the threads that may read it.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    view: View,
    threads: Arc<Semaphore>,
}

impl Reads {
    pub(super) fn new(view: View, threads: usize) -> Self {
        Self {
            view,
            threads: Arc::new(Semaphore::new(threads)),
        }
    }

    /// Waits for a thread and reads. Whoever loses interest frees its place in
    /// the queue; a read that has begun keeps its thread until it ends.
    pub(super) async fn run<T, E>(
        &self,
        read: impl FnOnce(&View) -> Result<T, E> + Send + 'static,
    ) -> Result<T, RpcError>
    where
        T: Send + 'static,
        E: Into<RpcError> + Send + 'static,
    {
        let threads = Arc::clone(&self.threads);
        let thread = threads.acquire_owned().await;
        let thread = thread.map_err(|_| RpcError::Mistake("the read threads are gone"))?;
        let view = self.view.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let outcome = read(&view);
            drop(thread);
            outcome
        });
        match reading.await {
            Ok(outcome) => outcome.map_err(Into::into),
            Err(_) => Err(RpcError::Mistake("a read did not end")),
        }
    }
}
