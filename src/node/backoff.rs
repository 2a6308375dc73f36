//! Layer 4. How long to wait before something that failed is tried again.

use std::time::Duration;

/// Waits that double from the first to the longest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// After the first failure.
    pub(super) first: Duration,
    /// At most.
    pub(super) longest: Duration,
}

impl Backoff {
    /// Between half of the wait and all of it, so that those who lost the same
    /// together do not come back together.
    pub(super) fn wait(self, failures: u32) -> Duration {
        let whole = self
            .first
            .saturating_mul(1 << failures.min(16))
            .min(self.longest);
        let mut byte = [0u8; 1];
        // Without randomness the whole wait.
        let part = getrandom::fill(&mut byte).map_or(u32::from(u8::MAX), |()| u32::from(byte[0]));
        whole / 2 + whole / 2 * part / u32::from(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_are_bounded() {
        let (first, longest) = (Duration::from_millis(200), Duration::from_secs(30));
        let backoff = Backoff { first, longest };
        for failures in (0..40).chain([u32::MAX]) {
            let whole = first.saturating_mul(1 << failures.min(16)).min(longest);
            for _ in 0..20 {
                let wait = backoff.wait(failures);
                assert!(whole / 2 <= wait && wait <= whole, "{failures}: {wait:?}");
            }
        }
    }
}
