//! The keys of one origin, from rotation to rotation, as a verifier sees them
//! who pinned one of them (rules R3 to R6).
//!
//! ```text
//!   k0 --rotation at 1.7--> k1 --rotation at 1.40--> k2
//!   heads to 1.7            1.8 to 1.40              from 1.41 on
//!                 pinned: k1 -> trusted: k1 and k2
//! ```
//!
//! Invariants:
//! * the rotations are one gap-free line: each begins with the key the one
//!   before it ended with, at a later order, and both its keys signed it; no
//!   key comes back;
//! * the pinned key stands in that line. Keys before it prove nothing: whoever
//!   pinned a later key is not bothered by an older one that leaked. Only the
//!   rotation to the pinned key itself is a head of it as well (rule R5);
//! * the line goes no further than the notes it is for: whoever reads them
//!   calls [`KeyChain::check_used`];
//! * every note is taken in one spelling only: a line that does not count
//!   refuses it, so that no byte of a file of notes can be changed unseen.

use super::{Head, HeadError, HeadOrder, SignedHead, Takeover};
use crate::limits::ROTATIONS_MAX;
use crate::note::{Note, VerifierKey};

#[cfg(test)]
mod tests;

/// A key and the heads it counts for.
#[derive(Clone, Debug)]
struct Link {
    key: VerifierKey,
    /// Heads above this, if it is not the first key.
    after: Option<HeadOrder>,
    /// Heads up to this, if it is not the last key.
    through: Option<HeadOrder>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct KeyChain {
    /// From the pinned key on; never empty.
    links: Vec<Link>,
    pinned: VerifierKey,
}

/// A verified takeover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTakeover {
    takeover: Takeover,
    note: Note,
}

impl SignedTakeover {
    /// The statement.
    #[must_use]
    pub const fn takeover(&self) -> &Takeover {
        &self.takeover
    }

    /// The note, in its only spelling.
    #[must_use]
    pub fn note_bytes(&self) -> Vec<u8> {
        self.note.to_bytes()
    }
}

impl KeyChain {
    /// The keys that follow from `pinned` and the notes of the origin's
    /// rotation heads, oldest first; none of them for a key that never changed.
    pub fn open<N: AsRef<[u8]>>(pinned: &VerifierKey, rotations: &[N]) -> Result<Self, HeadError> {
        if rotations.len() > ROTATIONS_MAX {
            return Err(broken("there are more rotations than a chain may have"));
        }
        let mut line: Vec<Link> = Vec::new();
        for note in rotations {
            let rotation = open_rotation(note.as_ref(), pinned)?;
            let order = rotation.order();
            let keys = rotation.head().rotation.clone();
            let keys = keys.ok_or_else(|| broken("a plain head in a chain of rotations"))?;
            match line.last_mut() {
                None => line.push(Link {
                    key: keys.old,
                    after: None,
                    through: Some(order),
                }),
                Some(last) if last.key == keys.old && last.after < Some(order) => {
                    last.through = Some(order);
                }
                Some(_) => return Err(broken("a rotation does not continue the one before it")),
            }
            if line.iter().any(|link| link.key == keys.new) {
                return Err(broken("a key came back"));
            }
            line.push(Link {
                key: keys.new,
                after: Some(order),
                through: None,
            });
        }
        if line.is_empty() {
            line.push(Link {
                key: pinned.clone(),
                after: None,
                through: None,
            });
        }
        let at = line.iter().position(|link| link.key == *pinned);
        let at =
            at.ok_or_else(|| broken("the chain of rotations does not hold the trusted key"))?;
        Ok(Self {
            links: line.split_off(at),
            pinned: pinned.clone(),
        })
    }

    /// The key everything is believed by.
    #[must_use]
    pub const fn pinned(&self) -> &VerifierKey {
        &self.pinned
    }

    /// The key that counts now.
    #[must_use]
    pub fn current(&self) -> &VerifierKey {
        self.links.last().map_or(&self.pinned, |link| &link.key)
    }

    /// True if the key counts or counted, from the pinned one on.
    #[must_use]
    pub fn holds(&self, key: &VerifierKey) -> bool {
        self.links.iter().any(|link| link.key == *key)
    }

    /// Rotations from the pinned key to the one that a head of this chain was
    /// opened under.
    pub(crate) fn rotations_to(&self, head: &SignedHead) -> usize {
        let at = self.links.iter().position(|link| link.key == *head.key());
        at.unwrap_or_default()
    }

    /// Refuses a chain that goes on beyond the last key that any of these notes
    /// bears: a file of them would have other spellings, with fewer rotations.
    /// A rotation that is one of the notes is let be: it leads to a key that the
    /// note bears, needed or not. The notes themselves must have been verified.
    pub fn check_used<N: AsRef<[u8]>>(&self, notes: &[N]) -> Result<(), HeadError> {
        let key = self.current();
        if notes.iter().any(|note| has_line_by(note.as_ref(), key)) {
            return Ok(());
        }
        Err(broken("there are rotations that nothing needs"))
    }

