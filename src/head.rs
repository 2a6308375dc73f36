//! Layer 2. What an origin states about its whole store.
//!
//! ```text
//! converge-ledger/head/v1
//! <origin name>
//! <term> <epoch>
//! <directory root, base64>
//! <contexts> <entries>
//! <unix time, ns>
//! rotate <old vkey> <new vkey>       only in a rotation head
//! ```
//!
//! Numbers are decimal u64 without leading zeros, every line ends in LF. What
//! two heads say about each other is in `relation`, the keys of an origin in
//! `chain`, the begin of a new term in `takeover`.
//!
//! Invariants:
//! * `Head::parse(x)?.to_text() == x`: one spelling;
//! * a [`SignedHead`] exists only verified: [`SignedHead::open`] is its only
//!   maker, and the note it keeps has no line by an unknown key;
//! * a rotation head is signed by both of its keys, and afterwards only the
//!   new one counts ([`SignedHead::next_key`]).

use std::fmt;

use crate::encoding::DecodeError;
use crate::hash::Hash;
use crate::note::{Note, NoteError, OriginName, SignerKey, VerifierKey};

mod chain;
mod relation;
mod takeover;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use chain::until_key;
pub use chain::{KeyChain, SignedTakeover, needed_rotations};
pub use relation::{Claim, Contradiction, Counts, Relation, Rule, compare, descent};
pub(crate) use takeover::is_takeover;
pub use takeover::{Takeover, TakeoverNeeded};
use text::{Lines, at_least_one, hash_text, invalid, same_text};

/// The first line of a head.
pub(crate) const HEAD_KIND: &str = HEAD_START;
const HEAD_START: &str = "converge-ledger/head/v1";

/// Why a head or takeover was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The envelope is malformed or a known signature does not verify: the
    /// fault of whoever passed the note on.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is no head: the fault of whoever wrote it.
    #[error("head text: {0}")]
    Text(#[source] DecodeError),
    /// The head speaks for another origin than the key.
    #[error("head of {found}, the key is of {expected}")]
    OtherOrigin {
        /// The name of the current key.
        expected: OriginName,
        /// The name in the head.
        found: OriginName,
    },
    /// A key whose signature the head needs did not sign it.
    #[error("not signed by {key}")]
    NotSigned {
        /// The key that is missing.
        key: Box<VerifierKey>,
    },
    /// In a file that has one spelling, a note has lines that do not count, or
    /// its lines in another order.
    #[error("the note has signature lines that do not count, or in another order")]
    SurplusLine,
    /// The rotation breaks a rule: the fault of whoever signed it.
    #[error("rotation: {what}")]
    Rotation {
        /// The rule that was broken.
        what: &'static str,
    },
}

/// Heads of one origin are ordered by term, then epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HeadOrder {
    /// Counts takeovers, from 1.
    pub term: u64,
    /// Counts heads, from 1, on across terms.
    pub epoch: u64,
}

impl fmt::Display for HeadOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.epoch)
    }
}

/// The end of one key and the begin of the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The key that counted until this head.
    pub old: VerifierKey,
    /// The key that counts after it.
    pub new: VerifierKey,
}

/// A statement about a whole store, signed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Who states it.
    pub origin: OriginName,
    /// Counts takeovers, from 1.
    pub term: u64,
    /// Counts heads, from 1, on across terms.
    pub epoch: u64,
    /// The root of the directory over all contexts.
    pub directory_root: Hash,
    /// Contexts below the root.
    pub contexts: u64,
    /// Entries of all contexts.
    pub entries: u64,
    /// Unix time of signing, in nanoseconds.
    pub time_ns: u64,
    /// Present in a rotation head.
    pub rotation: Option<Rotation>,
}

impl Head {
    /// The head's place among those of its origin.
    #[must_use]
    pub const fn order(&self) -> HeadOrder {
        HeadOrder {
            term: self.term,
            epoch: self.epoch,
        }
    }

    /// The text that is signed.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{HEAD_START}\n{}\n{} {}\n{}\n{} {}\n{}\n",
            self.origin,
            self.term,
            self.epoch,
            hash_text(&self.directory_root),
            self.contexts,
            self.entries,
            self.time_ns,
        );
        if let Some(Rotation { old, new }) = &self.rotation {
            for part in ["rotate ", &old.to_string(), " ", &new.to_string(), "\n"] {
                text.push_str(part);
            }
        }
        text
    }

    /// Parses the only spelling of a head.
    pub fn parse(text: &str) -> Result<Self, HeadError> {
        let mut lines = Lines::new(text)?;
        lines.exactly(HEAD_START)?;
        let origin = OriginName::new(lines.next()?)?;
        let [term, epoch] = lines.numbers()?;
        let directory_root = lines.hash()?;
        let [contexts, entries] = lines.numbers()?;
        let [time_ns] = lines.numbers()?;
        let rotation = lines.last().map(parse_rotation).transpose()?;
        let head = Self {
            origin,
            term,
            epoch,
            directory_root,
            contexts,
            entries,
            time_ns,
            rotation,
        };
        at_least_one("term", term)?;
        at_least_one("epoch", epoch)?;
        same_text("head", &head.to_text(), text)?;
        Ok(head)
    }
}

