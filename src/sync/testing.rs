//! Layer 3, tests only. A ledger and a mirror's store in memory, and a pair of
//! engines joined by queues.
//!
//! The fake store checks what a real one would rely on: order, contiguity,
//! payloads before spans, and that a complete head's directory really follows
//! from what was stored.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Mutex;

mod driver;
mod oracle;
mod pair;
mod world;

pub(crate) use oracle::Counts;
pub(crate) use pair::{Dice, End, Pair, sampled};
pub(crate) use world::World;

use crate::directory::{
    Change, MemoryDirectory, Node, Opening, ReadDirectory, Slot, apply, empty_root,
};
use crate::entry::{ContextId, Draft, leaf_hash};
use crate::evidence::Evidence;
use crate::hash::{self, Hash};
use crate::head::{Head, HeadOrder, Rotation, SignedHead, sign_head, sign_rotation};
use crate::ledger::{
    EntryParts, ForkState, Ingest, OpenedNode, ReadLedger, ReadMirror, SeenHead, StoreMirror,
    WhenStored,
};
use crate::limits::PAYLOAD_INLINE_BYTES_MAX;
use crate::note::{OriginName, SignerKey, VerifierKey};
use crate::run::{Accumulator, CheckedPayload, Run, RunBuilder, trim};
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
    pinned: u8,
    pub(crate) rotations: Vec<SignedHead>,
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
            pinned: seed,
            rotations: Vec::new(),
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
        signer(self.pinned).verifier().clone()
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
        self.publish_and(None)
    }

    /// The same, with a head that hands over to another key.
    pub(crate) fn rotate(&mut self, new: u8) -> Hash {
        self.publish_and(Some(new))
    }

    fn publish_and(&mut self, new: Option<u8>) -> Hash {
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
            rotation: new.map(|new| Rotation {
                old: key.verifier().clone(),
                new: signer(new).verifier().clone(),
            }),
        };
        let note = match new {
            None => sign_head(&head, &key).unwrap(),
            Some(new) => sign_rotation(&head, &key, &signer(new)).unwrap(),
        };
        let signed = SignedHead::open(&note, key.verifier()).unwrap();
        self.head = Some(signed.clone());
        if let Some(new) = new {
            self.rotations.push(signed);
            self.seed = new;
        }
        update.root
    }

    pub(crate) fn forget_payload(&mut self, payload: &[u8]) {
        self.payloads.remove(&hash::content(payload));
    }

    /// Bytes of all runs and payloads.
    pub(crate) fn data_bytes(&self) -> u64 {
        let runs = self.contexts.values().flat_map(|c| &c.runs);
        let parts = runs.chain(self.payloads.values()).map(Vec::len);
        parts.sum::<usize>() as u64
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

    fn rotations_after(&self, order: Option<HeadOrder>) -> Result<Vec<SignedHead>, Infallible> {
        let later = self.rotations.iter().filter(|r| Some(r.order()) > order);
        Ok(later.cloned().collect())
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
        if after >= size || self.signed.get(id.as_str()).is_none_or(|s| *s < size) {
            return Ok(None);
        }
        let mut out: Vec<Vec<u8>> = Vec::new();
        let mut bytes = 0;
        for run in self.runs_of(id.as_str()) {
            let edges = Run::decode(run).unwrap();
            if edges.last() <= after || edges.first() > size {
                continue;
            }
            bytes += run.len();
            if bytes > bytes_max && !out.is_empty() {
                break;
            }
            out.push(run.clone());
        }
        trim(&mut out, after, size).unwrap();
        Ok(Some(out))
    }

    fn tree_nodes(&self, id: &ContextId, nodes: &[NodeId]) -> Result<Vec<Hash>, Infallible> {
        let c = &self.contexts[id.as_str()];
        Ok(nodes.iter().map(|n| c.nodes.node(*n).unwrap()).collect())
    }

    fn outside_payload(&self, hash: &Hash) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(self.payloads.get(hash).cloned())
    }

    fn entry_parts(&self, id: &ContextId, sequence: u64) -> Result<Option<EntryParts>, Infallible> {
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
    seen: Vec<SeenHead>,
    accumulators: BTreeMap<String, Accumulator>,
    runs: BTreeMap<String, Vec<Vec<u8>>>,
    payloads: BTreeSet<Hash>,
    directory: MemoryDirectory,
    rotations: Vec<SignedHead>,
    forks: Vec<ForkState>,
    /// The key it was made with; that of seed 1 if nothing else is said.
    pinned: Option<u8>,
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

    pub(crate) fn complete_epoch(&self) -> Option<u64> {
        let state = self.0.lock().unwrap();
        state.complete.as_ref().map(|h| h.head().epoch)
    }

    /// Entries stored of each context.
    pub(crate) fn sizes(&self) -> BTreeMap<String, u64> {
        let state = self.0.lock().unwrap();
        let sizes = state.accumulators.iter();
        sizes.map(|(id, own)| (id.clone(), own.size())).collect()
    }

    pub(crate) fn items(&self) -> usize {
        self.0.lock().unwrap().items
    }

    pub(crate) fn pinned_to(seed: u8) -> Self {
        Self(Mutex::new(MirrorState {
            pinned: Some(seed),
            ..MirrorState::default()
        }))
    }

    /// An operator has said which branch is followed: the one of this head.
    pub(crate) fn resolve(&self, followed: &SignedHead) {
        let mut state = self.0.lock().unwrap();
        state.seen.retain(|seen| seen.head == *followed);
        for fork in &mut state.forks {
            fork.resolved = true;
        }
    }

    /// Stores an item; panics on anything a store must never be asked.
    pub(crate) fn apply(&self, item: Ingest) {
        let mut state = self.0.lock().unwrap();
        state.items += 1;
        match item {
            Ingest::Seen(seen) => {
                assert!(seen.openings.is_sorted_by(|a, b| a.path() < b.path()));
                state.seen.retain(|held| held.head != seen.head);
                state.seen.push(seen);
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
                let seen = state.seen.last().expect("a span before a seen head");
                assert!(seen.openings.iter().any(|o| o.id.as_str() == id));
                let own = state.accumulators.entry(id.clone()).or_default();
                assert_eq!(own.size(), span.start(), "spans out of order");
                *own = span.after().clone();
                state
                    .runs
                    .entry(id)
                    .or_default()
                    .extend(span.runs().map(<[u8]>::to_vec));
            }
            Ingest::Complete(head) => {
                let seen = state.seen.pop().expect("complete without seen");
                assert_eq!(seen.head, head);
                state.seen.retain(|held| held.head.order() > head.order());
                let mut changes = Vec::new();
                for opening in &seen.openings {
                    let nodes = nodes_of(&state, &opening.id);
                    let own = read_root(TreeSize::new(opening.size), &nodes).unwrap();
                    assert_eq!(own, opening.root);
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
            Ingest::Evidence(evidence) => {
                let bytes = evidence.to_bytes();
                assert_eq!(Evidence::parse(&bytes).unwrap(), evidence);
                let pinned = signer(state.pinned.unwrap_or(1));
                state.forks.push(ForkState {
                    evidence: evidence.hash(),
                    verdict: evidence.verify(pinned.verifier()).unwrap().to_string(),
                    resolved: false,
                });
            }
            Ingest::Rotation(head) => {
                state.rotations.push(head);
            }
        }
    }

    fn nodes_of(&self, id: &ContextId) -> MemoryNodes {
        nodes_of(&self.0.lock().unwrap(), id.as_str())
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

/// The tree of what was stored of a context.
fn nodes_of(state: &MirrorState, id: &str) -> MemoryNodes {
    let mut nodes = MemoryNodes::default();
    for run in state.runs.get(id).into_iter().flatten() {
        for header in Run::decode(run).unwrap().headers() {
            nodes.append(leaf_hash(header)).unwrap();
        }
    }
    nodes
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

    fn seen_heads(&self) -> Result<Vec<SeenHead>, Infallible> {
        Ok(self.0.lock().unwrap().seen.clone())
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
        let mut ids = state
            .accumulators
            .keys()
            .map(|id| ContextId::new(id).unwrap());
        Ok(ids.find(|id| id.path() == *path))
    }

    fn origin_key(&self) -> VerifierKey {
        let rotations = self.0.lock().unwrap().rotations.clone();
        rotations
            .last()
            .map_or_else(|| self.pinned_key(), |head| head.next_key().clone())
    }

    fn pinned_key(&self) -> VerifierKey {
        let pinned = self.0.lock().unwrap().pinned;
        signer(pinned.unwrap_or(1)).verifier().clone()
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
        // A driver asks so whether all before it is durable; an engine never does.
        if !matches!(&item, Ingest::Payloads(payloads) if payloads.is_empty()) {
            self.apply(item);
        }
        done(Ok(()));
    }
}
