//! Heads of the past: found, thinned out and found all the same, and the state
//! that each is about.

use std::collections::BTreeMap;

use super::index::{ALWAYS, NEVER, every};
use super::mirror::{ingest, mirror_disk, open_mirror, seen, span};
use super::*;
use crate::directory::Opening;
use crate::head::{HeadOrder, SignedHead};
use crate::ledger::{HistoryPart, Ingest, ReadHistory};
use crate::limits::{HEADS_KEPT, HEADS_SPAN_NS};
use crate::store::disk::{Dice, Disk};

/// Every head that was published.
#[derive(Default)]
struct Heads(BTreeMap<HeadOrder, SignedHead>);

impl Heads {
    /// What the store says of every place, and of those around.
    fn compare(&self, view: &View) {
        let last = self.0.keys().last().unwrap().epoch;
        for epoch in 0..last + 3 {
            let order = HeadOrder { term: 1, epoch };
            let found = view.head_at(order).unwrap().map(|past| past.head);
            assert_eq!(found.as_ref(), self.0.get(&order), "{order}");
        }
        for term in [0, 2] {
            let order = HeadOrder { term, epoch: 1 };
            assert_eq!(view.head_at(order).unwrap(), None);
        }
    }
}

fn rows_of(view: &View) -> usize {
    use crate::store::index::rows::Table;
    let index = view.index();
    let crate::store::index::Base::Ready(reader) = &index.below.base else {
        return 0;
    };
    let mut rows = 0;
    let counted = reader.each(Table::Heads, &mut |_, _| {
        rows += 1;
        Ok(())
    });
    counted.unwrap();
    rows
}

#[test]
fn every_head_is_found_again_thinned_out_or_not() {
    let disk = new_disk();
    let clock = ManualClock::at(1_000);
    let options = |checkpoint| StoreOptions {
        clock: clock.clone(),
        ..every(checkpoint)
    };
    let (mut heads, mut dice, mut now) = (Heads::default(), Dice(5), 1_000u64);
    let mut minutes = std::collections::BTreeSet::new();
    let mut store = try_open(&disk, options(NEVER)).unwrap().store;
    let all = HEADS_KEPT + 300;
    for n in 0..all {
        now += HEADS_SPAN_NS / 12 + dice.roll() % (HEADS_SPAN_NS / 12);
        clock.set(now);
        if n % 7 == 0 {
            put(&store, "a", &["more"]);
        }
        let head = store.publish().unwrap();
        minutes.insert(head.head().time_ns / HEADS_SPAN_NS);
        heads.0.insert(head.order(), head);
        if n % 200 == 150 {
            store.close().unwrap();
            store = try_open(&disk, options(NEVER)).unwrap().store;
        }
    }
    // In the tail, and below it.
    heads.compare(store.view());
    store.close().unwrap();
    audit_clean(&disk);
    let store = try_open(&disk, options(ALWAYS)).unwrap().store;
    heads.compare(store.view());
    let rows = rows_of(store.view());
    let old = all - HEADS_KEPT;
    assert!(rows > HEADS_KEPT && rows < HEADS_KEPT + old / 4, "{rows}");
    store.close().unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    rebuild_index(&shared, &options(NEVER)).unwrap();
    audit_clean(&disk);
    let view = Store::open_read_only(Arc::new(disk.clone())).unwrap();
    heads.compare(&view);
}

fn openings(view: &View) -> Vec<Opening> {
    let all = view.contexts(None, usize::MAX).unwrap().into_iter();
    let mut openings: Vec<Opening> = all
        .map(|context| Opening {
            id: context.id.as_str().to_owned(),
            size: context.size,
            root: context.root,
        })
        .collect();
    openings.sort_by_key(Opening::path);
    openings
}

#[test]
fn the_state_of_any_head_is_made_again() {
    let elsewhere = open(&new_disk());
    for n in 0..40 {
        put(&elsewhere, "from", &[&n.to_string(), "x"]);
    }
    let history = elsewhere.view().history(&id("from")).unwrap().unwrap();
    let runs_from = |after: u64| HistoryPart {
        runs: history.runs(after, 1).unwrap(),
        payloads: Vec::new(),
    };
    for seed in 0..4 {
        let disk = new_disk();
        let mut dice = Dice(seed);
        let mut store = try_open(&disk, every(NEVER)).unwrap().store;
        let mut known: Vec<(SignedHead, Vec<Opening>)> = Vec::new();
        let mut loader = store.loader(&id("loaded")).unwrap();
        let mut named = false;
        for step in 0..60 {
            for _ in 0..dice.below(4) {
                let name = format!("c{}", dice.below(12));
                let texts: Vec<String> = (0..=dice.below(30)).map(|n| n.to_string()).collect();
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                put(&store, &name, &texts);
            }
            // Its runs lie before heads that are not about it.
            if !named && step % 3 == 0 {
                loader.push(runs_from(loader.size())).unwrap();
            }
            if !named && step == 31 {
                let size = loader.size();
                let root = elsewhere.view().root_at(&id("from"), size).unwrap();
                let done = std::mem::replace(&mut loader, store.loader(&id("never")).unwrap());
                done.finish(root).unwrap();
                named = true;
            }
            let head = store.publish().unwrap();
            known.push((head, openings(store.view())));
            if named && dice.below(8) == 0 {
                drop(std::mem::replace(
                    &mut loader,
                    elsewhere.loader(&id("other")).unwrap(),
                ));
                store.close().unwrap();
                audit_clean(&disk);
                store = try_open(&disk, every(NEVER)).unwrap().store;
            }
        }
        for _ in 0..30 {
            let (head, openings) = &known[dice.below(known.len())];
            let past = store.view().head_at(head.order()).unwrap().unwrap();
            assert_eq!(past.head.note_bytes(), head.note_bytes());
            assert_eq!(store.view().openings_at(&past).unwrap(), *openings);
        }
        // What is about something else is told.
        let mut past = store.view().head_at(known[40].0.order()).unwrap().unwrap();
        past.covered = Position::new(1, 128);
        let gone = store.view().openings_at(&past);
        assert!(matches!(gone, Err(StoreError::StateGone { .. })));
    }
}

#[test]
fn a_mirror_knows_the_heads_that_were_complete() {
    let source = open(&new_disk());
    let disk = mirror_disk();
    let mirror = open_mirror(&disk);
    let mut known = Vec::new();
    for round in 0..6 {
        let name = ["a", "b", "c"][round % 3];
        put(&source, name, &["one", "two", "three"]);
        source.publish().unwrap();
        let (head, seen_head) = seen(source.view(), &[name]);
        ingest(&mirror, Ingest::Seen(seen_head.clone())).unwrap();
        for opening in &seen_head.openings {
            let (span, payloads) = span(source.view(), mirror.view(), opening);
            ingest(&mirror, Ingest::Span { span, payloads }).unwrap();
        }
        ingest(&mirror, Ingest::Complete(head.clone())).unwrap();
        known.push((head, openings(source.view())));
    }
    mirror.close().unwrap();
    audit_clean(&disk);
    let mirror = open_mirror(&disk);
    for (head, openings) in known {
        let past = mirror.view().head_at(head.order()).unwrap().unwrap();
        assert_eq!(past.head, head);
        assert_eq!(mirror.view().openings_at(&past).unwrap(), openings);
    }
}
