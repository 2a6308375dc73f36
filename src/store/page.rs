//! Reading entries a page at a time. A page is bounded three ways: entries,
//! bytes of entries, and bytes of log that were looked at for it, so that one
//! read costs what the asker agreed to, whatever is stored and wanted.

use std::time::Instant;

use super::StoreError;
use super::body;
use super::index::{Location, key_hash};
use super::view::{View, corrupt};
use crate::entry::{ContextId, Entry, leaf_hash};
use crate::hash;
use crate::limits::HEADER_FIXED_BYTES;
use crate::run::Run;

/// Entries of a page, at most: bounds the memory of one read.
const PAGE_ENTRIES_MAX: usize = 4096;
/// Bytes of entries after which a page ends, at most.
const PAGE_BYTES_MAX: usize = 8 << 20;
/// Bytes of runs a filtered read looks at before it returns with what it has.
const PAGE_SCAN_BYTES_MAX: u64 = 64 << 20;
/// What passing over a run counts for in a filtered read.
const RUN_ROW_COST_BYTES: u64 = 64;

/// How large a page may be and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// Entries; 0 for as many as a page may hold.
    pub entries: usize,
    /// Bytes of entries after which the page ends; the entry that reaches them
    /// is in it.
    pub bytes: usize,
    /// Reading stops at this moment, with what there is by then.
    pub until: Option<Instant>,
}

impl Default for PageLimits {
    /// As much as a page may hold.
    fn default() -> Self {
        Self {
            entries: 0,
            bytes: PAGE_BYTES_MAX,
            until: None,
        }
    }
}

impl PageLimits {
    /// At most `entries` of them.
    #[must_use]
    pub fn entries(entries: usize) -> Self {
        Self {
            entries,
            ..Self::default()
        }
    }
}

/// A part of a context's entries.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Ascending by sequence.
    pub entries: Vec<Entry>,
    /// Go on after this sequence; 0 at the end.
    pub next_after: u64,
    /// Size of the context when the page was read; 0 if it does not exist.
    pub size: u64,
}

impl View {
    /// Entries with sequences above `after`, of one key only if `key` is given.
    /// A page that ends early says where to go on.
    pub fn page(
        &self,
        id: &ContextId,
        after: u64,
        limits: &PageLimits,
        key: Option<&str>,
    ) -> Result<Page, StoreError> {
        let Some(view) = self.look_up(id)? else {
            return Ok(Page::default());
        };
        let mut page = Page {
            size: self.visible_size(id, &view)?,
            ..Page::default()
        };
        let entries_max = match limits.entries {
            0 => PAGE_ENTRIES_MAX,
            entries => entries.min(PAGE_ENTRIES_MAX),
        };
        let bytes_max = limits.bytes.min(PAGE_BYTES_MAX);
        let wanted = key.map(key_hash);
        let (mut at, mut bytes, mut scanned) = (after, 0usize, 0u64);
        while at < page.size {
            // Something is looked at before the time is: every read advances.
            let late = scanned > 0 && limits.until.is_some_and(|until| until <= Instant::now());
            if page.entries.len() >= entries_max || scanned >= PAGE_SCAN_BYTES_MAX || late {
                page.next_after = at;
                return Ok(page);
            }
            let Some(run) = view.run_of(at + 1)? else {
                break;
            };
            if wanted.is_some_and(|hash| !run.keys.may_hold(hash)) {
                // What a run's row costs to pass over.
                scanned += RUN_ROW_COST_BYTES;
                at = run.last;
                continue;
            }
            let body = self.run_body(&view, &run)?;
            scanned += u64::from(run.at.body_len);
            for entry in self.entries_of(run.at, &body, at, page.size, key)? {
                let entry = entry?;
                bytes = bytes.saturating_add(cost_bytes(&entry));
                at = entry.sequence;
                page.entries.push(entry);
                if page.entries.len() >= entries_max || bytes >= bytes_max {
                    page.next_after = if at < page.size { at } else { 0 };
                    return Ok(page);
                }
            }
            at = run.last;
        }
        Ok(page)
    }

    /// One entry.
    pub fn entry(&self, id: &ContextId, sequence: u64) -> Result<Option<Entry>, StoreError> {
        let Some(before) = sequence.checked_sub(1) else {
            return Ok(None);
        };
        let mut page = self.page(id, before, &PageLimits::entries(1), None)?;
        Ok(page.entries.pop().filter(|e| e.sequence == sequence))
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
        let (_, run) = body::get_run(body).map_err(|e| corrupt(location, e))?;
        let run = Run::decode(run).map_err(|e| corrupt(location, e))?;
        Ok(run.entries().filter_map(move |entry| {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Some(Err(corrupt(location, error))),
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
}

/// Bytes of an entry, roughly as large as it is in any message.
fn cost_bytes(entry: &Entry) -> usize {
    let metadata = entry.metadata.as_ref();
    let pairs: usize = metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
    let request_id = entry.request_id.as_ref().map_or(0, String::len);
    HEADER_FIXED_BYTES + entry.key.len() + request_id + pairs + entry.payload.len()
}
