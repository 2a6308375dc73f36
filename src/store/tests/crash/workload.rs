//! What a store does in its life: requests alone and several at once, outside
//! payloads, requests sent again, histories loaded and loads given up, heads,
//! quiet, and clean closes after which it is opened with a reserve or without
//! one.

use std::sync::mpsc::channel;

use super::*;
use crate::ledger::{HistoryPart, ReadHistory};
use crate::run::{CheckedPayload, Run};
use crate::store::History;

/// Marks that a life waits for: each takes the writer's 100 ms of quiet.
const MARKS: usize = 2;

type Request = Vec<(ContextId, Draft)>;

/// What a workload is in the middle of.
pub(super) struct Work {
    life: Life,
    dice: Dice,
    store: Store,
    reserve_bytes: u64,
    /// Requests whose entries all have request ids, to be sent again.
    again: Vec<(Request, Vec<Appended>)>,
    marks: usize,
    elsewhere: History,
    /// Request ids of this life, and how many there are.
    prefix: u64,
    named: usize,
}

impl Work {
    /// Lives a life of so many steps, and closes the store.
    pub(super) fn run(
        life: Life,
        store: Store,
        reserve_bytes: u64,
        mut dice: Dice,
        steps: usize,
    ) -> Life {
        let prefix = dice.roll();
        let mut work = Self {
            life,
            dice,
            store,
            reserve_bytes,
            again: Vec::new(),
            marks: MARKS,
            elsewhere: elsewhere(),
            prefix,
            named: 0,
        };
        for _ in 0..steps {
            work.step();
        }
        work.close();
        work.life
    }

    fn step(&mut self) {
        match self.dice.below(20) {
            0 => {
                self.close();
                self.reserve_bytes = RESERVE_BYTES - self.reserve_bytes;
                self.store = open_sim(&self.life.disk, self.reserve_bytes).store;
            }
            1 | 2 => {
                let asked = self.life.disk.mark();
                let head = self.store.publish().unwrap();
                self.life.tell(self.store.view(), asked);
                assert_eq!(self.life.told.last().unwrap().head, head);
            }
            3 => {
                if let Some((drafts, before)) = self.again.last().cloned() {
                    let again = self.store.append(drafts).unwrap();
                    let before: Vec<_> = before.iter().map(Appended::again).collect();
                    assert_eq!(again, before);
                }
            }
            4 | 5 => {
                let count = 2 + self.dice.below(3);
                self.send(count);
            }
            6 | 7 if self.marks > 0 && self.reserve_bytes == 0 => {
                self.marks -= 1;
                self.send(1);
                assert!(self.life.disk.wait_for_unsynced(), "no mark was written");
            }
            8 | 9 => self.load(),
            _ => self.send(1),
        }
    }

    fn close(&mut self) {
        let asked = self.life.disk.mark();
        self.store.close().unwrap();
        self.life.tell(self.store.view(), asked);
    }

    /// Sends requests at once and waits for the answers.
    fn send(&mut self, count: usize) {
        let sent = self.life.disk.mark() + 1;
        let (sender, answers) = channel();
        let mut requests = Vec::new();
        for n in 0..count {
            let drafts = self.drafts();
            requests.push(drafts.clone());
            let (sender, disk) = (sender.clone(), self.life.disk.clone());
            let done = move |outcome| sender.send((n, disk.mark(), outcome)).unwrap();
            self.store.submit(drafts, true, Box::new(done));
        }
        drop(sender);
        let mut answers: Vec<_> = answers.iter().collect();
        answers.sort_by_key(|(n, ..)| *n);
        for ((_, acknowledged, outcome), drafts) in answers.into_iter().zip(requests) {
            let appended: Vec<Appended> = outcome.unwrap();
            for ((context, draft), appended) in drafts.iter().zip(&appended) {
                let context = CONTEXTS.iter().position(|c| *c == context.as_str());
                self.life.add(context.unwrap(), appended, draft.payload());
            }
            self.life.steps.push(Step {
                sent,
                acknowledged,
                sizes: self.life.sizes(),
            });
            if drafts.iter().all(|(_, draft)| draft.request_id().is_some()) {
                self.again.push((drafts, appended));
            }
        }
    }

