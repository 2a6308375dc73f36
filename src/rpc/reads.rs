//! Layer 4. Reading and loading a store block: they run on a bounded number of
//! blocking threads, never on the workers of the runtime.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::pages::Pages;
use super::places::{Place, Places};
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

/// The places, the threads that may read them, and the pages that their
/// watchers share.
#[derive(Debug)]
pub(super) struct Reads {
    places: Places,
    threads: Threads,
    pages: Pages,
}

impl Reads {
    pub(super) fn new(places: Places, threads: usize) -> Arc<Self> {
        Arc::new(Self {
            places,
            threads: Threads::new(threads),
            pages: Pages::default(),
        })
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    pub(super) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Waits for a thread and reads.
    pub(super) async fn run<T, E>(
        self: &Arc<Self>,
        read: impl FnOnce(&Places) -> Result<T, E> + Send + 'static,
    ) -> Result<T, RpcError>
    where
        T: Send + 'static,
        E: Into<RpcError> + Send + 'static,
    {
        let reads = Arc::clone(self);
        self.threads.run(move || read(&reads.places)).await
    }

    /// Waits for a thread and reads one place.
    pub(super) async fn run_in<T, E>(
        &self,
        place: &Arc<Place>,
        read: impl FnOnce(&View) -> Result<T, E> + Send + 'static,
    ) -> Result<T, RpcError>
    where
        T: Send + 'static,
        E: Into<RpcError> + Send + 'static,
    {
        let place = Arc::clone(place);
        self.threads.run(move || read(place.view())).await
    }
}
