//! Recover, check, break, repeat: a history of appends, heads, failing disks
//! and losses of power, compared with a model that knows only what was sent
//! and what was acknowledged.
//!
//! A loss of power keeps, of every sector of 512 bytes that was written and
//! not synced, the old or the new content, as the input chooses. Names and
//! renames are taken to be durable at once, but `head.note` may fall back to
//! any older one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::channel;

use super::{Input, options, signer};
use crate::entry::{ContextId, Draft};
use crate::store::disk::{Disk, Fault, FaultKind, MemoryDisk};
use crate::store::{AppendError, PageLimits, Store, StoreError, StoreRole, View, audit, create};

const SECTOR_BYTES: usize = 512;
/// Operations of one history.
const OPERATIONS_MAX: usize = 60;
/// Contexts of a history.
const CONTEXTS: usize = 3;

/// One request: entries for contexts, stored all or not at all.
type Request = Vec<(usize, String, Vec<u8>)>;

/// What the model knows.
#[derive(Default)]
struct Model {
    /// Acknowledged, in order.
    acknowledged: Vec<Request>,
    /// Sent after those and not answered, or answered with a failure whose
    /// effect is unknown.
    maybe: VecDeque<Request>,
    /// The newest head that was told: epoch and note.
    told: Option<(u64, Vec<u8>)>,
    /// Requests so far, for payloads and request ids that differ.
    sent: u64,
}

impl Model {
    /// Compares what is there with what was sent, and settles on it: all that
    /// was acknowledged, and of the rest a prefix of whole requests.
    fn settle(&mut self, view: &View) {
        loop {
            let matches = (0..CONTEXTS).all(|context| {
                let expected = self.acknowledged.iter().flatten();
                let expected = expected.filter(|entry| entry.0 == context);
                let read = read(view, context);
                read.len() == expected.clone().count()
                    && expected.zip(&read).all(|(sent, read)| sent.2 == *read)
            });
            if matches {
                break;
            }
            let more = self.maybe.pop_front();
            let more = more.expect("entries were lost, or others are there than were sent");
            self.acknowledged.push(more);
        }
        self.maybe.clear();
        if let Some((epoch, note)) = &self.told {
            let head = view.head().expect("a head that was told is gone");
            assert!(head.head().epoch >= *epoch);
            assert!(head.head().epoch > *epoch || head.note_bytes() == *note);
        }
    }

    fn tell(&mut self, head: &crate::head::SignedHead) {
        let epoch = head.head().epoch;
        let known = self.told.as_ref().map_or(0, |(epoch, _)| *epoch);
        assert!(epoch > known, "epoch {epoch} was used before");
        self.told = Some((epoch, head.note_bytes()));
    }
}

fn id(context: usize) -> ContextId {
    ContextId::new(&format!("context-{context}")).unwrap()
}

fn read(view: &View, context: usize) -> Vec<Vec<u8>> {
    let (mut payloads, mut after) = (Vec::new(), 0);
    loop {
        let page = view
            .page(&id(context), after, &PageLimits::default(), None)
            .unwrap();
        payloads.extend(page.entries.into_iter().map(|entry| entry.payload));
        match page.next_after {
            0 => return payloads,
            next => after = next,
        }
    }
}

fn drafts(request: &Request) -> Vec<(ContextId, Draft)> {
    let draft = |(context, request_id, payload): &(usize, String, Vec<u8>)| {
        let draft = Draft::new("key", payload.clone()).unwrap();
        (id(*context), draft.with_request_id(request_id).unwrap())
    };
    request.iter().map(draft).collect()
}

/// Sends a request of a few entries; lengths up to 5,000 bytes, so that some
/// payloads are records of their own.
fn draw(input: &mut Input<'_>, model: &mut Model) -> Request {
    let count = 1 + input.below(4);
    let mut request = Vec::new();
    for n in 0..count {
        let context = input.below(CONTEXTS);
        let len = match input.byte() {
            255 => 4000 + input.below(1000),
            len => usize::from(len) * 2,
        };
        let name = format!("{}-{n}", model.sent);
        // Half of the payloads are alike: those above 4 KiB are stored once.
        let alike = len % 2 == 0;
        let mut payload = if alike {
            Vec::new()
        } else {
            name.clone().into_bytes()
        };
        payload.resize(payload.len() + len, b'p');
        request.push((context, name, payload));
    }
    model.sent += 1;
    request
}

