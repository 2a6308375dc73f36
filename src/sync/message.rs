//! Layer 3. The messages of replication and their only spelling
//! (`spec/07-sync.md`).
//!
//! ```text
//! frame:  length of body, u32 LE | kind, u8 | body
//! body:   canonical postcard, except a span, which is raw
//! ```
//!
//! One request per stream; the frames of its answer follow on the same
//! stream, and the first of them echoes what it answers.
//!
//! Invariants:
//! * the length of every kind is checked against a limit of its own before
//!   anything is allocated ([`FrameHeader::decode`]);
//! * lists are counted while they are read, never believed;
//! * what decodes encodes to the same bytes.

use serde::{Deserialize, Serialize};

use super::wire;
use crate::directory::Opening;
use crate::encoding::{DecodeError, Reader, from_postcard, in_range, to_postcard};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::ledger::OpenedNode;
use crate::limits::{
    CONTEXT_ID_BYTES_MAX, HEADER_BYTES_MAX, NODES_PER_REQUEST_MAX, NOTE_BYTES_MAX,
    NOTES_PER_REPLY_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_INLINE_BYTES_MAX, PAYLOADS_PER_REQUEST_MAX,
    PROOF_HASHES_MAX, SEQUENCE_MAX, SPAN_BYTES_MAX,
};

/// Bytes before a frame's body.
pub const FRAME_HEADER_BYTES: usize = 5;
/// Bytes of one frame of directory nodes: 2 MiB.
pub const NODES_REPLY_BYTES_MAX: usize = 2 << 20;
/// A context id with its length, two numbers, and a list's count.
const CONTEXT_BODY_BYTES_MAX: usize = CONTEXT_ID_BYTES_MAX + 32;

/// What a frame is. The first eight are requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Asks for the newest head.
    HeadRequest = 0x01,
    /// Asks for directory nodes by hash.
    NodesRequest = 0x02,
    /// Asks for the entries of a context.
    EntriesRequest = 0x03,
    /// Asks for payloads by hash.
    PayloadsRequest = 0x04,
    /// Asks for a consistency proof.
    ConsistencyRequest = 0x05,
    /// Asks for one entry and the proof that it is in its context.
    InclusionRequest = 0x06,
    /// Asks for every head from now on.
    FollowRequest = 0x07,
    /// Tells which head is complete in the asker; nothing is answered.
    CompleteRequest = 0x08,
    /// Notes, the newest head last.
    Head = 0x81,
    /// Directory nodes with their openings.
    Nodes = 0x82,
    /// Spans follow.
    EntriesBegin = 0x83,
    /// Runs and the hashes to their right.
    Span = 0x84,
    /// One payload.
    Payload = 0x85,
    /// A consistency proof.
    Consistency = 0x86,
    /// One entry and its inclusion proof.
    Inclusion = 0x87,
    /// The request is not answered.
    Error = 0xff,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::HeadRequest,
        Self::NodesRequest,
        Self::EntriesRequest,
        Self::PayloadsRequest,
        Self::ConsistencyRequest,
        Self::InclusionRequest,
        Self::FollowRequest,
        Self::CompleteRequest,
        Self::Head,
        Self::Nodes,
        Self::EntriesBegin,
        Self::Span,
        Self::Payload,
        Self::Consistency,
        Self::Inclusion,
        Self::Error,
    ];

    /// The kind a byte stands for.
    pub fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        Self::ALL
            .into_iter()
            .find(|kind| *kind as u8 == byte)
            .ok_or(DecodeError::Invalid {
                what: "unknown kind of frame",
            })
    }

    /// True if a mirror sends it and a source answers it.
    #[must_use]
    pub const fn is_request(self) -> bool {
        (self as u8) < 0x80
    }

    /// The most bytes a body of this kind may have.
    #[must_use]
    pub const fn body_bytes_max(self) -> usize {
        match self {
            Self::HeadRequest | Self::FollowRequest | Self::CompleteRequest => NOTE_BYTES_MAX + 8,
            Self::NodesRequest => NODES_PER_REQUEST_MAX * Hash::LEN + 8,
            Self::EntriesRequest
            | Self::ConsistencyRequest
            | Self::InclusionRequest
            | Self::EntriesBegin => CONTEXT_BODY_BYTES_MAX,
            Self::PayloadsRequest => PAYLOADS_PER_REQUEST_MAX * Hash::LEN + 8,
            Self::Head => NOTES_PER_REPLY_MAX * (NOTE_BYTES_MAX + 8) + 8,
            Self::Nodes => NODES_REPLY_BYTES_MAX,
            Self::Span => SPAN_BYTES_MAX,
            Self::Payload => PAYLOAD_BYTES_MAX + Hash::LEN + 8,
            Self::Consistency => CONTEXT_BODY_BYTES_MAX + (1 + PROOF_HASHES_MAX) * Hash::LEN,
            Self::Inclusion => {
                CONTEXT_BODY_BYTES_MAX
                    + HEADER_BYTES_MAX
                    + PAYLOAD_INLINE_BYTES_MAX
                    + PROOF_HASHES_MAX * Hash::LEN
            }
            Self::Error => 1,
        }
    }
}

