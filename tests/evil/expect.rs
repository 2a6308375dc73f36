//! What each attack has to come to: the table of these tests. It matches on
//! the enum, so that no attack can be without a line.

use converge_ledger::evidence::Kind;

use crate::attack::Attack as A;

/// What the mirror holds before it meets the evil source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Nothing.
    Empty,
    /// A head of the honest source.
    Held,
}

/// What the mirror shows after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// What it showed before.
    Before,
    /// The newest honest head.
    Honest,
    /// Either of them: it was broken off, or it was not.
    Either,
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expect {
    /// The store that is shown, and another one to take from.
    pub(crate) stores: (&'static str, Option<&'static str>),
    pub(crate) start: Start,
    /// Exit statuses of the mirror.
    pub(crate) status: &'static [i32],
    /// All of this is on stderr.
    pub(crate) says: &'static [&'static str],
    pub(crate) leaves: Leaves,
    /// The kind of evidence it has to write, if any: it is forked then.
    pub(crate) evidence: Option<Kind>,
    /// The kind of evidence it has to write when it pulls from the honest source
    /// afterwards: the attack hid it, what it showed is signed all the same.
    pub(crate) later: Option<Kind>,
    /// `--deadline`, where the attack is to take time.
    pub(crate) deadline_s: Option<u64>,
    /// How often the mirror pulls.
    pub(crate) pulls: usize,
}

/// The mirror holds a head, and what the honest store has is lied about.
const HELD: Expect = Expect {
    stores: ("honest", None),
    start: Start::Held,
    status: &[1],
    says: &[],
    leaves: Leaves::Before,
    evidence: None,
    later: None,
    deadline_s: None,
    pulls: 1,
};

/// The peer lies: exit status 1.
const fn lie(says: &'static [&'static str]) -> Expect {
    Expect { says, ..HELD }
}

/// The peer cannot, or does not: exit status 3.
const fn cannot(says: &'static [&'static str]) -> Expect {
    Expect {
        status: &[3],
        ..lie(says)
    }
}

/// The origin signed two histories.
const fn fork(store: &'static str, kind: Kind) -> Expect {
    let says: &[&str] = match kind {
        Kind::TwoTexts => &["signed two histories: two texts of head"],
        Kind::Counts => &["signed two histories: head 1.4 states 29 contexts"],
        Kind::Dropped => &["signed two histories: a context", "is gone in head"],
        Kind::Shrunk => &["signed two histories: a context has fewer entries"],
        Kind::OtherRoot => &["signed two histories: a context has two roots at one size"],
        Kind::Rewritten => &["signed two histories: a context", "does not begin with"],
        Kind::TwoRotations | Kind::TwoTakeovers => &["not among these attacks"],
    };
    Expect {
        stores: (store, None),
        evidence: Some(kind),
        ..lie(says)
    }
}

/// The origin signed two histories and the peer hides what would prove it.
const fn hidden(says: &'static [&'static str]) -> Expect {
    Expect {
        later: Some(Kind::Shrunk),
        ..lie(says)
    }
}

/// Nothing is wrong.
const fn fine(leaves: Leaves) -> Expect {
    Expect {
        status: &[0],
        leaves,
        ..HELD
    }
}

/// The source shows less than the mirror holds, and that is all.
const fn behind() -> Expect {
    Expect {
        says: &["older head"],
        ..fine(Leaves::Before)
    }
}

impl Expect {
    const fn empty(self) -> Self {
        Self {
            start: Start::Empty,
            ..self
        }
    }

    const fn shown(self, store: &'static str, other: Option<&'static str>) -> Self {
        Self {
            stores: (store, other),
            ..self
        }
    }

    const fn slow(self) -> Self {
        Self {
            deadline_s: Some(2),
            ..self
        }
    }
}

