//! When two verified heads of one origin cannot both be honest.
//!
//! ```text
//! one (term, epoch)         same text, or a contradiction
//! one term, later epoch     nothing fewer; nothing added = the same root;
//!                           a new context brings at least one entry;
//!                           one rotation away from a key
//! two terms                 only the takeovers between them can tell
//! ```
//!
//! Only the texts are judged; what the directories show, `directory::diff`
//! finds. The judgement does not depend on which head came first.

use std::fmt;

use super::{Head, HeadOrder, SignedHead, TakeoverNeeded};
use crate::hash::Hash;

/// How two heads of one origin stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same statement.
    Same,
    /// The second is later and may extend the first.
    Newer,
    /// The second is earlier and may be extended by the first.
    Older,
    /// The terms differ: only the takeovers between them can tell.
    AcrossTerms(TakeoverNeeded),
    /// Heads of two origins: nothing can be said.
    OtherOrigin,
}

/// What a head says of its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The head.
    pub order: HeadOrder,
    /// Its directory root.
    pub root: Hash,
    /// Its contexts.
    pub contexts: u64,
    /// Its entries.
    pub entries: u64,
}

impl Claim {
    const fn of(head: &Head) -> Self {
        Self {
            order: head.order(),
            root: head.directory_root,
            contexts: head.contexts,
            entries: head.entries,
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            order,
            root,
            contexts,
            entries,
        } = self;
        write!(
            f,
            "head {order} states {contexts} contexts, {entries} entries, directory root {root}"
        )
    }
}

/// Two heads that no honest origin signs both. `earlier` and `later` go by
/// epoch, not by arrival.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Two texts for one term and epoch.
    #[error("two texts for head {order}")]
    TwoTexts {
        /// The term and epoch.
        order: HeadOrder,
    },
    /// Two rotations away from one key, in one term.
    #[error("two rotations of one key, at {earlier} and {later}")]
    TwoRotations {
        /// The one rotation head.
        earlier: HeadOrder,
        /// The other.
        later: HeadOrder,
    },
    /// The later head's counts or root do not follow from the earlier one's.
    #[error("{}, and {}: {}", .0.earlier, .0.later, .0.rule)]
    Counts(Box<Counts>),
}

/// Counts or roots that do not follow from each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// What the earlier head says.
    pub earlier: Claim,
    /// What the later one says.
    pub later: Claim,
    /// What that breaks.
    pub rule: Rule,
}

/// What a head owes to the one before it, as far as counts and roots tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// No context is lost.
    Contexts,
    /// No entry is lost.
    Entries,
    /// Each new context brings at least one entry.
    NewContexts,
    /// No entry was added and the directory root is another one.
    Root,
    /// One directory root with two counts; a root proves its counts.
    SameRoot,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Contexts => "no context may be lost",
            Self::Entries => "no entry may be lost",
            Self::NewContexts => "each new context brings an entry or more",
            Self::Root => "without a new entry the root stays",
            Self::SameRoot => "one root has one number of contexts and of entries",
        })
    }
}

/// Judges two verified heads by their texts alone, within one term. What only
/// the directories can show is not found here.
pub fn compare(known: &SignedHead, other: &SignedHead) -> Result<Relation, Contradiction> {
    let (known, other) = (known.head(), other.head());
    if known == other {
        return Ok(Relation::Same);
    }
    if known.origin != other.origin {
        return Ok(Relation::OtherOrigin);
    }
    let (relation, first, second) = if other.order() < known.order() {
        (Relation::Older, other, known)
    } else {
        (Relation::Newer, known, other)
    };
    let (earlier, later) = (first.order(), second.order());
    if earlier == later {
        return Err(Contradiction::TwoTexts { order: earlier });
    }
    // A takeover may have given up the first of two rotations as well.
    if first.term != second.term {
        let term = second.term;
        return Ok(Relation::AcrossTerms(TakeoverNeeded { term }));
    }
    if let (Some(one), Some(two)) = (&first.rotation, &second.rotation)
        && one.old == two.old
    {
        return Err(Contradiction::TwoRotations { earlier, later });
    }
    descent(first, second).map(|()| relation)
}

/// Judges two heads of one origin, of which the second is the later and
/// descends from the first (the same term, or a term that continues from the
/// first head or a later one), by their counts and roots.
pub fn descent(first: &Head, second: &Head) -> Result<(), Contradiction> {
    let contexts = second.contexts.checked_sub(first.contexts);
    let entries = second.entries.checked_sub(first.entries);
    let same_root = first.directory_root == second.directory_root;
    let rule = match (contexts, entries) {
        (Some(0), Some(0)) if same_root => return Ok(()),
        _ if same_root => Rule::SameRoot,
        (None, _) => Rule::Contexts,
        (_, None) => Rule::Entries,
        (Some(0), Some(0)) => Rule::Root,
        (Some(contexts), Some(entries)) if contexts <= entries => return Ok(()),
        _ => Rule::NewContexts,
    };
    Err(Contradiction::Counts(Box::new(Counts {
        earlier: Claim::of(first),
        later: Claim::of(second),
        rule,
    })))
}
