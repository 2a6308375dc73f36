//! Layer 2. Evidence: two statements signed by one origin that cannot both be
//! true, and what proves it, in a file that verifies offline with the public
//! key alone (`spec/11-evidence.md`).
//!
//! ```text
//!   two-texts         two texts of one (term, epoch)
//!   two-rotations     two rotations away from one key, in one term
//!   two-takeovers     two takeovers of one term
//!   counts            the later head's counts and root do not follow from
//!                     the earlier one's
//!   dropped           a context of the earlier head is not in the later one
//!   shrunk            a context has fewer entries in the later head
//!   other-root        a context has two roots at one size
//!   rewritten         a context's later tree begins with another tree than the
//!                     earlier head signed (proven by consistency)
//! ```
//!
//! The last five are about two heads of which the later one *descends* from the
//! earlier one: of the same term, or at or below the base of every takeover
//! between their terms.
//!
//! Invariants:
//! * only statements signed by the origin's own keys count, from the pinned one
//!   on: nobody else can make evidence, and no proof that merely fails is any;
//! * the kind is recomputed from the statements and must be the one the file
//!   says; a file has one spelling.

use crate::directory::path::Path;
use crate::encoding::DecodeError;
use crate::entry::ContextId;
use crate::hash::{self, Hash};
use crate::head::{
    Contradiction, HeadOrder, KeyChain, Relation, SignedHead, SignedTakeover, compare, descent,
    needed_rotations, until_key,
};
use crate::note::{OriginName, VerifierKey};
use crate::proof::{ProofError, State};
use crate::tree::{TreeSize, consistency};

#[cfg(test)]
mod tests;
mod text;
mod verdict;

pub(crate) use text::KIND;
pub use verdict::{Kind, Verdict};

use crate::proof::{check_absent, check_opening};

/// What the directories of two heads say about one context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextEvidence {
    /// The context.
    pub id: ContextId,
    /// Its state under the earlier head.
    pub earlier: State,
    /// The path to it.
    pub earlier_directory: Path,
    /// Its state under the later head; `None` if it is gone.
    pub later: Option<State>,
    /// The path to it, or to where it would be.
    pub later_directory: Path,
    /// For a rewritten context.
    pub rewritten: Option<Rewritten>,
}

/// That the later tree begins with another tree than the earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The later tree's root at the earlier size.
    pub root: Hash,
    /// Consistency proof from that root to the later one.
    pub consistency: Vec<Hash>,
}

/// Two statements and what proves that they contradict each other; not checked
/// yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Notes of the origin's rotations, oldest first, as far as the keys of the
    /// statements need them.
    pub rotations: Vec<Vec<u8>>,
    /// Notes of the takeovers between the terms of the two heads.
    pub takeovers: Vec<Vec<u8>>,
    /// The note of the statement that comes first by term and epoch.
    pub earlier: Vec<u8>,
    /// The note of the other.
    pub later: Vec<u8>,
    /// What the directories show, if the texts alone are no contradiction.
    pub context: Option<ContextEvidence>,
}

/// Why a file proves nothing. Nobody is accused by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// The file is no evidence file.
    #[error("not an evidence file: {0}")]
    Malformed(#[from] DecodeError),
    /// A statement or a proof in it does not hold.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// Both statements can be true.
    #[error("the statements do not contradict each other: {what}")]
    NoContradiction {
        /// Why.
        what: &'static str,
    },
}

impl From<crate::head::HeadError> for EvidenceError {
    fn from(error: crate::head::HeadError) -> Self {
        Self::Proof(error.into())
    }
}

impl EvidenceError {
    /// True if the bytes are no evidence file at all.
    #[must_use]
    pub const fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_))
    }
}

impl Evidence {
    /// Evidence from two heads whose texts contradict each other, if they do.
    /// `rotations` are all that the origin ever had, `takeovers` those between
    /// the terms of the two heads: what is not needed is left out.
    #[must_use]
    pub fn of_heads(
        rotations: &[Vec<u8>],
        takeovers: &[Vec<u8>],
        one: &SignedHead,
        other: &SignedHead,
    ) -> Option<Self> {
        let (earlier, later) = in_order(one, other);
        let mut evidence = Self {
            rotations: Vec::new(),
            takeovers: Vec::new(),
            earlier: earlier.note_bytes(),
            later: later.note_bytes(),
            context: None,
        };
        match compare(earlier, later) {
            Err(Contradiction::TwoRotations { .. }) => {
                let old = earlier.head().rotation.as_ref().map(|keys| &keys.old);
                evidence.rotations = until_key(rotations, |key| Some(key) == old);
                return Some(evidence);
            }
            Err(_) => {}
            Ok(Relation::AcrossTerms(_)) if !takeovers.is_empty() => {
                descent(earlier.head(), later.head()).err()?;
                evidence.takeovers = takeovers.to_vec();
            }
            Ok(_) => return None,
        }
        Some(evidence.with_rotations(rotations))
    }

