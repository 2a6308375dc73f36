//! The part of the index that is on disk, as the one who writes it sees it:
//! folds a tail into the database, in one durable commit together with the
//! place in the log that the database covers from then on.
//!
//! What a crash leaves: the commit before, or this one; never a part (two-phase
//! commit). What an error leaves is not looked at: the file is deleted and made
//! again from the log.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, Table as RedbTable};

use super::base::{Lose, Reader, definition, guarded};
use super::error::IndexError;
use super::rows::{self, IndexKeys, RetiredRow, StateRow, Table};
use super::tail::{Tail, TailContext, level_len};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::limits::{HEADS_KEPT, INDEX_CACHE_BYTES, RETIRED_BYTES_MAX, RETIRED_NS_MAX};
use crate::store::body::StoreRole;
use crate::store::disk::{Access, Disk, DiskFile, Sharing};
use crate::store::pages::CheckedPages;
use crate::tree::tile::{TILE_WIDTH, TileId};

/// The file of the index.
pub(crate) const INDEX_FILE: &str = "index.redb";
/// Its name while it is made anew.
pub(crate) const INDEX_FILE_NEW: &str = "index.redb.new";

/// Bytes copied at a time.
const COPY_BYTES: usize = 1 << 20;
/// Memory of the database; in tests so little that most reads go to the disk.
const CACHE_BYTES: usize = if cfg!(test) {
    16 << 10
} else {
    INDEX_CACHE_BYTES
};

type Rows<'t> = RedbTable<'t, &'static [u8], &'static [u8]>;

/// The database, open for writing. Readers keep it open for reading when its
/// writer has gone, as after a failure of the store.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    db: Arc<Database>,
    keys: IndexKeys,
    /// Set when the writer has gone: whoever opens the file next owns it.
    gone: Arc<AtomicBool>,
    /// Order of the next row of `retired`, and the bytes of all in it.
    retired_next: u64,
    retired_bytes: u64,
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
    }
}

/// Pages that nobody writes any more when the writer has gone. Closing the
/// database would write that it was closed; quick repair makes that unneeded.
#[derive(Debug)]
struct Owned {
    pages: CheckedPages,
    gone: Arc<AtomicBool>,
}

impl Owned {
    fn check(&self) -> io::Result<()> {
        if self.gone.load(Ordering::SeqCst) {
            return Err(io::Error::other("the index has no writer any more"));
        }
        Ok(())
    }
}

impl StorageBackend for Owned {
    fn len(&self) -> io::Result<u64> {
        self.pages.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.pages.read(offset, out)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.pages.write(offset, data)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.pages.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.pages.sync_data()
    }
}

impl Checkpoint {
    /// A new, empty index under `name`; a file that is there is removed.
    pub(crate) fn create(
        disk: &dyn Disk,
        name: &str,
        keys: &IndexKeys,
    ) -> Result<Self, IndexError> {
        remove(disk, name).map_err(io_error)?;
        let file = disk.create(name).map_err(io_error)?;
        file.try_hold(Sharing::Exclusive).map_err(io_error)?;
        Self::over(CheckedPages::new(file, keys.pages), keys)
    }

    /// Opens the index, if there is one, and says what it covers.
    pub(crate) fn open(
        disk: &dyn Disk,
        keys: &IndexKeys,
    ) -> Result<Option<(Self, StateRow)>, IndexError> {
        let Some(mut file) = open_if_there(disk, Access::Write)? else {
            return Ok(None);
        };
        if !file.try_hold(Sharing::Exclusive).map_err(io_error)? {
            // Whoever reads it keeps what they read; we go on in a copy.
            file = replace_by_copy(disk, &*file).map_err(io_error)?;
        }
        Self::with_state(CheckedPages::new(file, keys.pages), keys).map(Some)
    }

    /// The same without changing the file, unless a process writes to it.
    pub(crate) fn open_read_only(
        disk: &dyn Disk,
        keys: &IndexKeys,
    ) -> Result<Option<(Self, StateRow)>, IndexError> {
        let Some(file) = open_if_there(disk, Access::Read)? else {
            return Ok(None);
        };
        if !file.try_hold(Sharing::Shared).map_err(io_error)? {
            return Ok(None);
        }
        let pages = CheckedPages::read_only(file, keys.pages).map_err(io_error)?;
        Self::with_state(pages, keys).map(Some)
    }

