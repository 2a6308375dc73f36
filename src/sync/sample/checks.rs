//! One entry, and one payload, against what is signed.

use std::sync::Arc;

use crate::directory::Opening;
use crate::encoding::DecodeError;
use crate::entry::{ContextId, Header, leaf_hash};
use crate::hash::{self, Hash};
use crate::limits::PAYLOAD_INLINE_BYTES_MAX;
use crate::run::RunError;
use crate::sync::error::{OriginFault, PeerFault, SyncError};
use crate::sync::message::{Reply, Request};
use crate::tree::{LeafIndex, TreeSize, inclusion};

/// An entry to be checked, under a proven opening.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) context: Arc<Opening>,
    pub(super) sequence: u64,
}

/// A payload that an entry has outside of its run.
#[derive(Clone, Debug)]
pub(super) struct Outside {
    context: Arc<Opening>,
    pub(super) hash: Hash,
    pub(super) len: u32,
}

impl Wanted {
    pub(super) fn request(&self) -> Result<Request, SyncError> {
        let context = ContextId::new(&self.context.id).map_err(|_| {
            let what = "context id";
            PeerFault::Malformed(DecodeError::Invalid { what })
        })?;
        Ok(Request::Inclusion {
            context,
            sequence: self.sequence,
            size: self.context.size,
        })
    }
}

/// Checks an entry; its payload, if that is to be fetched. Bytes of a payload
/// that came along are added to `payload_bytes`.
pub(super) fn check_entry(
    wanted: &Wanted,
    reply: Reply<'_>,
    payload_bytes: &mut u64,
) -> Result<Option<Outside>, SyncError> {
    let Reply::Inclusion {
        context,
        sequence,
        size,
        header,
        payload,
        hashes,
    } = reply
    else {
        let what = "another kind of reply";
        return Err(PeerFault::WrongReply { what }.into());
    };
    let opening = &wanted.context;
    if context.as_str() != opening.id || sequence != wanted.sequence || size != opening.size {
        let what = "another entry";
        return Err(PeerFault::WrongReply { what }.into());
    }
    let index = LeafIndex::new(sequence.saturating_sub(1));
    let root = inclusion::root(&leaf_hash(&header), index, TreeSize::new(size), &hashes);
    if root.ok() != Some(opening.root) {
        let context = context.to_string();
        return Err(PeerFault::Inclusion { context, sequence }.into());
    }
    // From here on the header is what the origin signed.
    let header = Header::decode(&header).map_err(|error| invalid(opening, error))?;
    if header.sequence != sequence {
        let what = "a header has another sequence than its leaf";
        return Err(invalid(opening, DecodeError::Invalid { what }));
    }
    if header.payload_len as usize > PAYLOAD_INLINE_BYTES_MAX {
        if !payload.is_empty() {
            let what = "a payload inside that lies outside";
            return Err(PeerFault::WrongReply { what }.into());
        }
        return Ok(Some(Outside {
            context: Arc::clone(opening),
            hash: header.payload_hash,
            len: header.payload_len,
        }));
    }
    check_payload(opening, (header.payload_hash, header.payload_len), &payload)?;
    *payload_bytes += payload.len() as u64;
    Ok(None)
}

impl Outside {
    /// Checks what was brought for it; its bytes.
    pub(super) fn check(&self, hash: Hash, bytes: Option<Vec<u8>>) -> Result<u64, SyncError> {
        if hash != self.hash {
            let what = "another payload";
            return Err(PeerFault::WrongReply { what }.into());
        }
        let what = "payload";
        let bytes = bytes.ok_or(PeerFault::Missing { what, hash })?;
        check_payload(&self.context, (self.hash, self.len), &bytes)?;
        Ok(bytes.len() as u64)
    }
}

fn check_payload(
    context: &Opening,
    (hash, len): (Hash, u32),
    bytes: &[u8],
) -> Result<(), SyncError> {
    if hash::content(bytes) != hash {
        return Err(PeerFault::Payload { hash }.into());
    }
    if bytes.len() as u64 != u64::from(len) {
        let what = "a header states another length than its payload has";
        return Err(invalid(context, DecodeError::Invalid { what }));
    }
    Ok(())
}

fn invalid(context: &Opening, error: DecodeError) -> SyncError {
    OriginFault::InvalidEntries {
        context: context.id.clone(),
        error: RunError::Decode(error),
    }
    .into()
}
