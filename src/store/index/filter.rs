//! Which request ids are surely not on disk: a blocked Bloom filter (Putze,
//! Sanders, Singler, "Cache-, hash- and space-efficient Bloom filters", 2007)
//! over all of them, so that a new id costs a look at one cache line and not a
//! look-up in the database.
//!
//! Invariants:
//! * until [`RequestFilter::complete`] it rules nothing out;
//! * afterwards every id on disk is in it: an id is added before the base that
//!   holds it is taken over, and nothing is ever removed;
//! * its memory is fixed; the fuller it is, the less it rules out.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::place::RequestKey;
use crate::limits::{REQUEST_FILTER_BYTES, REQUEST_FILTER_IDS_MAX};

/// Words of a block: one cache line.
const BLOCK_WORDS: usize = 8;
const BLOCKS: usize = REQUEST_FILTER_BYTES / (8 * BLOCK_WORDS);
/// Blocks that are allocated together, when one of them is needed: 64 KiB.
const CHUNK_BLOCKS: usize = 1024;
/// Bits set for an id.
const PROBES: u32 = 6;

/// See the module.
pub(crate) struct RequestFilter {
    chunks: Vec<OnceLock<Box<[AtomicU64]>>>,
    complete: AtomicBool,
}

impl std::fmt::Debug for RequestFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RequestFilter")
    }
}

/// Block and bits of an id; its key is a hash already.
fn place(number: u64, key: &RequestKey) -> (usize, u64) {
    let [a, b] = [0, 8].map(|at| {
        let mut half = [0; 8];
        half.copy_from_slice(&key[at..at + 8]);
        u64::from_le_bytes(half)
    });
    let block = (a ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) % BLOCKS as u64;
    (usize::try_from(block).unwrap_or(0), b)
}

/// The words and masks of an id within its block.
fn probes(bits: u64) -> impl Iterator<Item = (usize, u64)> {
    (0..PROBES).map(move |probe| {
        let bit = bits >> (9 * probe) & 511;
        ((bit >> 6) as usize, 1 << (bit & 63))
    })
}

impl RequestFilter {
    pub(crate) fn new() -> Self {
        let mut chunks = Vec::new();
        chunks.resize_with(BLOCKS.div_ceil(CHUNK_BLOCKS), OnceLock::new);
        Self {
            chunks,
            complete: AtomicBool::new(false),
        }
    }

    /// True if so many ids are worth a filter of this size.
    pub(crate) fn suits(ids: u64) -> bool {
        ids <= REQUEST_FILTER_IDS_MAX
    }

    pub(crate) fn add(&self, number: u64, key: &RequestKey) {
        let (block, bits) = place(number, key);
        let Some(chunk) = self.chunks.get(block / CHUNK_BLOCKS) else {
            return;
        };
        let words = chunk.get_or_init(|| {
            let words = (0..CHUNK_BLOCKS * BLOCK_WORDS).map(|_| AtomicU64::default());
            words.collect()
        });
        let first = block % CHUNK_BLOCKS * BLOCK_WORDS;
        for (word, mask) in probes(bits) {
            if let Some(word) = words.get(first + word) {
                word.fetch_or(mask, Ordering::Relaxed);
            }
        }
    }

    /// Every id on disk has been added; those to come will be.
    pub(crate) fn complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// True if the id is surely not on disk.
    pub(crate) fn rules_out(&self, number: u64, key: &RequestKey) -> bool {
        if !self.complete.load(Ordering::Acquire) {
            return false;
        }
        let (block, bits) = place(number, key);
        let chunk = self.chunks.get(block / CHUNK_BLOCKS);
        let Some(words) = chunk.and_then(OnceLock::get) else {
            return true;
        };
        let first = block % CHUNK_BLOCKS * BLOCK_WORDS;
        probes(bits).any(|(word, mask)| {
            let word = words.get(first + word);
            word.is_some_and(|word| word.load(Ordering::Relaxed) & mask == 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::request_key;
    use super::*;

    #[test]
    fn no_id_that_was_added_is_ruled_out_and_few_others_are_not() {
        let filter = RequestFilter::new();
        let key = |i: u64| request_key(&format!("request-{i}"));
        assert!(!filter.rules_out(1, &key(0)), "not complete");
        filter.complete();
        let added = 50_000;
        for i in 0..added {
            filter.add(i % 3, &key(i));
        }
        for i in 0..added {
            assert!(!filter.rules_out(i % 3, &key(i)));
        }
        let passed = |number: u64, i| !filter.rules_out(number, &key(i));
        let wrong = (added..2 * added).filter(|i| passed(i % 3, *i)).count();
        assert!(wrong < 50, "{wrong}");
        // The same ids of another context.
        let wrong = (0..added).filter(|i| passed(7, *i)).count();
        assert!(wrong < 50, "{wrong}");
    }
}
