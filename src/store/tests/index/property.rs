//! Whatever happens to a store and its index, and in whatever order: every
//! answer is the model's, and that of a reader that uses no index.

use proptest::prelude::*;

use super::model::Model;
use super::*;

/// What happens to a store.
#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Drafted>),
    /// Many small entries of one context.
    Bulk(u8, usize),
    Publish,
    /// Closed and opened.
    Reopen,
    /// A copy of the running store's files is opened.
    Crash,
    /// The same, without what was not synced.
    PowerLoss,
    /// Closed, and opened without its index.
    DeleteIndex,
    /// Its readers complain of the index.
    Lose,
}

/// Context, key, payload, request id.
type Drafted = (u8, u8, u16, Option<u8>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let drafted = (
        0u8..5,
        0u8..2,
        prop_oneof![8 => 0u16..4, 1 => 4090u16..4100, 1 => 6000u16..6003],
        prop::option::of(0u8..8),
    );
    let step = prop_oneof![
        12 => prop::collection::vec(drafted, 1..12).prop_map(Step::Append),
        2 => (0u8..2, prop_oneof![4 => 10usize..300, 1 => 4000usize..4700])
            .prop_map(|(context, count)| Step::Bulk(context, count)),
        3 => Just(Step::Publish),
        2 => Just(Step::Reopen),
        2 => Just(Step::Crash),
        1 => Just(Step::PowerLoss),
        1 => Just(Step::DeleteIndex),
        1 => Just(Step::Lose),
    ];
    prop::collection::vec(step, 3..14)
}

fn drafts(drafted: &[Drafted]) -> Vec<(ContextId, Draft)> {
    let draft = |(context, key, len, request): &Drafted| {
        let payload = format!("{len}").repeat(1 + usize::from(*len) / 4);
        let draft = Draft::new(format!("k{key}"), payload).unwrap();
        let draft = match request {
            Some(request) => draft.with_request_id(format!("r{request}")).unwrap(),
            None => draft,
        };
        (id(&format!("c{context}")), draft)
    };
    drafted.iter().map(draft).collect()
}

fn bulk(context: u8, count: usize) -> Vec<(ContextId, Draft)> {
    let draft = |n: usize| Draft::new(format!("k{}", n % 700 / 300), n.to_string()).unwrap();
    let id = id(&format!("c{context}"));
    (0..count).map(|n| (id.clone(), draft(n))).collect()
}

struct Run {
    every: Duration,
    disk: MemoryDisk,
    store: Store,
    model: Model,
}

impl Run {
    fn new(every: Duration) -> Self {
        let disk = new_disk();
        let store = open_every(&disk, every);
        Self {
            every,
            disk,
            store,
            model: Model::default(),
        }
    }

    fn open(&mut self, disk: MemoryDisk) {
        self.store = open_every(&disk, self.every);
        self.disk = disk;
    }

    /// Returns true if the newest head covers everything then.
    fn step(&mut self, step: &Step) -> bool {
        match step {
            Step::Append(drafted) => self.model.append(&self.store, drafts(drafted)),
            Step::Bulk(context, count) => {
                self.model.append(&self.store, bulk(*context, *count));
            }
            Step::Publish => {
                self.store.publish().unwrap();
                return true;
            }
            Step::Reopen => {
                self.store.close().unwrap();
                self.open(self.disk.clone());
                return true;
            }
            Step::Crash => self.open(self.disk.fork()),
            Step::PowerLoss => self.open(self.disk.after_power_loss()),
            Step::DeleteIndex => {
                self.store.close().unwrap();
                self.open(without_index(&self.disk));
                return true;
            }
            Step::Lose => self.store.view().index().below.lose("on purpose"),
        }
        false
    }

    fn check(&mut self, signed: bool) {
        if self.every == ALWAYS {
            settle(&self.store);
        } else {
            barrier(&self.store);
        }
        // If the index was lost, it is made anew now.
        self.store.mailbox().settle();
        assert!(!is_lost(&self.store));
        let signed = signed || self.every == ALWAYS && self.store.view().head().is_some();
        self.model.compare(self.store.view(), signed);
        self.model.compare(&read_only(&self.disk), false);
        self.model.ask_again(&self.store);
    }
}

fn holds(every: Duration, steps: &[Step]) {
    let mut run = Run::new(every);
    for step in steps {
        let signed = run.step(step);
        run.check(signed);
    }
    run.store.close().unwrap();
    audit_clean(&run.disk);
    // What is there at the end is opened without reading more than its end.
    let opened = try_open(&run.disk, super::every(every)).unwrap();
    assert_eq!(opened.index_discarded, None);
    run.model.compare(opened.store.view(), true);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_answer_is_the_models_when_every_group_is_folded(steps in steps()) {
        holds(ALWAYS, &steps);
    }

    #[test]
    fn every_answer_is_the_models_when_folds_are_rare(steps in steps()) {
        holds(NEVER, &steps);
    }
}

#[test]
fn tiles_that_fill_over_many_folds_are_whole() {
    for every in [ALWAYS, NEVER] {
        let mut run = Run::new(every);
        for count in [10, 4000, 70, 20, 300, 4000] {
            let signed = run.step(&Step::Bulk(0, count));
            run.check(signed);
            if count != 70 {
                let signed = run.step(&Step::Reopen);
                run.check(signed);
            }
        }
    }
}
