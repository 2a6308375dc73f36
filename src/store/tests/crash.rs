//! The power fails after every single operation of a store's life.
//!
//! A workload drawn from a seed runs over a [`SimDisk`]. It notes, for each
//! request, the place in the journal at which it was sent and at which it was
//! acknowledged, and for each head that at which it was told. Then, for every
//! place in the journal and for several kinds of survivors, the disk that would
//! be left is opened by the production code, and must hold
//! * every request acknowledged until then, whole, and no other entries but
//!   those of whole requests sent until then, in their order;
//! * the newest head told until then, or a later one that grew from it, and
//!   every other one told, so that whoever shows it does not freeze the store;
//! * nothing that a second loss of power right afterwards would take away.
//!
//! It must audit clean, before opening and after, and go on: an append, and a
//! head whose epoch was never told. Every second life of a store begins on what
//! a crash of the first one left, so that opening is itself cut off everywhere.
//!
//! A failure prints `LEDGER_CRASH_SEED` and `LEDGER_CRASH_IMAGE`; with them in
//! the environment that seed, or that image, is run alone. Keys and store ids
//! are random and the writer has timers, so the journal is the same in its
//! operations, not in its bytes, and a timer may shift it.

mod mirror;
mod workload;

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::head::SignedHead;
use crate::ledger::ReadLedger;
use crate::store::disk::{Dice, Disk, Replay, SimDisk, Survivors};
use workload::Work;

const SEEDS: [u64; 3] = [1, 2, 3];
/// Steps of the first and of the second life of a store.
const STEPS: [usize; 2] = [36, 18];
const CONTEXTS: [&str; 5] = ["a", "b/with slash", "ledger", "\u{e9}", "loaded"];
/// Of them, the one that is loaded from elsewhere and never appended to.
const LOADED: usize = 4;
const SEGMENT_BYTES: u64 = 16 << 10;
const RESERVE_BYTES: u64 = 8 << 10;
/// Of the crash points at which something is unsynced, every n-th is drawn for
/// each kind of survivors besides `None` and `All`.
const SAMPLE: usize = 2;
/// Of the images, every n-th is cut off again while it is opened.
const TWICE: usize = 5;
type Sizes = [usize; CONTEXTS.len()];

/// An entry that was acknowledged; its place is its index.
#[derive(Clone)]
struct Known {
    id: Hash,
    payload: Arc<[u8]>,
}

/// A request, and the sizes of all contexts after it.
#[derive(Clone)]
struct Step {
    /// The first place at which something of it may be on the disk.
    sent: usize,
    acknowledged: usize,
    sizes: Sizes,
}

/// A head, and all contexts as it covers them.
#[derive(Clone)]
struct Told {
    /// It was signed behind this place.
    asked: usize,
    at: usize,
    head: SignedHead,
    contexts: Vec<ContextInfo>,
}

/// A life of a store, to be looked at from every place in its journal.
#[derive(Clone)]
struct Life {
    seed: u64,
    disk: SimDisk,
    /// From here on there is a store.
    created: usize,
    entries: [Vec<Known>; CONTEXTS.len()],
    /// The first one stands for what was there when the life began.
    steps: Vec<Step>,
    told: Vec<Told>,
}

/// What must be there after a crash.
#[derive(Clone, Copy)]
struct Expected<'l> {
    life: &'l Life,
    created: bool,
    /// Steps, at least and at most.
    acknowledged: usize,
    sent: usize,
    told: Option<&'l Told>,
    /// All heads told until then.
    known: &'l [Told],
    /// A head that may have been signed, and was not told yet.
    signed: Option<&'l Told>,
}

fn options_with(reserve_bytes: u64) -> StoreOptions {
    StoreOptions {
        reserve_bytes,
        // Folded often, also while the log is replayed.
        tail_bytes_max: 8 << 10,
        ..options(SEGMENT_BYTES)
    }
}

fn open_sim(disk: &SimDisk, reserve_bytes: u64) -> Opened {
    let disk = Arc::new(disk.clone());
    let opened = Store::open(disk, options_with(reserve_bytes), Some(signer()));
    opened.expect("a crash is never damage")
}

impl Life {
    fn first(seed: u64) -> Self {
        let disk = SimDisk::new();
        create(&disk, StoreRole::Own, signer().verifier()).unwrap();
        Self {
            seed,
            created: disk.mark(),
            disk,
            entries: Default::default(),
            steps: vec![Step {
                sent: 0,
                acknowledged: 0,
                sizes: Sizes::default(),
            }],
            told: Vec::new(),
        }
    }

