//! Reading a store: entries, runs, tree nodes, directory nodes. A view is cheap
//! to clone and never blocks the writer for longer than a look-up; whatever it
//! returns has been verified on the way.
//!
//! An own store shows every durable entry; a mirror shows what its complete
//! head covers, because more than that has not been told to anyone yet.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::StoreError;
use super::body::{self, StoreRole};
use super::index::{Context, Index, Location};
use super::log::LogReader;
use super::record::RecordType;
use crate::directory::{Node, Opening, ReadDirectory, Slot};
use crate::encoding::DecodeError;
use crate::entry::{ContextId, Entry, leaf_hash};
use crate::hash::{self, Hash};
use crate::head::SignedHead;
use crate::ledger::{OpenedNode, ReadLedger, ReadMirror, SeenHead};
use crate::note::VerifierKey;
use crate::run::{Accumulator, Run};
use crate::tree::nodes::read_root;
use crate::tree::{
    BuildError, LeafIndex, NodeId, ReadNodes, TiledError, TiledNodes, Tiles, TreeSize,
};

/// Entries of a page, at most: bounds the memory of one read.
const PAGE_ENTRIES_MAX: usize = 4096;
/// Bytes of the payloads of a page after which it ends.
const PAGE_BYTES_MAX: usize = 8 << 20;
/// Bytes of runs a filtered read looks at before it returns with what it has.
const PAGE_SCAN_BYTES_MAX: u64 = 64 << 20;

/// A context, its size, and its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextInfo {
    /// The context.
    pub id: ContextId,
    /// Entries in it.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

/// A part of a context's entries.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Ascending by sequence.
    pub entries: Vec<Entry>,
    /// Go on after this sequence; 0 at the end.
    pub next_after: u64,
    /// Size of the context when the page was read.
    pub size: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct View {
    index: Arc<RwLock<Index>>,
    log: Arc<LogReader>,
}

impl View {
    pub(crate) fn new(index: Arc<RwLock<Index>>, log: LogReader) -> Self {
        Self {
            index,
            log: Arc::new(log),
        }
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        // The writer applies an effect whole or fails the store.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Own store or mirror.
    #[must_use]
    pub fn role(&self) -> StoreRole {
        self.index().role
    }

    /// Whose history this is.
    #[must_use]
    pub fn origin(&self) -> VerifierKey {
        self.index().origin.clone()
    }

    /// The newest published or complete head.
    #[must_use]
    pub fn head(&self) -> Option<SignedHead> {
        self.index().published.head().cloned()
    }

    /// Entries and contexts that this view shows.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        let index = self.index();
        let sizes = index.contexts().iter().map(|c| visible_size(&index, c));
        let (mut contexts, mut entries) = (0u64, 0u64);
        for size in sizes.filter(|size| *size > 0) {
            contexts += 1;
            entries = entries.saturating_add(size);
        }
        (contexts, entries)
    }

    /// Contexts after `after` (by name), at most `limit` of them.
    pub fn contexts(
        &self,
        after: Option<&ContextId>,
        limit: usize,
    ) -> Result<Vec<ContextInfo>, StoreError> {
        let mut found: Vec<(ContextId, u64)> = {
            let index = self.index();
            let all = index
                .contexts()
                .iter()
                .map(|c| (c.id.clone(), visible_size(&index, c)));
            all.filter(|(id, size)| *size > 0 && after.is_none_or(|a| id > a))
                .collect()
        };
        found.sort_unstable();
        found.truncate(limit);
        found
            .into_iter()
            .map(|(id, size)| {
                let root = self.root_at(&id, size)?;
                Ok(ContextInfo { id, size, root })
            })
            .collect()
    }

    /// Size and root of one context, if it has entries.
    pub fn context(&self, id: &ContextId) -> Result<Option<ContextInfo>, StoreError> {
        let Some(size) = self.size(id) else {
            return Ok(None);
        };
        let root = self.root_at(id, size)?;
        Ok(Some(ContextInfo {
            id: id.clone(),
            size,
            root,
        }))
    }

