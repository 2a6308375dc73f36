//! An entry under a signed head.
//!
//! ```text
//! converge-ledger/entry-proof/v1
//! context <id>
//! sequence <n>
//! size <entries of the context under the head>
//! root <root of the context at that size, base64>
//! header <the entry's header, base64>
//! payload <the entry's payload, base64>       (may be left out)
//! inclusion <count>        hashes, lowest first
//! directory <count>        nodes, from the root down
//! rotation <lines>         notes of the rotations of the origin's key
//! head <lines>             the note of the head
//! ```
//!
//! Sequence and root follow from the rest; they are there for whoever reads the
//! file, and checked like everything else.

use std::fmt;

use super::text::{TextReader, TextWriter, same_bytes};
use super::{ProofError, Through, check_counts};
use crate::directory::Opening;
use crate::directory::path::{Found, Path, verify};
use crate::entry::{ContextId, Header, leaf_hash};
use crate::hash::{self, Hash};
use crate::head::{KeyChain, SignedHead};
use crate::limits::{
    HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX, PROOF_BYTES_MAX, PROOF_HASHES_MAX, ROTATIONS_MAX,
};
use crate::note::VerifierKey;
use crate::shown::{Escaped, Quoted};
use crate::tree::{LeafIndex, TreeSize, inclusion};

/// The first line.
pub(crate) const KIND: &str = "converge-ledger/entry-proof/v1";

/// That an entry is in a ledger, not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryProof {
    /// The context.
    pub context: ContextId,
    /// The entry's sequence, as its header has it.
    pub sequence: u64,
    /// The context's entries under the head.
    pub size: u64,
    /// Its root at that size.
    pub root: Hash,
    /// The entry's header: the leaf's preimage.
    pub header: Vec<u8>,
    /// The entry's payload, if it is disclosed.
    pub payload: Option<Vec<u8>>,
    /// Hashes from the leaf to the context's root, lowest first.
    pub inclusion: Vec<Hash>,
    /// Nodes from the directory's root to the context.
    pub directory: Path,
    /// Notes of the rotation heads of the origin, oldest first.
    pub rotations: Vec<Vec<u8>>,
    /// The note of the head.
    pub head: Vec<u8>,
}

/// What an [`EntryProof`] proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenEntry {
    /// The context.
    pub context: ContextId,
    /// Its entries under the head.
    pub size: u64,
    /// Its root at that size.
    pub root: Hash,
    /// The entry's sequence.
    pub sequence: u64,
    /// The entry's id: its leaf hash.
    pub id: Hash,
    /// The entry's key.
    pub key: String,
    /// Bytes of its payload.
    pub payload_bytes: u32,
    /// True if the payload itself was there and is the entry's.
    pub payload_checked: bool,
    /// The head.
    pub head: SignedHead,
    /// Rotations from the pinned key to the one that signed the head.
    pub rotations: usize,
}