/// The largest body of a request: what a source has to buffer of a stranger's.
pub const REQUEST_BODY_BYTES_MAX: usize = NOTE_BYTES_MAX + 8;
/// The largest frame of any kind.
pub const FRAME_BYTES_MAX: usize = FRAME_HEADER_BYTES + PAYLOAD_BYTES_MAX + Hash::LEN + 8;

const _: () = {
    let mut i = 0;
    while i < Kind::ALL.len() {
        let kind = Kind::ALL[i];
        assert!(FRAME_HEADER_BYTES + kind.body_bytes_max() <= FRAME_BYTES_MAX);
        assert!(!kind.is_request() || kind.body_bytes_max() <= REQUEST_BODY_BYTES_MAX);
        i += 1;
    }
};

/// The first bytes of a frame, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What follows.
    pub kind: Kind,
    /// Bytes that follow, within the limit of the kind.
    pub body_bytes: usize,
}

impl FrameHeader {
    /// Reads a header; nothing has been allocated when it is refused.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let body_bytes = r.u32("length of a frame")?;
        let kind = Kind::from_byte(r.u8("kind of a frame")?)?;
        in_range(
            "length of a frame",
            u64::from(body_bytes),
            0,
            kind.body_bytes_max() as u64,
        )?;
        Ok(Self {
            kind,
            body_bytes: body_bytes as usize,
        })
    }

    /// Splits a whole frame into its kind and its body.
    pub fn split(frame: &[u8]) -> Result<(Kind, &[u8]), DecodeError> {
        let mut r = Reader::new(frame);
        let header = Self::decode(&r.array("frame header")?)?;
        let body = r.bytes("frame body", header.body_bytes)?;
        r.finish("frame")?;
        Ok((header.kind, body))
    }
}

/// Puts a header in front of a body.
fn frame(kind: Kind, body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    frame_of(kind, |out| {
        out.reserve_exact(body.len());
        out.extend_from_slice(body);
    })
}

/// A frame whose body is appended by `fill`.
fn frame_of(kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, DecodeError> {
    let mut out = vec![0; FRAME_HEADER_BYTES];
    fill(&mut out);
    let body_bytes = out.len().saturating_sub(FRAME_HEADER_BYTES);
    let max = kind.body_bytes_max() as u64;
    in_range("length of a frame", body_bytes as u64, 0, max)?;
    let [a, b, c, d] = u32::try_from(body_bytes).unwrap_or(u32::MAX).to_le_bytes();
    if let Some(header) = out.first_chunk_mut() {
        *header = [a, b, c, d, kind as u8];
    }
    Ok(out)
}

fn encode<T: Serialize>(kind: Kind, value: &T) -> Result<Vec<u8>, DecodeError> {
    frame(kind, &to_postcard(value)?)
}

fn decode<T>(kind: Kind, body: &[u8]) -> Result<T, DecodeError>
where
    T: Serialize + for<'de> Deserialize<'de>,
{
    from_postcard("message body", body, kind.body_bytes_max())
}

/// What a mirror asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The newest head; carries the asker's newest note, empty without one.
    Head {
        /// Note bytes.
        newest: Vec<u8>,
    },
    /// Every head from now on that is another one than the asker's newest note
    /// says, until either side ends it; of several, the newest.
    Follow {
        /// Note bytes, empty without one.
        newest: Vec<u8>,
    },
    /// This head is complete and durable in the asker. The answer has no frame.
    Complete {
        /// Note bytes, at least one.
        note: Vec<u8>,
    },
    /// Directory nodes, 1..=256.
    Nodes {
        /// Their hashes.
        hashes: Vec<Hash>,
    },
    /// Entries after a sequence, each span proven at a size.
    Entries {
        /// The context.
        context: ContextId,
        /// Entries the asker has.
        after_sequence: u64,
        /// The signed size.
        size: u64,
    },
    /// Payloads of more than 4 KiB, 1..=64.
    Payloads {
        /// Their hashes.
        hashes: Vec<Hash>,
    },
    /// A proof that a tree extends an older one.
    Consistency {
        /// The context.
        context: ContextId,
        /// The older size, at least 1.
        from: u64,
        /// The newer size, not below it.
        to: u64,
    },
    /// One entry and the proof that it is in its context.
    Inclusion {
        /// The context.
        context: ContextId,
        /// The entry, at least 1.
        sequence: u64,
        /// The signed size, not below it.
        size: u64,
    },
}

