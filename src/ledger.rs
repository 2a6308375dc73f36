//! Layer 2. The doors between the disk and the sync engines, which do not know
//! each other: what a source reads ([`ReadLedger`]), what a mirror reads
//! ([`ReadMirror`]), and what a mirror may ask to be stored ([`Ingest`]).
//!
//! Everything read here is clipped to a signed head: the newest published head
//! of an own store, the newest complete head of a mirror. Everything stored
//! here has been verified: an [`Ingest`] cannot be built from unproven bytes.

use crate::directory::{Opening, ReadDirectory};
use crate::entry::ContextId;
use crate::evidence::Evidence;
use crate::hash::Hash;
use crate::head::{HeadOrder, SignedHead};
use crate::note::VerifierKey;
use crate::run::{Accumulator, CheckedPayload, CheckedSpan};
use crate::tree::NodeId;

/// A directory node and what its entry slots stand for, in slot order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedNode {
    /// The node's bytes.
    pub node: Vec<u8>,
    /// One opening per entry slot, in slot order.
    pub openings: Vec<Opening>,
}

/// An entry's header and its inline payload.
pub type EntryParts = (Vec<u8>, Vec<u8>);

/// A ledger as a source serves it: stateless, verified, clipped to a head.
pub trait ReadLedger: Send + Sync {
    /// Why a read failed: always the local disk, never the asker.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The newest head that may be told to others.
    fn newest_head(&self) -> Result<Option<SignedHead>, Self::Error>;

    /// Rotations of the origin's key ordered above `order`, ascending; all of
    /// them without one.
    fn rotations_after(&self, order: Option<HeadOrder>) -> Result<Vec<SignedHead>, Self::Error>;

    /// A directory node by hash, if it belongs to a head still served.
    fn opened_node(&self, hash: &Hash) -> Result<Option<OpenedNode>, Self::Error>;

    /// The size of a context in the newest head.
    fn signed_size(&self, id: &ContextId) -> Result<Option<u64>, Self::Error>;

    /// Runs of the entries `after+1..=size`, in order: as many as fit
    /// `bytes_max`, at least one. Whole stored runs but for the first and the
    /// last, of which only what was asked for is left. `None` if `size` is
    /// beyond the signed size or nothing lies between.
    fn runs(
        &self,
        id: &ContextId,
        after: u64,
        size: u64,
        bytes_max: usize,
    ) -> Result<Option<Vec<Vec<u8>>>, Self::Error>;

    /// Complete nodes of a context's tree, all within its signed size.
    fn tree_nodes(&self, id: &ContextId, nodes: &[NodeId]) -> Result<Vec<Hash>, Self::Error>;

    /// A payload of more than 4 KiB, by hash.
    fn outside_payload(&self, hash: &Hash) -> Result<Option<Vec<u8>>, Self::Error>;

    /// An entry's header and its inline payload, which is empty for one of more
    /// than 4 KiB. `None` if there is no such entry in the newest head.
    fn entry_parts(&self, id: &ContextId, sequence: u64)
    -> Result<Option<EntryParts>, Self::Error>;
}

/// One context at one size, as an archive is made of it.
pub trait ReadHistory {
    /// Why a read failed: always the local disk.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The context.
    fn id(&self) -> &ContextId;

    /// Entries in it, at least 1.
    fn size(&self) -> u64;

    /// The root over them.
    fn root(&self) -> Hash;

    /// Stored runs from the one that holds entry `after + 1` on, in order: as
    /// many as fit `bytes_max`, at least one; none from the end on. The first
    /// one may begin before that entry, the last one of a context ends with its
    /// size.
    fn runs(&self, after: u64, bytes_max: usize) -> Result<Vec<Vec<u8>>, Self::Error>;

    /// A payload of more than 4 KiB that an entry of it has.
    fn outside_payload(&self, hash: &Hash) -> Result<Vec<u8>, Self::Error>;
}

/// A part of a context's history that was read from somewhere else. What its
/// bytes say is checked by whoever stores them, as with everything else.
#[derive(Clone, Debug, Default)]
pub struct HistoryPart {
    /// Whole runs, in order.
    pub runs: Vec<Vec<u8>>,
    /// Their payloads of more than 4 KiB, as far as they come with them.
    pub payloads: Vec<CheckedPayload>,
}

