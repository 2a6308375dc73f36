//! From messages to the crate's own types. What a message says of an entry is
//! believed only if the entry's hash, made anew here, is the one it came with.

use crate::archive;
use crate::entry::{ContextId, Draft, Entry, Header, Metadata, leaf_hash};
use crate::hash::{self, Hash};
use crate::note::OriginName;
use crate::rpc::proto::context as proto;

use super::{ClientError, Snapshot};

/// What is to follow in a list of entries.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// Only entries with this key are wanted; empty for all.
    pub(super) key: String,
    /// The last sequence seen.
    pub(super) last: u64,
}

impl Order {
    /// Checks the next entry, hash and place.
    pub(super) fn take(&mut self, message: proto::Entry) -> Result<Entry, ClientError> {
        let entry = entry(message)?;
        let expected = self.last.saturating_add(1);
        let follows = if self.key.is_empty() {
            entry.sequence == expected
        } else {
            entry.sequence >= expected
        };
        if !follows {
            return Err(ClientError::OutOfOrder {
                expected,
                got: entry.sequence,
            });
        }
        if !self.key.is_empty() && entry.key != self.key {
            return Err(ClientError::Unverified {
                sequence: entry.sequence,
                what: "it has another key than was asked for",
            });
        }
        self.last = entry.sequence;
        Ok(entry)
    }
}

/// An entry whose hash is that of its fields.
pub(super) fn entry(message: proto::Entry) -> Result<Entry, ClientError> {
    let sequence = message.sequence;
    let unverified = |what| ClientError::Unverified { sequence, what };
    let id = Hash::from_slice(&message.content_hash)
        .ok_or_else(|| unverified("its content hash is not 32 bytes"))?;
    if Hash::from_hex(&message.id) != Some(id) {
        return Err(unverified("its id is not its content hash"));
    }
    let metadata = Metadata::from_pairs(&message.metadata)
        .map_err(|_| unverified("its metadata is outside the limits"))?;
    let payload_len = u32::try_from(message.payload.len())
        .map_err(|_| unverified("its payload is outside the limits"))?;
    let header = Header {
        sequence,
        lamport: message.lamport,
        appended_at_ns: message.appended_at_ns,
        key: &message.key,
        request_id: (!message.request_id.is_empty()).then_some(message.request_id.as_str()),
        metadata: metadata.as_ref(),
        payload_len,
        payload_hash: hash::content(&message.payload),
    };
    let mut bytes = Vec::with_capacity(header.encoded_len());
    // Decoding checks the numbers, which encoding takes as they are.
    if header.encode_into(&mut bytes).is_err() || Header::decode(&bytes).is_err() {
        return Err(unverified("a field is outside its limits"));
    }
    if leaf_hash(&bytes) != id {
        return Err(unverified("its fields do not have its content hash"));
    }
    Ok(Entry {
        sequence,
        id,
        lamport: message.lamport,
        appended_at_ns: message.appended_at_ns,
        key: message.key,
        request_id: (!message.request_id.is_empty()).then_some(message.request_id),
        metadata,
        payload: message.payload.into(),
    })
}

/// The entry that an append was answered with: what was to be appended.
pub(super) fn appended(draft: &Draft, message: proto::Entry) -> Result<Entry, ClientError> {
    let entry = entry(message)?;
    let same = entry.key == draft.key()
        && entry.payload == draft.payload()
        && entry.metadata.as_ref() == draft.metadata()
        && entry.request_id.as_deref() == draft.request_id();
    if !same {
        return Err(ClientError::Unverified {
            sequence: entry.sequence,
            what: "it is not the entry that was to be appended",
        });
    }
    Ok(entry)
}

/// An archive that is whole and is what the answer says of it.
pub(super) fn snapshot(
    context: &ContextId,
    asked: Option<&OriginName>,
    reply: proto::SnapshotResponse,
) -> Result<Snapshot, ClientError> {
    let size = reply.sequence;
    let unverified = |what| ClientError::Unverified {
        sequence: size,
        what,
    };
    let origin = origin(asked, &reply.origin)?;
    let metadata = reply.metadata.unwrap_or_default();
    let root = hash_of(&metadata.merkle_root, "a root is not 32 bytes")?;
    let verified = archive::verify(&*reply.snapshot, None)
        .map_err(|_| unverified("the archive is damaged or not whole"))?;
    if verified.id() != context {
        return Err(unverified("the archive is one of another context"));
    }
    if verified.size() != size || metadata.entry_count != size || verified.root() != root {
        return Err(unverified(
            "the archive is another one than the answer says",
        ));
    }
    Ok(Snapshot {
        archive: reply.snapshot,
        size,
        root,
        created_at_ns: metadata.created_at_ns,
        version: metadata.version,
        origin,
    })
}

/// A hash outside an entry.
pub(super) fn hash_of(bytes: &[u8], what: &'static str) -> Result<Hash, ClientError> {
    Hash::from_slice(bytes).ok_or(ClientError::Unverified { sequence: 0, what })
}

/// Whose contexts an answer is about, if it says so: whoever was asked for.
pub(super) fn origin(
    asked: Option<&OriginName>,
    said: &str,
) -> Result<Option<OriginName>, ClientError> {
    let unverified = |what| ClientError::Unverified { sequence: 0, what };
    let said = match said {
        "" => None,
        name => Some(origin_name(name)?),
    };
    match (asked, &said) {
        (Some(_), None) => Err(unverified(
            "it does not say whose context this is: the server is too old to be asked for an origin",
        )),
        (Some(asked), Some(said)) if asked != said => {
            Err(unverified("it is of another origin than was asked for"))
        }
        _ => Ok(said),
    }
}

/// The name of an origin.
pub(super) fn origin_name(name: &str) -> Result<OriginName, ClientError> {
    OriginName::new(name).map_err(|_| ClientError::Unverified {
        sequence: 0,
        what: "an origin has a name that no origin can have",
    })
}

/// The name of a context.
pub(super) fn context_id(name: &str) -> Result<ContextId, ClientError> {
    ContextId::new(name).map_err(|_| ClientError::Unverified {
        sequence: 0,
        what: "a context has a name that no context can have",
    })
}
