//! A mirror, its store, and up to three sources, in virtual time and from one seed.
//!
//! ```text
//!  history: states, one per head --(copied later, or never)--> what a source serves
//!  source --frames--> link (latency, bandwidth, breaks at a byte) --> mirror
//!  mirror --items--> queue (lost with a restart) --> store (survives)
//! ```
//!
//! The mirror's driver here is the shortest one that is right: a connection to each
//! source, each followed; one sync at a time, with whoever told something; a source
//! that failed is called again, later each time; and nobody is asked before what was
//! handed to the store is durable, since what is asked for follows from that.

use std::collections::{BTreeMap, VecDeque};

use super::oracle::Oracle;
use super::{Dice, FakeLedger, FakeMirror};
use crate::ledger::{Ingest, ReadMirror};
use crate::sync::message::{Refusal, Reply, Request};
use crate::sync::{Answer, Mirror, RequestId, StoreToken, Telling, Told};

pub(super) const MS: u64 = 1000;
pub(super) const SECOND: u64 = 1000 * MS;
/// Faults happen until then.
const CALM_AT: u64 = 4 * SECOND;
/// And appends go on until then.
const QUIET_AT: u64 = 7 * SECOND;
/// How long it may take then to be at the newest head.
const CONVERGE_MAX: u64 = 60 * SECOND;
/// A sync of which nothing comes for so long is given up.
pub(super) const STALL_MAX: u64 = 5 * SECOND;
const STEPS_MAX: usize = 200_000;

/// What can happen. Times are in microseconds.
#[derive(Debug)]
pub(super) enum Event {
    /// The origin appends and publishes.
    Append,
    /// A source takes over a newer state.
    Copy(usize),
    Connect(usize),
    /// A request reaches the source.
    Request(u64, StreamKey, Vec<u8>),
    /// The link can take another frame.
    Pump(u64),
    /// A frame, or the end of its stream, reaches the mirror.
    Arrive(u64, StreamKey, Option<Vec<u8>>),
    Broken(u64),
    /// The first item in the queue is durable.
    Durable,
    Stalled(u64),
    RestartMirror,
    RestartSource(usize),
}

/// Which sync asked, and its request; the stream that is followed has no request.
pub(super) type StreamKey = (u64, Option<RequestId>);

pub(super) struct Source {
    /// Index of the state it serves.
    pub(super) state: usize,
    /// It never gets another one.
    pub(super) stale: bool,
    pub(super) lies: bool,
    pub(super) down_until: u64,
    pub(super) link: Option<u64>,
    pub(super) failures: u32,
    /// What a sync with it would begin from.
    pub(super) pending: Option<Begin>,
    pub(super) telling: Telling,
}

pub(super) enum Begin {
    Ask,
    Told(Box<Told>),
}

pub(super) struct Stream {
    answer: Answer,
    /// More than the link's latency, the same for all of its frames.
    late: u64,
    last: Vec<u8>,
}

pub(super) struct Link {
    pub(super) source: usize,
    pub(super) latency: u64,
    pub(super) us_per_kib: u64,
    /// Bytes after which it breaks.
    pub(super) breaks_after: Option<u64>,
    pub(super) sent: u64,
    pub(super) streams: BTreeMap<StreamKey, Stream>,
    pub(super) turn: Option<StreamKey>,
    pub(super) pumping: bool,
}

pub(super) struct Sync<'m> {
    pub(super) engine: Mirror<'m, FakeMirror>,
    pub(super) number: u64,
    pub(super) source: usize,
    pub(super) link: u64,
    pub(super) heard_at: u64,
    /// Whether it has asked for anything.
    pub(super) asked: bool,
}

pub(crate) struct World<'m> {
    pub(super) dice: Dice,
    pub(crate) now: u64,
    pub(super) events: BTreeMap<(u64, u64), Event>,
    pub(super) scheduled: u64,
    pub(crate) states: Vec<FakeLedger>,
    pub(super) ledger: FakeLedger,
    pub(super) sources: Vec<Source>,
    pub(super) links: BTreeMap<u64, Link>,
    pub(crate) store: &'m FakeMirror,
    pub(super) queue: VecDeque<(u64, StoreToken, Ingest)>,
    pub(super) sync: Option<Sync<'m>>,
    pub(super) syncs: u64,
    pub(crate) oracle: Oracle,
}

