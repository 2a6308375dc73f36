//! A tail that an audit goes through: the rows it leads to are handed out as soon
//! as they cannot change any more, and what they were made of is forgotten. So
//! it holds the newest state of each context, however long the log is.
//!
//! What stays beside that: of each context its last run and the last, partial
//! tile of each level; the directory of the newest head; eight bytes of each
//! payload outside the runs, because a run may name any that was stored before.
//!
//! A tail that has passed something on answers no questions about runs, tiles,
//! request ids or where payloads lie.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::{Level, Tail, TailContext, level_len};
use crate::hash::Hash;
use crate::store::index::place::{Location, RunPlace};
use crate::store::index::rows::{self, Table};
use crate::tree::tile::TILE_WIDTH;
use crate::tree::{TileError, TileId, TileSlice, checked};

/// Hears of a row: table, key, value.
pub(crate) type SeeRow<'s> = dyn FnMut(Table, &[u8], &[u8]) + 's;

/// Which payloads are stored, and how long they are: 64 bits of each under keys
/// that nobody knows, so that one that is missing passes for stored with a
/// chance of their number in 2^64, whoever made the log.
#[derive(Debug, Default)]
pub(super) struct StoredPayloads {
    keys: RandomState,
    seen: HashSet<u64>,
}

impl StoredPayloads {
    fn of(&self, hash: &Hash, body_len: u64) -> u64 {
        self.keys.hash_one((hash.as_bytes(), body_len))
    }

    fn add(&mut self, hash: &Hash, at: &Location) {
        let one = self.of(hash, u64::from(at.body_len));
        self.seen.insert(one);
    }
}

impl Tail {
    /// True if a payload of this hash, in a record of this length, was passed on.
    pub(crate) fn has_passed_on(&self, hash: &Hash, body_len: u64) -> bool {
        !self.stored.seen.is_empty() && self.stored.seen.contains(&self.stored.of(hash, body_len))
    }

    /// Hands out every row that cannot change any more, and forgets it. Tiles
    /// are checked against the node above them before they go.
    pub(crate) fn pass_on(&mut self, see: &mut SeeRow<'_>) -> Result<(), TileError> {
        for (number, context) in &mut self.contexts {
            let more = context.runs.len() > 1;
            if more || context.levels.iter().any(Level::has_whole_tile) {
                Arc::make_mut(context).pass_on(*number, see)?;
            }
        }
        for ((number, request), sequence) in self.requests.drain() {
            let key = rows::request_row_key(number, &request);
            see(Table::Requests, &key, &sequence.to_le_bytes());
        }
        for (hash, at) in self.payloads.drain() {
            see(Table::Payloads, hash.as_bytes(), &rows::put_location(at));
            self.stored.add(&hash, &at);
        }
        // Nobody asks an audit for the directory of an older head.
        for retired in self.retired.drain(..) {
            for hash in &retired.nodes {
                self.nodes.remove(hash);
            }
        }
        self.retired_bytes = 0;
        self.dropped.clear();
        Ok(())
    }

    /// Hands out the rows that could still change, as they are now.
    pub(crate) fn rest(&self, see: &mut SeeRow<'_>) {
        for (number, context) in &self.contexts {
            for run in &context.runs {
                see_run(*number, run, see);
            }
            for (level, start, hashes) in context.levels() {
                if let Some(tile) = tile_at(level, start)
                    && !hashes.is_empty()
                {
                    see_tile(*number, tile, hashes, see);
                }
            }
        }
    }

    /// Checks the tiles that are still here against the accumulators. With those
    /// that were passed on, they are all tiles.
    pub(crate) fn check_tiles(&mut self) -> Result<(), TileError> {
        self.pass_on(&mut |_, _, _| ())?;
        for context in self.contexts.values() {
            context.check_tiles()?;
        }
        Ok(())
    }
}

impl Level {
    fn has_whole_tile(&self) -> bool {
        self.hashes.len() >= TILE_WIDTH
    }
}

impl TailContext {
    fn pass_on(&mut self, number: u64, see: &mut SeeRow<'_>) -> Result<(), TileError> {
        let before_last = self.runs.len().saturating_sub(1);
        for run in self.runs.drain(..before_last) {
            see_run(number, &run, see);
        }
        // From the lowest level up: what vouches for a tile is still there.
        for level in 1..=self.levels.len() {
            let (start, hashes) = self.level(level);
            let whole = hashes.len() / TILE_WIDTH;
            for (index, hashes) in (start / TILE_WIDTH as u64..).zip(hashes.chunks(TILE_WIDTH)) {
                let id = u8::try_from(level).ok();
                let tile = id.and_then(|level| TileId::new(level, index));
                if let Some(tile) = tile
                    && hashes.len() == TILE_WIDTH
                {
                    let above = tile.parent().and_then(|slice| self.node_above(slice));
                    checked::check_tile(tile, hashes, &self.state.after.frontier, above)?;
                    see_tile(number, tile, hashes, see);
                }
            }
            if let Some(level) = self.levels.get_mut(level - 1) {
                level.hashes.drain(..whole * TILE_WIDTH);
                level.passed += (whole * TILE_WIDTH) as u64;
            }
        }
        Ok(())
    }

    /// The hash over a whole tile, which the level above holds.
    fn node_above(&self, slice: TileSlice) -> Option<&Hash> {
        let index = slice.tile.index() * TILE_WIDTH as u64 + slice.first as u64;
        let (start, hashes) = self.level(usize::from(slice.tile.level()));
        hashes.get(usize::try_from(index.checked_sub(start)?).ok()?)
    }

