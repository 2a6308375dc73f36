//! Tail, frozen tail and base, read as one. A look-up starts at the newest and
//! goes down; what is found in two layers is the same or newer above, because
//! nothing is ever changed.
//!
//! A [`ContextView`] is a context at one size: once made, it needs no lock and
//! sees no later change.

use std::sync::Arc;

use super::base::Reader;
use super::error::IndexError;
use super::filter::RequestFilter;
use super::first_request;
use super::heads::{Near, near_in};
use super::place::{Location, RequestKey, RunPlace};
use super::tail::{ContextState, Tail, TailContext, level_len};
use super::tiles::TileCache;
use crate::directory::ReadDirectory;
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::HeadOrder;
use crate::tree::tile::{TILE_WIDTH, TileId};
use crate::tree::{ReadTiles, TilePyramid, TileSlice, TreeSize};

/// What lies on disk.
#[derive(Clone, Debug, Default)]
pub(crate) enum Base {
    /// Nothing: what the layers above lack does not exist.
    #[default]
    Empty,
    Ready(Arc<Reader>),
    /// It is being made anew: what the layers above lack cannot be told.
    Lost,
}

impl Base {
    /// What `read` finds on disk. Trouble with a row is said to whoever can
    /// mend it.
    fn ask<T>(
        &self,
        read: impl FnOnce(&Reader) -> Result<Option<T>, IndexError>,
    ) -> Result<Option<T>, IndexError> {
        match self {
            Self::Empty => Ok(None),
            Self::Ready(reader) => reader.noting(read(reader)),
            Self::Lost => Err(IndexError::Lost),
        }
    }
}

/// What lies below the tail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Below {
    /// A tail that is being folded.
    pub(crate) frozen: Option<Arc<Tail>>,
    pub(crate) base: Base,
    /// Request ids that are surely not in the base, if someone appends.
    pub(crate) filter: Option<Arc<RequestFilter>>,
}

impl Below {
    /// Says that what is on disk is wanting.
    pub(crate) fn lose(&self, reason: &str) {
        if let Base::Ready(reader) = &self.base {
            reader.lose(reason);
        }
    }

    pub(crate) fn by_id(&self, id: &ContextId) -> Result<Option<ContextState>, IndexError> {
        if let Some(frozen) = &self.frozen
            && let Some(number) = frozen.number(id)
        {
            return Ok(frozen.context(number).map(|context| context.state.clone()));
        }
        self.base.ask(|base| base.by_id(id))
    }

    pub(crate) fn by_number(&self, number: u64) -> Result<Option<ContextState>, IndexError> {
        if let Some(context) = self.frozen_context(number) {
            return Ok(Some(context.state.clone()));
        }
        self.base.ask(|base| base.by_number(number))
    }

    /// The name of the context with this path hash.
    pub(crate) fn name_of_path(&self, path: &Hash) -> Result<Option<ContextId>, IndexError> {
        let created = self.frozen.as_ref().and_then(|frozen| {
            let number = frozen.by_path(path)?;
            frozen.context(number)?.state.name.clone()
        });
        match created {
            Some(id) => Ok(Some(id)),
            None => self.base.ask(|base| match base.by_path(path)? {
                Some(number) => base.id(number),
                None => Ok(None),
            }),
        }
    }

    fn frozen_context(&self, number: u64) -> Option<&Arc<TailContext>> {
        self.frozen.as_ref()?.context(number)
    }

    /// A request id's sequence. `base_size` entries of the context lie below the
    /// tail; without any, nothing needs to be asked.
    pub(crate) fn request(
        &self,
        number: u64,
        key: &RequestKey,
        base_size: u64,
    ) -> Result<Option<u64>, IndexError> {
        let (mut base_size, mut newer) = (base_size, None);
        if let Some(frozen) = &self.frozen {
            newer = frozen.requests.get(&(number, *key)).copied();
            if let Some(context) = frozen.context(number) {
                base_size = context.base_size;
            }
        }
        let ruled_out = |filter: &Arc<RequestFilter>| filter.rules_out(number, key);
        if base_size == 0 || self.filter.as_ref().is_some_and(ruled_out) {
            return Ok(newer);
        }
        first_request(self.base.ask(|base| base.request(number, key)), newer)
    }

    pub(crate) fn payload(&self, hash: &Hash) -> Result<Option<Location>, IndexError> {
        let frozen = self.frozen.as_ref();
        match frozen.and_then(|frozen| frozen.payloads.get(hash)) {
            Some(at) => Ok(Some(*at)),
            None => self.base.ask(|base| base.payload(hash)),
        }
    }

