//! A whole store under two heads of one origin: every context of the older
//! one is in the newer one, and extends what it was.
//!
//! ```text
//! converge-ledger/store-consistency-proof/v1
//! rotation <lines>              notes of the rotations of the origin's key
//! older-head <lines>
//! head <lines>
//! older-nodes <count>           of the older directory, as they are needed
//! nodes <count>                 of the newer directory, as they are needed
//! contexts <count>              that changed, as they are met; for each:
//! context <id>
//! from <size> <root, base64>
//! to <size> <root, base64>
//! consistency <count>           hashes, lowest first
//! ```
//!
//! Both directories are descended together, slot by slot from 0 to 15, and only
//! where they differ; what the older one does not have needs no proof, so new
//! contexts cost nothing and are not disclosed, nor are unchanged ones. Prover
//! and verifier are one recursion over two ways to have a node.

use std::error::Error;
use std::fmt;

use super::context::{State, extends, read_from};
use super::text::{TextReader, TextWriter, same_bytes};
use super::{ProofError, Through, check_order};
use crate::directory::{LoadError, Node, Prefix, ReadDirectory, Slot, Sums, empty_root, load};
use crate::encoding::{DecodeError, in_range};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::{KeyChain, SignedHead, needed_rotations};
use crate::limits::{
    DIRECTORY_NODE_BYTES_MAX, PROOF_HASHES_MAX, ROTATIONS_MAX, STORE_PROOF_BYTES_MAX,
    STORE_PROOF_CONTEXTS_MAX, STORE_PROOF_NODE_BYTES_MIN, STORE_PROOF_NODES_MAX,
};
use crate::note::VerifierKey;
use crate::shown::Escaped;

#[cfg(test)]
mod tests;

/// The first line.
pub(crate) const KIND: &str = "converge-ledger/store-consistency-proof/v1";
/// A context that changed between the heads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedContext {
    /// The context.
    pub id: ContextId,
    /// Its state under the older head.
    pub from: State,
    /// Its state under the newer head.
    pub to: State,
    /// Consistency proof from the one to the other.
    pub consistency: Vec<Hash>,
}

/// That a store extends what it was, not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreProof {
    /// Notes of the rotation heads of the origin, oldest first.
    pub rotations: Vec<Vec<u8>>,
    /// The note of the older head.
    pub older_head: Vec<u8>,
    /// The note of the newer head.
    pub head: Vec<u8>,
    /// Nodes of the older directory, in the order of the descent.
    pub older_nodes: Vec<Vec<u8>>,
    /// Nodes of the newer directory, in the order of the descent.
    pub nodes: Vec<Vec<u8>>,
    /// Contexts that changed, in the order of the descent.
    pub contexts: Vec<ChangedContext>,
}

/// What a [`StoreProof`] proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenStore {
    /// The older head.
    pub older_head: SignedHead,
    /// The newer head.
    pub head: SignedHead,
    /// Contexts of the older head that grew.
    pub changed: u64,
    /// Rotations from the pinned key to the one that signed the newer head.
    pub rotations: usize,
}

/// Why no proof could be made.
#[derive(Debug, thiserror::Error)]
pub enum StoreProofError<O: Error + 'static, N: Error + 'static, C> {
    /// A node of the older directory could not be had.
    #[error("the older directory: {0}")]
    Older(LoadError<O>),
    /// A node of the newer directory could not be had.
    #[error("the newer directory: {0}")]
    Newer(LoadError<N>),
    /// The proof of a context could not be made.
    #[error("{0}")]
    Context(C),
    /// The newer head does not extend the older one, or what was given for a
    /// context does not prove it.
    #[error("{0}")]
    Unproven(ProofError),
    /// The proof is larger than a proof file may be.
    #[error("the proof is larger than {STORE_PROOF_BYTES_MAX} bytes")]
    TooLarge,
}