    /// Evidence from two takeovers, if they are two of one term.
    #[must_use]
    pub fn of_takeovers(
        rotations: &[Vec<u8>],
        one: &SignedTakeover,
        other: &SignedTakeover,
    ) -> Option<Self> {
        let (first, second) = (one.takeover(), other.takeover());
        if first.origin != second.origin || first.term != second.term || first == second {
            return None;
        }
        let mut notes = [one.note_bytes(), other.note_bytes()];
        notes.sort_unstable();
        let [earlier, later] = notes;
        let evidence = Self {
            rotations: Vec::new(),
            takeovers: Vec::new(),
            earlier,
            later,
            context: None,
        };
        Some(evidence.with_rotations(rotations))
    }

    /// Evidence from what the directories of two heads say about a context.
    /// Nothing is checked: [`Evidence::verify`] does.
    #[must_use]
    pub fn of_context(
        rotations: &[Vec<u8>],
        takeovers: &[Vec<u8>],
        earlier: &SignedHead,
        later: &SignedHead,
        context: ContextEvidence,
    ) -> Self {
        let evidence = Self {
            rotations: Vec::new(),
            takeovers: takeovers.to_vec(),
            earlier: earlier.note_bytes(),
            later: later.note_bytes(),
            context: Some(context),
        };
        evidence.with_rotations(rotations)
    }

    fn with_rotations(mut self, rotations: &[Vec<u8>]) -> Self {
        self.rotations = needed_rotations(rotations, &self.notes());
        self
    }

    /// Every note but the rotations.
    fn notes(&self) -> Vec<&[u8]> {
        let statements = [&self.earlier, &self.later];
        let notes = statements.into_iter().chain(&self.takeovers);
        notes.map(Vec::as_slice).collect()
    }

    /// BLAKE3 of the file: what names this evidence.
    #[must_use]
    pub fn hash(&self) -> Hash {
        hash::content(&self.to_bytes())
    }

    /// Checks everything under the pinned key.
    pub fn verify(&self, origin: &VerifierKey) -> Result<Verdict, EvidenceError> {
        let chain = KeyChain::open(origin, &self.rotations)?;
        if crate::head::is_takeover(&self.earlier) {
            return self.two_takeovers(&chain);
        }
        if let Some(verdict) = self.two_rotations(&chain)? {
            return Ok(verdict);
        }
        let earlier = chain.head(&self.earlier)?;
        let later = chain.head(&self.later)?;
        chain.check_used(&self.notes())?;
        if later.order() < earlier.order() {
            return Err(no_contradiction("the later statement is the earlier one"));
        }
        let (kind, why) = match &self.context {
            None => self.of_texts(&chain, &earlier, &later)?,
            Some(_) if earlier.order() == later.order() => {
                return Err(no_contradiction(
                    "two texts of one head need no directories, and one has one",
                ));
            }
            Some(context) => {
                self.descends(&chain, &earlier, &later)?;
                (judge(context, &earlier, &later)?, None)
            }
        };
        let orders = (earlier.order(), later.order());
        let roots = Some(roots(&earlier, &later));
        Ok(Verdict {
            why,
            ..self.verdict(kind, origin, orders, roots)
        })
    }

    fn verdict(
        &self,
        kind: Kind,
        origin: &VerifierKey,
        (earlier, later): (HeadOrder, HeadOrder),
        roots: Option<(Hash, Hash)>,
    ) -> Verdict {
        Verdict {
            kind,
            origin: OriginName::clone(origin.name()),
            earlier,
            later,
            roots,
            why: None,
            context: self.context.as_ref().map(|context| context.id.clone()),
        }
    }

    fn two_takeovers(&self, chain: &KeyChain) -> Result<Verdict, EvidenceError> {
        let one = chain.takeover(&self.earlier)?;
        let other = chain.takeover(&self.later)?;
        chain.check_used(&self.notes())?;
        self.nothing_else()?;
        let (first, second) = (one.takeover(), other.takeover());
        if first.term != second.term || first == second {
            return Err(no_contradiction("the takeovers are not two of one term"));
        }
        if self.earlier > self.later {
            return Err(no_contradiction("the two takeovers are in the wrong order"));
        }
        let order = |takeover: &SignedTakeover| HeadOrder {
            term: takeover.takeover().term,
            epoch: takeover.takeover().base.epoch,
        };
        let orders = (order(&one), order(&other));
        Ok(self.verdict(Kind::TwoTakeovers, chain.pinned(), orders, None))
    }

