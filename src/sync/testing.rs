//! Layer 3, tests only. A ledger and a mirror's store in memory, and a pair of
//! engines joined by queues.
//!
//! The fake store checks what a real one would rely on: order, contiguity,
//! payloads before spans, and that a complete head's directory really follows
//! from what was stored.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Mutex;

use super::message::{FrameHeader, Kind, Request};
use super::{Answer, Mirror, MirrorLimits, Output, Report, RequestId, StoreToken, SyncError};
use crate::directory::{
    Change, MemoryDirectory, Node, Opening, ReadDirectory, Slot, apply, empty_root,
};
use crate::entry::{ContextId, Draft, leaf_hash};
use crate::hash::{self, Hash};
use crate::head::{Head, HeadOrder, SignedHead, sign_head};
use crate::ledger::{
    EntryParts, ForkState, Ingest, OpenedNode, ReadLedger, ReadMirror, SeenHead, StoreMirror,
    WhenStored,
};
use crate::limits::PAYLOAD_INLINE_BYTES_MAX;
use crate::note::{OriginName, SignerKey, VerifierKey};
use crate::run::{Accumulator, CheckedPayload, Run, RunBuilder};
use crate::tree::nodes::read_root;
use crate::tree::{MemoryNodes, NodeId, TreeSize};

pub(crate) fn signer(seed: u8) -> SignerKey {
    SignerKey::from_seed(OriginName::new("test/origin").unwrap(), &[seed; 32])
}

#[derive(Clone, Default)]
struct FakeContext {
    runs: Vec<Vec<u8>>,
    nodes: MemoryNodes,
    lamport: u64,
    time: u64,
}

/// A source's ledger.
#[derive(Clone)]
pub(crate) struct FakeLedger {
    seed: u8,
    contexts: BTreeMap<String, FakeContext>,
    payloads: HashMap<Hash, Vec<u8>>,
    directory: MemoryDirectory,
    root: Hash,
    openings: HashMap<Hash, Opening>,
    dirty: BTreeSet<String>,
    pub(crate) epoch: u64,
    pub(crate) term: u64,
    pub(crate) head: Option<SignedHead>,
    signed: HashMap<String, u64>,
}

impl FakeLedger {
    pub(crate) fn new(seed: u8) -> Self {
        Self {
            seed,
            contexts: BTreeMap::new(),
            payloads: HashMap::new(),
            directory: MemoryDirectory::new(),
            root: empty_root(),
            openings: HashMap::new(),
            dirty: BTreeSet::new(),
            epoch: 0,
            term: 1,
            head: None,
            signed: HashMap::new(),
        }
    }

    pub(crate) fn vkey(&self) -> VerifierKey {
        signer(self.seed).verifier().clone()
    }

    /// Appends entries as one group: as few runs as hold them.
    pub(crate) fn append(&mut self, context: &str, payloads: &[Vec<u8>]) {
        self.append_with(context, payloads, |lamport| lamport + 1);
    }

    /// The same with a Lamport clock of one's own.
    pub(crate) fn append_with(
        &mut self,
        context: &str,
        payloads: &[Vec<u8>],
        lamport: impl Fn(u64) -> u64,
    ) {
        let c = self.contexts.entry(context.to_owned()).or_default();
        self.dirty.insert(context.to_owned());
        let mut builder = RunBuilder::default();
        let finish = |builder: &mut RunBuilder, runs: &mut Vec<Vec<u8>>| {
            if builder.count() > 0 {
                let mut run = Vec::new();
                builder.finish_into(&mut run);
                runs.push(run);
            }
        };
        for payload in payloads {
            let draft = Draft::new("key", payload.clone()).unwrap();
            let sequence = c.nodes.size().get() + 1;
            c.lamport = lamport(c.lamport);
            c.time += 1;
            let header = draft.header(sequence, c.lamport, c.time);
            if !builder.has_room(sequence, header.encoded_len(), payload.len()) {
                finish(&mut builder, &mut c.runs);
            }
            let leaf = builder.push(&header, payload).unwrap();
            c.nodes.append(leaf).unwrap();
            if payload.len() > PAYLOAD_INLINE_BYTES_MAX {
                self.payloads
                    .insert(hash::content(payload), payload.clone());
            }
        }
        finish(&mut builder, &mut c.runs);
    }