impl StoreProof {
    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = TextWriter::new(KIND);
        for note in &self.rotations {
            out.note("rotation", note);
        }
        out.note("older-head", &self.older_head);
        out.note("head", &self.head);
        out.list("older-nodes", &self.older_nodes);
        out.list("nodes", &self.nodes);
        out.field("contexts", self.contexts.len());
        for context in &self.contexts {
            out.field("context", &context.id);
            out.state("from", context.from.size, &context.from.root);
            out.state("to", context.to.size, &context.to.root);
            out.hashes("consistency", &context.consistency);
        }
        out.finish()
    }

    /// Reads a file in its only spelling; nothing is believed yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofError> {
        let mut r = TextReader::new(KIND, bytes, STORE_PROOF_BYTES_MAX)?;
        let rotations = r.notes("rotation", ROTATIONS_MAX)?;
        let older_head = r.note("older-head")?;
        let head = r.note("head")?;
        let node_bytes = STORE_PROOF_NODE_BYTES_MIN..=DIRECTORY_NODE_BYTES_MAX;
        let older_nodes = r.list("older-nodes", STORE_PROOF_NODES_MAX, node_bytes.clone())?;
        let nodes = r.list("nodes", STORE_PROOF_NODES_MAX, node_bytes)?;
        let count = r.number("contexts")?;
        in_range("contexts", count, 0, STORE_PROOF_CONTEXTS_MAX as u64)?;
        let mut contexts = Vec::new();
        for _ in 0..count {
            contexts.push(read_context(&mut r)?);
        }
        r.finish()?;
        let proof = Self {
            rotations,
            older_head,
            head,
            older_nodes,
            nodes,
            contexts,
        };
        same_bytes(&proof.to_bytes(), bytes)?;
        Ok(proof)
    }

    /// Checks everything, from the key down to every root that changed.
    pub fn verify(&self, origin: &VerifierKey) -> Result<ProvenStore, ProofError> {
        let chain = KeyChain::open(origin, &self.rotations)?;
        let older_head = chain.head(&self.older_head)?;
        let head = chain.head(&self.head)?;
        chain.check_used(&[&self.older_head, &self.head])?;
        check_order(&older_head, &head)?;
        let mut replay = Replay {
            older_nodes: self.older_nodes.iter(),
            nodes: self.nodes.iter(),
            contexts: self.contexts.iter(),
        };
        walk(&mut replay, Prefix::ROOT, whole(&older_head), whole(&head))?;
        replay.finish()?;
        Ok(ProvenStore {
            rotations: chain.rotations_to(&head),
            older_head,
            head,
            changed: self.contexts.len() as u64,
        })
    }
}

fn read_context(r: &mut TextReader<'_>) -> Result<ChangedContext, ProofError> {
    let id = ContextId::decode(r.field("context")?.as_bytes())?;
    let from = read_from(r)?.ok_or(DecodeError::Invalid { what: "from" })?;
    let (size, root) = r.state("to")?;
    Ok(ChangedContext {
        id,
        from,
        to: State { size, root },
        consistency: r.hashes("consistency", PROOF_HASHES_MAX)?,
    })
}

/// Makes the proof that what `head` is about extends what `older_head` is
/// about. `context` gives, for the path hash and the two sizes of a context
/// that changed, its id, states and consistency proof; they are checked. Of
/// `rotations`, all that the origin ever had, those are taken that are needed.
pub fn prove<O: ReadDirectory, N: ReadDirectory, C>(
    (older_head, older): (&SignedHead, &O),
    (head, newer): (&SignedHead, &N),
    rotations: &[Vec<u8>],
    context: impl FnMut(&Hash, u64, u64) -> Result<ChangedContext, C>,
) -> Result<StoreProof, StoreProofError<O::Error, N::Error, C>> {
    check_order(older_head, head).map_err(StoreProofError::Unproven)?;
    let notes = [older_head.note_bytes(), head.note_bytes()];
    let rotations = needed_rotations(rotations, &notes);
    let [older_note, note] = notes;
    let mut build = Build {
        older,
        newer,
        context,
        bytes: 0,
        proof: StoreProof {
            rotations,
            older_head: older_note,
            head: note,
            older_nodes: Vec::new(),
            nodes: Vec::new(),
            contexts: Vec::new(),
        },
    };
    walk(&mut build, Prefix::ROOT, whole(older_head), whole(head))?;
    if build.proof.to_bytes().len() > STORE_PROOF_BYTES_MAX {
        return Err(StoreProofError::TooLarge);
    }
    Ok(build.proof)
}