    /// Entries of a context, if it has any.
    #[must_use]
    pub fn size(&self, id: &ContextId) -> Option<u64> {
        let index = self.index();
        let size = visible_size(&index, index.by_id(id)?);
        (size > 0).then_some(size)
    }

    /// Entries with sequences above `after`, at most `limit` (0 for as many as
    /// fit a page), of one key only if `key` is given.
    pub fn page(
        &self,
        id: &ContextId,
        after: u64,
        limit: usize,
        key: Option<&str>,
    ) -> Result<Page, StoreError> {
        let mut page = Page {
            size: self.size(id).unwrap_or(0),
            ..Page::default()
        };
        let limit = if limit == 0 {
            PAGE_ENTRIES_MAX
        } else {
            limit.min(PAGE_ENTRIES_MAX)
        };
        let (mut at, mut bytes, mut scanned) = (after, 0usize, 0u64);
        while at < page.size {
            if page.entries.len() >= limit || scanned >= PAGE_SCAN_BYTES_MAX {
                page.next_after = at;
                return Ok(page);
            }
            let Some((_, last, location)) = self.run_at(id, at + 1) else {
                break;
            };
            let run = self.log.body(location, RecordType::Run)?;
            scanned += u64::from(location.body_len);
            for entry in self.entries_of(location, &run, at, page.size, key)? {
                let entry = entry?;
                bytes += entry.payload.len();
                at = entry.sequence;
                page.entries.push(entry);
                if page.entries.len() >= limit || bytes >= PAGE_BYTES_MAX {
                    page.next_after = if at < page.size { at } else { 0 };
                    return Ok(page);
                }
            }
            at = last;
        }
        Ok(page)
    }

    /// One entry.
    pub fn entry(&self, id: &ContextId, sequence: u64) -> Result<Option<Entry>, StoreError> {
        let Some(before) = sequence.checked_sub(1) else {
            return Ok(None);
        };
        Ok(self
            .page(id, before, 1, None)?
            .entries
            .pop()
            .filter(|e| e.sequence == sequence))
    }

    /// The run that holds a sequence: first, last, place.
    fn run_at(&self, id: &ContextId, sequence: u64) -> Option<(u64, u64, Location)> {
        let index = self.index();
        let context = index.by_id(id)?;
        let at = context.run_of(sequence)?;
        let run = context.runs.get(at)?;
        Some((run.first, context.last_of(at), run.at))
    }

