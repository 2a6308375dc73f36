//! The rows on disk against an index that was made from the log alone, at the
//! place the rows cover: the same rows, with the same values, and no others.
//!
//! Whoever compares has replayed the log from its beginning, so that the tail
//! in memory holds everything. Rows of it are looked up as they are met on disk
//! and counted; where a table has all that was met and the count is right, none
//! is missing.
//!
//! Directory nodes that heads before the covered one needed are kept for a
//! while, and for how long depends on when was folded. Of those it is checked
//! that `retired` names them, each once, and that they are what their hashes
//! say.

use std::collections::HashSet;
use std::sync::Arc;

use super::base::Reader;
use super::error::IndexError;
use super::heads::kept;
use super::rows::{self, StateRow, Table};
use super::{Index, Tail, TailContext};
use crate::directory::{Node, Slot, empty_root};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::store::record::Short;
use crate::tree::tile::TILE_WIDTH;

/// Compares every row, and returns how many there are. An error names the first
/// that is wrong.
pub(crate) fn compare(
    index: &Index,
    reader: &Reader,
    found: &StateRow,
    store_id: Short,
) -> Result<u64, IndexError> {
    let implied = StateRow {
        // When was folded is the index's own.
        retired_next: found.retired_next,
        retired_bytes: found.retired_bytes,
        ..index.state_row(store_id, found.made_at_ns)
    };
    if *found != implied {
        let key = rows::STATE_KEY;
        return Err(differs(Table::State, key, "not what the log implies"));
    }
    let mut compared = 0;
    for table in Table::ALL {
        compared += match table {
            Table::Retired => continue,
            Table::Directory => directory(index, reader, found)?,
            Table::Heads => heads(index, reader)?,
            _ => rows_of(index, reader, table)?,
        };
    }
    Ok(compared)
}

/// A table whose rows follow from the log one by one.
fn rows_of(index: &Index, reader: &Reader, table: Table) -> Result<u64, IndexError> {
    let mut met = 0;
    reader.each(table, &mut |key, value| {
        met += 1;
        match implied(&index.tail, table, key) {
            _ if table == Table::State => Ok(()),
            Some(implied) if implied == value => Ok(()),
            Some(_) => Err(differs(table, key, "not what the log implies")),
            None => Err(differs(table, key, "nothing in the log implies it")),
        }
    })?;
    if met != count(&index.tail, table) {
        return Err(differs(table, &[], "rows are missing"));
    }
    Ok(met)
}

/// The value that belongs to a key, if there is one.
fn implied(tail: &Tail, table: Table, key: &[u8]) -> Option<Vec<u8>> {
    let context = |key: &[u8]| tail.context(rows::get_number_key(key)?);
    match table {
        Table::State | Table::Directory | Table::Retired | Table::Heads => None,
        Table::Contexts => {
            let id = ContextId::decode(key).ok()?;
            Some(rows::put_u64(tail.number(&id)?))
        }
        Table::ContextIds => Some(rows::put_name(context(key)?.state.name.as_ref())),
        Table::Paths => Some(rows::put_u64(tail.by_path(&Hash::from_slice(key)?)?)),
        Table::Accumulators => Some(rows::put_accumulator(&context(key)?.state)),
        Table::Runs => {
            let (number, first) = rows::get_run_key(key)?;
            let run = tail.context(number)?.run_of(first)?;
            (run.first == first).then(|| rows::put_run(run))
        }
        Table::Tiles => {
            let (number, tile) = key.split_at_checked(8)?;
            let (level, index) = tile.split_first()?;
            let (_, hashes) = context(number)?.level(usize::from(*level));
            let index = usize::try_from(rows::get_number_key(index)?).ok()?;
            let hashes = hashes.chunks(TILE_WIDTH).nth(index)?;
            Some(rows::put_hashes(hashes.iter()))
        }
        Table::Payloads => {
            let at = tail.payloads.get(&Hash::from_slice(key)?)?;
            Some(rows::put_location(*at))
        }
        Table::Requests => {
            let (number, request) = key.split_at_checked(8)?;
            let key = (rows::get_number_key(number)?, request.try_into().ok()?);
            Some(rows::put_u64(*tail.requests.get(&key)?))
        }
    }
}