impl<'m> World<'m> {
    pub(crate) fn new(seed: u64, store: &'m FakeMirror) -> Self {
        let mut dice = Dice(seed);
        let mut ledger = FakeLedger::new(1);
        ledger.append("first", &[b"entry".to_vec()]);
        ledger.publish();
        // The first one is the origin, which is always true and up to date.
        let sources = (0..=dice.below(3)).map(|n| Source {
            state: 0,
            stale: n > 0 && dice.below(3) == 0,
            lies: n > 0 && dice.below(2) == 0,
            down_until: 0,
            link: None,
            failures: 0,
            pending: None,
            telling: Telling::default(),
        });
        let sources = sources.collect::<Vec<_>>();
        let mut world = Self {
            now: 0,
            events: BTreeMap::new(),
            scheduled: 0,
            states: vec![ledger.clone()],
            ledger,
            links: BTreeMap::new(),
            store,
            queue: VecDeque::new(),
            sync: None,
            syncs: 0,
            oracle: Oracle::new(seed),
            sources,
            dice,
        };
        for n in 0..world.sources.len() {
            world.after(0, 500 * MS, Event::Connect(n));
        }
        world.after(0, 300 * MS, Event::Append);
        world.after(0, 2 * SECOND, Event::RestartMirror);
        let any = world.dice.below(world.sources.len());
        world.after(0, 2 * SECOND, Event::RestartSource(any));
        world
    }

    /// Until the mirror is at the newest head for good.
    pub(crate) fn run(&mut self) {
        for _ in 0..STEPS_MAX {
            let Some(((time, _), event)) = self.events.pop_first() else {
                panic!("nothing more happens, and the mirror is not at the newest head");
            };
            self.now = time;
            self.happen(event);
            let newest = self.states.last().map(|state| state.epoch);
            let complete = self.store.complete_epoch();
            if self.now > QUIET_AT && complete == newest && self.queue.is_empty() {
                return self.oracle.check_end(&self.ledger);
            }
            if self.now > CALM_AT + CONVERGE_MAX {
                assert!(
                    complete >= self.oracle.epoch_at_calm,
                    "not at the head of then"
                );
            }
            assert!(self.now < QUIET_AT + CONVERGE_MAX, "not at the newest head");
        }
        panic!("too many steps: the same again and again");
    }

    pub(super) fn is_calm(&self) -> bool {
        self.now >= CALM_AT
    }