/// The slot an imagined parent of a head's root would have.
fn whole(head: &SignedHead) -> Slot {
    let head = head.head();
    if head.directory_root == empty_root() && head.contexts == 0 && head.entries == 0 {
        return Slot::Empty;
    }
    Slot::Child {
        hash: head.directory_root,
        contexts: head.contexts,
        entries: head.entries,
    }
}

/// What the descent needs, to make a proof or to replay one.
trait Steps {
    type Error;

    /// A node of the older directory.
    fn older(&mut self, hash: &Hash, at: &Prefix, sums: Sums) -> Result<Node, Self::Error>;

    /// A node of the newer directory.
    fn newer(&mut self, hash: &Hash, at: &Prefix, sums: Sums) -> Result<Node, Self::Error>;

    /// A context with two commitments: path, and (commitment, entries) of both.
    fn changed(
        &mut self,
        path: &Hash,
        older: (Hash, u64),
        newer: (Hash, u64),
    ) -> Result<(), Self::Error>;

    /// The newer directory lacks something.
    fn gone() -> Self::Error;
}

/// Descends where the directories differ. A node stands at its prefix, which
/// has 64 nibbles at most, so this nests no deeper.
fn walk<S: Steps>(steps: &mut S, at: Prefix, older: Slot, newer: Slot) -> Result<(), S::Error> {
    if older == newer {
        return Ok(());
    }
    match (older, newer) {
        (Slot::Empty, _) => Ok(()),
        (
            Slot::Entry {
                path,
                commitment,
                entries,
            },
            Slot::Entry {
                path: newer_path,
                commitment: newer_commitment,
                entries: newer_entries,
            },
        ) if path == newer_path => steps.changed(
            &path,
            (commitment, entries),
            (newer_commitment, newer_entries),
        ),
        (_, Slot::Empty | Slot::Entry { .. }) => Err(S::gone()),
        (Slot::Entry { path, .. }, Slot::Child { hash, .. }) => {
            let node = steps.newer(&hash, &at, newer.sums())?;
            let below = at.child(path.nibble(node.depth()));
            walk(steps, below, older, *node.slot(&path))
        }
        (
            Slot::Child { hash, .. },
            Slot::Child {
                hash: newer_hash, ..
            },
        ) => {
            let before = steps.older(&hash, &at, older.sums())?;
            let after = steps.newer(&newer_hash, &at, newer.sums())?;
            for ((slot, before), after) in (0u8..).zip(before.slots()).zip(after.slots()) {
                walk(steps, at.child(slot), *before, *after)?;
            }
            Ok(())
        }
    }
}

/// Makes a proof.
struct Build<'b, O, N, F> {
    older: &'b O,
    newer: &'b N,
    context: F,
    /// Bytes of nodes so far.
    bytes: usize,
    proof: StoreProof,
}

impl<O, N, F> Build<'_, O, N, F> {
    fn room<E>(&mut self, bytes: usize, full: E) -> Result<(), E> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > STORE_PROOF_BYTES_MAX {
            return Err(full);
        }
        Ok(())
    }
}

impl<O, N, C, F> Steps for Build<'_, O, N, F>
where
    O: ReadDirectory,
    N: ReadDirectory,
    F: FnMut(&Hash, u64, u64) -> Result<ChangedContext, C>,
{
    type Error = StoreProofError<O::Error, N::Error, C>;

    fn older(&mut self, hash: &Hash, at: &Prefix, sums: Sums) -> Result<Node, Self::Error> {
        let node = load(self.older, hash, at, Some(sums)).map_err(StoreProofError::Older)?;
        let bytes = node.encode();
        self.room(bytes.len(), StoreProofError::TooLarge)?;
        self.proof.older_nodes.push(bytes);
        Ok(node)
    }

    fn newer(&mut self, hash: &Hash, at: &Prefix, sums: Sums) -> Result<Node, Self::Error> {
        let node = load(self.newer, hash, at, Some(sums)).map_err(StoreProofError::Newer)?;
        let bytes = node.encode();
        self.room(bytes.len(), StoreProofError::TooLarge)?;
        self.proof.nodes.push(bytes);
        Ok(node)
    }

    fn changed(
        &mut self,
        path: &Hash,
        older: (Hash, u64),
        newer: (Hash, u64),
    ) -> Result<(), Self::Error> {
        if newer.1 <= older.1 {
            let what = "a context has no more entries under the newer head and another root";
            return Err(StoreProofError::Unproven(ProofError::NotExtended { what }));
        }
        let context = (self.context)(path, older.1, newer.1).map_err(StoreProofError::Context)?;
        check_changed(&context, path, older, newer).map_err(StoreProofError::Unproven)?;
        let bytes = context.id.as_str().len() + (4 + context.consistency.len()) * Hash::LEN;
        self.room(bytes, StoreProofError::TooLarge)?;
        self.proof.contexts.push(context);
        Ok(())
    }

    fn gone() -> Self::Error {
        StoreProofError::Unproven(GONE)
    }
}

