//! Tiles that were read lately, hashed up. A tile of one width never changes, so
//! nothing here is ever wrong; the oldest goes when there are too many.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::tree::{TileId, TilePyramid};

/// Tiles kept: 8 MiB, at 16 KiB for a full one.
const CACHED_TILES_MAX: usize = 512;

/// Context number, tile, and how many hashes it has.
pub(crate) type TileKey = (u64, TileId, usize);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct TileCache {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    tiles: HashMap<TileKey, Arc<TilePyramid>>,
    /// In the order they came.
    order: VecDeque<TileKey>,
}

impl TileCache {
    pub(crate) fn get(&self, key: &TileKey) -> Option<Arc<TilePyramid>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.tiles.get(key).cloned()
    }

    pub(crate) fn put(&self, key: TileKey, pyramid: TilePyramid) -> Arc<TilePyramid> {
        let pyramid = Arc::new(pyramid);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.tiles.insert(key, pyramid.clone()).is_none() {
            held.order.push_back(key);
            if held.order.len() > CACHED_TILES_MAX
                && let Some(oldest) = held.order.pop_front()
            {
                held.tiles.remove(&oldest);
            }
        }
        pyramid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_forgets_the_oldest() {
        let cache = TileCache::default();
        let tile = TileId::new(1, 0).unwrap();
        for number in 0..2 * CACHED_TILES_MAX as u64 {
            let key = (number, tile, 1);
            assert!(cache.get(&key).is_none());
            cache.put(key, TilePyramid::new(vec![crate::hash::empty_root()]));
            assert!(cache.get(&key).is_some());
        }
        assert!(cache.get(&(0, tile, 1)).is_none());
        assert_eq!(cache.held.lock().unwrap().tiles.len(), CACHED_TILES_MAX);
    }
}