    /// The life that begins on `disk`, on which a crash left `there` steps.
    /// Until it was `opened` they may be lost again, and then no more.
    fn next(disk: &SimDisk, before: Expected<'_>, there: usize, opened: usize) -> Self {
        let life = before.life;
        let steps: Vec<_> = life.steps[before.acknowledged..=there]
            .iter()
            .enumerate()
            .map(|(n, step)| Step {
                sent: 0,
                acknowledged: if n == 0 { 0 } else { opened },
                sizes: step.sizes,
            })
            .collect();
        let mut entries = life.entries.clone();
        for (entries, size) in entries.iter_mut().zip(life.steps[there].sizes) {
            entries.truncate(size);
        }
        let told = before.known.iter().map(|told| Told {
            asked: 0,
            at: 0,
            ..told.clone()
        });
        Self {
            seed: life.seed,
            disk: disk.clone(),
            created: if before.created { 0 } else { opened },
            entries,
            steps,
            told: told.collect(),
        }
    }

    fn expected(&self, at: usize) -> Expected<'_> {
        let until = |passed: &dyn Fn(&Step) -> bool| {
            self.steps.iter().rposition(passed).unwrap_or_default()
        };
        let acknowledged = until(&|step| step.acknowledged <= at);
        Expected {
            life: self,
            created: self.created <= at,
            acknowledged,
            sent: until(&|step| step.sent <= at).max(acknowledged),
            told: self.told.iter().rfind(|told| told.at <= at),
            known: &self.told[..self.told.partition_point(|told| told.at <= at)],
            signed: self
                .told
                .iter()
                .find(|told| told.asked < at && at < told.at),
        }
    }

    fn sizes(&self) -> Sizes {
        self.entries.each_ref().map(Vec::len)
    }

    fn add(&mut self, context: usize, appended: &Appended, payload: &[u8]) {
        self.entries[context].push(Known {
            id: appended.id,
            payload: payload.into(),
        });
        let size = self.entries[context].len() as u64;
        assert_eq!((appended.sequence, appended.stored_before), (size, false));
    }

    /// The store shows a head, which it was asked for behind `asked`.
    fn tell(&mut self, view: &View, asked: usize) {
        let at = self.disk.mark();
        let Some(head) = view.head() else {
            return;
        };
        match self.told.last() {
            Some(known) if known.head == head => return,
            Some(known) => assert!(known.head.order() < head.order(), "an epoch twice"),
            None => (),
        }
        let covered = |name: &&str| {
            let id = id(name);
            let size = view.signed_size(&id).unwrap()?;
            let root = view.root_at(&id, size).unwrap();
            Some(ContextInfo { id, size, root })
        };
        self.told.push(Told {
            asked,
            at,
            contexts: CONTEXTS.iter().filter_map(covered).collect(),
            head,
        });
    }
}

impl Expected<'_> {
    /// Everything that must be there is, and nothing that was never sent.
    /// Returns how many steps are there.
    fn check(&self, view: &View) -> usize {
        let sizes: Sizes = CONTEXTS
            .map(|name| usize::try_from(view.size(&id(name)).unwrap().unwrap_or(0)).unwrap());
        let possible = &self.life.steps[self.acknowledged..=self.sent];
        let there = possible.iter().position(|step| step.sizes == sizes);
        let there = there.unwrap_or_else(|| {
            panic!(
                "{sizes:?} entries are there, acknowledged were {:?}, sent {:?}",
                possible[0].sizes,
                possible[possible.len() - 1].sizes
            )
        });
        for (name, known) in CONTEXTS.iter().zip(&self.life.entries) {
            let mut after = 0;
            loop {
                let page = view
                    .page(&id(name), after, &PageLimits::default(), None)
                    .unwrap();
                for entry in &page.entries {
                    after += 1;
                    let known = &known[usize::try_from(after).unwrap() - 1];
                    assert_eq!(entry.sequence, after);
                    assert_eq!(entry.id, known.id);
                    assert_eq!(entry.payload[..], known.payload[..]);
                }
                if page.next_after == 0 {
                    break;
                }
            }
        }
        if let Some(told) = self.told {
            told.check(view);
        }
        self.acknowledged + there
    }
}

impl Told {
    /// The newest head is this one, or a later one that grew from it.
    fn check(&self, view: &View) {
        let newest = view.head().expect("a head that was told is gone");
        let (told, newest_head) = (self.head.head(), newest.head());
        assert!(
            newest.order() >= self.head.order(),
            "{newest_head:?} after {told:?}"
        );
        if newest.order() == self.head.order() {
            assert_eq!(newest.note_bytes(), self.head.note_bytes());
        }
        assert!(newest_head.entries >= told.entries && newest_head.contexts >= told.contexts);
        for context in &self.contexts {
            let root = view.root_at(&context.id, context.size).unwrap();
            assert_eq!(root, context.root);
        }
    }
}