/// Replays a proof: everything comes from the file, in order, and is checked.
struct Replay<'p> {
    older_nodes: std::slice::Iter<'p, Vec<u8>>,
    nodes: std::slice::Iter<'p, Vec<u8>>,
    contexts: std::slice::Iter<'p, ChangedContext>,
}

const GONE: ProofError = ProofError::NotExtended {
    what: "the newer head lacks a context of the older one",
};
const MISSING: ProofError = ProofError::NotExtended {
    what: "the file ends before the descent does",
};

/// Checks a context that changed against its two slots, and its two states
/// against each other.
fn check_changed(
    context: &ChangedContext,
    path: &Hash,
    older: (Hash, u64),
    newer: (Hash, u64),
) -> Result<(), ProofError> {
    for (state, (commitment, entries)) in [(context.from, older), (context.to, newer)] {
        let opening = state.opening(&context.id);
        opening.check_slot(path, &commitment, entries)?;
    }
    extends(Some(context.from), context.to, &context.consistency)
}

impl Replay<'_> {
    fn finish(mut self) -> Result<(), ProofError> {
        let left = self.older_nodes.next().is_some()
            || self.nodes.next().is_some()
            || self.contexts.next().is_some();
        if left {
            let what = "the file has more than the descent needs";
            return Err(ProofError::NotExtended { what });
        }
        Ok(())
    }
}

impl Steps for Replay<'_> {
    type Error = ProofError;

    fn older(&mut self, hash: &Hash, at: &Prefix, sums: Sums) -> Result<Node, ProofError> {
        let bytes = self.older_nodes.next().ok_or(MISSING)?;
        Ok(Node::open(hash, bytes, at, Some(sums))?)
    }

    fn newer(&mut self, hash: &Hash, at: &Prefix, sums: Sums) -> Result<Node, ProofError> {
        let bytes = self.nodes.next().ok_or(MISSING)?;
        Ok(Node::open(hash, bytes, at, Some(sums))?)
    }

    fn changed(
        &mut self,
        path: &Hash,
        older: (Hash, u64),
        newer: (Hash, u64),
    ) -> Result<(), ProofError> {
        let context = self.contexts.next().ok_or(MISSING)?;
        check_changed(context, path, older, newer)
    }

    fn gone() -> ProofError {
        GONE
    }
}

impl ProvenStore {
    /// True if nodes of the newer directory were in the file: else its counts
    /// are what the origin states.
    fn counts_are_proven(&self) -> bool {
        let older = whole(&self.older_head);
        older != Slot::Empty && older != whole(&self.head)
    }
}

impl fmt::Display for ProvenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (older, newer) = (self.older_head.head(), self.head.head());
        let (before, now) = (older.order(), newer.order());
        let origin = Escaped(newer.origin.as_str());
        if whole(&self.older_head) == Slot::Empty {
            write!(
                f,
                "head {before} of {origin} is empty: head {now} has nothing to keep"
            )?;
        } else {
            write!(
                f,
                "all {} contexts and {} entries under head {before} of {origin} are kept under \
                 head {now}",
                older.contexts, older.entries
            )?;
        }
        let states = if self.counts_are_proven() {
            ""
        } else {
            "stated: "
        };
        write!(
            f,
            " ({states}{} contexts, {} entries; {} of them grew)",
            newer.contexts, newer.entries, self.changed
        )?;
        let (head, rotations) = (&self.head, self.rotations);
        Through { head, rotations }.fmt(f)
    }
}
