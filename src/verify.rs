//! Layer 2. One door for every file an auditor may hold: what is it, does it
//! hold under this key, and what does it prove, in one line. Names in that line
//! are quoted and escaped: whoever chose them cannot continue the sentence.

use std::fmt;

use crate::evidence::{self, Evidence, EvidenceError};
use crate::head::{HeadError, KeyChain, SignedHead};
use crate::note::{NoteError, VerifierKey};
use crate::proof::{self, ContextProof, EntryProof, ProofError, StoreProof};
use crate::shown::Escaped;

#[cfg(test)]
mod tests;

/// What a file proved. `Display` says it in one line that is safe to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proven {
    /// A head was signed by the origin.
    Head(Box<SignedHead>),
    /// An entry is in the ledger.
    Entry(Box<proof::ProvenEntry>),
    /// A context extends what it was.
    Context(Box<proof::ProvenContext>),
    /// A whole store extends what it was.
    Store(Box<proof::ProvenStore>),
    /// The origin signed two histories.
    Evidence(Box<evidence::Verdict>),
}

/// Why a file proves nothing under this key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The first line is of no kind that is known here.
    #[error("not a proof, evidence or head: the first line is of no kind known here")]
    UnknownKind,
    /// A head that is none, or not the origin's.
    #[error("head: {0}")]
    Head(#[from] HeadError),
    /// A proof that is none, or does not hold.
    #[error("{0}")]
    Proof(#[from] ProofError),
    /// Evidence that is none, or does not hold.
    #[error("{0}")]
    Evidence(#[from] EvidenceError),
}

impl VerifyError {
    /// True if the bytes are no such file at all, as opposed to one that does
    /// not hold under the key.
    #[must_use]
    pub const fn is_malformed(&self) -> bool {
        match self {
            Self::UnknownKind => true,
            Self::Head(error) => matches!(
                error,
                HeadError::Text(_)
                    | HeadError::Note(NoteError::Malformed(_) | NoteError::WeakKey { .. })
            ),
            Self::Proof(error) => error.is_malformed(),
            Self::Evidence(error) => error.is_malformed(),
        }
    }
}

impl VerifyError {
    /// True if a key did not sign what it should have: the file may hold under
    /// another key of the origin.
    #[must_use]
    pub const fn is_not_signed(&self) -> bool {
        matches!(
            self,
            Self::Head(HeadError::NotSigned { .. })
                | Self::Proof(ProofError::Head(HeadError::NotSigned { .. }))
                | Self::Evidence(EvidenceError::Proof(ProofError::Head(
                    HeadError::NotSigned { .. }
                )))
        )
    }
}

/// Bytes of the largest file that [`file()`] reads.
pub const FILE_BYTES_MAX: usize = crate::limits::STORE_PROOF_BYTES_MAX;

/// Verifies a file of any kind under the origin's key.
pub fn file(bytes: &[u8], origin: &VerifierKey) -> Result<Proven, VerifyError> {
    let line = bytes.iter().position(|&b| b == b'\n');
    let first = bytes.get(..line.unwrap_or(0)).unwrap_or_default();
    let is = |kind: &str| first == kind.as_bytes();
    if is(proof::ENTRY_KIND) {
        let proven = EntryProof::parse(bytes)?.verify(origin)?;
        Ok(Proven::Entry(Box::new(proven)))
    } else if is(proof::CONTEXT_KIND) {
        let proven = ContextProof::parse(bytes)?.verify(origin)?;
        Ok(Proven::Context(Box::new(proven)))
    } else if is(proof::STORE_KIND) {
        let proven = StoreProof::parse(bytes)?.verify(origin)?;
        Ok(Proven::Store(Box::new(proven)))
    } else if is(evidence::KIND) {
        let verdict = Evidence::parse(bytes)?.verify(origin)?;
        Ok(Proven::Evidence(Box::new(verdict)))
    } else if is(crate::head::HEAD_KIND) {
        let none: [&[u8]; 0] = [];
        let head = KeyChain::open(origin, &none)?.head(bytes)?;
        Ok(Proven::Head(Box::new(head)))
    } else {
        Err(VerifyError::UnknownKind)
    }
}

impl fmt::Display for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(signed) => {
                let head = signed.head();
                write!(
                    f,
                    "head {} of {}: {} contexts, {} entries, directory root {}",
                    signed.order(),
                    Escaped(head.origin.as_str()),
                    head.contexts,
                    head.entries,
                    head.directory_root
                )?;
                let Some(rotation) = &head.rotation else {
                    return Ok(());
                };
                let keys = [&rotation.old, &rotation.new].map(ToString::to_string);
                let [old, new] = keys.each_ref().map(|key| Escaped(key));
                write!(
                    f,
                    "; it is a rotation: {old} ends with it, {new} counts after it"
                )
            }
            Self::Entry(proven) => proven.fmt(f),
            Self::Context(proven) => proven.fmt(f),
            Self::Store(proven) => proven.fmt(f),
            Self::Evidence(verdict) => verdict.fmt(f),
        }
    }
}
