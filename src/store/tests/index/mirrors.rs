//! A mirror's index: folded in mid-sync too, where contexts are ahead of the
//! complete head.

use super::*;
use crate::ledger::{Ingest, ReadLedger, ReadMirror};
use crate::store::tests::mirror::{ingest, mirror_disk, seen, span};

/// What happens between two steps of a sync.
#[derive(Clone, Copy, Debug)]
enum Between {
    Nothing,
    Reopen,
    Crash,
    DeleteIndex,
    Lose,
}

struct Mirror {
    every: Duration,
    between: Between,
    disk: MemoryDisk,
    store: Store,
}

fn open_mirror(disk: &MemoryDisk, every: Duration) -> Store {
    let opened = Store::open(Arc::new(disk.clone()), super::every(every), None).unwrap();
    assert_eq!(opened.index_discarded, None);
    opened.store
}

impl Mirror {
    fn new(every: Duration, between: Between) -> Self {
        let disk = mirror_disk();
        let store = open_mirror(&disk, every);
        Self {
            every,
            between,
            disk,
            store,
        }
    }

    fn step(&mut self, item: Ingest) {
        ingest(&self.store, item).unwrap();
        self.settle();
        let every = self.every;
        match self.between {
            Between::Nothing => (),
            Between::Reopen => {
                self.store.close().unwrap();
                self.store = open_mirror(&self.disk, every);
            }
            Between::Crash => {
                let disk = self.disk.fork();
                self.store = open_mirror(&disk, every);
                self.disk = disk;
            }
            Between::DeleteIndex => {
                self.store.close().unwrap();
                self.disk = without_index(&self.disk);
                self.store = open_mirror(&self.disk, every);
            }
            Between::Lose => self.store.view().index().below.lose("on purpose"),
        }
        self.settle();
    }

    fn settle(&self) {
        // Behind everything before it.
        ingest(&self.store, Ingest::Payloads(Vec::new())).unwrap();
        self.store.mailbox().settle();
        if self.every == ALWAYS {
            let folded = self.store.mailbox().wait_until(|| is_folded(&self.store));
            assert!(folded, "nothing is folded");
        }
        assert!(!is_lost(&self.store));
    }

    fn catch_up(&mut self, source: &View, names: &[&str]) {
        let (head, seen_head) = seen(source, names);
        self.step(Ingest::Seen(seen_head.clone()));
        for opening in &seen_head.openings {
            let pending = self.store.view().seen_heads().unwrap().pop().unwrap();
            assert_eq!(pending.openings, seen_head.openings);
            let (span, payloads) = span(source, self.store.view(), opening);
            self.step(Ingest::Span { span, payloads });
        }
        self.step(Ingest::Complete(head));
    }
}

fn assert_equal(mirror: &View, source: &View) {
    assert_eq!(mirror.head(), source.head());
    assert_eq!(mirror.totals(), source.totals());
    let all = source.contexts(None, 99).unwrap();
    for limit in [1, 2, 1000] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = mirror.contexts(after.as_ref(), limit).unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.id.clone());
            found.extend(page);
        }
        assert_eq!(found, all);
    }
    for info in &all {
        let name = info.id.as_str();
        assert_eq!(entries(mirror, name), entries(source, name));
        let runs = |view: &View| view.runs(&info.id, 0, info.size, usize::MAX).unwrap();
        assert_eq!(runs(mirror), runs(source));
        for size in 1..=info.size {
            let at = |view: &View| view.root_at(&info.id, size).unwrap();
            assert_eq!(at(mirror), at(source));
        }
    }
    let root = source.head().unwrap().head().directory_root;
    let opened = |view: &View| view.opened_node(&root).unwrap();
    assert_eq!(opened(mirror), opened(source));
}

/// Lets contexts of the source grow and signs it.
fn grow(source: &Store, round: usize, names: &[&str]) {
    for (n, name) in names.iter().enumerate() {
        let texts: Vec<String> = (0..60).map(|at| format!("{round} {at}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        put(source, name, &texts);
        put(source, name, &[&"big".repeat(2000 + n)]);
    }
    source.publish().unwrap();
}

#[test]
fn a_mirror_ends_where_its_source_is_whatever_happens_to_its_index() {
    let rounds = [&["a", "b"][..], &["a", "c"], &["a", "b", "d"]];
    for between in [
        Between::Nothing,
        Between::Reopen,
        Between::Crash,
        Between::DeleteIndex,
        Between::Lose,
    ] {
        for every in [ALWAYS, NEVER] {
            let source = open(&new_disk());
            let mut mirror = Mirror::new(every, between);
            for (round, names) in rounds.iter().enumerate() {
                grow(&source, round, names);
                mirror.catch_up(source.view(), names);
                assert_equal(mirror.store.view(), source.view());
                assert_equal(&read_only(&mirror.disk), source.view());
            }
            mirror.store.close().unwrap();
            audit_clean(&mirror.disk);
            let opened = open_mirror(&mirror.disk, NEVER);
            assert_equal(opened.view(), source.view());
        }
    }
}