/// Whether a refused request may still be in the log.
fn may_be_stored(error: &AppendError) -> bool {
    matches!(
        error,
        AppendError::Store(StoreError::Failed { .. } | StoreError::Io { .. })
    )
}

/// A disk, the store on it if it opens, and what must be true of both.
struct World {
    disk: MemoryDisk,
    store: Option<Store>,
    segment_bytes: u64,
    reserve_bytes: u64,
    model: Model,
    notes: Vec<Vec<u8>>,
}

/// Cycles of appending, failing, losing power and opening again: at least what
/// was acknowledged is there, at most what was sent, and an audit is clean.
pub fn store_crash_cycles(data: &[u8]) {
    let mut input = Input::new(data);
    let disk = MemoryDisk::new();
    create(&disk, StoreRole::Own, signer().verifier()).unwrap();
    let shape = input.byte();
    let mut world = World {
        disk,
        store: None,
        segment_bytes: [4096, 16 << 10, 1 << 20][usize::from(shape) % 3],
        reserve_bytes: [0, 8 << 10][usize::from(shape / 3) % 2],
        model: Model::default(),
        notes: Vec::new(),
    };
    world.open();
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.disk.set_fault(None);
    world.disk.set_capacity(None);
    world.close_and_open();
    if let Some(store) = world.store.take() {
        store.close().unwrap();
    }
    let report = audit(&world.disk, &mut |_| ()).unwrap();
    assert_eq!(report.first_bad, None);
}

impl World {
    /// Opens the store, which succeeds without faults and with some room.
    fn open(&mut self) {
        let report = audit(&self.disk, &mut |_| ()).unwrap();
        assert_eq!(report.first_bad, None, "before opening");
        let opened = match self.try_open() {
            Err(StoreError::DiskFull) => {
                self.disk.set_capacity(None);
                self.try_open()
            }
            opened => opened,
        };
        self.store = Some(opened.unwrap());
        self.settle();
    }

    fn try_open(&self) -> Result<Store, StoreError> {
        let options = options(self.segment_bytes, self.reserve_bytes);
        let disk = Arc::new(self.disk.clone());
        Ok(Store::open(disk, options, Some(signer()))?.store)
    }

