//! Layer 3. The sampler: checks entries picked at random at a source it does
//! not trust, and keeps nothing. A state machine without I/O, like the mirror.
//!
//! ```text
//!  head -> pick up to 1,024 of its entries -> directory, level by level
//!   ^                                           -> entries, one by one
//!   |                                              -> payloads above 4 KiB
//!   +------- until all have been checked <---------+
//! ```
//!
//! Every slot of the directory says how many entries are below it, and the
//! head is signed over those counts: so an entry is picked by its number among
//! all of them, and a source cannot steer where the picks fall.
//!
//! Invariants:
//! * an entry counts as checked only if its header is a leaf under the root of
//!   its context, that root under the directory's, that one under a head signed
//!   by the origin, and its payload has the hash in the header;
//! * the picks follow from the seed and the head alone;
//! * memory is bounded by one piece of picks and by the requests in flight.

mod checks;
mod picks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::error::{LocalFault, OriginFault, PeerFault, SyncError};
use super::message::{NodeAnswer, Reply, Request};
use super::mirror::{NODE_REQUESTS_MAX, RequestId};
use crate::directory::diff::check_openings;
use crate::directory::{DirectoryError, Fault, Node, Opening, Prefix, Slot, Sums, empty_root};
use crate::hash::Hash;
use crate::head::{KeyChain, SignedHead, is_takeover};
use crate::limits::{NODES_PER_REQUEST_MAX, PAYLOADS_PER_REQUEST_MAX};
use crate::note::{OriginName, VerifierKey};
use checks::{Outside, Wanted, check_entry};
use picks::Picks;

/// Entries asked for at a time.
pub const INCLUSIONS_MAX: usize = 32;
/// Payload requests in flight.
const PAYLOAD_REQUESTS_MAX: usize = 4;
/// Bytes of payloads asked for in one request, unless it is a single one.
const PAYLOAD_REQUEST_BYTES_MAX: u64 = 8 << 20;
/// Requests in flight, of every kind.
pub const REQUESTS_MAX: usize = INCLUSIONS_MAX + PAYLOAD_REQUESTS_MAX + NODE_REQUESTS_MAX + 1;
/// Contexts that are told apart in the report.
const CONTEXTS_COUNTED_MAX: usize = 1 << 20;

/// What to do next, in this order.
#[derive(Debug)]
pub enum SampleOutput {
    /// Open a stream, send this frame and finish sending.
    Send {
        /// Names the stream from now on.
        request: RequestId,
        /// The whole frame.
        frame: Vec<u8>,
    },
    /// Everything that was picked has been checked.
    Done(Box<SampleReport>),
    /// Something did not hold, or could not be had.
    Fail(SyncError),
}

/// What was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleReport {
    /// Whose ledger it is.
    pub origin: OriginName,
    /// The head everything was checked under; `None` if none is published.
    pub head: Option<SignedHead>,
    /// Entries checked, payloads included.
    pub entries: u64,
    /// Contexts they are of; counted up to 2^20.
    pub contexts: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Bytes of all frames received.
    pub received_bytes: u64,
}

/// A directory node that is needed: where it stands, and which picks are below.
#[derive(Debug)]
struct Want {
    prefix: Prefix,
    stated: Sums,
    /// The number of the first entry below it.
    first: u64,
    /// Ascending.
    picks: Vec<u64>,
}

#[derive(Debug)]
enum Asked {
    Head { answered: bool },
    Nodes(VecDeque<Hash>),
    Entry { wanted: Wanted, answered: bool },
    Payloads(VecDeque<Outside>),
}

/// One audit by sampling, at one source.
#[derive(Debug)]
pub struct Sampler {
    origin: VerifierKey,
    samples: u64,
    seed: u64,
    received_bytes_max: u64,
    started: bool,
    ended: bool,
    head: Option<SignedHead>,
    picks: Option<Picks>,
    outputs: VecDeque<SampleOutput>,
    requests: BTreeMap<RequestId, Asked>,
    next_request: u64,
    /// Nodes that are needed, by hash.
    wants: BTreeMap<Hash, Want>,
    /// Those that nobody was asked for.
    queue: VecDeque<Hash>,
    entries: VecDeque<Wanted>,
    outside: VecDeque<Outside>,
    in_flight: [usize; 3],
    contexts: BTreeSet<Hash>,
    report: (u64, u64, u64),
}