    /// Entries of a stored run in `after+1..=size` with their payloads, each
    /// verified.
    fn entries_of<'a>(
        &'a self,
        location: Location,
        body: &'a [u8],
        after: u64,
        size: u64,
        key: Option<&'a str>,
    ) -> Result<impl Iterator<Item = Result<Entry, StoreError>> + 'a, StoreError> {
        let corrupt = move |error| StoreError::Corrupt {
            position: location.position,
            error,
        };
        let (_, run) = body::get_run(body).map_err(corrupt)?;
        let run = Run::decode(run).map_err(corrupt)?;
        Ok(run.entries().filter_map(move |entry| {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Some(Err(corrupt(error))),
            };
            let header = &entry.header;
            let wanted = header.sequence > after
                && header.sequence <= size
                && key.is_none_or(|key| key == header.key);
            wanted.then(|| {
                let (sequence, hash) = (header.sequence, header.payload_hash);
                let payload = match entry.inline_payload {
                    Some(payload) => payload.to_vec(),
                    None => self.stored_payload(&hash)?,
                };
                if payload.len() != header.payload_len as usize || hash::content(&payload) != hash {
                    return Err(StoreError::PayloadMismatch { sequence, hash });
                }
                Ok(Entry::from_parts(
                    header,
                    leaf_hash(entry.header_bytes),
                    payload,
                ))
            })
        }))
    }

    /// A payload record, verified against its hash.
    fn stored_payload(&self, hash: &Hash) -> Result<Vec<u8>, StoreError> {
        let location = self.index().payload(hash);
        let location = location.ok_or(StoreError::PayloadMismatch {
            sequence: 0,
            hash: *hash,
        })?;
        let mut body = self.log.body(location, RecordType::Payload)?;
        let stored = body::get_payload(&body).map_err(|error| StoreError::Corrupt {
            position: location.position,
            error,
        })?;
        if stored.0 != *hash || hash::content(stored.1) != *hash {
            let what = "a payload does not match its hash";
            let error = DecodeError::Invalid { what };
            return Err(StoreError::Corrupt {
                position: location.position,
                error,
            });
        }
        body.drain(..Hash::LEN);
        Ok(body)
    }

    /// True if a payload is stored and its bytes verify now.
    pub(crate) fn payload_intact(&self, hash: &Hash) -> Result<bool, StoreError> {
        if self.index().payload(hash).is_none() {
            return Ok(false);
        }
        match self.stored_payload(hash) {
            Ok(_) => Ok(true),
            Err(error) if error.is_verification_failure() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The root of a context at a size it has or had.
    pub fn root_at(&self, id: &ContextId, size: u64) -> Result<Hash, StoreError> {
        let (newest, tiles) = {
            let index = self.index();
            let context = index
                .by_id(id)
                .ok_or(StoreError::Refused("no such context"))?;
            if context.after.size() == size {
                return Ok(context.after.root());
            }
            (context.after.size(), context.tiles.clone())
        };
        if size > newest {
            return Err(StoreError::Refused("the context is smaller"));
        }
        read_root(TreeSize::new(size), &self.nodes(id, &tiles)).map_err(from_build)
    }

    /// All complete nodes of a context's tree.
    fn nodes<'a>(
        &'a self,
        id: &'a ContextId,
        tiles: &'a Tiles,
    ) -> impl ReadNodes<Error = TiledError<StoreError>> + 'a {
        TiledNodes::new(tiles, move |first: LeafIndex, count: usize| {
            self.leaves(id, first, count)
        })
    }

    /// Leaf hashes, recomputed from stored headers.
    fn leaves(
        &self,
        id: &ContextId,
        first: LeafIndex,
        count: usize,
    ) -> Result<Vec<Hash>, StoreError> {
        let mut leaves = Vec::with_capacity(count.min(PAGE_ENTRIES_MAX));
        let mut sequence = first.get() + 1;
        let end = first.get().saturating_add(count as u64);
        while sequence <= end {
            let Some((_, last, location)) = self.run_at(id, sequence) else {
                break;
            };
            let body = self.log.body(location, RecordType::Run)?;
            let corrupt = |error| StoreError::Corrupt {
                position: location.position,
                error,
            };
            let (_, run) = body::get_run(&body).map_err(corrupt)?;
            for entry in Run::decode(run).map_err(corrupt)?.entries() {
                let entry = entry.map_err(corrupt)?;
                if (sequence..=end).contains(&entry.header.sequence) {
                    leaves.push(leaf_hash(entry.header_bytes));
                }
            }
            sequence = last + 1;
        }
        Ok(leaves)
    }
}

/// An own store shows all that is durable, a mirror what its complete head
/// covers.
fn visible_size(index: &Index, context: &Context) -> u64 {
    match index.role {
        StoreRole::Own => context.after.size(),
        StoreRole::Mirror => context.signed_size,
    }
}

fn from_build(error: BuildError<TiledError<StoreError>>) -> StoreError {
    match error {
        BuildError::Read(TiledError::Leaves(error)) => error,
        _ => StoreError::Refused("a tree node is not there"),
    }
}

impl ReadLedger for View {
    type Error = StoreError;

    fn newest_head(&self) -> Result<Option<SignedHead>, StoreError> {
        Ok(self.head())
    }

