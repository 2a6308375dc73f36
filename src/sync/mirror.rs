//! Layer 3. The mirror: catches up with an origin through a peer it does not
//! trust. A state machine without I/O; bytes go in by `handle_*`, effects come
//! out of [`Mirror::poll_output`].
//!
//! Invariants:
//! * every [`Ingest`] it asks to be stored was proven under a head signed by
//!   the pinned key, and continues what the store was asked before: a seen
//!   head first, payloads before the span that needs them, spans of a context
//!   in order, completion last and only once all before it is durable;
//! * frames are never refused for lack of room: a request is made only if its
//!   whole answer fits the budgets of `fetch`;
//! * after [`Output::Fail`] or [`Output::Done`] it says nothing more.
//!
//! A crash or a cut connection loses what was not stored. The next sync reads
//! the seen head and the size of every context back and goes on from there.

mod accuse;
mod begin;
mod blame;
mod fetch;
mod held;
mod keys;
mod older;

use std::collections::{BTreeMap, VecDeque};

use crate::directory::{Aim, Diff, Opening};
use crate::hash::Hash;
use crate::head::SignedHead;
use crate::ledger::{Ingest, ReadMirror, SeenHead};
use crate::note::{OriginName, VerifierKey};

use super::error::{LocalFault, OriginFault, PeerFault, SyncError};
use super::message::{Reply, Request};
use super::pushed::{Answered, Pushed, Told};
use accuse::Holder;
use fetch::{Active, Fetch, Stored};

/// Node requests in flight.
pub const NODE_REQUESTS_MAX: usize = 4;
/// All requests in flight: nodes come before the others, and a head alone.
pub const REQUESTS_MAX: usize = fetch::ENTRIES_REQUESTS_MAX + fetch::PAYLOAD_REQUESTS_MAX + 1;

/// What may still arrive of the answers under way when only a proof matters:
/// all that they may be.
const IGNORED_BYTES_MAX: u64 = 2 * (fetch::SPANS_BYTES_MAX as u64 + fetch::PAYLOADS_BYTES_MAX);

const _: () = assert!(NODE_REQUESTS_MAX <= REQUESTS_MAX);

/// Names a request and the stream that carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

impl RequestId {
    pub(super) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, for logs.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Names something that is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreToken(u64);

/// How large an origin may be, and what one sync may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorLimits {
    /// Contexts of the origin.
    pub contexts_max: u64,
    /// Entries of the origin, all contexts together.
    pub entries_max: u64,
    /// Bytes received in one sync.
    pub received_bytes_max: u64,
}

impl Default for MirrorLimits {
    /// A million contexts, no bound on entries, 1 TiB per sync.
    fn default() -> Self {
        Self {
            contexts_max: 1 << 20,
            entries_max: u64::MAX,
            received_bytes_max: 1 << 40,
        }
    }
}

/// What to do next, in this order.
#[derive(Debug)]
pub enum Output {
    /// Open a stream, send this frame and finish sending.
    Send {
        /// Names the stream from now on.
        request: RequestId,
        /// The whole frame.
        frame: Vec<u8>,
    },
    /// Store this after everything before it, and say when it is durable.
    Store {
        /// For [`Mirror::handle_stored`].
        token: StoreToken,
        /// What to store.
        item: Ingest,
    },
    /// The sync is over.
    Done(Report),
    /// The sync is over; what was stored stays.
    Fail(SyncError),
}

/// How a sync ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The source has published nothing, nor is anything held.
    Nothing,
    /// The source shows an older head than is held; it is no contradiction.
    Behind,
    /// The newest head was complete already.
    Current,
    /// The head is now complete.
    CaughtUp,
}

/// What a sync did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose ledger it is.
    pub origin: OriginName,
    /// How it ended.
    pub outcome: Outcome,
    /// The head the source showed, if any: term, epoch, directory root.
    pub head: Option<SignedHead>,
    /// Contexts that differed from the last complete head.
    pub contexts_changed: u64,
    /// Entries verified and stored.
    pub entries: u64,
    /// Bytes of all frames received.
    pub received_bytes: u64,
}