    /// Verifies a head under the key that counts for its order, in its only
    /// spelling.
    pub fn head(&self, note: &[u8]) -> Result<SignedHead, HeadError> {
        only_spelling(note, self.head_of(note)?)
    }

    /// The same of a note that may have lines by others; they are left out.
    pub fn head_of(&self, note: &[u8]) -> Result<SignedHead, HeadError> {
        let head = Head::parse(Note::parse(note)?.text())?;
        let order = head.order();
        let counts = |link: &&Link| {
            link.after.is_none_or(|after| after < order)
                && link.through.is_none_or(|through| order <= through)
        };
        // The pinned key signed the rotation that leads to it (R5).
        let begins = |link: &&Link| {
            let new = head.rotation.as_ref().map(|rotation| &rotation.new);
            link.after == Some(order) && new == Some(&link.key)
        };
        let link = self.links.iter().find(counts);
        let link = link.or_else(|| self.links.first().filter(begins));
        let link = link.ok_or_else(|| {
            broken(
                "the head is older than the trusted key; the key that counted then may verify it",
            )
        })?;
        SignedHead::open(note, &link.key)
    }

    /// Verifies a rotation away from any key of the chain, whether or not that
    /// key rotated elsewhere: two of them are a contradiction.
    pub fn rotation(&self, note: &[u8]) -> Result<SignedHead, HeadError> {
        let head = open_rotation(note, &self.pinned)?;
        match &head.head().rotation {
            Some(rotation) if self.holds(&rotation.old) => Ok(head),
            _ => Err(broken(
                "the rotation is away from a key that is not trusted",
            )),
        }
    }

    /// Verifies a takeover. The key must be one that counted at its base or
    /// later.
    pub fn takeover(&self, note: &[u8]) -> Result<SignedTakeover, HeadError> {
        let parsed = Note::parse(note)?;
        let takeover = Takeover::parse(parsed.text())?;
        if takeover.origin != *self.pinned.name() {
            return Err(HeadError::OtherOrigin {
                expected: self.pinned.name().clone(),
                found: takeover.origin,
            });
        }
        for link in &self.links {
            let (signed, stripped) = parsed.open_and_strip(&[&link.key])?;
            if signed.is_empty() {
                continue;
            }
            if link.through.is_some_and(|through| through < takeover.base) {
                return Err(broken("a takeover by a key that no longer counts"));
            }
            if stripped.to_bytes() != note {
                return Err(HeadError::SurplusLine);
            }
            return Ok(SignedTakeover {
                takeover,
                note: stripped,
            });
        }
        Err(HeadError::NotSigned {
            key: Box::new(self.current().clone()),
        })
    }
}

/// The rotations, oldest first, as far as these notes need them: what
/// [`KeyChain::check_used`] takes. What is no rotation stays, for a verifier to
/// refuse.
#[must_use]
pub fn needed_rotations<N: AsRef<[u8]>>(rotations: &[Vec<u8>], notes: &[N]) -> Vec<Vec<u8>> {
    until_key(rotations, |key| {
        notes.iter().any(|note| has_line_by(note.as_ref(), key))
    })
}

/// The rotations up to the last one whose new key is a wanted one.
pub(crate) fn until_key(
    rotations: &[Vec<u8>],
    wanted: impl Fn(&VerifierKey) -> bool,
) -> Vec<Vec<u8>> {
    let mut kept = rotations;
    while let Some((last, before)) = kept.split_last() {
        let note = Note::parse(last).ok();
        let head = note.and_then(|note| Head::parse(note.text()).ok());
        let Some(rotation) = head.and_then(|head| head.rotation) else {
            break;
        };
        if wanted(&rotation.new) {
            break;
        }
        kept = before;
    }
    kept.to_vec()
}

fn has_line_by(note: &[u8], key: &VerifierKey) -> bool {
    Note::parse(note).is_ok_and(|note| {
        let mut lines = note.signatures().iter();
        lines.any(|line| line.key_id == key.key_id() && line.name == *key.name())
    })
}

/// Verifies a rotation head by the keys it names itself; who believes them is
/// decided by the chain.
fn open_rotation(note: &[u8], origin: &VerifierKey) -> Result<SignedHead, HeadError> {
    let head = Head::parse(Note::parse(note)?.text())?;
    if head.origin != *origin.name() {
        return Err(HeadError::OtherOrigin {
            expected: origin.name().clone(),
            found: head.origin,
        });
    }
    let rotation = head.rotation;
    let rotation = rotation.ok_or_else(|| broken("a plain head in place of a rotation"))?;
    only_spelling(note, SignedHead::open(note, &rotation.old)?)
}

fn only_spelling(note: &[u8], head: SignedHead) -> Result<SignedHead, HeadError> {
    if head.note_bytes() == note {
        return Ok(head);
    }
    Err(HeadError::SurplusLine)
}

const fn broken(what: &'static str) -> HeadError {
    HeadError::Rotation { what }
}