fn audit_sim(disk: &SimDisk, when: &str) -> AuditReport {
    let report = audit(disk, &mut |_| ()).unwrap();
    assert_eq!(report.first_bad, None, "{when}");
    // Whatever is left of the index covers a durable part of the log.
    let index = &report.index;
    assert!(
        !matches!(index, AuditedIndex::Differs { .. }),
        "{when}: {index:?}"
    );
    report
}

/// What a crash leaves. If everything survives it was the process that died:
/// what it had not synced may be lost later.
fn left(replay: &Replay, survivors: Survivors, seed: u64) -> SimDisk {
    match survivors {
        Survivors::All => replay.restart(),
        _ => SimDisk::over(replay.image(survivors, seed)),
    }
}

/// Opens what a crash left, checks it, and goes on with it.
fn survive(disk: &SimDisk, expected: Expected<'_>, dice: &mut Dice, twice: bool) {
    if !expected.created && matches!(peek(disk), Err(StoreError::NotAStore)) {
        create(disk, StoreRole::Own, signer().verifier()).unwrap();
    }
    audit_sim(disk, "before opening");
    let Opened {
        store, torn_bytes, ..
    } = open_sim(disk, 0);
    let there = expected.check(store.view());
    knows(&store, expected.known);
    let opened = disk.mark();
    let mut life = Life::next(disk, expected, there, opened);
    life.tell(store.view(), opened);
    let torn_again = what_is_shown_is_durable(disk, store.view(), life.told.last());
    // A process that died between a cut and its sync leaves nothing to be cut
    // to its successor, and a tail to a loss of power.
    assert!(torn_bytes == 0 || torn_again == 0, "the cut is not durable");
    // It goes on.
    let sent = disk.mark() + 1;
    let later = "later".repeat(300);
    let appended = put(&store, CONTEXTS[0], &["later", &later, "later"]);
    for (appended, payload) in appended.iter().zip(["later", &later, "later"]) {
        life.add(0, appended, payload.as_bytes());
    }
    life.steps.push(Step {
        sent,
        acknowledged: disk.mark(),
        sizes: life.sizes(),
    });
    let asked = disk.mark();
    let head = store.publish().unwrap();
    life.tell(store.view(), asked);
    if torn_bytes > 0 {
        // What was cut may have been a head: its epoch is not used again.
        let signed = expected.signed.map(|signed| signed.head.order());
        assert!(Some(head.order()) > signed, "an epoch was signed twice");
    }
    if twice {
        let at = dice.below(disk.mark() + 1);
        let survivors = Survivors::ALL[dice.below(Survivors::ALL.len())];
        let mut replay = disk.replay();
        replay.advance(at);
        let twice = left(&replay, survivors, dice.roll());
        survive(&twice, life.expected(at), dice, false);
    }
    knows(&store, &life.told);
    store.close().unwrap();
    let entries = life.sizes().iter().sum::<usize>() as u64;
    assert_eq!(audit_sim(disk, "after going on").entries, entries);
    // Not before: the writer makes temporaries of its own.
    for dir in ["", "log"] {
        let names = disk.list(dir).unwrap();
        let temporary = |name: &String| name.strip_suffix(".new").is_some();
        assert!(!names.iter().any(temporary), "{names:?}");
    }
    let store = open_sim(disk, 0).store;
    assert_eq!(store.view().head(), Some(head));
    assert_eq!(store.view().totals().1, entries);
}

/// Nobody who shows a head that was told freezes the store.
fn knows(store: &Store, told: &[Told]) {
    let notes: Vec<_> = told.iter().map(|told| told.head.note_bytes()).collect();
    for note in &notes {
        let witness = store.witness(std::slice::from_ref(note)).unwrap();
        assert_eq!(witness, Witness::Known);
    }
    assert_eq!(store.frozen(), None);
}

/// A loss of power now takes nothing that can be seen. Returns what it leaves
/// to be cut.
fn what_is_shown_is_durable(disk: &SimDisk, view: &View, told: Option<&Told>) -> u64 {
    let lost = SimDisk::over(disk.image(disk.mark(), Survivors::None, 0));
    let again = open_sim(&lost, 0);
    let contexts = |view: &View| view.contexts(None, usize::MAX).unwrap();
    assert_eq!(contexts(again.store.view()), contexts(view));
    if let Some(told) = told {
        told.check(again.store.view());
    }
    again.torn_bytes
}

/// An image: of which life, where in the journal, and what survives.
#[derive(Clone)]
struct Job {
    life: usize,
    at: usize,
    survivors: Survivors,
    seed: u64,
}