    /// Two rotations of one key are judged by the keys they name: one of them
    /// is not of the chain, whichever that is. Across terms they are no
    /// contradiction: a takeover may have given up the first.
    fn two_rotations(&self, chain: &KeyChain) -> Result<Option<Verdict>, EvidenceError> {
        let (Ok(one), Ok(other)) = (chain.rotation(&self.earlier), chain.rotation(&self.later))
        else {
            return Ok(None);
        };
        let old = |head: &SignedHead| head.head().rotation.as_ref().map(|r| r.old.clone());
        let (first, second) = (one.order(), other.order());
        if self.context.is_some()
            || old(&one) != old(&other)
            || first.term != second.term
            || first == second
        {
            return Ok(None);
        }
        self.nothing_else()?;
        if old(&one).as_ref() != Some(chain.current()) {
            return Err(no_contradiction("there are rotations that nothing needs"));
        }
        if second < first {
            return Err(no_contradiction("the later statement is the earlier one"));
        }
        let (orders, roots) = ((first, second), Some(roots(&one, &other)));
        Ok(Some(self.verdict(
            Kind::TwoRotations,
            chain.pinned(),
            orders,
            roots,
        )))
    }

    fn of_texts(
        &self,
        chain: &KeyChain,
        earlier: &SignedHead,
        later: &SignedHead,
    ) -> Result<(Kind, Option<Contradiction>), EvidenceError> {
        if earlier.order() == later.order() {
            self.nothing_else()?;
            if earlier.head() == later.head() {
                return Err(no_contradiction("both are one statement"));
            }
            if self.earlier > self.later {
                return Err(no_contradiction("the two texts are in the wrong order"));
            }
            return Ok((Kind::TwoTexts, None));
        }
        self.descends(chain, earlier, later)?;
        match descent(earlier.head(), later.head()) {
            Err(why) => Ok((Kind::Counts, Some(why))),
            Ok(()) => Err(no_contradiction(
                "the later head may extend the earlier one",
            )),
        }
    }

    /// Checks that the later head has to extend the earlier one: the takeovers
    /// in the file lead from the one's term to the other's, and none of them
    /// leaves the earlier head behind.
    fn descends(
        &self,
        chain: &KeyChain,
        earlier: &SignedHead,
        later: &SignedHead,
    ) -> Result<(), EvidenceError> {
        let mut at = earlier.order();
        for note in &self.takeovers {
            let takeover = chain.takeover(note)?;
            let takeover = takeover.takeover();
            if takeover.base.term != at.term {
                return Err(no_contradiction(
                    "the takeovers do not lead from term to term",
                ));
            }
            if takeover.base < at {
                return Err(no_contradiction(
                    "the earlier head was superseded by a takeover",
                ));
            }
            let epoch = takeover.base.epoch.checked_add(1);
            at = HeadOrder {
                term: takeover.term,
                epoch: epoch
                    .ok_or_else(|| no_contradiction("a takeover leaves no epoch to a head"))?,
            };
        }
        if at.term != later.order().term || later.order() < at {
            return Err(no_contradiction(
                "the later head is not of a term that follows",
            ));
        }
        Ok(())
    }

    /// Texts alone are judged: the file must not hold what they do not need.
    fn nothing_else(&self) -> Result<(), EvidenceError> {
        if self.context.is_some() || !self.takeovers.is_empty() {
            return Err(no_contradiction(
                "the file holds what its statements do not need",
            ));
        }
        Ok(())
    }
}

/// What the two directories say about one context.
fn judge(
    context: &ContextEvidence,
    earlier: &SignedHead,
    later: &SignedHead,
) -> Result<Kind, EvidenceError> {
    let ContextEvidence { id, rewritten, .. } = context;
    let before = context.earlier;
    check_opening(earlier, &before.opening(id), &context.earlier_directory)?;
    let Some(after) = context.later else {
        if rewritten.is_some() {
            return Err(no_contradiction("a proof about a context that is gone"));
        }
        check_absent(later, id, &context.later_directory)?;
        return Ok(Kind::Dropped);
    };
    check_opening(later, &after.opening(id), &context.later_directory)?;
    match rewritten {
        None if after.size < before.size => Ok(Kind::Shrunk),
        None if after.size == before.size && after.root != before.root => Ok(Kind::OtherRoot),
        Some(proof) if after.size > before.size && proof.root != before.root => {
            let (m, n) = (TreeSize::new(before.size), TreeSize::new(after.size));
            consistency::verify(m, n, &proof.consistency, &proof.root, &after.root)
                .map_err(ProofError::Tree)?;
            Ok(Kind::Rewritten)
        }
        _ => Err(no_contradiction("the context may extend what it was")),
    }
}

fn roots(earlier: &SignedHead, later: &SignedHead) -> (Hash, Hash) {
    (earlier.head().directory_root, later.head().directory_root)
}

/// By term and epoch; two texts of one by their bytes, so that evidence does
/// not depend on which came first.
#[must_use]
pub fn in_order<'h>(
    one: &'h SignedHead,
    other: &'h SignedHead,
) -> (&'h SignedHead, &'h SignedHead) {
    let place = |head: &SignedHead| (head.order(), head.note_bytes());
    if place(other) < place(one) {
        (other, one)
    } else {
        (one, other)
    }
}

const fn no_contradiction(what: &'static str) -> EvidenceError {
    EvidenceError::NoContradiction { what }
}
