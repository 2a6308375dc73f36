//! One context under two heads of one origin: the newer state begins with the
//! older one.
//!
//! ```text
//! converge-ledger/consistency-proof/v1
//! context <id>
//! from <size> <root, base64>          or: from 0, if there was no such context
//! to <size> <root, base64>
//! consistency <count>                 hashes, lowest first
//! older-directory <count>             nodes, from the root down
//! directory <count>
//! rotation <lines>                    notes of the rotations of the origin's key
//! older-head <lines>
//! head <lines>
//! ```

use std::fmt;

use super::entry::{check_absent, check_opening};
use super::text::{TextReader, TextWriter, same_bytes};
use super::{ProofError, Through, check_order};
use crate::directory::Opening;
use crate::directory::path::Path;
use crate::entry::ContextId;
use crate::hash::{self, Hash};
use crate::head::{KeyChain, SignedHead};
use crate::limits::{PROOF_BYTES_MAX, PROOF_HASHES_MAX, ROTATIONS_MAX};
use crate::note::VerifierKey;
use crate::shown::{Escaped, Quoted};
use crate::tree::{TreeSize, consistency};

/// The first line.
pub(crate) const KIND: &str = "converge-ledger/consistency-proof/v1";

/// A context's size and root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

impl State {
    pub(crate) fn opening(&self, id: &ContextId) -> Opening {
        Opening {
            id: id.as_str().to_owned(),
            size: self.size,
            root: self.root,
        }
    }
}

/// That a context under a head extends what it was under an older one, not
/// checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextProof {
    /// The context.
    pub context: ContextId,
    /// Its state under the older head; `None` if it was not there.
    pub from: Option<State>,
    /// Its state under the newer head.
    pub to: State,
    /// Consistency proof from the one to the other.
    pub consistency: Vec<Hash>,
    /// Nodes of the older directory, from the root down.
    pub older_directory: Path,
    /// Nodes of the newer directory, from the root down.
    pub directory: Path,
    /// Notes of the rotation heads of the origin, oldest first.
    pub rotations: Vec<Vec<u8>>,
    /// The note of the older head.
    pub older_head: Vec<u8>,
    /// The note of the newer head.
    pub head: Vec<u8>,
}

/// What a [`ContextProof`] proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenContext {
    /// The context.
    pub context: ContextId,
    /// Its state under the older head; `None` if it was not there.
    pub from: Option<State>,
    /// Its state under the newer head.
    pub to: State,
    /// The older head.
    pub older_head: SignedHead,
    /// The newer head.
    pub head: SignedHead,
    /// Rotations from the pinned key to the one that signed the newer head.
    pub rotations: usize,
}

impl ContextProof {
    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = TextWriter::new(KIND);
        out.field("context", &self.context);
        match &self.from {
            None => out.field("from", 0),
            Some(State { size, root }) => out.state("from", *size, root),
        }
        out.state("to", self.to.size, &self.to.root);
        out.hashes("consistency", &self.consistency);
        out.list("older-directory", &self.older_directory.nodes);
        out.list("directory", &self.directory.nodes);
        for note in &self.rotations {
            out.note("rotation", note);
        }
        out.note("older-head", &self.older_head);
        out.note("head", &self.head);
        out.finish()
    }

    /// Reads a file in its only spelling; nothing is believed yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofError> {
        let mut r = TextReader::new(KIND, bytes, PROOF_BYTES_MAX)?;
        let context = ContextId::decode(r.field("context")?.as_bytes())?;
        let from = read_from(&mut r)?;
        let (size, root) = r.state("to")?;
        let proof = Self {
            context,
            from,
            to: State { size, root },
            consistency: r.hashes("consistency", PROOF_HASHES_MAX)?,
            older_directory: r.path("older-directory")?,
            directory: r.path("directory")?,
            rotations: r.notes("rotation", ROTATIONS_MAX)?,
            older_head: r.note("older-head")?,
            head: r.note("head")?,
        };
        r.finish()?;
        same_bytes(&proof.to_bytes(), bytes)?;
        Ok(proof)
    }

    /// Checks everything, from the key down to both roots.
    pub fn verify(&self, origin: &VerifierKey) -> Result<ProvenContext, ProofError> {
        let chain = KeyChain::open(origin, &self.rotations)?;
        let older = chain.head(&self.older_head)?;
        let newer = chain.head(&self.head)?;
        chain.check_used(&[&self.older_head, &self.head])?;
        check_order(&older, &newer)?;
        let id = &self.context;
        match &self.from {
            Some(from) => check_opening(&older, &from.opening(id), &self.older_directory)?,
            None => check_absent(&older, id, &self.older_directory)?,
        }
        check_opening(&newer, &self.to.opening(id), &self.directory)?;
        extends(self.from, self.to, &self.consistency)?;
        Ok(ProvenContext {
            context: id.clone(),
            from: self.from,
            to: self.to,
            rotations: chain.rotations_to(&newer),
            older_head: older,
            head: newer,
        })
    }
}

/// `from <size> <root>`, or `from 0`.
pub(super) fn read_from(r: &mut TextReader<'_>) -> Result<Option<State>, ProofError> {
    let mut ahead = r.clone();
    if ahead.field("from")? == "0" {
        *r = ahead;
        return Ok(None);
    }
    let (size, root) = r.state("from")?;
    Ok(Some(State { size, root }))
}

/// Checks that one state of a context begins with another.
pub(super) fn extends(from: Option<State>, to: State, hashes: &[Hash]) -> Result<(), ProofError> {
    let from = from.unwrap_or(State {
        size: 0,
        root: hash::empty_root(),
    });
    let (m, n) = (TreeSize::new(from.size), TreeSize::new(to.size));
    Ok(consistency::verify(m, n, hashes, &from.root, &to.root)?)
}

impl fmt::Display for ProvenContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            context,
            from,
            to,
            older_head,
            head,
            rotations,
        } = self;
        write!(
            f,
            "context {}, {} entries under head {}, ",
            Quoted(context.as_str()),
            to.size,
            head.order()
        )?;
        match from {
            Some(from) => write!(f, "extends the {} entries", from.size)?,
            None => f.write_str("did not exist")?,
        }
        let origin = Escaped(head.head().origin.as_str());
        let rotations = *rotations;
        let through = Through { head, rotations };
        write!(f, " under head {} of {origin}{through}", older_head.order())
    }
}
