//! What must be true of a mirror at all times, and what has happened so far.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::world::StreamKey;
use super::{FakeLedger, FakeMirror};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::{Head, HeadOrder, SignedHead};
use crate::ledger::{Ingest, ReadMirror};
use crate::note::Note;
use crate::sync::Told;
use crate::sync::message::Reply;

/// Lines of what happened that are shown when something is wrong.
const TRACE_LINES: usize = 60;

/// Shows what happened if the test fails.
#[derive(Default)]
pub(crate) struct Oracle {
    seed: u64,
    pub(crate) epoch_at_calm: Option<u64>,
    trace: VecDeque<String>,
    complete: Option<HeadOrder>,
    sizes: BTreeMap<String, u64>,
    /// The context of a stream of spans.
    streams: HashMap<StreamKey, ContextId>,
    /// Entries of each context, and payloads, that are durable or were pulled in
    /// the sync under way.
    entries: HashMap<ContextId, u64>,
    payloads: HashSet<Hash>,
    /// Bytes pulled once more than needed.
    again_bytes: u64,
    pub(crate) counts: Counts,
}

/// How often what a run is about has happened, so that a test can tell whether it
/// does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) heads: u64,
    pub(crate) completed: u64,
    pub(crate) told: u64,
    /// Syncs that a push was enough for.
    pub(crate) without_a_question: u64,
    pub(crate) pulled_spans: u64,
    pub(crate) acknowledged: u64,
    pub(crate) interruptions: u64,
    pub(crate) blamed: u64,
}

impl Counts {
    pub(crate) const fn add(&mut self, other: &Self) {
        self.heads += other.heads;
        self.completed += other.completed;
        self.told += other.told;
        self.without_a_question += other.without_a_question;
        self.pulled_spans += other.pulled_spans;
        self.acknowledged += other.acknowledged;
        self.interruptions += other.interruptions;
        self.blamed += other.blamed;
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.trace.iter().map(|line| format!("{line}\n"));
            let lines = lines.collect::<String>();
            eprintln!("{lines}LEDGER_SEED={}", self.seed);
        }
    }
}

impl Oracle {
    pub(super) fn new(seed: u64) -> Self {
        let mut oracle = Self::default();
        oracle.seed = seed;
        oracle
    }

    pub(super) fn note(&mut self, now: u64, line: impl FnOnce() -> String) {
        if self.trace.len() == TRACE_LINES {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{now:>9} us  {}", line()));
    }

    /// What is held is a beginning of the one true history, and only grows.
    pub(super) fn check(&mut self, store: &FakeMirror, states: &[FakeLedger]) {
        let newest = states.last().unwrap();
        let sizes = store.sizes();
        for (id, size) in &self.sizes {
            assert!(sizes.get(id) >= Some(size), "context {id} shrank");
        }
        self.sizes = sizes;
        let complete = store.complete_head().unwrap();
        let order = complete.as_ref().map(SignedHead::order);
        if order == self.complete {
            return;
        }
        assert!(order > self.complete, "the complete head went back");
        self.complete = order;
        self.counts.completed += 1;
        store.assert_beginning_of(newest);
        let is_it = |state: &&FakeLedger| state.head == complete;
        let state = states.iter().find(is_it);
        let state = state.expect("the complete head is one that was published");
        // All of it is there: the contexts of that state, at their sizes.
        let reached = |(id, size): (&String, &u64)| self.sizes.get(id) >= Some(size);
        assert!(state.signed.iter().all(reached), "complete, and not all");
    }

    /// A source is told no head that is not complete.
    pub(super) fn acknowledged(&mut self, note: &[u8]) {
        let note = Note::parse(note).unwrap();
        let order = Head::parse(note.text()).unwrap().order();
        assert!(
            Some(order) <= self.complete,
            "acknowledged and not complete"
        );
        self.counts.acknowledged += 1;
    }

    pub(super) fn told(&mut self, now: u64, n: usize, told: &Told) {
        let pushed = told.received_bytes;
        self.note(now, || format!("told by {n}, {pushed} bytes"));
        self.counts.told += 1;
    }

    /// From here on, whatever is durable is not to be pulled.
    pub(super) fn sync_begins(&mut self, store: &FakeMirror) {
        self.streams.clear();
        let sizes = store.sizes().into_iter();
        let named = |(id, size): (String, u64)| (ContextId::new(&id).unwrap(), size);
        self.entries = sizes.map(named).collect();
        self.payloads.clear();
    }

    pub(super) fn interrupted(&mut self) {
        self.counts.interruptions += 1;
    }

    /// Counts what is pulled and was there already, or on its way to the store.
    pub(super) fn pulled(&mut self, store: &FakeMirror, key: StreamKey, frame: &[u8]) {
        match Reply::decode(frame) {
            Ok(Reply::EntriesBegin { context, .. }) => {
                self.streams.insert(key, context);
            }
            Ok(Reply::Span(span)) => {
                self.counts.pulled_spans += 1;
                let number = |at: usize| {
                    let bytes = span.get(at..at + 8).and_then(|b| b.try_into().ok());
                    bytes.map(u64::from_le_bytes)
                };
                let (Some(context), Some(start), Some(end)) =
                    (self.streams.get(&key), number(8), number(16))
                else {
                    return;
                };
                let held = self.entries.entry(context.clone()).or_default();
                if start < *held {
                    self.again_bytes += span.len() as u64;
                }
                *held = end;
            }
            Ok(Reply::Payload { hash, bytes }) => {
                let new = self.payloads.insert(hash);
                if !new || store.has_outside_payload(&hash).unwrap() {
                    self.again_bytes += bytes.map_or(0, |bytes| bytes.len() as u64);
                }
            }
            _ => {}
        }
    }

    pub(super) fn check_end(&mut self, ledger: &FakeLedger) {
        self.counts.heads = ledger.epoch;
        let data = ledger.data_bytes();
        let again = self.again_bytes;
        assert!(again * 20 <= data, "pulled {again} bytes again, of {data}");
    }
}

/// An item for the trace.
pub(super) fn named(item: &Ingest) -> String {
    match item {
        Ingest::Seen(seen) => format!("seen {}", seen.head.order()),
        Ingest::Span { span, .. } => format!("{} {}..{}", span.id(), span.start(), span.end()),
        Ingest::Payloads(payloads) => format!("{} payloads", payloads.len()),
        Ingest::Complete(head) => format!("complete {}", head.order()),
        Ingest::Rotation(head) => format!("rotation {}", head.order()),
        Ingest::Evidence(_) => "evidence".to_owned(),
    }
}