enum Phase<'m, M: ReadMirror + ?Sized> {
    Idle,
    Head,
    Diff {
        diff: Box<Diff<&'m M>>,
        changed: Vec<Opening>,
    },
    /// The source shows less than is held.
    Older(Box<older::Older<'m, M>>),
    Fetch,
    /// A span does not fold: a consistency proof tells who lied.
    Accusing,
    /// The origin signed two histories: what proves it is being fetched.
    Tracing(Box<accuse::Case<'m, M>>),
    Completing,
    Ended,
}

/// An open request: what its answer has to be.
#[derive(Debug)]
enum Asked {
    Head {
        answered: bool,
    },
    Nodes {
        hashes: VecDeque<Hash>,
    },
    Entries(Active),
    Payloads(held::PayloadRequest),
    Consistency(Box<blame::Dispute>),
    /// A node of the path to a contradiction.
    Path(Hash),
    /// Nothing: the request itself is what the source is to see.
    Shown,
    /// Answered; only the end is to come.
    Answered,
}

impl Asked {
    const fn is_proof(&self) -> bool {
        matches!(self, Self::Consistency(_) | Self::Path(_) | Self::Answered)
    }
}

/// What the mirror knew when the sync began.
#[derive(Debug, Default)]
struct Known {
    complete: Option<SignedHead>,
    /// Heads that were seen and are not complete, in the order in which they were
    /// written down.
    seen: Vec<SeenHead>,
}

/// One sync with one peer.
pub struct Mirror<'m, M: ReadMirror + ?Sized> {
    ledger: &'m M,
    origin: VerifierKey,
    limits: MirrorLimits,
    phase: Phase<'m, M>,
    keys: keys::Keys,
    /// An operator has chosen a branch.
    resolved: bool,
    /// The source was asked for all rotations, not only for those above the own
    /// newest note.
    asked_for_all: bool,
    known: Known,
    outputs: VecDeque<Output>,
    requests: BTreeMap<RequestId, Asked>,
    /// Answers that a source pushed before they were asked for.
    pushed: Pushed,
    /// Requests that are answered from those, in order.
    answered: VecDeque<(RequestId, Answered)>,
    stores: BTreeMap<StoreToken, Stored>,
    fetch: Fetch,
    /// The report to give once nothing is open any more.
    ending: Option<Outcome>,
    shown: Option<SignedHead>,
    /// A head that the quota refused.
    too_large: Option<SignedHead>,
    /// Held heads above the shown one that it is still to be compared with.
    reviews: VecDeque<Holder>,
    changed: u64,
    next_request: u64,
    next_token: u64,
    entries: u64,
    received_bytes: u64,
    /// Of those, what came on other streams while a proof was awaited.
    ignored_bytes: u64,
}

impl<'m, M: ReadMirror + ?Sized> Mirror<'m, M> {
    /// A sync into what `ledger` reads, of the origin that signs or signed with
    /// `origin`: a key that leads from the pinned one, or that one itself.
    #[must_use]
    pub fn new(ledger: &'m M, origin: VerifierKey, limits: MirrorLimits) -> Self {
        Self {
            ledger,
            keys: keys::Keys::new(origin.clone()),
            origin,
            limits,
            phase: Phase::Idle,
            resolved: false,
            asked_for_all: false,
            ignored_bytes: 0,
            known: Known::default(),
            outputs: VecDeque::new(),
            requests: BTreeMap::new(),
            pushed: Pushed::default(),
            answered: VecDeque::new(),
            stores: BTreeMap::new(),
            fetch: Fetch::default(),
            ending: None,
            shown: None,
            too_large: None,
            reviews: VecDeque::new(),
            changed: 0,
            next_request: 0,
            next_token: 0,
            entries: 0,
            received_bytes: 0,
        }
    }

    /// Reads where the mirror stands and asks for the head. Call it once.
    pub fn start(&mut self) {
        if matches!(self.phase, Phase::Idle) {
            let result = self.ask_head();
            self.settle(result);
        }
    }

    /// The same with what a source that is followed has told: its notes, the
    /// newest head last, and what it pushed with them. All of it is judged as if it
    /// had been asked for, so it has to be the peer that is asked for the rest.
    pub fn start_from(&mut self, told: Told) {
        if matches!(self.phase, Phase::Idle) {
            let result = self.begin_from(told);
            let result = result.and_then(|()| self.advance());
            self.settle(result);
        }
    }

    fn begin_from(&mut self, told: Told) -> Result<(), SyncError> {
        self.receive(told.received_bytes)?;
        self.read_known()?;
        self.pushed = told.pushed;
        self.phase = Phase::Head;
        // Rotations may have been told before.
        self.asked_for_all = false;
        self.head_shown(&told.notes)
    }

