//! A source and a mirror, or a sampler, joined by queues.

use std::collections::VecDeque;

use super::{FakeLedger, FakeMirror};
use crate::ledger::Ingest;
use crate::note::VerifierKey;
use crate::run::CheckedPayload;
use crate::sync::message::{FrameHeader, Kind, Request};
use crate::sync::{
    Answer, Mirror, MirrorLimits, Output, Report, RequestId, SampleOutput, SampleReport, Sampler,
    StoreToken, SyncError, Told,
};

/// A small generator of pseudo-random numbers (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }
}

/// What a network does to one frame: the frames that arrive in its place.
pub(crate) type Tamper<'a> = dyn FnMut(usize, &Request, Vec<u8>) -> Vec<Vec<u8>> + 'a;

/// How a sync of the pair ended.
pub(crate) enum End {
    Done(Box<Report>),
    Fail(SyncError),
    /// Cut off as asked.
    Cut,
}

impl End {
    pub(crate) fn report(self) -> Report {
        match self {
            Self::Done(report) => *report,
            Self::Fail(error) => panic!("{error}"),
            Self::Cut => panic!("cut"),
        }
    }

    pub(crate) fn error(self) -> SyncError {
        match self {
            Self::Fail(error) => error,
            _ => panic!("no error"),
        }
    }
}

/// A source and a mirror joined by queues.
pub(crate) struct Pair<'a> {
    pub(crate) ledger: &'a FakeLedger,
    pub(crate) store: &'a FakeMirror,
    pub(crate) limits: MirrorLimits,
    /// Order of arrival; `None` delivers in the order of asking.
    pub(crate) seed: Option<u64>,
    /// Store this many items, then lose everything under way.
    pub(crate) cut_after: Option<usize>,
    /// Begin with this instead of asking for the head.
    pub(crate) told: Option<Told>,
    /// Kinds of the frames sent, in order of delivery.
    pub(crate) kinds: Vec<(Kind, usize)>,
}

struct Stream {
    id: RequestId,
    request: Request,
    answer: Answer,
    ready: VecDeque<Vec<u8>>,
    over: bool,
}

impl<'a> Pair<'a> {
    pub(crate) fn new(ledger: &'a FakeLedger, store: &'a FakeMirror) -> Self {
        Self {
            ledger,
            store,
            limits: MirrorLimits::default(),
            seed: None,
            cut_after: None,
            told: None,
            kinds: Vec::new(),
        }
    }

    pub(crate) fn sync(&mut self) -> End {
        self.sync_with(self.ledger.vkey(), &mut |_, _, frame| vec![frame])
    }

    pub(crate) fn tampered(&mut self, tamper: &mut Tamper<'_>) -> End {
        self.sync_with(self.ledger.vkey(), tamper)
    }