    /// Signs a head over everything appended.
    pub(crate) fn publish(&mut self) -> Hash {
        let mut changes = Vec::new();
        for id in std::mem::take(&mut self.dirty) {
            let c = &self.contexts[&id];
            let opening = Opening {
                id: id.clone(),
                size: c.nodes.size().get(),
                root: c.nodes.root(),
            };
            self.signed.insert(id, opening.size);
            changes.push(Change {
                path: opening.path(),
                commitment: opening.commitment(),
                entries: opening.size,
            });
            self.openings.insert(opening.commitment(), opening);
        }
        let update = apply(&self.directory, &self.root, &changes).unwrap();
        self.directory.add(&update);
        self.root = update.root;
        self.epoch += 1;
        let key = signer(self.seed);
        let head = Head {
            origin: key.verifier().name().clone(),
            term: self.term,
            epoch: self.epoch,
            directory_root: update.root,
            contexts: update.sums.contexts,
            entries: update.sums.entries,
            time_ns: self.epoch,
            rotation: None,
        };
        let note = sign_head(&head, &key).unwrap();
        self.head = Some(SignedHead::open(&note, key.verifier()).unwrap());
        update.root
    }

    pub(crate) fn forget_payload(&mut self, payload: &[u8]) {
        self.payloads.remove(&hash::content(payload));
    }

    pub(crate) fn runs_of(&self, context: &str) -> &[Vec<u8>] {
        self.contexts.get(context).map_or(&[], |c| &c.runs)
    }
}

impl ReadLedger for FakeLedger {
    type Error = Infallible;

    fn newest_head(&self) -> Result<Option<SignedHead>, Infallible> {
        Ok(self.head.clone())
    }

    fn rotations_after(&self, _: Option<HeadOrder>) -> Result<Vec<SignedHead>, Infallible> {
        Ok(Vec::new())
    }

    fn opened_node(&self, hash: &Hash) -> Result<Option<OpenedNode>, Infallible> {
        let Some(node) = self.directory.directory_node(hash)? else {
            return Ok(None);
        };
        let openings = Node::decode(&node)
            .unwrap()
            .slots()
            .iter()
            .filter_map(|slot| match slot {
                Slot::Entry { commitment, .. } => Some(self.openings[commitment].clone()),
                _ => None,
            })
            .collect();
        Ok(Some(OpenedNode { node, openings }))
    }

    fn signed_size(&self, id: &ContextId) -> Result<Option<u64>, Infallible> {
        Ok(self.signed.get(id.as_str()).copied())
    }

    fn runs(
        &self,
        id: &ContextId,
        after: u64,
        size: u64,
        bytes_max: usize,
    ) -> Result<Option<Vec<Vec<u8>>>, Infallible> {
        let all = self.runs_of(id.as_str());
        let edges: Vec<(u64, u64)> = all
            .iter()
            .map(|r| Run::decode(r).map(|r| (r.first(), r.last())).unwrap())
            .collect();
        let starts = edges.iter().position(|e| e.0 == after + 1);
        let ends = edges.iter().position(|e| e.1 == size);
        let (Some(from), Some(to)) = (starts, ends) else {
            return Ok(None);
        };
        let mut out: Vec<Vec<u8>> = Vec::new();
        let mut bytes = 0;
        for run in &all[from..=to] {
            bytes += run.len();
            if bytes > bytes_max && !out.is_empty() {
                break;
            }
            out.push(run.clone());
        }
        Ok(Some(out))
    }

    fn tree_nodes(&self, id: &ContextId, nodes: &[NodeId]) -> Result<Vec<Hash>, Infallible> {
        let c = &self.contexts[id.as_str()];
        Ok(nodes.iter().map(|n| c.nodes.node(*n).unwrap()).collect())
    }

