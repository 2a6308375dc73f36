//! One bit of a closed store changes, or one bit below a running one: nothing
//! wrong is served, nothing hangs, no head is signed that an audit refuses, and
//! the index is good again afterwards.
//!
//! The parts of the index's first check block and first page that are in use
//! are hit at every byte, and so are the segments' headers; the rest is sampled
//! from a fixed seed. `LEDGER_FLIPS` sets how many flips there are in all; from
//! 20,000 on every byte of both is hit, in use or not.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;

use super::model::Model;
use super::*;
use crate::ledger::ReadLedger;

/// Flips in all, unless the environment says otherwise.
const FLIPS: usize = 20_000;
/// With fewer, bytes that are not in use are left out.
const FLIPS_THOROUGH: usize = 20_000;
/// One in so many flips is followed by a comparison of everything.
const COMPARED: usize = 16;
const SEED: u64 = 0x1d_f11b5;

/// Enough of a generator to choose bytes and bits.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % bound
    }
}

/// What was stored, and what may be asked of it.
struct Case {
    disk: MemoryDisk,
    model: Model,
    entries: Vec<(ContextId, Vec<Entry>)>,
    roots: BTreeMap<ContextId, Hash>,
}

fn options() -> StoreOptions {
    StoreOptions {
        segment_bytes: 24 << 10,
        ..every(NEVER)
    }
}

/// Small, with every table in use: folded twice, so that pages were freed.
fn case() -> Case {
    let disk = new_disk();
    let mut model = Model::default();
    for round in 0..3 {
        let store = try_open(&disk, options()).unwrap().store;
        for name in ["a", "b", "c"] {
            let draft = |n: usize| {
                let draft = Draft::new(format!("k{}", n % 2), format!("{name} {n}")).unwrap();
                draft.with_request_id(format!("{name} {n}")).unwrap()
            };
            let range = round * 20..round * 20 + 20;
            model.append(&store, range.map(|n| (id(name), draft(n))).collect());
        }
        let big = draft(&format!("{round}").repeat(4097));
        model.append(&store, vec![(id("big"), big)]);
        store.close().unwrap();
    }
    let view = read_only(&disk);
    let names = view.contexts(None, 9).unwrap();
    let roots = names.iter().map(|info| (info.id.clone(), info.root));
    let roots = roots.collect();
    let entries = names
        .into_iter()
        .map(|info| (info.id.clone(), entries(&view, info.id.as_str())))
        .collect();
    Case {
        disk,
        model,
        entries,
        roots,
    }
}

/// An answer that is none, as it may be while something is damaged.
fn allowed(error: &StoreError) -> bool {
    error.is_verification_failure() || matches!(error, StoreError::IndexLost { .. })
}

/// Everything that can be read is what was stored; or refused, if `damaged`.
fn reads_right(case: &Case, view: &View, damaged: bool) {
    let allowed = |error: &StoreError| damaged && allowed(error);
    for (id, stored) in &case.entries {
        match view.size(id) {
            Ok(size) => assert!(size >= Some(stored.len() as u64), "{size:?}"),
            Err(error) => assert!(allowed(&error), "{error}"),
        }
        match view.root_at(id, stored.len() as u64) {
            Ok(root) => assert_eq!(root, case.roots[id]),
            Err(error) => assert!(allowed(&error), "{error}"),
        }
        for stored in stored.chunks(7) {
            match view.page(
                id,
                stored[0].sequence - 1,
                &PageLimits::entries(stored.len()),
                None,
            ) {
                Ok(page) => assert_eq!(page.entries, stored),
                Err(error) => assert!(allowed(&error), "{error}"),
            }
        }
        let last = stored.last().unwrap();
        if last.payload.len() > 4096 {
            match view.outside_payload(&crate::hash::content(&last.payload)) {
                Ok(found) => assert_eq!(found.as_ref(), Some(&last.payload)),
                Err(error) => assert!(allowed(&error), "{error}"),
            }
        }
    }
    match view.contexts(None, 9) {
        Ok(found) => assert_eq!(found.len(), case.entries.len()),
        Err(error) => assert!(allowed(&error), "{error}"),
    }
}