    fn settle(&mut self) {
        if let Some(store) = &self.store {
            self.model.settle(store.view());
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 10 {
            0..=2 => {
                let request = draw(input, &mut self.model);
                self.append(vec![request]);
            }
            3 => {
                let count = 2 + input.below(3);
                let requests = (0..count).map(|_| draw(input, &mut self.model)).collect();
                self.append(requests);
            }
            4 => self.repeat(input),
            5 => self.publish(),
            6 => self.close_and_open(),
            7 => {
                let kinds = [
                    FaultKind::Sync,
                    FaultKind::Write,
                    FaultKind::Rename,
                    FaultKind::Extend,
                ];
                self.disk.set_fault(Some(Fault {
                    kind: kinds[input.below(kinds.len())],
                    after: input.below(6) as u64,
                    error: std::io::ErrorKind::Other,
                }));
            }
            8 => {
                let more = input.below(3000) as u64;
                let full = input.byte() & 1 == 1;
                let capacity = full.then(|| self.disk.used_bytes() + more);
                self.disk.set_capacity(capacity);
            }
            _ => self.lose_power(input),
        }
    }

    /// Sends requests at once and waits for the answers.
    fn append(&mut self, requests: Vec<Request>) {
        let Some(store) = &self.store else {
            return;
        };
        let (sender, answers) = channel();
        for (i, request) in requests.iter().enumerate() {
            let sender = sender.clone();
            let done = Box::new(move |outcome| sender.send((i, outcome)).unwrap());
            store.submit(drafts(request), true, done);
        }
        drop(sender);
        let mut answers: Vec<_> = answers.iter().collect();
        assert_eq!(answers.len(), requests.len());
        answers.sort_by_key(|(i, _)| *i);
        for ((_, outcome), request) in answers.into_iter().zip(requests) {
            match outcome {
                Ok(appended) => {
                    assert!(appended.iter().all(|entry| !entry.stored_before));
                    assert!(self.model.maybe.is_empty(), "acknowledged after a failure");
                    self.model.acknowledged.push(request);
                }
                Err(error) if may_be_stored(&error) => self.model.maybe.push_back(request),
                Err(_) => (),
            }
        }
    }

    /// Sends the last acknowledged request once more: nothing is stored twice.
    fn repeat(&mut self, input: &mut Input<'_>) {
        let (Some(store), count) = (&self.store, self.model.acknowledged.len()) else {
            return;
        };
        if count == 0 {
            return;
        }
        let request = &self.model.acknowledged[count - 1 - input.below(count.min(4))];
        if let Ok(appended) = store.append(drafts(request)) {
            assert!(appended.iter().all(|entry| entry.stored_before));
        }
    }

    fn publish(&mut self) {
        if let Some(store) = &self.store
            && let Ok(head) = store.publish()
        {
            self.model.tell(&head);
            self.notes.extend(self.disk.bytes("head.note"));
        }
    }

    /// The process ends, the machine goes on: what was written stays.
    fn close_and_open(&mut self) {
        if let Some(store) = self.store.take() {
            let _ = store.close();
            if let Some(head) = store.view().head()
                && self
                    .model
                    .told
                    .as_ref()
                    .is_none_or(|t| t.0 < head.head().epoch)
            {
                self.model.tell(&head);
            }
        }
        self.disk.set_fault(None);
        self.open();
    }

    fn lose_power(&mut self, input: &mut Input<'_>) {
        let (new, old) = (self.disk.fork(), self.disk.after_power_loss());
        let crashed = new.fork();
        for dir in ["log/", ""] {
            for name in new.list(dir.trim_end_matches('/')).unwrap() {
                let name = format!("{dir}{name}");
                if let (Some(new), Some(old)) = (new.bytes(&name), old.bytes(&name))
                    && new != old
                {
                    crashed.set_bytes(&name, mix(input, &old, &new));
                }
            }
        }
        let choice = input.byte();
        if choice & 1 == 1 && !self.notes.is_empty() {
            let note = self.notes[usize::from(choice >> 1) % self.notes.len()].clone();
            crashed.set_bytes("head.note", note);
        }
        // The old process is gone with its disk.
        drop(self.store.take());
        self.disk = crashed;
        if choice & 0x40 != 0 {
            // Opening fails on the way, and power is lost again.
            self.disk.set_fault(Some(Fault {
                kind: FaultKind::Sync,
                after: u64::from(choice >> 7),
                error: std::io::ErrorKind::Other,
            }));
            match self.try_open() {
                Ok(store) => {
                    self.store = Some(store);
                    self.settle();
                }
                Err(_) => self.lose_power(input),
            }
        } else {
            self.open();
        }
    }
}

/// What is left of a file: per sector, the old or the new content.
fn mix(input: &mut Input<'_>, old: &[u8], new: &[u8]) -> Vec<u8> {
    let len = if input.byte() & 1 == 0 {
        new.len()
    } else {
        old.len().max(new.len())
    };
    let mut bytes = new.to_vec();
    bytes.resize(len, 0);
    let mut pattern = 0;
    let mut written = 0;
    for (i, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
        let at = i * SECTOR_BYTES;
        let before = |n| old.get(at + n).copied().unwrap_or(0);
        if sector
            .iter()
            .enumerate()
            .all(|(n, &byte)| byte == before(n))
        {
            continue;
        }
        if written % 8 == 0 {
            pattern = input.byte();
        }
        if pattern >> (written % 8) & 1 == 0 {
            for (n, byte) in sector.iter_mut().enumerate() {
                *byte = before(n);
            }
        }
        written += 1;
    }
    // The file may have kept its old length.
    if input.byte() & 1 == 1
        && bytes
            .get(old.len()..)
            .is_some_and(|new| new.iter().all(|b| *b == 0))
    {
        bytes.truncate(old.len());
    }
    bytes
}