    fn outside_payload(&self, hash: &Hash) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.payloads.get(hash).cloned())
    }

    fn entry_parts(
        &self,
        id: &ContextId,
        sequence: u64,
    ) -> Result<Option<EntryParts>, Infallible> {
        for bytes in self.runs_of(id.as_str()) {
            let run = Run::decode(bytes).unwrap();
            if (run.first()..=run.last()).contains(&sequence) {
                let at = usize::try_from(sequence - run.first()).unwrap();
                let entry = run.entries().nth(at).unwrap().unwrap();
                let payload = entry.inline_payload.unwrap_or_default().to_vec();
                return Ok(Some((run.headers().nth(at).unwrap().to_vec(), payload)));
            }
        }
        Ok(None)
    }
}

#[derive(Default)]
struct MirrorState {
    complete: Option<SignedHead>,
    pending: Option<SeenHead>,
    accumulators: BTreeMap<String, Accumulator>,
    runs: BTreeMap<String, Vec<Vec<u8>>>,
    payloads: BTreeSet<Hash>,
    directory: MemoryDirectory,
    rotations: Vec<SignedHead>,
    forks: Vec<ForkState>,
    items: usize,
}

/// A mirror's store. What it holds is what would survive a crash.
#[derive(Default)]
pub(crate) struct FakeMirror(Mutex<MirrorState>);

impl FakeMirror {
    pub(crate) fn complete_root(&self) -> Option<Hash> {
        let state = self.0.lock().unwrap();
        state.complete.as_ref().map(|h| h.head().directory_root)
    }

    pub(crate) fn items(&self) -> usize {
        self.0.lock().unwrap().items
    }

    /// Stores an item; panics on anything a store must never be asked.
    pub(crate) fn apply(&self, item: Ingest) {
        let mut state = self.0.lock().unwrap();
        state.items += 1;
        match item {
            Ingest::Seen(seen) => {
                assert!(seen.openings.is_sorted_by(|a, b| a.path() < b.path()));
                state.pending = Some(seen);
            }
            Ingest::Payloads(payloads) => {
                assert!(!payloads.is_empty());
                state
                    .payloads
                    .extend(payloads.iter().map(CheckedPayload::hash));
            }
            Ingest::Span { span, payloads } => {
                state
                    .payloads
                    .extend(payloads.iter().map(CheckedPayload::hash));
                for (hash, _) in span.outside_payloads() {
                    assert!(state.payloads.contains(hash), "a span before its payload");
                }
                let id = span.id().to_string();
                let seen = state.pending.as_ref().expect("a span before a seen head");
                assert!(seen.openings.iter().any(|o| o.id.as_str() == id));
                let own = state.accumulators.entry(id.clone()).or_default();
                assert_eq!(own.size(), span.start(), "spans out of order");
                *own = span.after().clone();
                state
                    .runs
                    .entry(id)
                    .or_default()
                    .extend_from_slice(span.runs());
            }
            Ingest::Complete(head) => {
                let seen = state.pending.take().expect("complete without seen");
                assert_eq!(seen.head, head);
                let mut changes = Vec::new();
                for opening in &seen.openings {
                    let own = &state.accumulators[opening.id.as_str()];
                    assert_eq!((own.size(), own.root()), (opening.size, opening.root));
                    changes.push(Change {
                        path: opening.path(),
                        commitment: opening.commitment(),
                        entries: opening.size,
                    });
                }
                let base = state.complete.as_ref();
                let base = base.map_or_else(empty_root, |h| h.head().directory_root);
                let update = apply(&state.directory, &base, &changes).unwrap();
                assert_eq!(update.root, head.head().directory_root);
                state.directory.add(&update);
                state.complete = Some(head);
            }
            Ingest::Evidence(evidence) => state.forks.push(ForkState {
                evidence: evidence.hash(),
                verdict: evidence.verify(signer(1).verifier()).unwrap().to_string(),
                resolved: false,
            }),
            Ingest::Rotation(head) => {
                state.pending = None;
                state.rotations.push(head);
            }
        }
    }

