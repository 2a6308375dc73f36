//! Which entries are checked: uniform over all of them, and the same for the
//! same seed and count, whoever computes it.
//!
//! ```text
//! draw i = first 8 bytes, little-endian, of
//!          derive_key("converge-ledger 2026 audit sample v1", seed u64 || i u64)
//! pick   = draw mod entries, unless draw is at or above the largest multiple
//!          of entries that 64 bits hold: then it is left out
//! ```

use crate::hash::derive_key;

/// Entries picked at a time.
pub(super) const PIECE_MAX: usize = 1024;
const DOMAIN: &str = "converge-ledger 2026 audit sample v1";

/// The numbers of the entries to check, piece by piece.
#[derive(Debug)]
pub(super) struct Picks {
    seed: u64,
    total: u64,
    /// Entries still to be picked.
    left: u64,
    /// The next draw, or the next entry if all are picked.
    next: u64,
    all: bool,
}

impl Picks {
    pub(super) fn new(seed: u64, samples: u64, total: u64) -> Self {
        Self {
            seed,
            total,
            left: samples.min(total),
            next: 0,
            all: samples >= total,
        }
    }

    /// Ascending, each once; empty when there are no more. An entry that is
    /// drawn twice in one piece is checked once.
    pub(super) fn next_piece(&mut self) -> Vec<u64> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_MAX && self.left > 0 {
            self.left -= 1;
            let pick = if self.all { self.next } else { self.draw() };
            if self.all {
                self.next += 1;
            }
            piece.push(pick);
        }
        piece.sort_unstable();
        piece.dedup();
        piece
    }

    fn draw(&mut self) -> u64 {
        let Some(excess) = (u64::MAX % self.total.max(1)).checked_add(1) else {
            return 0;
        };
        let excess = excess % self.total.max(1);
        loop {
            let material = [self.seed.to_le_bytes(), self.next.to_le_bytes()].concat();
            self.next = self.next.wrapping_add(1);
            let block = derive_key(DOMAIN, &material);
            let Some(first) = block.first_chunk() else {
                return 0;
            };
            let draw = u64::from_le_bytes(*first);
            // Left out at most half of the time, so this ends.
            if draw <= u64::MAX - excess {
                return draw % self.total.max(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(seed: u64, samples: u64, total: u64) -> Vec<u64> {
        let mut picks = Picks::new(seed, samples, total);
        let mut out = Vec::new();
        loop {
            let piece = picks.next_piece();
            if piece.is_empty() {
                return out;
            }
            assert!(piece.len() <= PIECE_MAX && piece.is_sorted_by(|a, b| a < b));
            out.extend(piece);
        }
    }

    #[test]
    fn every_entry_if_there_are_not_more() {
        for samples in [3000, 3001, u64::MAX] {
            assert_eq!(all(1, samples, 3000), (0..3000).collect::<Vec<_>>());
        }
        assert!(all(1, 10, 0).is_empty() && all(1, 0, 10).is_empty());
    }

    #[test]
    fn picks_follow_from_the_seed_and_are_spread_evenly() {
        assert_eq!(all(7, 100, 1 << 40), all(7, 100, 1 << 40));
        assert_ne!(all(7, 100, 1 << 40), all(8, 100, 1 << 40));
        let picked = all(7, 16_000, 1 << 62);
        for part in 0..16 {
            let below = picked.iter().filter(|pick| **pick >> 58 == part).count();
            assert!((850..1150).contains(&below), "{part}: {below}");
        }
        assert!(all(7, 5000, 5001).iter().all(|pick| *pick < 5001));
    }

    #[test]
    fn totals_near_the_end_of_64_bits() {
        for total in [1, 2, (1 << 63) + 1, u64::MAX] {
            let picked = all(3, 100.min(total - 1), total);
            assert!(picked.iter().all(|pick| *pick < total));
        }
    }
}