    /// The heads on both sides of a place.
    pub(crate) fn near(&self, order: HeadOrder) -> Result<Near, IndexError> {
        let frozen = self.frozen.as_ref();
        let near = frozen.map_or_else(Near::default, |frozen| near_in(&frozen.heads, order));
        near.over(|| {
            let base = self.base.ask(|base| base.near(order).map(Some))?;
            Ok(base.unwrap_or_default())
        })
    }

    /// Names after `after`, in order, at most `limit` of them.
    pub(crate) fn names_after(
        &self,
        after: Option<&ContextId>,
        limit: usize,
    ) -> Result<Vec<ContextId>, IndexError> {
        let mut names: Vec<ContextId> = self
            .base
            .ask(|base| base.names_after(after, limit).map(Some))?
            .unwrap_or_default();
        if let Some(frozen) = &self.frozen {
            names.extend(frozen.names_after(after).take(limit).cloned());
        }
        Ok(names)
    }

    /// The view of a context that has not been touched since.
    pub(crate) fn view(
        &self,
        state: ContextState,
        newest: Option<Arc<TailContext>>,
    ) -> ContextView {
        let frozen = self.frozen_context(state.number).cloned();
        ContextView {
            layers: newest.into_iter().chain(frozen).collect(),
            state,
            base: self.base.clone(),
        }
    }
}

impl ReadDirectory for Below {
    type Error = IndexError;

    fn directory_node(&self, hash: &Hash) -> Result<Option<Vec<u8>>, IndexError> {
        let frozen = self.frozen.as_ref();
        match frozen.and_then(|frozen| frozen.nodes.get(hash)) {
            Some(node) => Ok(Some(node.clone())),
            None => self.base.ask(|base| base.directory_node(hash)),
        }
    }
}

/// A context at the size it had when it was looked up.
#[derive(Clone, Debug)]
pub(crate) struct ContextView {
    pub(crate) state: ContextState,
    /// Newest first, at most two.
    layers: Vec<Arc<TailContext>>,
    base: Base,
}

impl ContextView {
    /// Entries that are on disk only.
    fn base_size(&self) -> u64 {
        let oldest = self.layers.last();
        oldest.map_or(self.state.after.size(), |layer| layer.base_size)
    }

    /// The run that holds `sequence`; `None` beyond the size.
    pub(crate) fn run_of(&self, sequence: u64) -> Result<Option<RunPlace>, IndexError> {
        if sequence == 0 || sequence > self.state.after.size() {
            return Ok(None);
        }
        for layer in &self.layers {
            if sequence > layer.base_size {
                return Ok(layer.run_of(sequence).copied());
            }
        }
        self.base
            .ask(|base| base.run_of(self.state.number, sequence).map(Some))
    }

    /// The hashes of a tile, as many as there are at this size.
    fn whole_tile(&self, tile: TileId) -> Result<Vec<Hash>, IndexError> {
        let level = usize::from(tile.level());
        let first = tile.index().saturating_mul(TILE_WIDTH as u64);
        let end = level_len(self.state.after.size(), level).min(first + TILE_WIDTH as u64);
        let stored = level_len(self.base_size(), level).clamp(first, end.max(first)) - first;
        let mut hashes = Vec::new();
        if stored > 0 {
            let row = self.base.ask(|base| {
                let row = base.tile(self.state.number, tile)?.unwrap_or_default();
                if row.len() as u64 != stored {
                    return Err(IndexError::Stale("a tile is of another size"));
                }
                Ok(Some(row))
            })?;
            hashes = row.unwrap_or_default();
        }
        for layer in self.layers.iter().rev() {
            let (start, new) = layer.level(level);
            let have = first + hashes.len() as u64;
            let skip = usize::try_from(have.saturating_sub(start)).unwrap_or(usize::MAX);
            let room = usize::try_from(end.saturating_sub(have)).unwrap_or(0);
            if start <= have {
                hashes.extend(new.iter().skip(skip).take(room));
            }
        }
        Ok(hashes)
    }
}

/// The tiles of a context.
#[derive(Debug)]
pub(crate) struct LayeredTiles<'v> {
    view: &'v ContextView,
    cache: &'v TileCache,
}

impl<'v> LayeredTiles<'v> {
    pub(crate) const fn new(view: &'v ContextView, cache: &'v TileCache) -> Self {
        Self { view, cache }
    }
}

impl<E: From<IndexError>> ReadTiles<E> for LayeredTiles<'_> {
    fn read_slice(&self, slice: TileSlice) -> Result<Option<Hash>, E> {
        let size = self.view.state.after.size();
        let width = slice.tile.width(TreeSize::new(size));
        let key = (self.view.state.number, slice.tile, width);
        if let Some(pyramid) = self.cache.get(&key) {
            return Ok(pyramid.slice(slice));
        }
        let pyramid = TilePyramid::new(self.view.whole_tile(slice.tile)?);
        let pyramid = self.cache.put(key, pyramid);
        Ok(pyramid.slice(slice))
    }
}