    fn with_state(pages: CheckedPages, keys: &IndexKeys) -> Result<(Self, StateRow), IndexError> {
        let mut checkpoint = Self::over(pages, keys)?;
        let state = checkpoint.state()?;
        checkpoint.retired_next = state.retired_next;
        checkpoint.retired_bytes = state.retired_bytes;
        Ok((checkpoint, state))
    }

    fn over(pages: CheckedPages, keys: &IndexKeys) -> Result<Self, IndexError> {
        let gone = Arc::new(AtomicBool::new(false));
        let pages = Owned {
            pages,
            gone: gone.clone(),
        };
        let db = guarded(|| {
            Ok(Builder::new()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(pages)?)
        })?;
        Ok(Self {
            db: Arc::new(db),
            keys: keys.clone(),
            gone,
            retired_next: 0,
            retired_bytes: 0,
        })
    }

    fn state(&self) -> Result<StateRow, IndexError> {
        guarded(|| {
            let table = Table::State;
            let transaction = self.db.begin_read()?;
            let rows = transaction.open_table(definition(table))?;
            let row = rows.get_owned(rows::STATE_KEY)?;
            let row = row.ok_or(IndexError::Stale("it does not say what it covers"))?;
            let value = self.keys.rows.open(table, rows::STATE_KEY, row.value());
            let value = value.ok_or(IndexError::Row { table })?;
            StateRow::decode(value).map_err(|error| IndexError::Decode { table, error })
        })
    }

    /// What was committed last, for reading. `root` is the directory of the
    /// head it covers.
    pub(crate) fn reader(
        &self,
        role: StoreRole,
        root: Hash,
        health: (Arc<dyn Lose>, u64),
    ) -> Result<Reader, IndexError> {
        Reader::open(self.db.clone(), self.keys.rows.clone(), role, root, health)
    }

    /// Folds a tail in, together with what the index covers then: one durable
    /// commit.
    pub(crate) fn fold(&mut self, tail: &Tail, covers: &StateRow) -> Result<(), IndexError> {
        guarded(|| {
            let mut transaction = self.db.begin_write()?;
            transaction
                .set_durability(Durability::Immediate)
                .map_err(|error| IndexError::Database(error.to_string()))?;
            // With it, opening after a crash need not walk the file.
            transaction.set_quick_repair(true);
            {
                let mut tables = Vec::with_capacity(Table::ALL.len());
                for table in Table::ALL {
                    let rows = transaction.open_table(definition(table))?;
                    tables.push((table, rows));
                }
                let mut fold = Fold {
                    tables,
                    keys: &self.keys,
                };
                fold.contexts(tail)?;
                fold.lookups(tail)?;
                fold.heads(tail)?;
                fold.directory(tail, &mut self.retired_next, &mut self.retired_bytes)?;
                let state = StateRow {
                    retired_next: self.retired_next,
                    retired_bytes: self.retired_bytes,
                    ..covers.clone()
                };
                fold.put(Table::State, rows::STATE_KEY, state.encode())?;
            }
            transaction.commit()?;
            Ok(())
        })
    }
}

/// An error of the disk as the index has it.
pub(crate) fn io_error(error: std::io::Error) -> IndexError {
    redb::StorageError::Io(error).into()
}

fn open_if_there(disk: &dyn Disk, access: Access) -> Result<Option<Arc<dyn DiskFile>>, IndexError> {
    match disk.open(INDEX_FILE, access) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(error)),
    }
}

/// Puts a copy of the index in its place and returns it. A crash leaves the old
/// file or the copy, which are the same.
fn replace_by_copy(disk: &dyn Disk, file: &dyn DiskFile) -> std::io::Result<Arc<dyn DiskFile>> {
    remove(disk, INDEX_FILE_NEW)?;
    let copy = disk.create(INDEX_FILE_NEW)?;
    copy.try_hold(Sharing::Exclusive)?;
    let mut piece = vec![0; COPY_BYTES];
    let mut at = 0;
    loop {
        let got = file.read_at(at, &mut piece)?;
        let Some(bytes) = piece.get(..got).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        copy.write_at(at, bytes)?;
        at += got as u64;
    }
    copy.sync()?;
    disk.rename(INDEX_FILE_NEW, INDEX_FILE)?;
    disk.sync_dir("")?;
    Ok(copy)
}