impl EntryProof {
    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = TextWriter::new(KIND);
        out.field("context", &self.context);
        out.field("sequence", self.sequence);
        out.field("size", self.size);
        out.bytes("root", self.root.as_bytes());
        out.bytes("header", &self.header);
        if let Some(payload) = &self.payload {
            out.bytes("payload", payload);
        }
        out.hashes("inclusion", &self.inclusion);
        out.list("directory", &self.directory.nodes);
        for note in &self.rotations {
            out.note("rotation", note);
        }
        out.note("head", &self.head);
        out.finish()
    }

    /// Reads a file in its only spelling; nothing is believed yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofError> {
        let mut r = TextReader::new(KIND, bytes, PROOF_BYTES_MAX)?;
        let context = ContextId::decode(r.field("context")?.as_bytes())?;
        let sequence = r.number("sequence")?;
        let size = r.number("size")?;
        let root = r.hash("root")?;
        let header = r.bytes("header", HEADER_BYTES_MAX)?;
        let payload = if r.is_next("payload") {
            Some(r.bytes("payload", PAYLOAD_BYTES_MAX)?)
        } else {
            None
        };
        let proof = Self {
            context,
            sequence,
            size,
            root,
            header,
            payload,
            inclusion: r.hashes("inclusion", PROOF_HASHES_MAX)?,
            directory: r.path("directory")?,
            rotations: r.notes("rotation", ROTATIONS_MAX)?,
            head: r.note("head")?,
        };
        r.finish()?;
        same_bytes(&proof.to_bytes(), bytes)?;
        Ok(proof)
    }

    /// Checks everything, from the key down to the payload.
    pub fn verify(&self, origin: &VerifierKey) -> Result<ProvenEntry, ProofError> {
        let chain = KeyChain::open(origin, &self.rotations)?;
        let head = chain.head(&self.head)?;
        chain.check_used(&[&self.head])?;
        let rotations = chain.rotations_to(&head);
        Ok(ProvenEntry {
            rotations,
            ..self.verify_under(head)?
        })
    }

    /// The same below a head that is verified already, under the pinned key.
    pub fn verify_under(&self, head: SignedHead) -> Result<ProvenEntry, ProofError> {
        let header = Header::decode(&self.header).map_err(ProofError::Header)?;
        if header.sequence != self.sequence {
            let found = header.sequence;
            return Err(ProofError::Sequence { found });
        }
        // Headers begin at sequence 1.
        let index = LeafIndex::new(header.sequence.saturating_sub(1));
        let (leaf, size) = (leaf_hash(&self.header), TreeSize::new(self.size));
        inclusion::verify(&leaf, index, size, &self.inclusion, &self.root)?;
        let opening = Opening {
            id: self.context.as_str().to_owned(),
            size: self.size,
            root: self.root,
        };
        check_opening(&head, &opening, &self.directory)?;
        if let Some(payload) = &self.payload
            && (hash::content(payload) != header.payload_hash
                || payload.len() as u64 != u64::from(header.payload_len))
        {
            let hash = header.payload_hash;
            return Err(ProofError::Payload { hash });
        }
        Ok(ProvenEntry {
            context: self.context.clone(),
            size: self.size,
            root: self.root,
            sequence: header.sequence,
            id: leaf,
            key: header.key.to_owned(),
            payload_bytes: header.payload_len,
            payload_checked: self.payload.is_some(),
            head,
            rotations: 0,
        })
    }
}

/// Checks that a head's directory holds this opening, and the head's counts.
pub(crate) fn check_opening(
    head: &SignedHead,
    opening: &Opening,
    directory: &Path,
) -> Result<(), ProofError> {
    let root = &head.head().directory_root;
    let sums = crate::directory::path::verify_opening(root, opening, &directory.as_slices())?;
    check_counts(head, sums)
}

/// Checks that a head's directory does not hold a context, and its counts.
pub(crate) fn check_absent(
    head: &SignedHead,
    id: &ContextId,
    directory: &Path,
) -> Result<(), ProofError> {
    let root = &head.head().directory_root;
    match verify(root, &id.path(), &directory.as_slices())? {
        Found::Absent { sums } => check_counts(head, sums),
        Found::Present { .. } => Err(ProofError::NotExtended {
            what: "the directory holds a context that is said not to be there",
        }),
    }
}

impl fmt::Display for ProvenEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            context,
            sequence,
            size,
            id,
            key,
            payload_bytes,
            head,
            rotations,
            ..
        } = self;
        write!(
            f,
            "entry {sequence} of {size} of context {}, id {id}, key {}, ",
            Quoted(context.as_str()),
            Quoted(key)
        )?;
        if self.payload_checked {
            write!(f, "with its payload of {payload_bytes} bytes")?;
        } else {
            write!(f, "payload of {payload_bytes} bytes not in the file")?;
        }
        let origin = Escaped(head.head().origin.as_str());
        let rotations = *rotations;
        let through = Through { head, rotations };
        write!(f, ", under head {} of {origin}{through}", head.order())
    }
}
