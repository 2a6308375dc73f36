//! Layer 0. The Lamport clock of a context (Lamport 1978): each entry's time is
//! above that of the entry before it and above every time its writer has seen.
//!
//! Times stay below 2^62 and may leap at most 2^40 ahead in one append, so that
//! one bad value cannot use up the clock of a context for ever.

use crate::limits::{LAMPORT_LEAP_MAX, LAMPORT_LIMIT};

/// Why an observed time was refused. The caller is at fault; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LamportError {
    /// The observed time is too far ahead of the context's own.
    #[error("observed Lamport time {observed} is more than 2^40 ahead of the context's {current}")]
    Leap {
        /// The time the caller observed.
        observed: u64,
        /// The context's own time.
        current: u64,
    },
    /// The next time would reach 2^62.
    #[error("Lamport time {next} would reach 2^62")]
    Exhausted {
        /// The time that was refused.
        next: u64,
    },
}

/// The time of the next entry: `max(current, observed) + 1`.
pub fn next(current: u64, observed: u64) -> Result<u64, LamportError> {
    if observed > current && observed - current > LAMPORT_LEAP_MAX {
        return Err(LamportError::Leap { observed, current });
    }
    let next = current.max(observed).saturating_add(1);
    if next >= LAMPORT_LIMIT {
        return Err(LamportError::Exhausted { next });
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_up_and_never_far() {
        assert_eq!(next(0, 0), Ok(1));
        assert_eq!(next(5, 3), Ok(6));
        assert_eq!(next(5, 9), Ok(10));
        assert_eq!(next(0, LAMPORT_LEAP_MAX), Ok(LAMPORT_LEAP_MAX + 1));
        let far = LAMPORT_LEAP_MAX + 1;
        assert_eq!(
            next(0, far),
            Err(LamportError::Leap {
                observed: far,
                current: 0
            })
        );
        assert_eq!(
            next(0, u64::MAX),
            Err(LamportError::Leap {
                observed: u64::MAX,
                current: 0
            })
        );
        let last = LAMPORT_LIMIT - 1;
        assert_eq!(next(last - 1, 0), Ok(last));
        assert_eq!(
            next(last, 0),
            Err(LamportError::Exhausted {
                next: LAMPORT_LIMIT
            })
        );
    }
}
