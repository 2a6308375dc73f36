//! When two verified heads of one origin cannot both be honest.
//!
//! ```text
//! one (term, epoch)         same text, or a contradiction
//! one term, later epoch     nothing fewer; nothing added = the same root;
//!                           a new context brings at least one entry
//! two terms                 only the takeovers between them can tell
//! ```
//!
//! Only the texts are judged; what the directories show, `directory::diff`
//! finds. The judgement does not depend on which head came first.

use super::{Head, HeadOrder, SignedHead, TakeoverNeeded};

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

/// Two heads that no honest origin signs both. `earlier` and `later` go by
/// epoch, not by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Two texts for one term and epoch.
    #[error("two texts for head {order}")]
    TwoTexts {
        /// The term and epoch.
        order: HeadOrder,
    },
    /// Two rotations away from one key.
    #[error("two rotations of one key, at {earlier} and {later}")]
    TwoRotations {
        /// The one rotation head.
        earlier: HeadOrder,
        /// The other.
        later: HeadOrder,
    },
    /// A context or an entry is gone: fewer of them, or more contexts gained
    /// than entries, though each new context brings at least one.
    #[error("head {later} shrank against {earlier}")]
    Shrunk {
        /// The head with more.
        earlier: HeadOrder,
        /// The head with less.
        later: HeadOrder,
    },
    /// No entry was added and the directory root is another one.
    #[error("head {later} has no more entries than {earlier} and another root")]
    OtherRoot {
        /// The one head.
        earlier: HeadOrder,
        /// The other.
        later: HeadOrder,
    },
    /// One directory root with two counts; a root proves its counts.
    #[error("head {later} has the root of {earlier} and other counts")]
    OtherCounts {
        /// The one head.
        earlier: HeadOrder,
        /// The other.
        later: HeadOrder,
    },
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
    if let (Some(one), Some(two)) = (&first.rotation, &second.rotation)
        && one.old == two.old
    {
        return Err(Contradiction::TwoRotations { earlier, later });
    }
    if first.term != second.term {
        let term = second.term;
        return Ok(Relation::AcrossTerms(TakeoverNeeded { term }));
    }
    descent(first, second).map(|()| relation)
}

/// Judges two heads of one origin, of which the second is the later and
/// descends from the first (the same term, or a term that continues from the
/// first head or a later one), by their counts and roots.
pub fn descent(first: &Head, second: &Head) -> Result<(), Contradiction> {
    let (earlier, later) = (first.order(), second.order());
    let gained = second
        .contexts
        .checked_sub(first.contexts)
        .zip(second.entries.checked_sub(first.entries));
    let same_root = first.directory_root == second.directory_root;
    match gained {
        Some((0, 0)) if same_root => Ok(()),
        _ if same_root => Err(Contradiction::OtherCounts { earlier, later }),
        Some((0, 0)) => Err(Contradiction::OtherRoot { earlier, later }),
        Some((contexts, entries)) if contexts <= entries => Ok(()),
        _ => Err(Contradiction::Shrunk { earlier, later }),
    }
}
