//! What evidence proves.

use std::fmt;

use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::{Contradiction, HeadOrder};
use crate::note::OriginName;
use crate::shown::{Escaped, Quoted};

/// What kind of contradiction it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Two texts of one (term, epoch).
    TwoTexts,
    /// Two rotations away from one key, in one term.
    TwoRotations,
    /// Two takeovers of one term.
    TwoTakeovers,
    /// Counts and roots that do not follow from each other.
    Counts,
    /// A context is gone.
    Dropped,
    /// A context has fewer entries.
    Shrunk,
    /// A context has two roots at one size.
    OtherRoot,
    /// A context's tree begins with another tree.
    Rewritten,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::TwoTexts,
        Self::TwoRotations,
        Self::TwoTakeovers,
        Self::Counts,
        Self::Dropped,
        Self::Shrunk,
        Self::OtherRoot,
        Self::Rewritten,
    ];

    /// Its name in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TwoTexts => "two-texts",
            Self::TwoRotations => "two-rotations",
            Self::TwoTakeovers => "two-takeovers",
            Self::Counts => "counts",
            Self::Dropped => "dropped",
            Self::Shrunk => "shrunk",
            Self::OtherRoot => "other-root",
            Self::Rewritten => "rewritten",
        }
    }
}

/// What an evidence file proved. `Display` says it in one line that is safe to
/// show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What kind of contradiction it is.
    pub kind: Kind,
    /// Who signed both statements.
    pub origin: OriginName,
    /// The earlier statement; a takeover's term and base epoch.
    pub earlier: HeadOrder,
    /// The later statement.
    pub later: HeadOrder,
    /// Directory roots of both statements, if they are heads.
    pub roots: Option<(Hash, Hash)>,
    /// For [`Kind::Counts`]: what both heads state, and what that breaks.
    pub why: Option<Contradiction>,
    /// The context it is about, if it is about one.
    pub context: Option<ContextId>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            origin,
            earlier,
            later,
            ..
        } = self;
        write!(f, "{} signed two histories: ", Escaped(origin.as_str()))?;
        match self.kind {
            Kind::TwoTexts => write!(f, "two texts of head {later}")?,
            Kind::TwoRotations => write!(f, "two rotations of one key, at {earlier} and {later}")?,
            Kind::TwoTakeovers => write!(f, "two takeovers of term {}", later.term)?,
            Kind::Counts => match &self.why {
                Some(why) => why.fmt(f)?,
                None => write!(f, "the counts of heads {earlier} and {later}")?,
            },
            Kind::Dropped => write!(f, "a context of head {earlier} is gone in head {later}")?,
            Kind::Shrunk => write!(
                f,
                "a context has fewer entries in head {later} than in head {earlier}"
            )?,
            Kind::OtherRoot => write!(
                f,
                "a context has two roots at one size, in heads {earlier} and {later}"
            )?,
            Kind::Rewritten => write!(
                f,
                "a context in head {later} does not begin with what head {earlier} signed"
            )?,
        }
        match &self.context {
            Some(context) => write!(f, " (context {})", Quoted(context.as_str())),
            None => Ok(()),
        }
    }
}
