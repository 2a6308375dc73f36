//! Layer 3. The postcard bodies behind [`super::message`]: plain structures of
//! integers, byte strings and counted lists, and nothing that could be spelled
//! twice (no maps, floats, `usize` or recursion).

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteBuf;

use super::message::{NodeAnswer, Reply};
use crate::directory::Opening;
use crate::encoding::{DecodeError, in_range};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::ledger::OpenedNode;
use crate::limits::{
    DIRECTORY_NODE_BYTES_MAX, HEADER_BYTES_MAX, NODES_PER_REQUEST_MAX, NOTE_BYTES_MAX,
    NOTES_PER_REPLY_MAX, PAYLOAD_INLINE_BYTES_MAX, PROOF_HASHES_MAX, SEQUENCE_MAX,
};

/// Entry slots of a directory node.
const SLOTS: usize = 16;
/// Items a list reserves room for before it has read them.
const LIST_RESERVE_MAX: usize = 16;

/// A list of at most `N` items; reading stops at the first one too many.
#[derive(Clone, Debug)]
struct List<T, const N: usize>(Vec<T>);

impl<T: Serialize, const N: usize> Serialize for List<T, N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for List<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counted<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Counted<T, N> {
            type Value = List<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {N} items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let hint = seq.size_hint().unwrap_or(0);
                let mut list = Vec::with_capacity(hint.min(N).min(LIST_RESERVE_MAX));
                while let Some(item) = seq.next_element()? {
                    if list.len() == N {
                        return Err(A::Error::custom("too many items"));
                    }
                    list.push(item);
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_seq(Counted(PhantomData))
    }
}

type Bytes32 = [u8; Hash::LEN];

fn bytes32(hashes: &[Hash]) -> Vec<Bytes32> {
    hashes.iter().map(|h| *h.as_bytes()).collect()
}

fn hashes(list: Vec<Bytes32>) -> Vec<Hash> {
    list.into_iter().map(Hash::from_bytes).collect()
}

/// Body of `HeadRequest`, `FollowRequest` and `CompleteRequest`.
#[derive(Serialize, Deserialize)]
pub(super) struct Note(ByteBuf);

impl Note {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(ByteBuf::from(bytes))
    }

    pub(super) fn open(self, bytes_min: u64) -> Result<Vec<u8>, DecodeError> {
        let (len, max) = (self.0.len() as u64, NOTE_BYTES_MAX as u64);
        in_range("note in bytes", len, bytes_min, max)?;
        Ok(self.0.into_vec())
    }
}

/// Body of `Head`.
#[derive(Serialize, Deserialize)]
pub(super) struct Notes(List<ByteBuf, NOTES_PER_REPLY_MAX>);

impl Notes {
    pub(super) fn new(notes: &[Vec<u8>]) -> Self {
        Self(List(notes.iter().map(|n| ByteBuf::from(&**n)).collect()))
    }

    pub(super) fn into_notes(self) -> Result<Vec<Vec<u8>>, DecodeError> {
        let notes: Vec<Vec<u8>> = self.0.0.into_iter().map(ByteBuf::into_vec).collect();
        for note in &notes {
            in_range("note in bytes", note.len() as u64, 1, NOTE_BYTES_MAX as u64)?;
        }
        Ok(notes)
    }
}

/// Body of `NodesRequest` and `PayloadsRequest`.
#[derive(Serialize, Deserialize)]
pub(super) struct Hashes<const N: usize>(List<Bytes32, N>);

impl<const N: usize> Hashes<N> {
    pub(super) fn new(list: &[Hash]) -> Self {
        Self(List(bytes32(list)))
    }

    pub(super) fn into_hashes(self) -> Result<Vec<Hash>, DecodeError> {
        in_range("hashes asked for", self.0.0.len() as u64, 1, N as u64)?;
        Ok(hashes(self.0.0))
    }
}

/// Body of `EntriesRequest`, `EntriesBegin`, `ConsistencyRequest` and
/// `InclusionRequest`.
#[derive(Serialize, Deserialize)]
pub(super) struct Sizes {
    context: ByteBuf,
    from: u64,
    to: u64,
}

impl Sizes {
    pub(super) fn new(context: &ContextId, from: u64, to: u64) -> Self {
        Self {
            context: ByteBuf::from(context.as_str()),
            from,
            to,
        }
    }

    pub(super) fn open(self) -> Result<(ContextId, u64, u64), DecodeError> {
        Ok((ContextId::decode(&self.context)?, self.from, self.to))
    }
}

#[derive(Serialize, Deserialize)]
struct WireOpening {
    id: String,
    size: u64,
    root: Bytes32,
}

#[derive(Serialize, Deserialize)]
struct WireNode {
    node: ByteBuf,
    openings: List<WireOpening, SLOTS>,
}

/// Body of `Nodes`.
#[derive(Serialize, Deserialize)]
pub(super) struct Nodes(List<(Bytes32, Option<WireNode>), NODES_PER_REQUEST_MAX>);

