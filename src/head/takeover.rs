//! The begin of a new term, after a store was lost and a copy promoted. The
//! format is fixed and verified (`chain`); nothing signs one yet.
//!
//! ```text
//! converge-ledger/takeover/v1
//! <origin name>
//! <new term>
//! <base term> <base epoch>
//! <base directory root, base64>
//! <base contexts> <base entries>
//! <unix time, ns>
//! ```
//!
//! Invariants: `Takeover::parse(x)?.to_text() == x`; the new term is above the
//! base's.

use super::text::{Lines, at_least_one, hash_text, invalid, same_text};
use super::{HeadError, HeadOrder};
use crate::hash::Hash;
use crate::note::OriginName;

const TAKEOVER_START: &str = "converge-ledger/takeover/v1";

/// True if a note's first line says that it is a takeover.
pub(crate) fn is_takeover(note: &[u8]) -> bool {
    let after = note.strip_prefix(TAKEOVER_START.as_bytes());
    after.is_some_and(|after| after.starts_with(b"\n"))
}

/// The begin of a new term: the last head it continues from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// Who states it.
    pub origin: OriginName,
    /// The term that begins, above the base's.
    pub term: u64,
    /// The head it continues from.
    pub base: HeadOrder,
    /// That head's directory root.
    pub base_directory_root: Hash,
    /// That head's contexts.
    pub base_contexts: u64,
    /// That head's entries.
    pub base_entries: u64,
    /// Unix time of signing, in nanoseconds.
    pub time_ns: u64,
}

impl Takeover {
    /// The text that is signed.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!(
            "{TAKEOVER_START}\n{}\n{}\n{} {}\n{}\n{} {}\n{}\n",
            self.origin,
            self.term,
            self.base.term,
            self.base.epoch,
            hash_text(&self.base_directory_root),
            self.base_contexts,
            self.base_entries,
            self.time_ns,
        )
    }

    /// Parses the only spelling of a takeover.
    pub fn parse(text: &str) -> Result<Self, HeadError> {
        let mut lines = Lines::new(text)?;
        lines.exactly(TAKEOVER_START)?;
        let origin = OriginName::new(lines.next()?)?;
        let [term] = lines.numbers()?;
        let [base_term, base_epoch] = lines.numbers()?;
        let base_directory_root = lines.hash()?;
        let [base_contexts, base_entries] = lines.numbers()?;
        let [time_ns] = lines.numbers()?;
        let takeover = Self {
            origin,
            term,
            base: HeadOrder {
                term: base_term,
                epoch: base_epoch,
            },
            base_directory_root,
            base_contexts,
            base_entries,
            time_ns,
        };
        at_least_one("base term", base_term)?;
        at_least_one("base epoch", base_epoch)?;
        if term <= base_term {
            return Err(invalid("a takeover's term is not above its base's"));
        }
        same_text("takeover", &takeover.to_text(), text)?;
        Ok(takeover)
    }
}

/// A head of a later term, and no takeover at hand that leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a head of term {term} needs the takeover that began it")]
pub struct TakeoverNeeded {
    /// The later term.
    pub term: u64,
}
