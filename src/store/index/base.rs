//! The part of the index that is on disk, as reads see it: one committed state
//! of the database, held open until the next checkpoint takes its place.
//!
//! Invariants:
//! * a row is believed only if its check is right; one that is not, and any
//!   error or panic of the database, loses the index ([`Lose`]);
//! * a context's accumulator is believed only if its root leads, along the
//!   directory's path, to the root of the head that the checkpoint covers, and
//!   a context is missing only if that path shows it absent: an old row cannot
//!   pass for a new one (`spec/10-index.md`, First touch);
//! * what is answered here never changes: everything is append-only.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redb::{
    ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTableMetadata, TableDefinition,
};

use super::error::IndexError;
use super::filter::RequestFilter;
use super::heads::Near;
use super::place::{Location, RequestKey, RunPlace};
use super::rows::{self, NameRow, RowKey, Table};
use super::tail::ContextState;
use crate::directory::path::{Found, find};
use crate::directory::{ReadDirectory, commitment};
use crate::encoding::DecodeError;
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::HeadOrder;
use crate::store::body::StoreRole;
use crate::tree::tile::TileId;

/// Tables hold raw bytes: decoding is ours, because it may fail.
pub(crate) const fn definition(
    table: Table,
) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// Runs a call into the database; a panic inside it is an error like others.
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(IndexError::Database("the database panicked".into())))
}

/// Hears that the index is wanting.
pub(crate) trait Lose: Send + Sync + std::fmt::Debug {
    /// Called with every reason; the first one of a file counts. `file` tells
    /// the files of an index apart that was made anew.
    fn lose(&self, file: u64, reason: &str);
}

/// For readers whom nobody can help: the error they get says it all.
#[derive(Debug)]
pub(crate) struct Alone;

impl Lose for Alone {
    fn lose(&self, _file: u64, _reason: &str) {}
}

/// Hears of a row: its key and its value.
pub(crate) type SeeRow<'s> = dyn FnMut(&[u8], &[u8]) -> Result<(), IndexError> + 's;
type KeyAndValue = (Vec<u8>, Vec<u8>);
type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A committed state of the index.
#[derive(Debug)]
pub(crate) struct Reader {
    /// In the order of [`Table::ALL`].
    tables: Vec<TableOf>,
    /// Keeps the pages of `tables` from being used again.
    _transaction: ReadTransaction,
    /// Keeps the file open.
    _db: Arc<redb::Database>,
    key: RowKey,
    role: StoreRole,
    /// The directory of the head that is covered.
    root: Hash,
    health: (Arc<dyn Lose>, u64),
}

struct TableOf(Table, Rows);

impl std::fmt::Debug for TableOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}

impl Reader {
    /// The newest committed state of `db`. `root` is the directory of the head
    /// it covers, from the log.
    pub(super) fn open(
        db: Arc<redb::Database>,
        key: RowKey,
        role: StoreRole,
        root: Hash,
        health: (Arc<dyn Lose>, u64),
    ) -> Result<Self, IndexError> {
        guarded(|| {
            let transaction = db.begin_read()?;
            let tables = Table::ALL
                .into_iter()
                .map(|table| Ok(TableOf(table, transaction.open_table(definition(table))?)))
                .collect::<Result<_, IndexError>>()?;
            Ok(Self {
                tables,
                _transaction: transaction,
                _db: db,
                key,
                role,
                root,
                health,
            })
        })
    }

    pub(crate) fn lose(&self, reason: &str) {
        self.health.0.lose(self.health.1, reason);
    }

    /// Whatever is wrong with the index is said once to whoever can mend it.
    pub(crate) fn noting<T>(&self, outcome: Result<T, IndexError>) -> Result<T, IndexError> {
        outcome.inspect_err(|error| self.lose(&error.to_string()))
    }

    fn rows(&self, table: Table) -> Result<&Rows, IndexError> {
        let found = self.tables.iter().find(|of| of.0 == table);
        found
            .map(|of| &of.1)
            .ok_or(IndexError::Stale("a table is missing"))
    }