    /// The tree of what was stored of a context.
    fn nodes_of(&self, id: &ContextId) -> MemoryNodes {
        let state = self.0.lock().unwrap();
        let mut nodes = MemoryNodes::default();
        for run in state.runs.get(id.as_str()).into_iter().flatten() {
            for header in Run::decode(run).unwrap().headers() {
                nodes.append(leaf_hash(header)).unwrap();
            }
        }
        nodes
    }

    /// Everything stored is a beginning of what the ledger holds.
    pub(crate) fn assert_beginning_of(&self, ledger: &FakeLedger) {
        let state = self.0.lock().unwrap();
        for (id, runs) in &state.runs {
            assert!(ledger.runs_of(id).starts_with(runs), "context {id}");
        }
        if let Some(head) = &state.complete {
            assert!(head.head().epoch <= ledger.epoch);
        }
    }
}

impl ReadDirectory for FakeMirror {
    type Error = Infallible;

    fn directory_node(&self, hash: &Hash) -> Result<Option<Vec<u8>>, Infallible> {
        self.0.lock().unwrap().directory.directory_node(hash)
    }
}

impl ReadMirror for FakeMirror {
    type Failure = Infallible;

    fn complete_head(&self) -> Result<Option<SignedHead>, Infallible> {
        Ok(self.0.lock().unwrap().complete.clone())
    }

    fn pending_head(&self) -> Result<Option<SeenHead>, Infallible> {
        Ok(self.0.lock().unwrap().pending.clone())
    }

    fn accumulator(&self, id: &ContextId) -> Result<Accumulator, Infallible> {
        let state = self.0.lock().unwrap();
        Ok(state
            .accumulators
            .get(id.as_str())
            .cloned()
            .unwrap_or_default())
    }

    fn has_outside_payload(&self, hash: &Hash) -> Result<bool, Infallible> {
        Ok(self.0.lock().unwrap().payloads.contains(hash))
    }

    fn fork(&self) -> Result<Option<ForkState>, Infallible> {
        Ok(self.0.lock().unwrap().forks.last().cloned())
    }

    fn context_at(&self, path: &Hash) -> Result<Option<ContextId>, Infallible> {
        let state = self.0.lock().unwrap();
        let mut ids = state.accumulators.keys().map(|id| ContextId::new(id).unwrap());
        Ok(ids.find(|id| id.path() == *path))
    }

    fn origin_key(&self) -> VerifierKey {
        let rotations = self.0.lock().unwrap().rotations.clone();
        rotations
            .last()
            .map_or_else(|| self.pinned_key(), |head| head.next_key().clone())
    }

    fn pinned_key(&self) -> VerifierKey {
        signer(1).verifier().clone()
    }

    fn rotations(&self) -> Result<Vec<SignedHead>, Infallible> {
        Ok(self.0.lock().unwrap().rotations.clone())
    }

    fn root_at(&self, id: &ContextId, size: u64) -> Result<Option<Hash>, Infallible> {
        let nodes = self.nodes_of(id);
        let known = size <= nodes.size().get();
        Ok(known.then(|| read_root(TreeSize::new(size), &nodes).unwrap()))
    }

    fn tree_nodes(&self, id: &ContextId, nodes: &[NodeId]) -> Result<Vec<Hash>, Infallible> {
        let own = self.nodes_of(id);
        Ok(nodes.iter().map(|n| own.node(*n).unwrap()).collect())
    }
}

impl StoreMirror for FakeMirror {
    type View = Self;

    fn view(&self) -> &Self {
        self
    }

    fn ingest(&self, item: Ingest, done: WhenStored<Infallible>) {
        self.apply(item);
        done(Ok(()));
    }
}

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
        mirror.start();
        loop {
            while let Some(output) = mirror.poll_output() {
                match output {
                    Output::Send { request: id, frame } => streams.push(Stream {
                        id,
                        request: Request::decode(&frame).unwrap(),
                        answer: super::answer(&frame).unwrap(),
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
            assert!(streams.len() <= super::mirror::REQUESTS_MAX);
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