/// A head a mirror has verified and written down, with the openings of every
/// context that differs from the last complete head.
#[derive(Clone, Debug)]
pub struct SeenHead {
    /// The head.
    pub head: SignedHead,
    /// Contexts that differ from the last complete head, ascending by path.
    pub openings: Vec<Opening>,
}

/// That an origin has signed two histories, and whether an operator has said
/// which of them is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkState {
    /// BLAKE3 of the evidence file.
    pub evidence: Hash,
    /// What it proves, in words.
    pub verdict: String,
    /// True if it was said.
    pub resolved: bool,
}

/// What a mirror knows of itself.
pub trait ReadMirror: ReadDirectory<Error = <Self as ReadMirror>::Failure> + Send + Sync {
    /// Why a read failed: always the local disk.
    type Failure: std::error::Error + Send + Sync + 'static;

    /// The newest head of which every context is present.
    fn complete_head(&self) -> Result<Option<SignedHead>, Self::Failure>;

    /// The heads written down and not complete, in the order in which they
    /// were: what each says is held, and runs are stored under the last.
    fn seen_heads(&self) -> Result<Vec<SeenHead>, Self::Failure>;

    /// The state of a context, beyond the complete head if a sync is under
    /// way; the empty state if it is not known.
    fn accumulator(&self, id: &ContextId) -> Result<Accumulator, Self::Failure>;

    /// True if a payload of more than 4 KiB is stored and still intact.
    fn has_outside_payload(&self, hash: &Hash) -> Result<bool, Self::Failure>;

    /// The newest evidence against the origin, if there is any.
    fn fork(&self) -> Result<Option<ForkState>, Self::Failure>;

    /// The context with this path hash, if one is known.
    fn context_at(&self, path: &Hash) -> Result<Option<ContextId>, Self::Failure>;

    /// The key whose heads count now.
    fn origin_key(&self) -> VerifierKey;

    /// The key that the mirror was made with.
    fn pinned_key(&self) -> VerifierKey;

    /// The rotations that lead from the pinned key to the current one, in
    /// order.
    fn rotations(&self) -> Result<Vec<SignedHead>, Self::Failure>;

    /// The root of a context at a size it has or had, also beyond the complete
    /// head; `None` if it is not known or smaller.
    fn root_at(&self, id: &ContextId, size: u64) -> Result<Option<Hash>, Self::Failure>;

    /// Complete nodes of a context's tree, all within the size it has.
    fn tree_nodes(&self, id: &ContextId, nodes: &[NodeId]) -> Result<Vec<Hash>, Self::Failure>;
}

/// What a mirror may ask to be stored, in this order: a seen head, spans under
/// it, and its completion.
#[derive(Clone, Debug)]
pub enum Ingest {
    /// A verified head and the proven openings of the contexts that changed.
    Seen(SeenHead),
    /// Proven runs, with those of their outside payloads that were missing.
    Span {
        /// The runs.
        span: CheckedSpan,
        /// Payloads the store did not have.
        payloads: Vec<CheckedPayload>,
    },
    /// Payloads of a proven span that are too many to travel with it, ahead
    /// of it.
    Payloads(Vec<CheckedPayload>),
    /// Every context of the seen head is present.
    Complete(SignedHead),
    /// A rotation of the current key, before anything that the new key alone
    /// signed. A head that was seen under the old key and is not complete is
    /// forgotten with it.
    Rotation(SignedHead),
    /// Proof that the origin has signed two histories.
    Evidence(Evidence),
}

/// Told once whether something that was to be stored is durable.
pub type WhenStored<E> = Box<dyn FnOnce(Result<(), E>) + Send>;

/// A mirror's store: what is known, and the one door for what is new.
pub trait StoreMirror: Send + Sync {
    /// What is known; follows what is stored.
    type View: ReadMirror;

    /// What is known.
    fn view(&self) -> &Self::View;

    /// Queues an item behind all earlier ones and returns; `done` is called
    /// once, from any thread, when the item is durable or has failed. May
    /// block while the queue is full. After a failure later items fail too.
    /// [`Ingest::Payloads`] of none is durable when everything before it is.
    fn ingest(&self, item: Ingest, done: WhenStored<<Self::View as ReadMirror>::Failure>);
}