/// A verified head and the note that proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    head: Head,
    note: Note,
    key: VerifierKey,
}

impl SignedHead {
    /// Verifies a note under the origin's current key (rules R1 to R3, R5).
    ///
    /// A plain head needs that key's signature. A rotation head needs those of
    /// both its keys, and the current key is the old one, or already the new.
    pub fn open(note: &[u8], current_key: &VerifierKey) -> Result<Self, HeadError> {
        let note = Note::parse(note)?;
        let head = Head::parse(note.text())?;
        if head.origin != *current_key.name() {
            return Err(HeadError::OtherOrigin {
                expected: current_key.name().clone(),
                found: head.origin,
            });
        }
        let keys = match &head.rotation {
            None => vec![current_key],
            Some(Rotation { old, new }) => {
                check_rotation(&head.origin, old, new)?;
                if current_key != old && current_key != new {
                    return Err(HeadError::Rotation {
                        what: "neither of its keys is the current one",
                    });
                }
                vec![old, new]
            }
        };
        let (signed, note) = note.open_and_strip(&keys)?;
        if let Some((_, &key)) = keys.iter().enumerate().find(|(i, _)| !signed.contains(i)) {
            return Err(HeadError::NotSigned {
                key: Box::new(key.clone()),
            });
        }
        Ok(Self {
            note,
            key: current_key.clone(),
            head,
        })
    }

    /// The statement.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The head's place among those of its origin.
    #[must_use]
    pub const fn order(&self) -> HeadOrder {
        self.head.order()
    }

    /// The note with no line but those that count.
    #[must_use]
    pub fn note_bytes(&self) -> Vec<u8> {
        self.note.to_bytes()
    }

    /// The key it was opened under: it counted for this head.
    #[must_use]
    pub const fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The key that counts for heads after this one (rule R4).
    #[must_use]
    pub fn next_key(&self) -> &VerifierKey {
        self.head.rotation.as_ref().map_or(&self.key, |r| &r.new)
    }

    /// What has to be at hand before this head may be believed: nothing in
    /// term 1, the takeover in any other.
    #[must_use]
    pub const fn requires_takeover(&self) -> Option<TakeoverNeeded> {
        match self.head.term {
            1 => None,
            term => Some(TakeoverNeeded { term }),
        }
    }
}

/// Signs a plain head; the bytes of the note.
pub fn sign_head(head: &Head, key: &SignerKey) -> Result<Vec<u8>, HeadError> {
    if head.rotation.is_some() {
        return Err(HeadError::Rotation {
            what: "a rotation head is signed by two keys",
        });
    }
    sign(head, &[key])
}

/// Signs a rotation head with both its keys; the bytes of the note.
pub fn sign_rotation(head: &Head, old: &SignerKey, new: &SignerKey) -> Result<Vec<u8>, HeadError> {
    let Some(rotation) = &head.rotation else {
        return Err(HeadError::Rotation {
            what: "a plain head is signed by one key",
        });
    };
    check_rotation(&head.origin, &rotation.old, &rotation.new)?;
    for (named, key) in [(&rotation.old, old), (&rotation.new, new)] {
        if named != key.verifier() {
            return Err(HeadError::NotSigned {
                key: Box::new(named.clone()),
            });
        }
    }
    sign(head, &[old, new])
}

fn sign(head: &Head, keys: &[&SignerKey]) -> Result<Vec<u8>, HeadError> {
    let text = head.to_text();
    // Never sign what no verifier would take.
    Head::parse(&text)?;
    let mut note = Note::new(text)?;
    for key in keys {
        if key.verifier().name() != &head.origin {
            return Err(HeadError::OtherOrigin {
                expected: key.verifier().name().clone(),
                found: head.origin.clone(),
            });
        }
        note.sign(key)?;
    }
    Ok(note.to_bytes())
}

fn check_rotation(
    origin: &OriginName,
    old: &VerifierKey,
    new: &VerifierKey,
) -> Result<(), HeadError> {
    let what = if old.name() != origin || new.name() != origin {
        "a key bears another name than the origin"
    } else if old == new {
        "old and new key are the same"
    } else {
        return Ok(());
    };
    Err(HeadError::Rotation { what })
}

fn parse_rotation(line: &str) -> Result<Rotation, HeadError> {
    let (old, new) = line
        .strip_prefix("rotate ")
        .and_then(|keys| keys.split_once(' '))
        .ok_or_else(|| invalid("the last line is no rotation"))?;
    Ok(Rotation {
        old: VerifierKey::parse(old)?,
        new: VerifierKey::parse(new)?,
    })
}