    pub(crate) fn sync_with(&mut self, origin: VerifierKey, tamper: &mut Tamper<'_>) -> End {
        let mut dice = self.seed.map(Dice);
        let mut mirror = Mirror::new(self.store, origin, self.limits);
        let mut streams: Vec<Stream> = Vec::new();
        let mut stores: VecDeque<(StoreToken, Ingest)> = VecDeque::new();
        let mut done = 0;
        match self.told.take() {
            Some(told) => mirror.start_from(told),
            None => mirror.start(),
        }
        loop {
            while let Some(output) = mirror.poll_output() {
                match output {
                    Output::Send { request: id, frame } => streams.push(Stream {
                        id,
                        request: Request::decode(&frame).unwrap(),
                        answer: crate::sync::answer(&frame).unwrap(),
                        ready: VecDeque::new(),
                        over: false,
                    }),
                    Output::Store { token, item } => stores.push_back((token, item)),
                    Output::Done(report) => {
                        assert!(stores.is_empty() && mirror.poll_output().is_none());
                        return End::Done(Box::new(report));
                    }
                    Output::Fail(error) => {
                        // What was verified before is stored all the same.
                        for (_, item) in stores {
                            self.store.apply(item);
                        }
                        return End::Fail(error);
                    }
                }
            }
            assert!(streams.len() <= crate::sync::mirror::REQUESTS_MAX);
            mirror.assert_within_budgets();
            let storing: u64 = stores.iter().map(|(_, item)| bytes_of(item)).sum();
            assert!(storing <= crate::sync::mirror::STORING_BYTES_MAX);
            let choices = streams.len() + usize::from(!stores.is_empty());
            assert!(choices > 0, "the engine waits for nothing");
            let choice = dice.as_mut().map_or(0, |d| d.below(choices));
            if choice == streams.len() {
                if self.cut_after == Some(done) {
                    return End::Cut;
                }
                let (token, item) = stores.pop_front().unwrap();
                self.store.apply(item);
                done += 1;
                mirror.handle_stored(token);
                continue;
            }
            let s = &mut streams[choice];
            if s.ready.is_empty() && !s.over {
                match s.answer.next_frame(self.ledger).unwrap() {
                    None => s.over = true,
                    Some(frame) => {
                        let (kind, _) = FrameHeader::split(&frame).unwrap();
                        let at = self.kinds.len();
                        self.kinds.push((kind, frame.len()));
                        s.ready.extend(tamper(at, &s.request, frame));
                        // A frame that was taken away ends the stream.
                        s.over = s.ready.is_empty();
                    }
                }
            }
            if let Some(frame) = s.ready.pop_front() {
                mirror.handle_frame(s.id, &frame);
            } else {
                let s = streams.remove(choice);
                mirror.handle_end(s.id);
            }
        }
    }
}

/// Bytes of history that an item holds.
fn bytes_of(item: &Ingest) -> u64 {
    let payloads = |payloads: &[CheckedPayload]| payloads.iter().map(|p| p.bytes().len()).sum();
    let bytes: usize = match item {
        Ingest::Span {
            span,
            payloads: own,
        } => span.bytes_len() + payloads(own),
        Ingest::Payloads(own) => payloads(own),
        _ => 0,
    };
    bytes as u64
}

/// Audits a ledger by sampling; the frames of the source may be changed.
pub(crate) fn sampled(
    ledger: &FakeLedger,
    count: u64,
    seed: u64,
    tamper: &mut Tamper<'_>,
) -> Result<SampleReport, SyncError> {
    let mut sampler = Sampler::new(ledger.vkey(), count, seed, u64::MAX);
    let mut dice = Dice(seed);
    let mut streams: Vec<Stream> = Vec::new();
    let mut frames = 0;
    sampler.start();
    loop {
        while let Some(output) = sampler.poll_output() {
            match output {
                SampleOutput::Send { request: id, frame } => streams.push(Stream {
                    id,
                    request: Request::decode(&frame).unwrap(),
                    answer: crate::sync::answer(&frame).unwrap(),
                    ready: VecDeque::new(),
                    over: false,
                }),
                SampleOutput::Done(report) => return Ok(*report),
                SampleOutput::Fail(error) => return Err(error),
            }
        }
        assert!(streams.len() <= crate::sync::sample::REQUESTS_MAX);
        assert!(!streams.is_empty(), "the engine waits for nothing");
        let choice = dice.below(streams.len());
        let s = &mut streams[choice];
        if s.ready.is_empty() && !s.over {
            match s.answer.next_frame(ledger).unwrap() {
                None => s.over = true,
                Some(frame) => {
                    s.ready.extend(tamper(frames, &s.request, frame));
                    s.over = s.ready.is_empty();
                    frames += 1;
                }
            }
        }
        if let Some(frame) = s.ready.pop_front() {
            sampler.handle_frame(s.id, &frame);
        } else {
            let s = streams.remove(choice);
            sampler.handle_end(s.id);
        }
    }
}
