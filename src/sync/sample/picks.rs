//! Which entries are checked: all equally likely, each once, and the same for
//! the same seed and count, whoever computes it. A permutation of the numbers
//! below the count of entries takes the first ones to the picks, so that nothing
//! has to be remembered of those before.
//!
//! ```text
//! h      = half the bits of entries - 1, rounded up, at least 1
//! round  j = 0..8 on (L, R), h bits each:  L, R = R, L xor (F mod 2^h)
//!        F = first 8 bytes, little-endian, of
//!            derive_key("converge-ledger 2026 audit sample v1", seed u64 || j u64 || R u64)
//! pick i = eight rounds on i, and again until the result is below entries
//! ```

use crate::hash::derive_key;

/// Entries picked at a time.
pub(super) const PIECE_MAX: usize = 1024;
/// Of the permutation.
const ROUNDS: u64 = 8;
const DOMAIN: &str = "converge-ledger 2026 audit sample v1";

/// The numbers of the entries to check, piece by piece.
#[derive(Debug)]
pub(super) struct Picks {
    seed: u64,
    total: u64,
    /// Entries still to be picked.
    left: u64,
    /// Entries picked so far.
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

    /// Ascending; empty when there are no more.
    pub(super) fn next_piece(&mut self) -> Vec<u64> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_MAX && self.left > 0 {
            let pick = if self.all {
                self.next
            } else {
                self.pick(self.next)
            };
            self.left -= 1;
            self.next += 1;
            piece.push(pick);
        }
        piece.sort_unstable();
        piece
    }

    fn pick(&self, number: u64) -> u64 {
        let mut pick = self.permute(number);
        // Ends, because the permutation comes back to `number` at last; after
        // four times on average at most.
        while pick >= self.total && pick != number {
            pick = self.permute(pick);
        }
        pick
    }

    /// A Feistel network over the numbers of an even number of bits.
    fn permute(&self, number: u64) -> u64 {
        let bits = u64::BITS - self.total.saturating_sub(1).leading_zeros();
        let half = bits.div_ceil(2).max(1);
        let mask = (1u64 << half) - 1;
        let (mut left, mut right) = ((number >> half) & mask, number & mask);
        for round in 0..ROUNDS {
            let material = [self.seed, round, right].map(u64::to_le_bytes).concat();
            let block = derive_key(DOMAIN, &material);
            let word = block.first_chunk().copied().map_or(0, u64::from_le_bytes);
            (left, right) = (right, left ^ (word & mask));
        }
        left << half | right
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
                let mut unique = out.clone();
                unique.sort_unstable();
                unique.dedup();
                assert_eq!(unique.len() as u64, samples.min(total));
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
    fn every_entry_is_as_likely_as_any_other() {
        for total in [2u64, 3, 5, 16, 17, 100] {
            let mut counts = vec![0u32; usize::try_from(total).unwrap()];
            let (rounds, samples) = (20_000 / total, total / 2);
            for seed in 0..rounds {
                for pick in all(seed, samples, total) {
                    counts[usize::try_from(pick).unwrap()] += 1;
                }
            }
            let expected = u32::try_from(rounds * samples / total).unwrap();
            let near = expected * 8 / 10..expected * 12 / 10;
            assert!(
                counts.iter().all(|count| near.contains(count)),
                "{total}: {counts:?}"
            );
        }
    }

    #[test]
    fn totals_near_the_end_of_64_bits() {
        for total in [1, 2, (1 << 63) + 1, u64::MAX] {
            let picked = all(3, 100.min(total - 1), total);
            assert!(picked.iter().all(|pick| *pick < total));
        }
    }
}