impl Request {
    /// The whole frame.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        match self {
            Self::Head { newest } => encode(Kind::HeadRequest, &wire::Note::new(newest)),
            Self::Follow { newest } => encode(Kind::FollowRequest, &wire::Note::new(newest)),
            Self::Complete { note } => encode(Kind::CompleteRequest, &wire::Note::new(note)),
            Self::Nodes { hashes } => {
                let body = wire::Hashes::<NODES_PER_REQUEST_MAX>::new(hashes);
                encode(Kind::NodesRequest, &body)
            }
            Self::Entries {
                context,
                after_sequence,
                size,
            } => {
                let body = wire::Sizes::new(context, *after_sequence, *size);
                encode(Kind::EntriesRequest, &body)
            }
            Self::Payloads { hashes } => {
                let body = wire::Hashes::<PAYLOADS_PER_REQUEST_MAX>::new(hashes);
                encode(Kind::PayloadsRequest, &body)
            }
            Self::Consistency { context, from, to } => {
                let body = wire::Sizes::new(context, *from, *to);
                encode(Kind::ConsistencyRequest, &body)
            }
            Self::Inclusion {
                context,
                sequence,
                size,
            } => {
                let body = wire::Sizes::new(context, *sequence, *size);
                encode(Kind::InclusionRequest, &body)
            }
        }
    }

    /// Reads a frame from a stranger.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let (kind, body) = FrameHeader::split(frame)?;
        match kind {
            Kind::HeadRequest => Ok(Self::Head {
                newest: decode::<wire::Note>(kind, body)?.open(0)?,
            }),
            Kind::FollowRequest => Ok(Self::Follow {
                newest: decode::<wire::Note>(kind, body)?.open(0)?,
            }),
            Kind::CompleteRequest => Ok(Self::Complete {
                note: decode::<wire::Note>(kind, body)?.open(1)?,
            }),
            Kind::NodesRequest => {
                let list: wire::Hashes<NODES_PER_REQUEST_MAX> = decode(kind, body)?;
                Ok(Self::Nodes {
                    hashes: list.into_hashes()?,
                })
            }
            Kind::EntriesRequest => {
                let (context, after_sequence, size) = decode::<wire::Sizes>(kind, body)?.open()?;
                in_range("size", size, 1, SEQUENCE_MAX)?;
                in_range("after sequence", after_sequence, 0, size - 1)?;
                Ok(Self::Entries {
                    context,
                    after_sequence,
                    size,
                })
            }
            Kind::PayloadsRequest => {
                let list: wire::Hashes<PAYLOADS_PER_REQUEST_MAX> = decode(kind, body)?;
                Ok(Self::Payloads {
                    hashes: list.into_hashes()?,
                })
            }
            Kind::ConsistencyRequest => {
                let (context, from, to) = decode::<wire::Sizes>(kind, body)?.open()?;
                in_range("newer size", to, 1, SEQUENCE_MAX)?;
                in_range("older size", from, 1, to)?;
                Ok(Self::Consistency { context, from, to })
            }
            Kind::InclusionRequest => {
                let (context, sequence, size) = decode::<wire::Sizes>(kind, body)?.open()?;
                in_range("size", size, 1, SEQUENCE_MAX)?;
                in_range("sequence", sequence, 1, size)?;
                Ok(Self::Inclusion {
                    context,
                    sequence,
                    size,
                })
            }
            _ => Err(DecodeError::Invalid {
                what: "a reply where a request belongs",
            }),
        }
    }
}

/// Why a source does not answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    /// What was asked for is not served (any more): ask for the head again.
    NotServed = 1,
    /// The source failed to read its own disk.
    Failed = 2,
}

/// A node that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAnswer {
    /// The hash asked for.
    pub hash: Hash,
    /// The node, if the source has it.
    pub node: Option<OpenedNode>,
}

