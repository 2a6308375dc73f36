//! What one record of a durable group changes: the only way anything enters the
//! index.

use super::forks::Fork;
use super::place::{Location, RequestKey, RunFacts};
use crate::directory::{OpeningsPart, Update};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::head::SignedHead;
use crate::run::Accumulator;
use crate::tree::NodeId;

/// What one record of a durable group changes.
#[derive(Debug)]
pub(crate) enum Effect {
    Context {
        number: u64,
        id: ContextId,
        at: Location,
    },
    Run {
        number: u64,
        first: u64,
        at: Location,
        after: Box<Accumulator>,
        nodes: Vec<(NodeId, Hash)>,
        requests: Vec<(RequestKey, u64)>,
        facts: Box<RunFacts>,
    },
    /// A context that was loaded without a name gets one, and with it exists.
    Named {
        number: u64,
        id: ContextId,
        size: u64,
        root: Hash,
        at: Location,
    },
    Payload {
        hash: Hash,
        at: Location,
    },
    /// Own store: a published head. Mirror: a complete head. With the change
    /// of the directory, if it has been computed already.
    Head {
        head: Box<SignedHead>,
        at: Location,
        update: Option<Box<Update>>,
    },
    Openings {
        part: OpeningsPart,
        at: Location,
    },
    Seen {
        head: Box<SignedHead>,
        at: Location,
    },
    /// Mirror: a rotation of the origin's key.
    Note {
        head: Box<SignedHead>,
        at: Location,
    },
    /// Mirror: its origin has signed two histories.
    Evidence {
        fork: Box<Fork>,
        at: Location,
    },
    /// Mirror: which of them is followed.
    Resolved {
        evidence: Hash,
        root: Hash,
        at: Location,
    },
}

impl Effect {
    pub(crate) fn payload(hash: Hash) -> Self {
        let at = Location::default();
        Self::Payload { hash, at }
    }

    pub(crate) fn head(head: SignedHead, update: Update) -> Self {
        Self::Head {
            head: Box::new(head),
            at: Location::default(),
            update: Some(Box::new(update)),
        }
    }

    /// Says where the record lies.
    pub(crate) fn place(&mut self, location: Location) {
        match self {
            Self::Context { at, .. }
            | Self::Named { at, .. }
            | Self::Run { at, .. }
            | Self::Payload { at, .. }
            | Self::Head { at, .. }
            | Self::Openings { at, .. }
            | Self::Seen { at, .. }
            | Self::Note { at, .. }
            | Self::Evidence { at, .. }
            | Self::Resolved { at, .. } => *at = location,
        }
    }
}