    /// A whole frame of the answer to `request`.
    pub fn handle_frame(&mut self, request: RequestId, frame: &[u8]) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        let result = self.frame(request, frame);
        let result = result.and_then(|()| self.advance());
        self.settle(result);
    }

    /// The peer finished the answer to `request`, cleanly.
    pub fn handle_end(&mut self, request: RequestId) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        let result = self.end(request);
        let result = result.and_then(|()| self.advance());
        self.settle(result);
    }

    /// What was to be stored under `token` is durable.
    pub fn handle_stored(&mut self, token: StoreToken) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        let Some(stored) = self.stores.remove(&token) else {
            return;
        };
        self.fetch.stored(stored);
        let result = self.advance();
        self.settle(result);
    }

    /// Ends the sync from outside; what is under way is dropped.
    pub fn close(&mut self) {
        self.settle(Err(SyncError::Closed));
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Entries verified and bytes received so far.
    #[must_use]
    pub const fn progress(&self) -> (u64, u64) {
        (self.entries, self.received_bytes)
    }

    /// The head that the source has shown, once it was verified and nothing of what
    /// is held contradicts it; or one that is newer, and larger than is allowed.
    #[must_use]
    pub const fn target(&self) -> Option<&SignedHead> {
        match self.phase {
            Phase::Fetch | Phase::Completing => self.shown.as_ref(),
            _ => self.too_large.as_ref(),
        }
    }

    /// Turns an error into the last output. Whatever was still to be stored
    /// has been verified and stays; requests not sent yet are dropped.
    fn settle(&mut self, result: Result<(), SyncError>) {
        let Err(error) = result else { return };
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        self.phase = Phase::Ended;
        self.requests.clear();
        self.outputs
            .retain(|output| matches!(output, Output::Store { .. }));
        self.outputs.push_back(Output::Fail(error));
    }

    fn receive(&mut self, bytes: u64) -> Result<(), SyncError> {
        self.received_bytes = self.received_bytes.saturating_add(bytes);
        let (got, max) = (self.received_bytes, self.limits.received_bytes_max);
        within("bytes received", got, max)
    }

    fn frame(&mut self, id: RequestId, frame: &[u8]) -> Result<(), SyncError> {
        self.receive(frame.len() as u64)?;
        let unknown = PeerFault::UnknownRequest { request: id.0 };
        let asked = self.requests.remove(&id).ok_or(unknown)?;
        if self.is_lost() && !asked.is_proof() {
            // The sync is lost already; only the proof still matters, and no
            // more comes than was asked for before.
            self.ignored_bytes = self.ignored_bytes.saturating_add(frame.len() as u64);
            if self.ignored_bytes > IGNORED_BYTES_MAX {
                return Err(accuse::unproven());
            }
            self.requests.insert(id, asked);
            return Ok(());
        }
        let reply = Reply::decode(frame).map_err(PeerFault::Malformed)?;
        self.reply(id, asked, reply, frame.len())
    }

    /// Answers a request with what was pushed, to its end. Only its count of bytes
    /// differs from what a peer answers: a push was counted as a whole.
    fn answer_pushed(&mut self, id: RequestId, mut answer: Answered) -> Result<(), SyncError> {
        for (reply, frame_bytes) in answer.replies() {
            let Some(asked) = self.requests.remove(&id) else {
                return Ok(());
            };
            if self.is_lost() && !asked.is_proof() {
                self.requests.insert(id, asked);
            } else {
                self.reply(id, asked, reply, frame_bytes)?;
            }
        }
        self.end(id)
    }

    fn reply(
        &mut self,
        id: RequestId,
        mut asked: Asked,
        reply: Reply<'_>,
        frame_bytes: usize,
    ) -> Result<(), SyncError> {
        if let Reply::Refused(refusal) = reply {
            if let Asked::Entries(active) = &asked
                && !active.extends
            {
                // Perhaps it has other runs, since it has another history.
                let dispute = self.dispute(active, PeerFault::Refused { refusal })?;
                self.phase = Phase::Accusing;
                self.requests.insert(id, Asked::Answered);
                return self.accuse_by_proof(dispute);
            }
            return Err(match asked {
                Asked::Consistency(dispute) => dispute.unproven(),
                Asked::Path(_) => accuse::unproven(),
                _ => PeerFault::Refused { refusal }.into(),
            });
        }
        match (&mut asked, reply) {
            (Asked::Head { answered }, Reply::Head { notes }) => {
                if std::mem::replace(answered, true) {
                    return Err(PeerFault::Surplus { what: "the head" }.into());
                }
                self.head_shown(&notes)?;
            }
            (Asked::Nodes { hashes }, Reply::Nodes { answers }) => {
                if matches!(self.phase, Phase::Older(_)) {
                    self.older_shown(hashes, answers)?;
                } else {
                    self.nodes_shown(hashes, answers)?;
                }
            }
            (Asked::Entries(active), reply) => {
                if let Some(dispute) = self.entries_frame(active, reply, frame_bytes)? {
                    self.phase = Phase::Accusing;
                    self.accuse_by_proof(dispute)?;
                }
            }
            (Asked::Payloads(wanted), Reply::Payload { hash, bytes }) => {
                wanted.take(hash, bytes, &mut self.fetch)?;
            }
            (Asked::Consistency(_) | Asked::Path(_), reply) => {
                match (std::mem::replace(&mut asked, Asked::Answered), reply) {
                    (Asked::Consistency(dispute), reply) => self.proof_shown(*dispute, reply)?,
                    (Asked::Path(hash), Reply::Nodes { answers }) => {
                        self.path_shown(hash, answers)?;
                    }
                    _ => return Err(accuse::unproven()),
                }
            }
            (Asked::Shown, Reply::Head { .. }) => asked = Asked::Answered,
            (Asked::Answered, _) => return Err(PeerFault::Surplus { what: "an answer" }.into()),
            _ => {
                let what = "another kind of reply";
                return Err(PeerFault::WrongReply { what }.into());
            }
        }
        self.requests.insert(id, asked);
        Ok(())
    }

    fn end(&mut self, id: RequestId) -> Result<(), SyncError> {
        let unknown = PeerFault::UnknownRequest { request: id.0 };
        let asked = self.requests.remove(&id).ok_or(unknown)?;
        let early = |what| Err(PeerFault::EndedEarly { what }.into());
        match asked {
            Asked::Head { answered: false } => early("the head"),
            Asked::Nodes { hashes } if !hashes.is_empty() && !self.is_lost() => early("all nodes"),
            Asked::Consistency(dispute) => Err(dispute.unproven()),
            Asked::Path(_) => Err(accuse::unproven()),
            Asked::Head { .. } | Asked::Nodes { .. } | Asked::Shown | Asked::Answered => Ok(()),
            _ if self.is_lost() => Ok(()),
            Asked::Entries(active) => self.fetch.entries_ended(active),
            Asked::Payloads(wanted) => {
                let stored = wanted.finish(&mut self.fetch)?;
                self.emit_payloads(stored);
                Ok(())
            }
        }
    }

    /// Whatever can be done now, also with what was pushed: each answer is taken
    /// from there once, so this ends.
    fn advance(&mut self) -> Result<(), SyncError> {
        self.step()?;
        while let Some((id, answer)) = self.answered.pop_front() {
            self.answer_pushed(id, answer)?;
            self.step()?;
        }
        Ok(())
    }

    /// More requests, stores, the end.
    fn step(&mut self) -> Result<(), SyncError> {
        if matches!(self.phase, Phase::Diff { .. }) {
            self.pump_nodes()?;
        }
        if matches!(self.phase, Phase::Older(_)) && self.ending.is_none() {
            self.pump_older()?;
        }
        if matches!(self.phase, Phase::Fetch) {
            self.pump_fetch()?;
        }
        if !self.requests.is_empty() || !self.stores.is_empty() {
            return Ok(());
        }
        if matches!(self.phase, Phase::Fetch) && self.fetch.is_done() {
            if let Some((holder, context)) = self.left_behind()? {
                let aim = Aim::Context(context);
                return self.begin_case(holder, true, aim, None);
            }
            self.phase = Phase::Completing;
            if let Some(head) = self.shown.clone() {
                self.store(Ingest::Complete(head), Stored::default());
            }
        } else if matches!(self.phase, Phase::Completing) {
            self.ending = Some(Outcome::CaughtUp);
        }
        if let Some(outcome) = self.ending.take() {
            self.phase = Phase::Ended;
            self.outputs.push_back(Output::Done(Report {
                origin: self.origin.name().clone(),
                outcome,
                head: self.shown.take(),
                contexts_changed: self.changed,
                entries: self.entries,
                received_bytes: self.received_bytes,
            }));
        }
        Ok(())
    }

    /// True once only proofs matter.
    const fn is_lost(&self) -> bool {
        matches!(self.phase, Phase::Accusing | Phase::Tracing(_))
    }

    fn ask(&mut self, request: &Request, asked: Asked) -> Result<(), SyncError> {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        if let Some(answer) = self.pushed.answer(request) {
            self.answered.push_back((id, answer));
        } else {
            let (frame, request) = (request.encode().map_err(LocalFault::Message)?, id);
            self.outputs.push_back(Output::Send { request, frame });
        }
        self.requests.insert(id, asked);
        Ok(())
    }

    fn store(&mut self, item: Ingest, stored: Stored) {
        let token = StoreToken(self.next_token);
        self.next_token += 1;
        self.stores.insert(token, stored);
        self.outputs.push_back(Output::Store { token, item });
    }
}

#[cfg(test)]
impl<M: ReadMirror + ?Sized> Mirror<'_, M> {
    /// What is promised of every state.
    pub(super) fn assert_within_budgets(&self) {
        self.fetch.assert_within_budgets();
    }
}

/// Bytes that items which are to be stored may have, all of them together.
#[cfg(test)]
pub(super) const STORING_BYTES_MAX: u64 = fetch::SPANS_BYTES_MAX as u64 + fetch::PAYLOADS_BYTES_MAX;

pub(super) fn within(what: &'static str, got: u64, max: u64) -> Result<(), SyncError> {
    if got > max {
        return Err(LocalFault::Quota { what, got, max }.into());
    }
    Ok(())
}