    fn check_tiles(&self) -> Result<(), TileError> {
        let size = self.state.after.size();
        // One level more than there are: it must be empty.
        for level in 1..=self.levels.len() + 1 {
            let (start, hashes) = self.level(level);
            let tile = tile_at(level, start);
            if let Some(tile) = tile.filter(|_| !hashes.is_empty()) {
                checked::check_tile(tile, hashes, &self.state.after.frontier, None)?;
            } else if let Some(tile) = tile
                && start != level_len(size, level)
            {
                return Err(TileError::Missing { tile });
            }
        }
        Ok(())
    }
}

/// The tile of a level that begins at this node.
fn tile_at(level: usize, start: u64) -> Option<TileId> {
    TileId::new(u8::try_from(level).ok()?, start / TILE_WIDTH as u64)
}

fn see_run(number: u64, run: &RunPlace, see: &mut SeeRow<'_>) {
    let key = rows::run_key(number, run.first);
    see(Table::Runs, &key, &rows::put_run(run));
}

fn see_tile(number: u64, tile: TileId, hashes: &[Hash], see: &mut SeeRow<'_>) {
    let key = rows::tile_key(number, tile);
    see(Table::Tiles, &key, &rows::put_hashes(hashes.iter()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::ContextId;
    use crate::run::Accumulator;
    use crate::store::index::is_tile_node;
    use crate::store::index::place::KeySet;
    use crate::store::index::tail::{ContextState, RunAdded};
    use crate::store::record::Position;

    /// One context of `size` entries, in runs of 100.
    fn tail(size: u64) -> Tail {
        let mut tail = Tail::default();
        let id = ContextId::new("c").unwrap();
        tail.touch(ContextState::new(1, Some(id), Position::default()), true);
        let mut after = Accumulator::default();
        while after.size() < size {
            let (first, mut nodes) = (after.size() + 1, Vec::new());
            for n in 0..100.min(size - after.size()) {
                let leaf = crate::hash::content(&(first + n).to_le_bytes());
                let report = |id, hash| {
                    if is_tile_node(id) {
                        nodes.push((id, hash));
                    }
                };
                after.frontier.append_with(leaf, report).unwrap();
            }
            let run = RunAdded {
                place: RunPlace {
                    first,
                    last: after.size(),
                    at: Location::default(),
                    keys: KeySet::default(),
                },
                after: after.clone(),
                nodes,
                requests: vec![(first.to_le_bytes().repeat(2).try_into().unwrap(), first)],
                payload_bytes: 0,
            };
            tail.add_run(1, run).unwrap();
            tail.add_payload(
                crate::hash::content(&first.to_be_bytes()),
                Location::default(),
            );
        }
        tail
    }

    fn rows(tail: &mut Tail) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        let mut see = |table: Table, key: &[u8], value: &[u8]| {
            rows.push((table as u8, key.to_vec(), value.to_vec()));
        };
        tail.pass_on(&mut see).unwrap();
        tail.rest(&mut see);
        rows.sort_unstable();
        rows
    }

    #[test]
    fn every_row_is_handed_out_once_and_little_stays() {
        for size in [1, 15, 16, 4_095, 4_096, 4_097, 8_192, 70_000] {
            let mut tail = tail(size);
            let before = tail.contexts[&1].clone();
            let rows = rows(&mut tail);
            let runs = size.div_ceil(100);
            let tiles: usize = before
                .levels()
                .map(|(_, _, hashes)| hashes.len().div_ceil(TILE_WIDTH))
                .sum();
            assert_eq!(rows.len() as u64, 3 * runs + tiles as u64, "{size}");
            let mut unique = rows.clone();
            unique.dedup_by_key(|row| (row.0, row.1.clone()));
            assert_eq!(unique.len(), rows.len());
            let context = &tail.contexts[&1];
            assert_eq!(context.runs.len(), 1);
            assert!(
                context
                    .levels()
                    .all(|(_, _, hashes)| hashes.len() < TILE_WIDTH)
            );
            assert!(tail.requests.is_empty() && tail.payloads.is_empty());
            let (stored, other) = (crate::hash::content(&1u64.to_be_bytes()), Hash::default());
            assert!(tail.has_passed_on(&stored, 0) && !tail.has_passed_on(&stored, 1));
            assert!(!tail.has_passed_on(&other, 0));
            tail.check_tiles().unwrap();
        }
    }

    #[test]
    fn every_hash_of_a_tile_that_is_wrong_is_found() {
        let whole = tail(70_000);
        let levels = whole.contexts[&1].levels.clone();
        for (level, hashes) in levels.iter().enumerate() {
            for at in (0..hashes.hashes.len()).step_by(7) {
                // Not again from the leaves, which would take long.
                let mut tail = Tail::default();
                tail.contexts.insert(1, whole.contexts[&1].clone());
                let context = Arc::make_mut(tail.contexts.get_mut(&1).unwrap());
                context.levels[level].hashes[at] = Hash::default();
                assert!(tail.check_tiles().is_err(), "{level} {at}");
            }
        }
        // Or missing.
        for level in 0..levels.len() {
            let mut tail = tail(70_000);
            let context = Arc::make_mut(tail.contexts.get_mut(&1).unwrap());
            context.levels[level].hashes.pop();
            assert!(tail.check_tiles().is_err(), "{level}");
        }
    }
}
