//! When to try again: after waits that double, up to a longest one, and that no
//! two clients draw alike, so that they do not come back all at once.

use std::time::Duration;

/// How to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Failures in a row, after which it is given up. Default: 100, which with
    /// the other defaults is about a quarter of an hour.
    pub attempts: u32,
    /// The wait after the first failure, before it is shortened by chance.
    /// Default: 100 ms.
    pub first: Duration,
    /// No wait is longer. Default: 10 s.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 100,
            first: Duration::from_millis(100),
            longest: Duration::from_secs(10),
        }
    }
}

impl Retry {
    /// How long to wait after so many failures in a row; `None` to give up.
    /// `chance` takes from nothing (0) to half of it away (the largest number).
    pub(super) fn wait(&self, failures: u32, chance: u32) -> Option<Duration> {
        if failures >= self.attempts {
            return None;
        }
        let doublings = failures.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1 << doublings).min(self.longest);
        let shorter = whole.mul_f64(f64::from(chance) / f64::from(u32::MAX) / 2.0);
        Some(whole.saturating_sub(shorter))
    }
}

/// A random number; without a source of them, always the same.
pub(super) fn chance() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}