/// Kinds of requests in flight that have a bound of their own.
const NODES: usize = 0;
const ENTRIES: usize = 1;
const PAYLOADS: usize = 2;

impl Sampler {
    /// An audit of `samples` entries of the ledger that `origin` signs, picked
    /// by `seed`; of every entry, if there are not more.
    #[must_use]
    pub fn new(origin: VerifierKey, samples: u64, seed: u64, received_bytes_max: u64) -> Self {
        Self {
            origin,
            samples,
            seed,
            received_bytes_max,
            started: false,
            ended: false,
            head: None,
            picks: None,
            outputs: VecDeque::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            wants: BTreeMap::new(),
            queue: VecDeque::new(),
            entries: VecDeque::new(),
            outside: VecDeque::new(),
            in_flight: [0; 3],
            contexts: BTreeSet::new(),
            report: (0, 0, 0),
        }
    }

    /// Asks for the head. Call it once.
    pub fn start(&mut self) {
        if !std::mem::replace(&mut self.started, true) {
            let newest = Vec::new();
            let result = self.ask(&Request::Head { newest }, Asked::Head { answered: false });
            self.settle(result);
        }
    }

    /// A whole frame of the answer to `request`.
    pub fn handle_frame(&mut self, request: RequestId, frame: &[u8]) {
        if !self.ended {
            let result = self.frame(request, frame).and_then(|()| self.advance());
            self.settle(result);
        }
    }