/// Old and new request ids are answered right, or not at all.
fn appends_right(case: &Case, store: &Store, model: &mut Model) {
    for (id, stored) in &case.entries {
        let known = stored.iter().filter_map(|entry| {
            let draft = Draft::new(entry.key.as_str(), entry.payload.as_slice()).unwrap();
            let request = entry.request_id.as_deref()?;
            Some((id.clone(), draft.with_request_id(request).unwrap()))
        });
        let mut drafts: Vec<_> = known.step_by(7).collect();
        let new = draft("new").with_request_id("new").unwrap();
        drafts.push((id.clone(), new));
        match store.append(drafts.clone()) {
            Ok(answers) => {
                let (new, known) = answers.split_last().unwrap();
                assert!(!new.stored_before);
                assert!(known.iter().all(|answer| answer.stored_before));
                model.take(drafts, &answers);
            }
            Err(AppendError::Store(error)) => assert!(allowed(&error), "{error}"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Uses a store whose index is damaged, and then finds everything in order.
fn use_and_heal(case: &Case, disk: &MemoryDisk, store: &Store, compared: bool) {
    let mut model = case.model.clone();
    reads_right(case, store.view(), true);
    appends_right(case, store, &mut model);
    // It is noticed by then, or will never be.
    store.mailbox().settle();
    let _ = store.publish();
    assert_eq!(store.failure(), None);
    store.close().unwrap();
    let opened = try_open(disk, options()).unwrap();
    assert_eq!(opened.index_discarded, None, "it is good again");
    reads_right(case, opened.store.view(), false);
    if compared {
        audit_clean(disk);
        model.compare(opened.store.view(), true);
        model.ask_again(&opened.store);
    }
}

/// A bit of a file, to be flipped.
#[derive(Clone, Debug)]
struct Flip {
    file: String,
    at: usize,
    bit: u8,
    /// While the store runs.
    running: bool,
}

impl Flip {
    fn apply(&self, disk: &MemoryDisk) {
        let file = disk.open(&self.file, Access::Write).unwrap();
        let mut byte = [0];
        file.read_at(self.at as u64, &mut byte).unwrap();
        file.write_at(self.at as u64, &[byte[0] ^ 1 << self.bit])
            .unwrap();
    }

    /// Returns true if the index was thrown away on opening.
    fn try_index(&self, case: &Case, compared: bool) -> bool {
        let disk = case.disk.fork();
        if !self.running {
            self.apply(&disk);
        }
        let opened = try_open(&disk, options()).unwrap();
        if self.running {
            self.apply(&disk);
        }
        use_and_heal(case, &disk, &opened.store, compared);
        opened.index_discarded.is_some()
    }

    /// Returns true if the store is not opened.
    fn try_segment(&self, case: &Case) -> bool {
        let disk = case.disk.fork();
        self.apply(&disk);
        let (view, store) = match try_open(&disk, options()) {
            Ok(opened) => (opened.store.view().clone(), Some(opened.store)),
            Err(error) => {
                assert!(error.is_verification_failure(), "{error}");
                (read_only(&case.disk), None)
            }
        };
        reads_right(case, &view, true);
        let changed = disk.bytes(&self.file) != case.disk.bytes(&self.file);
        if changed {
            let report = audit(&disk, &mut |_| ());
            let named = report.map_or(true, |report| report.first_bad.is_some());
            // The mark at the end holds nothing: a torn one is no loss.
            let marks = case.disk.bytes(&self.file).unwrap().len() - 64;
            assert!(named || self.at >= marks, "no audit finds it");
        }
        store.is_none()
    }
}

/// Runs all flips on two threads; panics name the flip.
fn run_all(case: &Case, flips: &[Flip]) -> [usize; 2] {
    let next = AtomicUsize::new(0);
    let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    let Some(flip) = flips.get(n) else { break };
                    let index = flip.file == INDEX;
                    let one = || {
                        if index {
                            flip.try_index(case, n.is_multiple_of(COMPARED))
                        } else {
                            flip.try_segment(case)
                        }
                    };
                    match catch_unwind(AssertUnwindSafe(one)) {
                        Ok(noticed) => {
                            let at = usize::from(!index);
                            counts[at].fetch_add(usize::from(noticed), Ordering::SeqCst);
                        }
                        Err(panic) => {
                            println!("{flip:?}");
                            std::panic::resume_unwind(panic);
                        }
                    }
                }
            });
        }
    });
    counts.map(|count| count.load(Ordering::SeqCst))
}

/// Bytes of the index worth hitting: those of pages that are not zeros.
fn used_pages(index: &[u8]) -> Vec<usize> {
    (0..index.len() / 4096)
        .filter(|page| index[page * 4096..][..4096].iter().any(|byte| *byte != 0))
        .collect()
}

#[test]
fn no_flipped_bit_is_believed() {
    let case = case();
    let wanted = std::env::var("LEDGER_FLIPS");
    let wanted = wanted.map_or(FLIPS, |count| count.parse().unwrap());
    let mut random = Random(SEED);
    let index = case.disk.bytes(INDEX).unwrap();
    let pages = used_pages(&index);
    let mut flips = Vec::new();
    let mut add = |file: &str, at: usize, bit: usize, running: bool| {
        let bit = u8::try_from(bit % 8).unwrap();
        flips.push(Flip {
            file: file.to_owned(),
            at,
            bit,
            running,
        });
    };
    // The check block's entries of pages in use, and the header's sector.
    let all = wanted >= FLIPS_THOROUGH;
    let checks = pages.iter().filter(|page| (1..=512).contains(*page));
    let checks = checks.flat_map(|page| (page - 1) * 8..page * 8);
    let first: Vec<usize> = if all {
        (0..8192).collect()
    } else {
        checks.chain(4096..4096 + 512).collect()
    };
    for at in &first {
        add(INDEX, *at, random.below(8), false);
    }
    let segments = case.disk.list("log").unwrap();
    let names: Vec<String> = segments.iter().map(|name| format!("log/{name}")).collect();
    for name in &names {
        for at in 0..128 {
            add(name, at, random.below(8), false);
        }
    }
    let exhaustive = first.len() + names.len() * 128;
    for n in 0..wanted.saturating_sub(exhaustive) {
        if n % 3 == 0 {
            let name = &names[random.below(names.len())];
            let len = case.disk.bytes(name).unwrap().len();
            add(name, random.below(len), random.below(8), false);
        } else {
            let page = pages[random.below(pages.len())];
            let at = page * 4096 + random.below(4096);
            add(INDEX, at, random.below(8), n % 2 == 0);
        }
    }
    let noticed = run_all(&case, &flips);
    println!(
        "{} flips from seed {SEED:#x}, {exhaustive} of them exhaustive; index of {} bytes, {} \
         pages in use; at opening {} indexes were thrown away and {} stores refused",
        flips.len(),
        index.len(),
        pages.len(),
        noticed[0],
        noticed[1],
    );
    assert!(noticed.iter().all(|count| *count > 0));
}
