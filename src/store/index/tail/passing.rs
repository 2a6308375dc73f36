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