/// What a source answers. A span borrows the frame it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Takeovers and rotations after the asker's newest note, ascending, then
    /// the newest head; empty if nothing is published.
    Head {
        /// Note bytes, at most 64.
        notes: Vec<Vec<u8>>,
    },
    /// The next of the nodes asked for, in the order asked.
    Nodes {
        /// At least one.
        answers: Vec<NodeAnswer>,
    },
    /// Spans of this context follow.
    EntriesBegin {
        /// The context.
        context: ContextId,
        /// Entries before the first span.
        after_sequence: u64,
        /// The size every span is proven at.
        size: u64,
    },
    /// A span, not looked into yet.
    Span(&'a [u8]),
    /// The next of the payloads asked for.
    Payload {
        /// The hash asked for.
        hash: Hash,
        /// The payload, if the source has it.
        bytes: Option<Vec<u8>>,
    },
    /// A consistency proof.
    Consistency {
        /// The context.
        context: ContextId,
        /// The older size.
        from: u64,
        /// The newer size.
        to: u64,
        /// The source's root at the older size: if the proof holds for it and
        /// it is not the asker's, two signed statements contradict each other.
        from_root: Hash,
        /// The proof.
        hashes: Vec<Hash>,
    },
    /// An entry and the proof that it is in its context.
    Inclusion {
        /// The context.
        context: ContextId,
        /// The entry.
        sequence: u64,
        /// The size the proof is about.
        size: u64,
        /// The entry's header: the leaf's preimage.
        header: Vec<u8>,
        /// The entry's payload up to 4 KiB; empty for a larger one.
        payload: Vec<u8>,
        /// From the leaf to the root, lowest first.
        hashes: Vec<Hash>,
    },
    /// No answer; ends the stream.
    Refused(Refusal),
}

impl<'a> Reply<'a> {
    /// The whole frame.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        match self {
            Self::Head { notes } => encode(Kind::Head, &wire::Notes::new(notes)),
            Self::Nodes { answers } => encode(Kind::Nodes, &wire::Nodes::new(answers)),
            Self::EntriesBegin {
                context,
                after_sequence,
                size,
            } => {
                let body = wire::Sizes::new(context, *after_sequence, *size);
                encode(Kind::EntriesBegin, &body)
            }
            Self::Span(bytes) => frame(Kind::Span, bytes),
            Self::Payload { hash, bytes } => {
                encode(Kind::Payload, &wire::Payload::new(hash, bytes.as_deref()))
            }
            Self::Consistency {
                context,
                from,
                to,
                from_root,
                hashes,
            } => {
                let body = wire::Consistency::new(context, (*from, *to), from_root, hashes);
                encode(Kind::Consistency, &body)
            }
            Self::Inclusion {
                context,
                sequence,
                size,
                header,
                payload,
                hashes,
            } => {
                let body =
                    wire::Inclusion::new(context, (*sequence, *size), (header, payload), hashes);
                encode(Kind::Inclusion, &body)
            }
            Self::Refused(refusal) => frame(Kind::Error, &[*refusal as u8]),
        }
    }

    /// The frame of a span whose bytes `fill` appends: spans are too large to be
    /// copied for it.
    pub(super) fn span_frame(fill: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, DecodeError> {
        frame_of(Kind::Span, fill)
    }

    /// Reads a frame from a source.
    pub fn decode(frame: &'a [u8]) -> Result<Self, DecodeError> {
        let (kind, body) = FrameHeader::split(frame)?;
        match kind {
            Kind::Head => Ok(Self::Head {
                notes: decode::<wire::Notes>(kind, body)?.into_notes()?,
            }),
            Kind::Nodes => Ok(Self::Nodes {
                answers: decode::<wire::Nodes>(kind, body)?.into_answers()?,
            }),
            Kind::EntriesBegin => {
                let (context, after_sequence, size) = decode::<wire::Sizes>(kind, body)?.open()?;
                Ok(Self::EntriesBegin {
                    context,
                    after_sequence,
                    size,
                })
            }
            Kind::Span => Ok(Self::Span(body)),
            Kind::Payload => {
                let (hash, bytes) = decode::<wire::Payload>(kind, body)?.open();
                let len = bytes.as_ref().map_or(0, Vec::len);
                in_range("payload in bytes", len as u64, 0, PAYLOAD_BYTES_MAX as u64)?;
                Ok(Self::Payload { hash, bytes })
            }
            Kind::Consistency => decode::<wire::Consistency>(kind, body)?.open(),
            Kind::Inclusion => decode::<wire::Inclusion>(kind, body)?.open(),
            Kind::Error => match body {
                [1] => Ok(Self::Refused(Refusal::NotServed)),
                [2] => Ok(Self::Refused(Refusal::Failed)),
                _ => Err(DecodeError::Invalid {
                    what: "unknown refusal",
                }),
            },
            _ => Err(DecodeError::Invalid {
                what: "a request where a reply belongs",
            }),
        }
    }
}

/// An upper bound of the bytes one node takes in a [`Reply::Nodes`].
#[must_use]
pub fn node_answer_bytes(answer: &NodeAnswer) -> usize {
    let opening = |o: &Opening| o.id.as_str().len() + 2 + 10 + Hash::LEN;
    let node = answer.node.as_ref().map_or(0, |opened| {
        opened.node.len() + 2 + 1 + opened.openings.iter().map(opening).sum::<usize>()
    });
    Hash::LEN + 1 + node
}

#[cfg(test)]
mod tests;
