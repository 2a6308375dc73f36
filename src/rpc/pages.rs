//! Layer 4. Pages of entries that watchers share: a thousand watchers of one
//! context read and verify each run once. The pages live here and nowhere else;
//! a watcher that does not go on holds none.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message as _;

use super::config::WATCH_CACHE_BYTES_MAX;
use super::proto::context::Entry;
use crate::entry::ContextId;

/// What an entry takes besides its encoded bytes: its fields' own memory.
const ENTRY_OVERHEAD_BYTES: usize = 512;
/// Pages at most, so that looking through them is quick.
const PAGES_MAX: usize = 512;

/// All entries of a context in `after+1..=through`, or those of one key.
#[derive(Debug)]
pub(super) struct Page {
    /// The number of the place it was read from.
    pub(super) place: usize,
    pub(super) id: ContextId,
    /// The key of all its entries, if it was read for one.
    pub(super) key: Option<String>,
    pub(super) after: u64,
    pub(super) through: u64,
    /// Ascending by sequence.
    pub(super) entries: Vec<Entry>,
}

impl Page {
    fn cost_bytes(&self) -> usize {
        let cost = |entry: &Entry| ENTRY_OVERHEAD_BYTES + entry.encoded_len();
        self.entries.iter().map(cost).sum::<usize>() + size_of::<Self>() + self.id.as_str().len()
    }

    fn serves(&self, place: usize, id: &ContextId, cursor: u64, key: Option<&str>) -> bool {
        self.place == place
            && (self.after..self.through).contains(&cursor)
            && (self.key.is_none() || self.key.as_deref() == key)
            && self.id == *id
    }
}

/// The newest pages, by when they were read.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first, each with its cost.
    pages: VecDeque<(Arc<Page>, usize)>,
    bytes: usize,
}

impl Pages {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page that holds what follows `cursor`.
    pub(super) fn find(
        &self,
        place: usize,
        id: &ContextId,
        cursor: u64,
        key: Option<&str>,
    ) -> Option<Arc<Page>> {
        let kept = self.kept();
        let mut newest_first = kept.pages.iter().rev();
        let found = newest_first.find(|(page, _)| page.serves(place, id, cursor, key));
        found.map(|(page, _)| Arc::clone(page))
    }

    /// Keeps a page, and lets go of the oldest ones if there are too many. One
    /// page is kept whatever its size.
    pub(super) fn keep(&self, page: Page) -> Arc<Page> {
        let cost = page.cost_bytes();
        let page = Arc::new(page);
        let mut gone = Vec::new();
        let mut kept = self.kept();
        kept.bytes += cost;
        kept.pages.push_back((Arc::clone(&page), cost));
        while kept.pages.len() > PAGES_MAX
            || (kept.bytes > WATCH_CACHE_BYTES_MAX && kept.pages.len() > 1)
        {
            let Some((oldest, cost)) = kept.pages.pop_front() else {
                break;
            };
            kept.bytes -= cost;
            gone.push(oldest);
        }
        drop(kept);
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(after: u64, through: u64, payload: usize, key: Option<&str>) -> Page {
        let entry = |sequence| Entry {
            sequence,
            payload: vec![0; payload].into(),
            ..Entry::default()
        };
        Page {
            place: 0,
            id: ContextId::new("a").unwrap(),
            key: key.map(str::to_owned),
            after,
            through,
            entries: (after + 1..=through).map(entry).collect(),
        }
    }

    #[test]
    fn a_page_serves_who_stands_inside_it() {
        let id = ContextId::new("a").unwrap();
        let other = ContextId::new("b").unwrap();
        let pages = Pages::default();
        pages.keep(page(10, 20, 1, None));
        pages.keep(page(20, 40, 1, Some("k")));
        let found = |cursor, key| pages.find(0, &id, cursor, key).map(|page| page.after);
        assert_eq!(found(9, None), None);
        assert_eq!(found(10, None), Some(10));
        assert_eq!(found(19, Some("other")), Some(10));
        assert_eq!(found(20, None), None);
        assert_eq!(found(20, Some("k")), Some(20));
        assert!(pages.find(0, &other, 10, None).is_none());
        // A context of this name in another place is another context.
        assert!(pages.find(1, &id, 10, None).is_none());
    }

    #[test]
    fn the_oldest_pages_go_first() {
        let id = ContextId::new("a").unwrap();
        let pages = Pages::default();
        let third = WATCH_CACHE_BYTES_MAX / 3;
        for at in 0..4 {
            pages.keep(page(at, at + 1, third, None));
        }
        assert!(pages.find(0, &id, 0, None).is_none());
        assert!(pages.find(0, &id, 3, None).is_some());
        assert!(pages.kept().bytes <= WATCH_CACHE_BYTES_MAX);
        pages.keep(page(9, 10, 2 * WATCH_CACHE_BYTES_MAX, None));
        assert!(pages.find(0, &id, 9, None).is_some());
        assert_eq!(pages.kept().pages.len(), 1);
        for at in 0..2 * PAGES_MAX as u64 {
            pages.keep(page(at, at + 1, 0, None));
        }
        assert_eq!(pages.kept().pages.len(), PAGES_MAX);
    }
}