/// What an attack has to come to.
pub(crate) const fn expect(attack: A) -> Expect {
    match attack {
        A::Canary | A::Flood => fine(Leaves::Honest),
        A::CanaryFromNothing | A::JoinedRuns => fine(Leaves::Honest).empty(),

        A::RewriteAfterSync => fork("rewrite", Kind::Rewritten),
        A::RewriteOtherRuns => fork("other_runs", Kind::Rewritten),
        A::SameSizeTwoRoots => fork("same_size", Kind::OtherRoot),
        A::SameEpochTwoTexts => fork("two_texts", Kind::TwoTexts),
        A::ShrunkContext => fork("shrunk", Kind::Shrunk),
        A::DroppedContext => fork("dropped", Kind::Dropped),
        A::Shrink => behind().shown("older", None),
        A::ShrinkThenDiverge => fork("older_diverged", Kind::Shrunk),
        A::ReplayedOldHead => Expect {
            pulls: 3,
            ..behind().shown("honest", Some("before"))
        },
        A::TwoViews => fork("honest", Kind::Shrunk),

        A::WrongOriginName => lie(&["peer: head: head of other.example"]),
        A::WrongOriginKey => lie(&["peer: head: not signed by"]).shown("honest", Some("stranger")),
        A::WrongNodeKey => cannot(&["This node's key is"]),

        A::ForgedDrop => fork("held", Kind::Dropped),
        A::InflatedCounts => lie(&["origin: directory: "]),
        A::SameRootOtherCounts => fork("held", Kind::Counts),
        A::FewerCounts => fork("held", Kind::Counts).shown("held", Some("before")),
        A::InvalidEntries => Expect {
            later: Some(Kind::Dropped),
            ..lie(&["origin: context forged holds invalid entries"]).shown("held", None)
        },
        A::InvalidDirectory => lie(&["origin: "]),
        A::HalfRotation => lie(&["peer: head: not signed by"]),
        A::HeadBeforeHead => {
            lie(&["peer: ", "a plain head before the newest"]).shown("honest", Some("before"))
        }
        A::LaterTerm => cannot(&["local: the origin is in term 2"]),

        A::FlippedNote => lie(&["peer: head: ", "does not verify"]),
        A::FlippedNode | A::OtherNode => lie(&["peer: directory: node", "the bytes hash to"]),
        A::FlippedOpening => lie(&["peer: directory: the opening of"]),
        A::MissingOpening => lie(&["peer: directory: node", "openings"]),
        A::FlippedHeader | A::FlippedRightHash | A::OtherEntries | A::ReorderedEntries => {
            lie(&["peer: context", "do not fold"]).empty()
        }
        A::FlippedInlinePayload => lie(&["peer: context", "payload does not match its hash"]),
        A::FlippedOutsidePayload => lie(&["peer: payload", "has other bytes"]),
        A::ReorderedRuns | A::DuplicatedRun | A::Gap => {
            lie(&["peer: context", "run starts at sequence"]).empty()
        }

        A::MissingTail | A::HalfRun => {
            cannot(&["peer: the stream ended before all entries"]).empty()
        }
        A::NothingAfterBegin => cannot(&["peer: the stream ended before all entries"]),
        A::MissingNodes => cannot(&["peer: the stream ended before all nodes"]),
        A::WithheldNode => cannot(&["peer: directory node", "is not served"]),
        A::WithheldPayload => cannot(&["peer: payload", "is not served"]),

        A::EchoContext => lie(&["peer: the reply does not answer", "another context"]),
        A::EchoStart | A::EchoSize => lie(&["peer: the reply does not answer", "other sizes"]),
        A::EchoNode => lie(&["peer: the reply does not answer", "another node"]),
        A::EchoPayload => lie(&["peer: the reply does not answer", "another payload"]),

        A::RefusesConsistency | A::FailingProof | A::EchoConsistency => {
            hidden(&["peer: disputed: context"]).shown("rewrite", None)
        }
        A::LiesInConsistency => hidden(&["peer: disputed: context"]).shown("rewrite", Some("held")),

        A::MuteConsistency => Expect {
            status: &[3],
            ..hidden(&["timed out: the whole sync"])
                .shown("rewrite", None)
                .slow()
        },

        A::EndlessHeads => lie(&["peer: surplus frames after the head"]),
        A::EndlessNodes => lie(&["peer: surplus frames after the nodes"]),
        A::EndlessSpans => lie(&["peer: surplus frames after the entries"]),
        A::EndlessPayloads => lie(&["peer: surplus frames after the payloads"]),
        A::TooManyNotes | A::LengthZero => lie(&["peer: malformed frame: ", "message body"]),

        A::LengthMax | A::LengthAboveLimit => {
            lie(&["peer: malformed frame: ", "length of a frame"])
        }
        A::UnknownKind => lie(&["peer: malformed frame: ", "unknown kind of frame"]),
        A::RequestAsReply => lie(&["peer: malformed frame: ", "a request where a reply belongs"]),
        A::TruncatedFrame => cannot(&["peer: the stream ended before the end of a frame"]),

        A::Stall | A::Drip | A::Mute => cannot(&["timed out: the whole sync"]).slow(),

        A::RefusesEverything => cannot(&["peer: refused: NotServed"]),
        A::ResetsEverything => cannot(&["broke off an answer with code 5"]),
        A::ClaimsNothing => behind(),
        A::ClosesAtRandom => Expect {
            status: &[0, 3],
            leaves: Leaves::Either,
            pulls: 8,
            ..cannot(&[])
        }
        .empty(),
    }
}