/// Removes a file, if it is there.
pub(crate) fn remove(disk: &dyn Disk, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A commit under way.
struct Fold<'t> {
    tables: Vec<(Table, Rows<'t>)>,
    keys: &'t IndexKeys,
}

impl<'t> Fold<'t> {
    fn table(&mut self, table: Table) -> Result<&mut Rows<'t>, IndexError> {
        let found = self.tables.iter_mut().find(|(of, _)| *of == table);
        found
            .map(|(_, rows)| rows)
            .ok_or(IndexError::Stale("a table is missing"))
    }

    fn put(&mut self, table: Table, key: &[u8], value: Vec<u8>) -> Result<(), IndexError> {
        let row = self.keys.rows.seal(table, key, value);
        self.table(table)?.insert(key, row.as_slice())?;
        Ok(())
    }

    fn get(&mut self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let keys = self.keys;
        let Some(row) = self.table(table)?.get(key)? else {
            return Ok(None);
        };
        let value = keys.rows.open(table, key, row.value());
        Ok(Some(value.ok_or(IndexError::Row { table })?.to_vec()))
    }

    /// Keys in order: neighbouring rows share pages.
    fn contexts(&mut self, tail: &Tail) -> Result<(), IndexError> {
        let mut contexts: Vec<&TailContext> = tail.contexts().map(AsRef::as_ref).collect();
        contexts.sort_unstable_by_key(|context| context.state.number);
        for context in &contexts {
            let state = &context.state;
            let key = rows::number_key(state.number);
            self.put(Table::Accumulators, &key, rows::put_accumulator(state))?;
            let begun = state.name.is_none() && context.base_size == 0;
            if context.created || begun {
                let name = rows::put_name(state.name.as_ref());
                self.put(Table::ContextIds, &key, name)?;
            }
            for run in &context.runs {
                let key = rows::run_key(state.number, run.first);
                self.put(Table::Runs, &key, rows::put_run(run))?;
            }
            self.tiles(context)?;
        }
        contexts.retain(|context| context.created);
        let names = contexts.iter().filter_map(|context| {
            let name = context.state.name.as_ref()?;
            Some((name, context.state.number))
        });
        let mut names: Vec<(&ContextId, u64)> = names.collect();
        names.sort_unstable();
        for (id, number) in &names {
            let id = id.as_str().as_bytes();
            self.put(Table::Contexts, id, rows::put_u64(*number))?;
        }
        let mut paths: Vec<(Hash, u64)> = names
            .iter()
            .map(|(id, number)| (id.path(), *number))
            .collect();
        paths.sort_unstable();
        for (path, number) in paths {
            self.put(Table::Paths, path.as_bytes(), rows::put_u64(number))?;
        }
        Ok(())
    }

    /// Continues the last tile of each level, which may be partial.
    fn tiles(&mut self, context: &TailContext) -> Result<(), IndexError> {
        for (level, start, hashes) in context.levels() {
            let mut at = start;
            let mut rest = hashes;
            while !rest.is_empty() {
                let index = at / TILE_WIDTH as u64;
                let level = u8::try_from(level).unwrap_or(u8::MAX);
                let tile = TileId::new(level, index).ok_or(IndexError::Stale("no such tile"))?;
                let key = rows::tile_key(context.state.number, tile);
                let before = usize::try_from(at % TILE_WIDTH as u64).unwrap_or(0);
                let mut value = match before {
                    0 => Vec::new(),
                    _ => self.get(Table::Tiles, &key)?.unwrap_or_default(),
                };
                if value.len() != before * Hash::LEN {
                    return Err(IndexError::Stale("a tile is of another size"));
                }
                let fits = rest.len().min(TILE_WIDTH - before);
                let (now, later) = rest.split_at(fits);
                value.extend(rows::put_hashes(now.iter()));
                self.put(Table::Tiles, &key, value)?;
                at += fits as u64;
                rest = later;
            }
            debug_assert_eq!(at, level_len(context.state.after.size(), level));
        }
        Ok(())
    }

    fn lookups(&mut self, tail: &Tail) -> Result<(), IndexError> {
        let mut payloads: Vec<_> = tail.payloads.iter().collect();
        payloads.sort_unstable_by_key(|(hash, _)| **hash);
        for (hash, at) in payloads {
            self.put(Table::Payloads, hash.as_bytes(), rows::put_location(*at))?;
        }
        let mut requests: Vec<_> = tail.requests.iter().collect();
        requests.sort_unstable();
        for ((number, request), sequence) in requests {
            let key = rows::request_row_key(*number, request);
            let row = self
                .keys
                .rows
                .seal(Table::Requests, &key, rows::put_u64(*sequence));
            let rows = self.table(Table::Requests)?;
            let first = rows.insert(key.as_slice(), row.as_slice())?;
            // Whoever used the id first keeps it.
            if let Some(first) = first.map(|first| first.value().to_vec()) {
                rows.insert(key.as_slice(), first.as_slice())?;
            }
        }
        Ok(())
    }

    /// Adds heads; lets those go that are no longer among the newest, unless
    /// they are the first of their minute. As many leave as came.
    fn heads(&mut self, tail: &Tail) -> Result<(), IndexError> {
        for (order, row) in &tail.heads {
            self.put(Table::Heads, &rows::head_key(*order), rows::put_head(row))?;
        }
        if tail.heads.is_empty() {
            return Ok(());
        }
        let (table, keys) = (Table::Heads, self.keys);
        let mut gone = Vec::new();
        let all = self.table(table)?.iter()?.rev();
        for row in all.skip(HEADS_KEPT).take(tail.heads.len()) {
            let (key, value) = row?;
            let value = keys.rows.open(table, key.value(), value.value());
            let value = value.ok_or(IndexError::Row { table })?;
            let row = rows::get_head(value);
            if !row
                .map_err(|error| IndexError::Decode { table, error })?
                .first
            {
                gone.push(key.value().to_vec());
            }
        }
        for key in gone {
            self.table(table)?.remove(key.as_slice())?;
        }
        Ok(())
    }

    /// Adds directory nodes; lets those go that have been retired for long.
    fn directory(
        &mut self,
        tail: &Tail,
        next: &mut u64,
        bytes: &mut u64,
    ) -> Result<(), IndexError> {
        let mut nodes: Vec<_> = tail.nodes.iter().collect();
        nodes.sort_unstable_by_key(|(hash, _)| **hash);
        for (hash, node) in nodes {
            self.put(Table::Directory, hash.as_bytes(), node.clone())?;
        }
        for hash in &tail.dropped {
            self.table(Table::Directory)?
                .remove(hash.as_bytes().as_slice())?;
        }
        let mut now_ns = 0;
        for retired in &tail.retired {
            let row = RetiredRow {
                at_ns: retired.at_ns,
                bytes: retired.bytes,
                nodes: retired.nodes.clone(),
            };
            let key = rows::number_key(*next);
            self.put(Table::Retired, &key, rows::put_retired(&row))?;
            *next += 1;
            *bytes = bytes.saturating_add(row.bytes);
            now_ns = row.at_ns.max(now_ns);
        }
        loop {
            let table = Table::Retired;
            let keys = self.keys;
            let Some((key, row)) = self.table(table)?.first()?.map(|(key, value)| {
                let key = key.value().to_vec();
                let row = keys.rows.open(table, &key, value.value());
                let row = row.map(rows::get_retired);
                (key, row)
            }) else {
                return Ok(());
            };
            let row = row.ok_or(IndexError::Row { table })?;
            let row = row.map_err(|error| IndexError::Decode { table, error })?;
            let young = now_ns.saturating_sub(row.at_ns) <= RETIRED_NS_MAX;
            if young && *bytes <= RETIRED_BYTES_MAX {
                return Ok(());
            }
            *bytes = bytes.saturating_sub(row.bytes);
            self.table(table)?.remove(key.as_slice())?;
            for hash in row.nodes {
                self.table(Table::Directory)?
                    .remove(hash.as_bytes().as_slice())?;
            }
        }
    }
}