/// How many rows the log implies.
fn count(tail: &Tail, table: Table) -> u64 {
    let count = match table {
        Table::State => 1,
        Table::ContextIds | Table::Accumulators => tail.contexts().count(),
        Table::Contexts | Table::Paths => {
            let named = |context: &&Arc<TailContext>| context.state.name.is_some();
            tail.contexts().filter(named).count()
        }
        Table::Runs => tail.contexts().map(|context| context.runs.len()).sum(),
        Table::Tiles => tail
            .contexts()
            .flat_map(|context| context.levels())
            .map(|(_, _, hashes)| hashes.len().div_ceil(TILE_WIDTH))
            .sum(),
        Table::Payloads => tail.payloads.len(),
        Table::Requests => tail.requests.len(),
        Table::Directory | Table::Retired | Table::Heads => 0,
    };
    count as u64
}

/// The heads that are kept, and no others.
fn heads(index: &Index, reader: &Reader) -> Result<u64, IndexError> {
    let table = Table::Heads;
    let mut implied = kept(&index.tail.heads);
    let mut met = 0;
    reader.each(table, &mut |key, value| {
        met += 1;
        match implied.next() {
            Some((order, row)) if rows::head_key(*order) == key => {
                if rows::put_head(row) == value {
                    return Ok(());
                }
                Err(differs(table, key, "not what the log implies"))
            }
            _ => Err(differs(table, key, "nothing in the log implies it")),
        }
    })?;
    if implied.next().is_some() {
        return Err(differs(table, &[], "rows are missing"));
    }
    Ok(met)
}

/// The covered head's directory, and what was retired before it.
fn directory(index: &Index, reader: &Reader, found: &StateRow) -> Result<u64, IndexError> {
    let (mut retired, mut retired_bytes) = (HashSet::new(), 0u64);
    let mut met = 0;
    let table = Table::Retired;
    reader.each(table, &mut |key, value| {
        met += 1;
        let row = rows::get_retired(value);
        let row = row.map_err(|error| IndexError::Decode { table, error })?;
        if rows::get_number_key(key).is_none_or(|order| order >= found.retired_next) {
            return Err(differs(table, key, "it is newer than the newest"));
        }
        retired_bytes = retired_bytes.saturating_add(row.bytes);
        for hash in row.nodes {
            if !retired.insert(hash) {
                return Err(differs(table, key, "a node is retired twice"));
            }
        }
        Ok(())
    })?;
    if retired_bytes != found.retired_bytes {
        return Err(differs(table, &[], "its bytes are not those counted"));
    }
    let table = Table::Directory;
    let live = live_nodes(index)?;
    let (mut of_head, mut before, mut bytes) = (0, 0, 0u64);
    reader.each(table, &mut |key, value| {
        met += 1;
        let hash = Hash::from_slice(key).unwrap_or_default();
        if live.contains(&hash) {
            of_head += 1;
            let node = index.newest_node(&hash);
            if node.as_deref() != Some(value) {
                return Err(differs(table, key, "not what the log implies"));
            }
        } else if retired.contains(&hash) {
            before += 1;
            bytes = bytes.saturating_add(value.len() as u64);
            if Node::decode(value).map(|node| node.hash()).ok() != Some(hash) {
                return Err(differs(table, key, "not what its hash says"));
            }
        } else {
            return Err(differs(table, key, "nothing in the log implies it"));
        }
        Ok(())
    })?;
    if of_head != live.len() || before != retired.len() || bytes != retired_bytes {
        return Err(differs(table, &[], "rows are missing"));
    }
    Ok(met)
}

/// The nodes of the covered head's directory; the empty one's is implied.
fn live_nodes(index: &Index) -> Result<HashSet<Hash>, IndexError> {
    let mut live = HashSet::new();
    let mut next = vec![index.published.root()];
    while let Some(hash) = next.pop() {
        if hash == empty_root() || !live.insert(hash) {
            continue;
        }
        let node = index.newest_node(&hash).and_then(|n| Node::decode(&n).ok());
        let node = node.ok_or(IndexError::Stale("a node of the log's own is missing"))?;
        for slot in node.slots() {
            if let Slot::Child { hash, .. } = *slot {
                next.push(hash);
            }
        }
    }
    Ok(live)
}

/// Names a row by its key, which may be a context's name: as it is if it is
/// text, in hexadecimal digits otherwise; no key for a whole table.
fn differs(table: Table, key: &[u8], what: &'static str) -> IndexError {
    use std::fmt::Write as _;
    let place = match std::str::from_utf8(key) {
        _ if key.is_empty() => "all rows".into(),
        Ok(text) if table == Table::Contexts || table == Table::State => {
            format!("row {text:?}")
        }
        _ => key.iter().fold(String::from("row "), |mut out, byte| {
            // Writing to a String cannot fail.
            let _ = write!(out, "{byte:02x}");
            out
        }),
    };
    IndexError::Differs { table, place, what }
}