/// All crash points of a life.
fn jobs(number: usize, life: &Life, jobs: &mut Vec<Job>) {
    let mut replay = life.disk.replay();
    let mut dice = Dice(number as u64);
    for at in 0..=replay.len() {
        replay.advance(at);
        for survivors in Survivors::ALL {
            let always = matches!(survivors, Survivors::None | Survivors::All);
            if always || (replay.is_unsynced() && dice.below(SAMPLE) == 0) {
                jobs.push(Job {
                    life: number,
                    at,
                    survivors,
                    seed: dice.roll(),
                });
            }
        }
    }
}

/// Said should the test fail here.
struct OnPanic(String);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// How a job is named in the environment.
fn name_of(job: &Job) -> String {
    let Job {
        life,
        at,
        survivors,
        seed,
    } = job;
    format!("{}:{at}:{survivors:?}:{seed}", life % 2)
}

fn job_of(name: &str) -> Job {
    let parts: Vec<&str> = name.split(':').collect();
    let [life, at, survivors, seed] = parts[..] else {
        panic!("not an image: {name}");
    };
    let named = |kind: &&Survivors| format!("{kind:?}") == survivors;
    Job {
        life: life.parse().unwrap(),
        at: at.parse().unwrap(),
        survivors: *Survivors::ALL.iter().find(named).unwrap(),
        seed: seed.parse().unwrap(),
    }
}

/// Takes every `threads`-th job, from `first` on: each thread walks all
/// journals once.
fn work_off(lives: &[Life], jobs: &[Job], done: &AtomicUsize, first: usize, threads: usize) {
    let mut walk: Option<(usize, Replay)> = None;
    for (n, job) in jobs.iter().enumerate().skip(first).step_by(threads) {
        let life = &lives[job.life];
        let (_, replay) = match &mut walk {
            Some(walk) if walk.0 == job.life => walk,
            _ => walk.insert((job.life, life.disk.replay())),
        };
        replay.advance(job.at);
        let disk = left(replay, job.survivors, job.seed);
        let _doing = OnPanic(format!(
            "LEDGER_CRASH_SEED={} LEDGER_CRASH_IMAGE={}\nthe last operations:\n{}",
            life.seed,
            name_of(job),
            replay.story(12)
        ));
        // A process that died, and then a loss of power.
        let died = job.survivors == Survivors::All && replay.is_unsynced();
        let twice = died || (n / threads).is_multiple_of(TWICE);
        survive(&disk, life.expected(job.at), &mut Dice(job.seed), twice);
        done.fetch_add(1 + usize::from(twice), Ordering::Relaxed);
    }
}

fn from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A life, and the one that begins where a crash ended it.
fn two_lives(seed: u64) -> [Life; 2] {
    let life = Life::first(seed);
    let reserve_bytes = if seed.is_multiple_of(2) {
        0
    } else {
        RESERVE_BYTES
    };
    let store = open_sim(&life.disk, reserve_bytes).store;
    let first = Work::run(life, store, reserve_bytes, Dice(seed), STEPS[0]);
    let mut dice = Dice(!seed);
    let survivors = Survivors::ALL[dice.below(Survivors::ALL.len())];
    let at = first.disk.mark() / 3 + dice.below(first.disk.mark() / 2);
    let mut replay = first.disk.replay();
    replay.advance(at);
    let disk = left(&replay, survivors, seed);
    let store = open_sim(&disk, 0).store;
    let expected = first.expected(at);
    let there = expected.check(store.view());
    let opened = disk.mark();
    let mut second = Life::next(&disk, expected, there, opened);
    second.tell(store.view(), opened);
    let second = Work::run(second, store, 0, Dice(!seed), STEPS[1]);
    [first, second]
}

#[test]
fn a_loss_of_power_after_any_operation_loses_nothing_acknowledged() {
    let only_seed = from_environment("LEDGER_CRASH_SEED").map(|seed| seed.parse().unwrap());
    let only_image = from_environment("LEDGER_CRASH_IMAGE");
    let seeds = only_seed.map_or(SEEDS.to_vec(), |seed: u64| vec![seed]);
    let lives: Vec<_> = seeds.iter().flat_map(|seed| two_lives(*seed)).collect();
    let mut all = Vec::new();
    for (number, life) in lives.iter().enumerate() {
        jobs(number, life, &mut all);
    }
    if let Some(only) = only_image {
        all = vec![job_of(&only)];
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for first in 0..threads {
            let (lives, all, done) = (&lives, &all, &done);
            scope.spawn(move || work_off(lives, all, done, first, threads));
        }
    });
    let loaded = |life: &Life| life.sizes()[LOADED] > 8;
    assert!(
        only_seed.is_some() || lives.iter().any(loaded),
        "nothing was loaded"
    );
    let operations: usize = lives.iter().map(|life| life.disk.mark()).sum();
    println!(
        "seeds {seeds:?}: {operations} operations, {} images opened",
        done.load(Ordering::Relaxed)
    );
}
