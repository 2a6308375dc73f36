//! Layer 4. The only place that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::store::Clock;

/// The system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ns(&self) -> u64 {
        now_ns()
    }
}

/// Nanoseconds since 1970; 0 if the clock is set before that, and the largest
/// value in the year 2554 and later.
#[must_use]
pub fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_is_set_after_2020() {
        assert!(super::now_ns() > 1_577_836_800_000_000_000);
    }
}
