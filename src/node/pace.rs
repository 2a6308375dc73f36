//! Layer 4. How fast one peer's requests are taken up: so many a second, and as
//! many at once after a quiet second. More of them wait; none is refused.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What a peer may save up.
const BURST: Duration = Duration::from_secs(1);

/// The pace of one peer (the generic cell rate algorithm).
#[derive(Debug)]
pub(super) struct Pace {
    each: Duration,
    /// When everything taken up so far would be over at an even pace.
    over: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            each: Duration::from_secs(1) / per_second.max(1),
            over: Mutex::new(Instant::now()),
        }
    }

    /// How long the next request has to wait; it counts from now on.
    fn take(&self, now: Instant) -> Duration {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        *over = (*over).max(now) + self.each;
        over.saturating_duration_since(now).saturating_sub(BURST)
    }

    /// Waits until the next request may be taken up.
    pub(super) async fn wait(&self) {
        let wait = self.take(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_taken_at_once_and_the_rest_evenly() {
        let pace = Pace::new(100);
        let start = Instant::now();
        for _ in 0..100 {
            pace.wait().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..50 {
            pace.wait().await;
        }
        let half = Duration::from_millis(500);
        assert!(
            start.elapsed() >= half && start.elapsed() < half * 2,
            "{:?}",
            start.elapsed()
        );
        // Who was quiet may come in a burst again.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let start = Instant::now();
        for _ in 0..100 {
            pace.wait().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