    /// Loads some more of what is elsewhere. A context that is new is there when
    /// it has its name, or never, if it is given up.
    fn load(&mut self) {
        let mut loader = self.store.loader(&id(CONTEXTS[LOADED])).unwrap();
        let new = loader.size() == 0;
        let given_up = new && self.dice.below(3) == 0;
        for _ in 0..=self.dice.below(4) {
            let before = self.life.disk.mark() + 1;
            let runs = self.elsewhere.runs(loader.size(), 1).unwrap();
            if runs.is_empty() {
                break;
            }
            loader.push(self.part(runs)).unwrap();
            if new {
                if self.dice.below(3) == 0 {
                    self.send(1);
                }
                continue;
            }
            self.loaded(loader.size(), before);
        }
        let size = loader.size();
        if new && !given_up {
            let before = self.life.disk.mark() + 1;
            let root = self.elsewhere_root(size);
            assert_eq!(loader.finish(root).unwrap(), size);
            self.loaded(size, before);
        }
    }

    /// Runs with the payloads they need.
    fn part(&self, runs: Vec<Vec<u8>>) -> HistoryPart {
        let mut payloads = Vec::new();
        for run in &runs {
            for entry in Run::decode(run).unwrap().entries() {
                let entry = entry.unwrap();
                if entry.inline_payload.is_none() {
                    let hash = entry.header.payload_hash;
                    let bytes = self.elsewhere.outside_payload(&hash).unwrap();
                    payloads.push(CheckedPayload::new(bytes).unwrap());
                }
            }
        }
        HistoryPart { runs, payloads }
    }

    fn elsewhere_root(&self, size: u64) -> Hash {
        let view = self.elsewhere.view();
        view.root_at(self.elsewhere.id(), size).unwrap()
    }

    /// So much of what is elsewhere is there.
    fn loaded(&mut self, size: u64, sent: usize) {
        let view = self.elsewhere.view();
        let known = entries(view, self.elsewhere.id().as_str());
        let known = known.into_iter().take(usize::try_from(size).unwrap());
        let known = known.map(|entry| Known {
            id: entry.id,
            payload: entry.payload.into(),
        });
        self.life.entries[LOADED] = known.collect();
        self.life.steps.push(Step {
            sent,
            acknowledged: self.life.disk.mark(),
            sizes: self.life.sizes(),
        });
    }

    fn drafts(&mut self) -> Request {
        let entries = match self.dice.below(10) {
            0..=4 => 1,
            5..=8 => 1 + self.dice.below(8),
            _ => 1 + self.dice.below(40),
        };
        let named = self.dice.below(3) == 0;
        (0..entries)
            .map(|_| {
                let context = id(CONTEXTS[self.dice.below(LOADED)]);
                let len = match self.dice.below(40) {
                    // Outside payloads: one of three, stored once each.
                    0 | 1 => 4097 + 700 * self.dice.below(3),
                    2..=5 => 400 + self.dice.below(1600),
                    _ => self.dice.below(90),
                };
                let fill = if len > 4096 {
                    b'L'
                } else {
                    b"abcdefgh"[len % 8]
                };
                let draft = Draft::new("key", vec![fill; len]).unwrap();
                self.named += 1;
                let request = format!("{:x}-{}", self.prefix, self.named);
                let request = if named { request } else { String::new() };
                (context, draft.with_request_id(request).unwrap())
            })
            .collect()
    }
}

/// A history of some other store, the same every time.
fn elsewhere() -> History {
    let disk = new_disk();
    let store = open(&disk);
    for n in 0..24usize {
        let drafts = (0..=n % 3).map(|k| {
            let len = if (n + k) % 7 == 0 { 4200 + n } else { 30 * n };
            let request = if n % 2 == 0 {
                format!("{n}-{k}")
            } else {
                String::new()
            };
            let draft = Draft::new("key", vec![b'e'; len]).unwrap();
            (id("elsewhere"), draft.with_request_id(request).unwrap())
        });
        store.append(drafts.collect()).unwrap();
    }
    let history = store.view().history(&id("elsewhere")).unwrap().unwrap();
    store.close().unwrap();
    history
}