    /// The source finished the answer to `request`, cleanly.
    pub fn handle_end(&mut self, request: RequestId) {
        if !self.ended {
            let result = self.end(request).and_then(|()| self.advance());
            self.settle(result);
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<SampleOutput> {
        self.outputs.pop_front()
    }

    /// Entries checked and bytes received so far.
    #[must_use]
    pub const fn progress(&self) -> (u64, u64) {
        (self.report.0, self.report.2)
    }

    fn settle(&mut self, result: Result<(), SyncError>) {
        if let Err(error) = result {
            self.ended = true;
            self.requests.clear();
            self.outputs.clear();
            self.outputs.push_back(SampleOutput::Fail(error));
        }
    }

    fn ask(&mut self, request: &Request, asked: Asked) -> Result<(), SyncError> {
        let frame = request.encode().map_err(LocalFault::Message)?;
        let request = RequestId::new(self.next_request);
        self.next_request += 1;
        self.requests.insert(request, asked);
        self.outputs
            .push_back(SampleOutput::Send { request, frame });
        Ok(())
    }

    fn frame(&mut self, id: RequestId, frame: &[u8]) -> Result<(), SyncError> {
        self.report.2 = self.report.2.saturating_add(frame.len() as u64);
        super::mirror::within("bytes received", self.report.2, self.received_bytes_max)?;
        let unknown = PeerFault::UnknownRequest { request: id.get() };
        let mut asked = self.requests.remove(&id).ok_or(unknown)?;
        let reply = Reply::decode(frame).map_err(PeerFault::Malformed)?;
        if let Reply::Refused(refusal) = reply {
            return Err(PeerFault::Refused { refusal }.into());
        }
        let surplus = |what| Err(PeerFault::Surplus { what }.into());
        match (&mut asked, reply) {
            (Asked::Head { answered }, Reply::Head { notes }) => {
                if std::mem::replace(answered, true) {
                    return surplus("the head");
                }
                self.head_shown(&notes)?;
            }
            (Asked::Nodes(hashes), Reply::Nodes { answers }) => {
                for answer in answers {
                    let Some(hash) = hashes.pop_front() else {
                        return surplus("the nodes");
                    };
                    self.node_shown(&hash, answer)?;
                }
            }
            (Asked::Entry { wanted, answered }, reply @ Reply::Inclusion { .. }) => {
                if std::mem::replace(answered, true) {
                    return surplus("the entry");
                }
                let outside = check_entry(wanted, reply, &mut self.report.1)?;
                self.count(&wanted.context);
                self.outside.extend(outside);
            }
            (Asked::Payloads(wanted), Reply::Payload { hash, bytes }) => {
                let Some(next) = wanted.pop_front() else {
                    return surplus("the payloads");
                };
                self.report.1 += next.check(hash, bytes)?;
            }
            _ => {
                let what = "another kind of reply";
                return Err(PeerFault::WrongReply { what }.into());
            }
        }
        self.requests.insert(id, asked);
        Ok(())
    }

    fn end(&mut self, id: RequestId) -> Result<(), SyncError> {
        let unknown = PeerFault::UnknownRequest { request: id.get() };
        let early = |what| Err(PeerFault::EndedEarly { what }.into());
        let kind = match self.requests.remove(&id).ok_or(unknown)? {
            Asked::Head { answered: false } => return early("the head"),
            Asked::Head { .. } => return Ok(()),
            Asked::Nodes(hashes) if !hashes.is_empty() => return early("all nodes"),
            Asked::Entry {
                answered: false, ..
            } => return early("the entry"),
            Asked::Payloads(wanted) if !wanted.is_empty() => return early("all payloads"),
            Asked::Nodes(_) => NODES,
            Asked::Entry { .. } => ENTRIES,
            Asked::Payloads(_) => PAYLOADS,
        };
        if let Some(count) = self.in_flight.get_mut(kind) {
            *count = count.saturating_sub(1);
        }
        Ok(())
    }

    /// The keys first: rotations, then the head they lead to.
    fn head_shown(&mut self, notes: &[Vec<u8>]) -> Result<(), SyncError> {
        let Some((newest, before)) = notes.split_last() else {
            return Ok(());
        };
        let rotations: Vec<_> = before.iter().filter(|note| !is_takeover(note)).collect();
        let chain = KeyChain::open(&self.origin, &rotations).map_err(PeerFault::Head)?;
        if let Some(note) = notes.iter().find(|note| is_takeover(note)) {
            // Not followed yet; one of another key is no note of this origin.
            let signed = chain.takeover(note).map_err(PeerFault::Head)?;
            let term = signed.takeover().term;
            return Err(LocalFault::TakeoverNotFollowed { term }.into());
        }
        let head = chain.head(newest).map_err(PeerFault::Head)?;
        if let Some(needed) = head.requires_takeover() {
            let term = needed.term;
            return Err(LocalFault::TakeoverNotFollowed { term }.into());
        }
        let total = head.head().entries;
        self.picks = Some(Picks::new(self.seed, self.samples, total));
        self.head = Some(head);
        Ok(())
    }

    /// The next picks, and the root again.
    fn next_piece(&mut self) -> Result<bool, SyncError> {
        let (Some(picks), Some(head)) = (&mut self.picks, &self.head) else {
            return Ok(false);
        };
        let picks = picks.next_piece();
        if picks.is_empty() {
            return Ok(false);
        }
        let text = head.head();
        let stated = Sums {
            contexts: text.contexts,
            entries: text.entries,
        };
        if text.directory_root == empty_root() {
            let (hash, found) = (text.directory_root, Sums::default());
            let error = DirectoryError::WrongSums {
                hash,
                stated,
                found,
            };
            return Err(OriginFault::Directory(error).into());
        }
        let want = Want {
            prefix: Prefix::ROOT,
            stated,
            first: 0,
            picks,
        };
        self.want(text.directory_root, want)?;
        Ok(true)
    }

    fn want(&mut self, hash: Hash, want: Want) -> Result<(), SyncError> {
        if self.wants.insert(hash, want).is_some() {
            return Err(blame(DirectoryError::Repeated { hash }));
        }
        self.queue.push_back(hash);
        Ok(())
    }

    fn node_shown(&mut self, hash: &Hash, answer: NodeAnswer) -> Result<(), SyncError> {
        if answer.hash != *hash {
            let what = "another node";
            return Err(PeerFault::WrongReply { what }.into());
        }
        let (what, hash) = ("directory node", *hash);
        let opened = answer.node.ok_or(PeerFault::Missing { what, hash })?;
        let Some(want) = self.wants.remove(&hash) else {
            let what = "a node that is not needed";
            return Err(PeerFault::WrongReply { what }.into());
        };
        let node = Node::open(&hash, &opened.node, &want.prefix, Some(want.stated));
        let node = node.map_err(blame)?;
        check_openings(&hash, &node, &opened.openings).map_err(blame)?;
        let (mut first, mut picks) = (want.first, want.picks.as_slice());
        let mut openings = opened.openings.into_iter();
        for (i, slot) in (0u8..).zip(node.slots()) {
            let opening = match slot {
                Slot::Entry { .. } => openings.next(),
                _ => None,
            };
            let sums = slot.sums();
            let end = first.saturating_add(sums.entries);
            let here = picks.partition_point(|pick| *pick < end);
            let (below, after) = picks.split_at_checked(here).unwrap_or((picks, &[]));
            if let (Slot::Child { hash, .. }, false) = (slot, below.is_empty()) {
                let want = Want {
                    prefix: want.prefix.child(i),
                    stated: sums,
                    first,
                    picks: below.to_vec(),
                };
                self.want(*hash, want)?;
            } else if let Some(opening) = opening {
                self.pick(opening, first, below);
            }
            (first, picks) = (end, after);
        }
        Ok(())
    }

    fn pick(&mut self, opening: Opening, first: u64, picks: &[u64]) {
        let context = Arc::new(opening);
        self.entries.extend(picks.iter().map(|pick| Wanted {
            context: Arc::clone(&context),
            sequence: pick.saturating_sub(first).saturating_add(1),
        }));
    }

    fn count(&mut self, context: &Opening) {
        self.report.0 += 1;
        if self.contexts.len() < CONTEXTS_COUNTED_MAX {
            self.contexts.insert(context.path());
        }
    }

    fn advance(&mut self) -> Result<(), SyncError> {
        self.pump()?;
        if !self.requests.is_empty() {
            return Ok(());
        }
        if self.next_piece()? {
            return self.pump();
        }
        self.ended = true;
        self.outputs
            .push_back(SampleOutput::Done(Box::new(SampleReport {
                origin: self.origin.name().clone(),
                head: self.head.take(),
                entries: self.report.0,
                contexts: self.contexts.len() as u64,
                payload_bytes: self.report.1,
                received_bytes: self.report.2,
            })));
        Ok(())
    }

    /// Asks for as much as may be in flight.
    fn pump(&mut self) -> Result<(), SyncError> {
        while self.in_flight[NODES] < NODE_REQUESTS_MAX && !self.queue.is_empty() {
            let count = self.queue.len().min(NODES_PER_REQUEST_MAX);
            let hashes: Vec<Hash> = self.queue.drain(..count).collect();
            self.in_flight[NODES] += 1;
            let asked = Asked::Nodes(hashes.iter().copied().collect());
            self.ask(&Request::Nodes { hashes }, asked)?;
        }
        while self.in_flight[ENTRIES] < INCLUSIONS_MAX
            && let Some(wanted) = self.entries.pop_front()
        {
            self.in_flight[ENTRIES] += 1;
            let request = wanted.request()?;
            let answered = false;
            self.ask(&request, Asked::Entry { wanted, answered })?;
        }
        while self.in_flight[PAYLOADS] < PAYLOAD_REQUESTS_MAX && !self.outside.is_empty() {
            let (mut wanted, mut bytes) = (VecDeque::new(), 0u64);
            while wanted.len() < PAYLOADS_PER_REQUEST_MAX
                && let Some(next) = self.outside.front()
            {
                bytes += u64::from(next.len);
                if bytes > PAYLOAD_REQUEST_BYTES_MAX && !wanted.is_empty() {
                    break;
                }
                wanted.extend(self.outside.pop_front());
            }
            self.in_flight[PAYLOADS] += 1;
            let hashes = wanted.iter().map(|next| next.hash).collect();
            self.ask(&Request::Payloads { hashes }, Asked::Payloads(wanted))?;
        }
        Ok(())
    }
}

/// Whose fault a node or an opening is that was refused.
fn blame(error: DirectoryError) -> SyncError {
    match error.fault() {
        Fault::Presenter => PeerFault::Directory(error).into(),
        Fault::Origin => OriginFault::Directory(error).into(),
    }
}