    fn opened_node(&self, hash: &Hash) -> Result<Option<OpenedNode>, StoreError> {
        let Some(node) = ReadDirectory::directory_node(self, hash)? else {
            return Ok(None);
        };
        let decoded = Node::decode(&node).map_err(|_| StoreError::Refused("directory node"))?;
        let mut openings = Vec::new();
        for slot in decoded.slots() {
            let Slot::Entry { path, entries, .. } = *slot else {
                continue;
            };
            let id = self
                .index()
                .by_path(&path)
                .map(|context| context.id.clone());
            let id = id.ok_or(StoreError::Refused("a directory entry of no context"))?;
            let root = self.root_at(&id, entries)?;
            openings.push(Opening {
                id: id.as_str().to_owned(),
                size: entries,
                root,
            });
        }
        Ok(Some(OpenedNode { node, openings }))
    }

    fn signed_size(&self, id: &ContextId) -> Result<Option<u64>, StoreError> {
        let size = self.index().by_id(id).map(|context| context.signed_size);
        Ok(size.filter(|size| *size > 0))
    }

    fn runs(
        &self,
        id: &ContextId,
        after: u64,
        size: u64,
        bytes_max: usize,
    ) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        let mut places = Vec::new();
        {
            let index = self.index();
            let Some(context) = index.by_id(id) else {
                return Ok(None);
            };
            let run_ends = |sequence: u64| {
                sequence == 0
                    || context
                        .run_of(sequence)
                        .is_some_and(|at| context.last_of(at) == sequence)
            };
            if size > context.signed_size || after >= size || !run_ends(after) || !run_ends(size) {
                return Ok(None);
            }
            let mut at = context.run_of(after + 1);
            let mut bytes = 0usize;
            while let Some(run) = at.and_then(|at| context.runs.get(at)) {
                bytes = bytes.saturating_add(run.at.body_len as usize);
                if run.first > size || (!places.is_empty() && bytes > bytes_max) {
                    break;
                }
                places.push(run.at);
                at = at.map(|at| at + 1);
            }
        }
        let mut runs = Vec::with_capacity(places.len());
        for location in places {
            let mut body = self.log.body(location, RecordType::Run)?;
            body.drain(..8.min(body.len()));
            runs.push(body);
        }
        Ok(Some(runs))
    }

    fn tree_nodes(&self, id: &ContextId, nodes: &[NodeId]) -> Result<Vec<Hash>, StoreError> {
        let tiles = {
            let index = self.index();
            let context = index
                .by_id(id)
                .ok_or(StoreError::Refused("no such context"))?;
            context.tiles.clone()
        };
        self.nodes(id, &tiles)
            .read_nodes(nodes)
            .map_err(|error| from_build(BuildError::Read(error)))
    }

    fn outside_payload(&self, hash: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        if self.index().payload(hash).is_none() {
            return Ok(None);
        }
        self.stored_payload(hash).map(Some)
    }
}

impl ReadDirectory for View {
    type Error = StoreError;

    fn directory_node(&self, hash: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        match self.index().published.directory_node(hash) {
            Ok(node) => Ok(node),
            Err(never) => match never {},
        }
    }
}

impl ReadMirror for View {
    type Failure = StoreError;

    fn complete_head(&self) -> Result<Option<SignedHead>, StoreError> {
        Ok(self.head())
    }

    fn pending_head(&self) -> Result<Option<SeenHead>, StoreError> {
        Ok(self.index().pending.clone())
    }

    fn accumulator(&self, id: &ContextId) -> Result<Accumulator, StoreError> {
        Ok(self
            .index()
            .by_id(id)
            .map(|context| context.after.clone())
            .unwrap_or_default())
    }

    fn has_outside_payload(&self, hash: &Hash) -> Result<bool, StoreError> {
        self.payload_intact(hash)
    }
}

impl View {
    /// Every leaf of a context up to `size`, recomputed from stored headers.
    pub(crate) fn all_leaves(&self, id: &ContextId, size: u64) -> Result<Vec<Hash>, StoreError> {
        self.leaves(
            id,
            LeafIndex::new(0),
            usize::try_from(size).unwrap_or(usize::MAX),
        )
    }
}
