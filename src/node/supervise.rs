//! Layer 4. Runs what is to run as long as the process does, each in a task of
//! its own: one that fails or panics is started again, and disturbs no other.

use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::backoff::Backoff;

/// After a task that failed.
const RESTART: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_mins(1),
};

/// Why a task ended as it should not.
#[derive(Debug)]
pub enum Failure<E> {
    /// It says why.
    Error(E),
    /// It panicked.
    Panic(String),
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Panic(what) => write!(f, "panicked: {what}"),
        }
    }
}

/// Ends the task when nobody waits for it any more.
struct Held<T>(JoinHandle<T>);

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs what `start` makes until it ends well, which it does when `stop` says so,
/// and again each time that it fails. `failed` hears of every failure.
pub async fn supervise<E, F>(
    name: &str,
    mut stop: watch::Receiver<bool>,
    mut start: impl FnMut() -> F,
    mut failed: impl FnMut(&Failure<E>),
) where
    E: fmt::Display + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
{
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let mut task = Held(tokio::spawn(start()));
        let failure = match (&mut task.0).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => Failure::Error(error),
            Err(error) => Failure::Panic(reason(error)),
        };
        failed(&failure);
        if begun.elapsed() > RESTART.longest {
            failures = 0;
        }
        let wait = RESTART.wait(failures);
        failures = failures.saturating_add(1);
        tracing::error!(task = name, %failure, wait_ms = wait.as_millis(), "a task failed; it will be started again");
        tokio::select! {
            () = tokio::time::sleep(wait) => (),
            // The sender is gone only if the process ends.
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

/// What a panic said.
fn reason(error: JoinError) -> String {
    let Ok(panic) = error.try_into_panic() else {
        return "cancelled".to_owned();
    };
    if let Some(text) = panic.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    let text = panic.downcast_ref::<String>();
    text.cloned().unwrap_or_else(|| "no reason".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_or_panics_is_started_again_until_it_ends_well() {
        let (_stop, stopped) = watch::channel(false);
        let runs = Arc::new(AtomicU32::new(0));
        let start = || {
            let run = runs.fetch_add(1, Ordering::Relaxed);
            async move {
                match run {
                    0 => panic!("number {run}"),
                    1 => Err("an error"),
                    _ => Ok(()),
                }
            }
        };
        let mut heard = Vec::new();
        let failed = |failure: &Failure<&str>| heard.push(failure.to_string());
        supervise("test", stopped, start, failed).await;
        assert_eq!(heard, ["panicked: number 0", "an error"]);
        assert_eq!(runs.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_to_start_again_ends_with_the_process() {
        let (stop, stopped) = watch::channel(false);
        let failed = |_: &Failure<&str>| _ = stop.send_replace(true);
        supervise("test", stopped, || async { Err("always") }, failed).await;
    }
}
