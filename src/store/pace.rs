//! How often heads are published for those who follow: a bucket of tokens, of
//! which every head takes one.

use std::time::{Duration, Instant};

/// Heads that may follow each other at once.
const BURST: u32 = 1_000;
/// After those, one is published each time this has passed.
const EVERY: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    tokens: u32,
    /// Up to when tokens have been added.
    filled: Instant,
}

impl Pace {
    /// A full bucket.
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            tokens: BURST,
            filled: now,
        }
    }

    /// A head was published.
    pub(super) fn take(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        let new = u32::try_from(passed.as_millis() / EVERY.as_millis()).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(new).min(BURST).saturating_sub(1);
        self.filled = if self.tokens + 1 == BURST {
            now
        } else {
            self.filled + EVERY * new
        };
    }

    /// When the next head may be published; a moment that has passed if it may be
    /// now.
    pub(super) fn next(&self) -> Instant {
        match self.tokens {
            0 => self.filled + EVERY,
            _ => self.filled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..BURST {
            assert!(pace.next() <= start);
            pace.take(start);
        }
        // As soon as allowed, for ten seconds.
        let mut now = start;
        for n in 1..=100u32 {
            now = pace.next();
            assert_eq!(now, start + EVERY * n);
            pace.take(now);
        }
        // It fills up again, and no further.
        now += EVERY * 3 * BURST;
        for _ in 0..BURST {
            assert!(pace.next() <= now);
            pace.take(now);
        }
        assert!(pace.next() > now);
    }
}