    /// The value of a row, checked.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let rows = self.rows(table)?;
        guarded(|| {
            let Some(row) = rows.get_owned(key)? else {
                return Ok(None);
            };
            let value = self.key.open(table, key, row.value());
            Ok(Some(value.ok_or(IndexError::Row { table })?.to_vec()))
        })
    }

    fn get_as<T>(
        &self,
        table: Table,
        key: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, IndexError> {
        let value = self.get(table, key)?;
        value
            .map(|value| decode(&value).map_err(|error| IndexError::Decode { table, error }))
            .transpose()
    }

    /// The last row at or before `key`, and its key.
    fn at_or_before(&self, table: Table, key: &[u8]) -> Result<Option<KeyAndValue>, IndexError> {
        let rows = self.rows(table)?;
        guarded(|| {
            let Some(row) = rows.range_owned::<&[u8]>(..=key)?.next_back() else {
                return Ok(None);
            };
            let (found, value) = row?;
            let found = found.value().to_vec();
            let value = self.key.open(table, &found, value.value());
            let value = value.ok_or(IndexError::Row { table })?.to_vec();
            Ok(Some((found, value)))
        })
    }

    /// The heads on both sides of a place.
    pub(super) fn near(&self, order: HeadOrder) -> Result<Near, IndexError> {
        let table = Table::Heads;
        let key = rows::head_key(order);
        let read = |(key, value): KeyAndValue| {
            let order = rows::get_head_key(&key).ok_or(IndexError::Row { table })?;
            let row = rows::get_head(&value);
            let row = row.map_err(|error| IndexError::Decode { table, error })?;
            Ok::<_, IndexError>((order, row))
        };
        Ok(Near {
            through: self.at_or_before(table, &key)?.map(read).transpose()?,
            after: self.after(table, &key)?.map(read).transpose()?,
        })
    }

    /// The first row behind `key`, and its key.
    fn after(&self, table: Table, key: &[u8]) -> Result<Option<KeyAndValue>, IndexError> {
        use std::ops::Bound;
        let rows = self.rows(table)?;
        guarded(|| {
            let behind = (Bound::Excluded(key), Bound::Unbounded);
            let Some(row) = rows.range_owned::<&[u8]>(behind)?.next() else {
                return Ok(None);
            };
            let (found, value) = row?;
            let found = found.value().to_vec();
            let value = self.key.open(table, &found, value.value());
            let value = value.ok_or(IndexError::Row { table })?.to_vec();
            Ok(Some((found, value)))
        })
    }

    /// Every row of a table in the order of its keys, checked.
    pub(crate) fn each(&self, table: Table, see: &mut SeeRow<'_>) -> Result<(), IndexError> {
        let rows = self.rows(table)?;
        guarded(|| {
            for row in rows.range_owned::<&[u8]>(..)? {
                let (key, row) = row?;
                let key = key.value();
                let value = self.key.open(table, key, row.value());
                see(key, value.ok_or(IndexError::Row { table })?)?;
            }
            Ok(())
        })
    }

    /// A context by name, its root checked against the head.
    pub(crate) fn by_id(&self, id: &ContextId) -> Result<Option<ContextState>, IndexError> {
        let key = id.as_str().as_bytes();
        match self.get_as(Table::Contexts, key, rows::get_u64)? {
            Some(number) => self.checked(number, id).map(Some),
            None => match self.find(&id.path())? {
                Found::Present { .. } => Err(IndexError::Stale(
                    "a context of the covered head is missing",
                )),
                // A mirror in mid-sync has contexts that no head covers yet.
                Found::Absent { .. } if self.by_path(&id.path())?.is_some() => {
                    Err(IndexError::Stale("a context is missing"))
                }
                Found::Absent { .. } => Ok(None),
            },
        }
    }

    /// A context by number, its root checked against the head.
    pub(crate) fn by_number(&self, number: u64) -> Result<Option<ContextState>, IndexError> {
        match self.name(number)? {
            Some(NameRow::Context(id)) => self.checked(number, &id).map(Some),
            // No head covers it: whoever names it checks it.
            Some(NameRow::Unnamed) => self.accumulator(number, None).map(Some),
            None => Ok(None),
        }
    }

    /// The name of a context that has one, by number.
    pub(crate) fn id(&self, number: u64) -> Result<Option<ContextId>, IndexError> {
        Ok(match self.name(number)? {
            Some(NameRow::Context(id)) => Some(id),
            Some(NameRow::Unnamed) | None => None,
        })
    }

    /// What is known of a number: the name of its context, or that it has none
    /// yet.
    fn name(&self, number: u64) -> Result<Option<NameRow>, IndexError> {
        let key = rows::number_key(number);
        self.get_as(Table::ContextIds, &key, rows::get_name)
    }

    fn accumulator(
        &self,
        number: u64,
        name: Option<ContextId>,
    ) -> Result<ContextState, IndexError> {
        let key = rows::number_key(number);
        let state = self.get_as(Table::Accumulators, &key, |value| {
            rows::get_accumulator(number, name, value)
        })?;
        state.ok_or(IndexError::Stale("a context without an accumulator"))
    }

    /// The context with this path hash.
    pub(crate) fn by_path(&self, path: &Hash) -> Result<Option<u64>, IndexError> {
        self.get_as(Table::Paths, path.as_bytes(), rows::get_u64)
    }

    fn find(&self, path: &Hash) -> Result<Found, IndexError> {
        find(self, &self.root, path)
            .map_err(|_| IndexError::Stale("the covered head's directory is not all there"))
    }

    /// The accumulator of a context, if its root is the one that the covered
    /// head commits to. In a mirror in mid-sync it may be ahead of that head:
    /// then nothing is signed from it, and the root it comes to is checked
    /// when the sync completes.
    fn checked(&self, number: u64, id: &ContextId) -> Result<ContextState, IndexError> {
        let state = self.accumulator(number, Some(id.clone()))?;
        let size = state.after.size();
        match self.find(&id.path())? {
            Found::Present {
                commitment: signed,
                entries,
                ..
            } => {
                let same =
                    entries == size && commitment(id.as_str(), size, &state.after.root()) == signed;
                let ahead = self.role == StoreRole::Mirror && size > entries;
                if same || ahead {
                    return Ok(state);
                }
            }
            Found::Absent { .. } if size == 0 || self.role == StoreRole::Mirror => {
                return Ok(state);
            }
            Found::Absent { .. } => (),
        }
        Err(IndexError::Stale(
            "an accumulator is not the one the covered head commits to",
        ))
    }

    /// Names after `after`, in order, at most `limit`.
    pub(crate) fn names_after(
        &self,
        after: Option<&ContextId>,
        limit: usize,
    ) -> Result<Vec<ContextId>, IndexError> {
        use std::ops::Bound;
        let table = Table::Contexts;
        let from = after.map_or(Bound::Unbounded, |id| {
            Bound::Excluded(id.as_str().as_bytes())
        });
        let rows = self.rows(table)?;
        guarded(|| {
            let mut names = Vec::new();
            let range = rows.range_owned::<&[u8]>((from, Bound::Unbounded))?;
            for row in range.take(limit) {
                let (key, value) = row?;
                let key = key.value();
                self.key
                    .open(table, key, value.value())
                    .ok_or(IndexError::Row { table })?;
                let id = ContextId::decode(key);
                names.push(id.map_err(|error| IndexError::Decode { table, error })?);
            }
            Ok(names)
        })
    }

    /// The run of a context that holds `sequence`, which must be there.
    pub(crate) fn run_of(&self, number: u64, sequence: u64) -> Result<RunPlace, IndexError> {
        let table = Table::Runs;
        let hidden = IndexError::Stale("a run is missing");
        let Some((key, value)) = self.at_or_before(table, &rows::run_key(number, sequence))? else {
            return Err(hidden);
        };
        let Some((found, first)) = rows::get_run_key(&key) else {
            return Err(IndexError::Row { table });
        };
        let run =
            rows::get_run(first, &value).map_err(|error| IndexError::Decode { table, error })?;
        if found != number || run.last < sequence {
            return Err(hidden);
        }
        Ok(run)
    }

    /// The hashes of a tile, if it has any.
    pub(crate) fn tile(&self, number: u64, tile: TileId) -> Result<Option<Vec<Hash>>, IndexError> {
        self.get_as(Table::Tiles, &rows::tile_key(number, tile), rows::get_tile)
    }

    pub(crate) fn request(
        &self,
        number: u64,
        request: &RequestKey,
    ) -> Result<Option<u64>, IndexError> {
        let key = rows::request_row_key(number, request);
        self.get_as(Table::Requests, &key, rows::get_u64)
    }

    /// Adds all request ids to a filter, unless there are too many.
    pub(crate) fn fill(&self, filter: &RequestFilter) -> Result<bool, IndexError> {
        let table = Table::Requests;
        let rows = self.rows(table)?;
        guarded(|| {
            if !RequestFilter::suits(rows.len()?) {
                return Ok(false);
            }
            for row in rows.range_owned::<&[u8]>(..)? {
                let (key, _) = row?;
                let key = rows::get_request_key(key.value());
                let (number, request) = key.ok_or(IndexError::Row { table })?;
                filter.add(number, &request);
            }
            Ok(true)
        })
    }

    pub(crate) fn payload(&self, hash: &Hash) -> Result<Option<Location>, IndexError> {
        self.get_as(Table::Payloads, hash.as_bytes(), rows::get_location)
    }
}

impl ReadDirectory for Reader {
    type Error = IndexError;

    fn directory_node(&self, hash: &Hash) -> Result<Option<Vec<u8>>, IndexError> {
        self.get(Table::Directory, hash.as_bytes())
    }
}