impl Nodes {
    pub(super) fn new(answers: &[NodeAnswer]) -> Self {
        let opening = |o: &Opening| WireOpening {
            id: o.id.as_str().to_owned(),
            size: o.size,
            root: *o.root.as_bytes(),
        };
        let node = |opened: &OpenedNode| WireNode {
            node: ByteBuf::from(&*opened.node),
            openings: List(opened.openings.iter().map(opening).collect()),
        };
        let answer = |a: &NodeAnswer| (*a.hash.as_bytes(), a.node.as_ref().map(node));
        Self(List(answers.iter().map(answer).collect()))
    }

    pub(super) fn into_answers(self) -> Result<Vec<NodeAnswer>, DecodeError> {
        let mut answers = Vec::with_capacity(self.0.0.len());
        for (hash, node) in self.0.0 {
            let node = node.map(open_node).transpose()?;
            let hash = Hash::from_bytes(hash);
            answers.push(NodeAnswer { hash, node });
        }
        in_range(
            "nodes answered",
            answers.len() as u64,
            1,
            NODES_PER_REQUEST_MAX as u64,
        )?;
        Ok(answers)
    }
}

fn open_node(node: WireNode) -> Result<OpenedNode, DecodeError> {
    let len = node.node.len() as u64;
    in_range("node in bytes", len, 1, DIRECTORY_NODE_BYTES_MAX as u64)?;
    let mut openings = Vec::with_capacity(node.openings.0.len());
    for opening in node.openings.0 {
        openings.push(Opening {
            // Checked by the descent: an invalid id under a proven commitment
            // is the origin's fault, not the peer's.
            id: opening.id,
            size: opening.size,
            root: Hash::from_bytes(opening.root),
        });
    }
    Ok(OpenedNode {
        node: node.node.into_vec(),
        openings,
    })
}

/// Body of `Payload`.
#[derive(Serialize, Deserialize)]
pub(super) struct Payload {
    hash: Bytes32,
    bytes: Option<ByteBuf>,
}

impl Payload {
    pub(super) fn new(hash: &Hash, bytes: Option<&[u8]>) -> Self {
        Self {
            hash: *hash.as_bytes(),
            bytes: bytes.map(ByteBuf::from),
        }
    }

    pub(super) fn open(self) -> (Hash, Option<Vec<u8>>) {
        let bytes = self.bytes.map(ByteBuf::into_vec);
        (Hash::from_bytes(self.hash), bytes)
    }
}

/// Body of `Consistency`.
#[derive(Serialize, Deserialize)]
pub(super) struct Consistency {
    sizes: Sizes,
    from_root: Bytes32,
    hashes: List<Bytes32, PROOF_HASHES_MAX>,
}

impl Consistency {
    pub(super) fn new(
        context: &ContextId,
        (from, to): (u64, u64),
        from_root: &Hash,
        list: &[Hash],
    ) -> Self {
        Self {
            sizes: Sizes::new(context, from, to),
            from_root: *from_root.as_bytes(),
            hashes: List(bytes32(list)),
        }
    }

    pub(super) fn open(self) -> Result<Reply<'static>, DecodeError> {
        let (context, from, to) = self.sizes.open()?;
        Ok(Reply::Consistency {
            context,
            from,
            to,
            from_root: Hash::from_bytes(self.from_root),
            hashes: hashes(self.hashes.0),
        })
    }
}

/// Body of `Inclusion`.
#[derive(Serialize, Deserialize)]
pub(super) struct Inclusion {
    sizes: Sizes,
    header: ByteBuf,
    payload: ByteBuf,
    hashes: List<Bytes32, PROOF_HASHES_MAX>,
}

impl Inclusion {
    pub(super) fn new(
        context: &ContextId,
        (sequence, size): (u64, u64),
        (header, payload): (&[u8], &[u8]),
        list: &[Hash],
    ) -> Self {
        Self {
            sizes: Sizes::new(context, sequence, size),
            header: ByteBuf::from(header),
            payload: ByteBuf::from(payload),
            hashes: List(bytes32(list)),
        }
    }

    pub(super) fn open(self) -> Result<Reply<'static>, DecodeError> {
        let (context, sequence, size) = self.sizes.open()?;
        in_range("size", size, 1, SEQUENCE_MAX)?;
        in_range("sequence", sequence, 1, size)?;
        let (header, payload) = (self.header.into_vec(), self.payload.into_vec());
        let (header_max, payload_max) = (HEADER_BYTES_MAX as u64, PAYLOAD_INLINE_BYTES_MAX as u64);
        in_range("header in bytes", header.len() as u64, 1, header_max)?;
        in_range(
            "inline payload in bytes",
            payload.len() as u64,
            0,
            payload_max,
        )?;
        Ok(Reply::Inclusion {
            context,
            sequence,
            size,
            header,
            payload,
            hashes: hashes(self.hashes.0),
        })
    }
}