    pub(super) fn after(&mut self, min: u64, max: u64, event: Event) {
        let span = usize::try_from(max - min).unwrap();
        let wait = min + self.dice.below(span + 1) as u64;
        self.at(self.now + wait, event);
    }

    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((time, self.scheduled), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Append => self.append(),
            Event::Copy(n) => {
                self.sources[n].state = self.states.len() - 1;
                self.wake(n);
            }
            Event::Connect(n) => self.connect(n),
            Event::Request(link, key, frame) => self.request(link, key, &frame),
            Event::Pump(link) => self.pump(link),
            Event::Arrive(link, key, frame) => self.arrive(link, key, frame),
            Event::Broken(link) => self.lose(link, "broken"),
            Event::Durable => self.durable(),
            Event::Stalled(number) => self.stalled(number),
            Event::RestartMirror => self.restart_mirror(),
            Event::RestartSource(n) => self.restart_source(n),
        }
        self.begin();
    }

    fn append(&mut self) {
        if !self.is_calm() {
            self.oracle.epoch_at_calm = Some(self.ledger.epoch);
        }
        for _ in 0..self.dice.below(4) {
            let context = format!("context {}", self.dice.below(9));
            let count = match self.dice.below(30) {
                0 => 200 + self.dice.below(200),
                _ => 1 + self.dice.below(6),
            };
            let dice = &mut self.dice;
            let payloads = (0..count).map(|_| match dice.below(20) {
                0 => vec![u8::try_from(dice.below(5)).unwrap(); 4200],
                _ => vec![7; dice.below(40)],
            });
            let payloads = payloads.collect::<Vec<_>>();
            self.ledger.append(&context, &payloads);
        }
        if self.dice.below(15) == 0 && self.ledger.rotations.len() < 4 {
            let key = u8::try_from(self.ledger.rotations.len() + 2).unwrap();
            self.ledger.rotate(key);
        } else {
            self.ledger.publish();
        }
        self.states.push(self.ledger.clone());
        let head = self.states.len();
        self.oracle.note(self.now, || format!("head {head}"));
        self.sources[0].state = self.states.len() - 1;
        self.wake(0);
        for n in 1..self.sources.len() {
            if !self.sources[n].stale && self.dice.below(2) == 0 {
                self.after(MS, 800 * MS, Event::Copy(n));
            }
        }
        if self.now < QUIET_AT {
            // Bursts: a mirror that is busy is told several.
            let max = [20 * MS, 200 * MS, 2 * SECOND][self.dice.below(3)];
            self.after(MS, max, Event::Append);
        }
    }

    fn connect(&mut self, n: usize) {
        if self.sources[n].link.is_some() {
            return;
        }
        if self.sources[n].down_until > self.now {
            return self.call_again(n);
        }
        let calm = self.is_calm();
        let number = self.scheduled;
        let dice = &mut self.dice;
        let breaks = !calm && dice.below(3) > 0;
        // Few bytes are as likely as many.
        let bytes_max = 4 << dice.below(16);
        let link = Link {
            source: n,
            latency: 1 + dice.below(60) as u64 * MS,
            us_per_kib: [10, 500, 5 * MS][dice.below(3)],
            breaks_after: breaks.then(|| dice.below(bytes_max) as u64),
            sent: 0,
            streams: BTreeMap::new(),
            turn: None,
            pumping: false,
        };
        self.links.insert(number, link);
        let source = &mut self.sources[n];
        source.link = Some(number);
        source.telling = Telling::default();
        source.pending = (dice.below(2) == 0).then_some(Begin::Ask);
        let complete = self.store.complete_head().unwrap();
        let newest = complete.map(|head| head.note_bytes()).unwrap_or_default();
        let follow = Request::Follow { newest }.encode().unwrap();
        self.send(number, (0, None), follow);
        self.oracle
            .note(self.now, || format!("link {number} to {n}"));
    }

    pub(super) fn send(&mut self, link: u64, key: StreamKey, frame: Vec<u8>) {
        let latency = self.links[&link].latency;
        self.at(self.now + latency, Event::Request(link, key, frame));
    }

    /// Later each time.
    pub(super) fn call_again(&mut self, n: usize) {
        let source = &mut self.sources[n];
        let wait = ((200 * MS) << source.failures.min(6)).min(10 * SECOND);
        source.failures += 1;
        self.after(wait / 2, wait, Event::Connect(n));
    }

    fn request(&mut self, link: u64, key: StreamKey, frame: &[u8]) {
        let late = self.dice.below(10) as u64 * MS;
        let Some(l) = self.links.get_mut(&link) else {
            return;
        };
        let answer = crate::sync::answer(frame).unwrap();
        if let Some(note) = answer.acknowledged_note() {
            self.oracle.acknowledged(note);
        }
        let last = Vec::new();
        l.streams.insert(key, Stream { answer, late, last });
        let source = l.source;
        self.wake(source);
    }

    /// There may be something to send.
    fn wake(&mut self, n: usize) {
        let Some(link) = self.sources[n].link else {
            return;
        };
        if let Some(l) = self.links.get_mut(&link)
            && !std::mem::replace(&mut l.pumping, true)
        {
            self.at(self.now, Event::Pump(link));
        }
    }

    /// Streams take turns; the next frame is made when the link can take it.
    fn pump(&mut self, link: u64) {
        let Some(l) = self.links.get_mut(&link) else {
            return;
        };
        let ledger = &self.states[self.sources[l.source].state];
        let after = l.streams.keys().filter(|key| Some(**key) > l.turn);
        let order = after.chain(l.streams.keys().filter(|key| Some(**key) <= l.turn));
        for key in order.copied().collect::<Vec<_>>() {
            let stream = l.streams.get_mut(&key).unwrap();
            let next = stream.answer.next_frame(ledger).unwrap();
            if next.is_none() && stream.answer.follows() {
                continue;
            }
            l.turn = Some(key);
            let lies = self.sources[l.source].lies && self.dice.below(12) == 0;
            let sent = match next {
                Some(frame) if lies => lie(&mut self.dice, &stream.last, frame),
                next => vec![next],
            };
            let wait = l.latency + stream.late;
            if let Some(Some(frame)) = sent.last() {
                stream.last.clone_from(frame);
            }
            if sent.last() == Some(&None) || sent.is_empty() {
                l.streams.remove(&key);
            }
            let mut free_at = self.now;
            for part in sent {
                let bytes = part.as_ref().map_or(1, Vec::len) as u64;
                free_at += bytes * l.us_per_kib / 1024;
                l.sent += bytes;
                if l.breaks_after.is_some_and(|most| l.sent > most) {
                    // The frame is cut; only that there is no more is heard of it.
                    l.pumping = true;
                    return self.at(free_at + wait, Event::Broken(link));
                }
                self.scheduled += 1;
                let event = Event::Arrive(link, key, part);
                self.events.insert((free_at + wait, self.scheduled), event);
            }
            return self.at(free_at, Event::Pump(link));
        }
        l.pumping = false;
    }
}

/// What arrives in place of a frame from a source that lies a little; `None` is the
/// end of the stream, and nothing at all a stream that never goes on.
fn lie(dice: &mut Dice, last: &[u8], mut frame: Vec<u8>) -> Vec<Option<Vec<u8>>> {
    match dice.below(8) {
        0 | 1 => {
            let at = dice.below(frame.len());
            frame[at] ^= 1 << dice.below(8);
            vec![Some(frame)]
        }
        2 => {
            frame.truncate(dice.below(frame.len()));
            vec![Some(frame)]
        }
        3 => {
            let refused = Reply::Refused(Refusal::NotServed).encode().unwrap();
            vec![Some(refused), None]
        }
        4 if !last.is_empty() => vec![Some(last.to_vec())],
        5 => vec![Some(frame.clone()), Some(frame)],
        6 => vec![None],
        _ => vec![],
    }
}
