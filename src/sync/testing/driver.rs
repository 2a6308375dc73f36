//! The mirror's side of the world: who is asked, what is stored, what is lost.

use super::oracle::named;
use super::world::{Begin, Event, MS, SECOND, STALL_MAX, StreamKey, Sync, World};
use crate::ledger::ReadMirror;
use crate::sync::message::Request;
use crate::sync::{Mirror, MirrorLimits, Outcome, Output, PeerFault, SyncError};

impl World<'_> {
    /// Begins a sync if none is under way, somebody told something, and nothing is
    /// on its way to the store.
    pub(super) fn begin(&mut self) {
        if self.sync.is_some() || !self.queue.is_empty() {
            return;
        }
        let told = |n: &usize| self.sources[*n].pending.is_some();
        let told = (0..self.sources.len()).filter(told).collect::<Vec<_>>();
        if told.is_empty() {
            return;
        }
        let n = told[self.dice.below(told.len())];
        let (Some(link), Some(begin)) = (self.sources[n].link, self.sources[n].pending.take())
        else {
            return;
        };
        self.syncs += 1;
        self.oracle.sync_begins(self.store);
        let origin = self.ledger.vkey();
        let mut engine = Mirror::new(self.store, origin, MirrorLimits::default());
        let number = self.syncs;
        match begin {
            Begin::Ask => engine.start(),
            Begin::Told(told) => engine.start_from(*told),
        }
        self.oracle
            .note(self.now, || format!("sync {number} with {n}"));
        self.sync = Some(Sync {
            engine,
            number,
            source: n,
            link,
            heard_at: self.now,
            asked: false,
        });
        self.at(self.now + STALL_MAX, Event::Stalled(number));
        self.outputs();
    }

    /// Carries out what the engine wants.
    fn outputs(&mut self) {
        while let Some(sync) = &mut self.sync
            && let Some(output) = sync.engine.poll_output()
        {
            let (number, source, link) = (sync.number, sync.source, sync.link);
            match output {
                Output::Send { request, frame } => {
                    sync.asked = true;
                    self.send(link, (number, Some(request)), frame);
                }
                Output::Store { token, item } => {
                    if self.queue.is_empty() {
                        self.after(MS / 10, 30 * MS, Event::Durable);
                    }
                    self.queue.push_back((number, token, item));
                }
                Output::Done(report) => {
                    assert!(self.queue.is_empty(), "done before it is durable");
                    let alone = !sync.asked && report.outcome == Outcome::CaughtUp;
                    self.oracle.counts.without_a_question += u64::from(alone);
                    self.sync = None;
                    self.sources[source].failures = 0;
                    self.oracle
                        .note(self.now, || format!("done: {:?}", report.outcome));
                    if report.outcome == Outcome::CaughtUp {
                        let note = self.store.complete_head().unwrap().unwrap().note_bytes();
                        let frame = Request::Complete { note }.encode().unwrap();
                        self.send(link, (number, None), frame);
                    }
                }
                Output::Fail(SyncError::Peer(fault)) => self.blame(source, &fault),
                Output::Fail(error) => panic!("{error}"),
            }
        }
    }

    /// Its connection ends, and it is called again.
    fn blame(&mut self, n: usize, fault: &PeerFault) {
        assert!(self.sources[n].lies, "an honest source is blamed: {fault}");
        self.oracle.counts.blamed += 1;
        if let Some(link) = self.sources[n].link {
            self.lose(link, &fault.to_string());
        }
    }

    pub(super) fn arrive(&mut self, link: u64, key: StreamKey, frame: Option<Vec<u8>>) {
        let Some(n) = self.links.get(&link).map(|link| link.source) else {
            return;
        };
        let (number, request) = key;
        let Some(request) = request else {
            return match frame {
                Some(frame) if number == 0 => self.listen(n, &frame),
                // Nothing is answered to what is acknowledged.
                Some(_) => assert!(self.sources[n].lies),
                None if number > 0 => {}
                None => self.blame(n, &PeerFault::EndedEarly { what: "heads" }),
            };
        };
        let now = self.now;
        let Some(sync) = self.sync.as_mut().filter(|sync| sync.number == number) else {
            return;
        };
        sync.heard_at = now;
        match frame {
            Some(frame) => {
                if !self.sources[n].lies {
                    self.oracle.pulled(self.store, key, &frame);
                }
                sync.engine.handle_frame(request, &frame);
            }
            None => sync.engine.handle_end(request),
        }
        self.outputs();
    }

    fn listen(&mut self, n: usize, frame: &[u8]) {
        match self.sources[n].telling.frame(frame) {
            Ok(None) => {}
            Ok(Some(told)) => {
                self.oracle.told(self.now, n, &told);
                self.sources[n].pending = Some(Begin::Told(Box::new(told)));
            }
            Err(fault) => self.blame(n, &fault),
        }
    }

    /// Nothing more comes over a link; a sync over it ends, but what it handed to
    /// the store is stored.
    pub(super) fn lose(&mut self, link: u64, why: &str) {
        let Some(lost) = self.links.remove(&link) else {
            return;
        };
        self.oracle
            .note(self.now, || format!("link {link} lost: {why}"));
        if self.sync.as_ref().is_some_and(|sync| sync.link == link) {
            self.sync = None;
            self.oracle.interrupted();
        }
        self.sources[lost.source].link = None;
        self.sources[lost.source].pending = None;
        self.call_again(lost.source);
    }

    pub(super) fn durable(&mut self) {
        let Some((number, token, item)) = self.queue.pop_front() else {
            return;
        };
        let what = named(&item);
        self.oracle.note(self.now, || format!("durable: {what}"));
        self.store.apply(item);
        self.oracle.check(self.store, &self.states);
        if !self.queue.is_empty() {
            self.after(MS / 10, 30 * MS, Event::Durable);
        }
        let now = self.now;
        if let Some(sync) = self.sync.as_mut().filter(|sync| sync.number == number) {
            sync.heard_at = now;
            sync.engine.handle_stored(token);
            self.outputs();
        }
    }

    /// A sync that nothing was heard of.
    pub(super) fn stalled(&mut self, number: u64) {
        let Some(sync) = self.sync.as_ref().filter(|sync| sync.number == number) else {
            return;
        };
        let (heard_at, n, link) = (sync.heard_at, sync.source, sync.link);
        if heard_at + STALL_MAX > self.now {
            return self.at(heard_at + STALL_MAX, Event::Stalled(number));
        }
        assert!(self.sources[n].lies, "an honest source is too slow");
        self.lose(link, "stalled");
    }

    /// What was stored survives, and nothing else.
    pub(super) fn restart_mirror(&mut self) {
        if self.is_calm() {
            return;
        }
        self.oracle.note(self.now, || "mirror restarts".to_owned());
        self.sync = None;
        self.queue.clear();
        self.events
            .retain(|_, event| !matches!(event, Event::Durable | Event::Connect(_)));
        self.oracle.interrupted();
        self.links.clear();
        for n in 0..self.sources.len() {
            self.sources[n].link = None;
            self.sources[n].pending = None;
            self.sources[n].failures = 0;
            self.after(0, 300 * MS, Event::Connect(n));
        }
        self.after(10 * MS, 2 * SECOND, Event::RestartMirror);
    }

    /// It remembers nothing, and can be called again later.
    pub(super) fn restart_source(&mut self, n: usize) {
        if self.is_calm() {
            return;
        }
        self.oracle
            .note(self.now, || format!("source {n} restarts"));
        self.sources[n].down_until = self.now + self.dice.below(1000) as u64 * MS;
        if let Some(link) = self.sources[n].link {
            self.lose(link, "restarted");
        }
        let next = self.dice.below(self.sources.len());
        self.after(10 * MS, 2 * SECOND, Event::RestartSource(next));
    }
}
