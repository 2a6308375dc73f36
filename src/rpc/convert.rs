//! Layer 4. Between the messages of the API and the crate's types. Arguments
//! are checked by the crate's own constructors and nowhere else.

use bytes::Bytes;

use super::proto::{context, inspect};
use super::status::RpcError;
use crate::entry::{ContextId, Draft, Entry, EntryError, Metadata};
use crate::limits::{KEY_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::store::{Appended, ContextInfo};

/// A context's name.
pub(super) fn context_id(text: &str) -> Result<ContextId, RpcError> {
    Ok(ContextId::new(text)?)
}

/// The key that a reader wants, if not all.
pub(super) fn wanted_key(key: String) -> Result<Option<String>, RpcError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(RpcError::Entry(EntryError::OutOfRange {
            what: "key in bytes",
            got: key.len() as u64,
            min: 0,
            max: KEY_BYTES_MAX as u64,
        }));
    }
    Ok((!key.is_empty()).then_some(key))
}

/// What is to be appended. Hashes the payload.
pub(super) fn draft(request: &context::AppendRequest) -> Result<Draft, RpcError> {
    let bytes = request.payload.len();
    if bytes > PAYLOAD_BYTES_MAX {
        return Err(RpcError::PayloadTooLarge { bytes });
    }
    // Before the payload is copied and hashed.
    let metadata = Metadata::from_pairs(&request.metadata)?;
    let draft = Draft::new(request.key.clone(), request.payload.to_vec())?;
    Ok(draft
        .with_metadata(metadata)
        .with_request_id(request.request_id.clone())?
        .with_observed_lamport(request.observed_lamport))
}

/// The stored entry of a request: what was asked, and where it went.
pub(super) fn appended(request: context::AppendRequest, to: &Appended) -> context::Entry {
    context::Entry {
        id: to.id.to_string(),
        key: request.key,
        payload: request.payload,
        sequence: to.sequence,
        appended_at_ns: to.appended_at_ns,
        metadata: request.metadata,
        lamport: to.lamport,
        content_hash: Bytes::copy_from_slice(to.id.as_bytes()),
        request_id: request.request_id,
    }
}

/// A stored entry.
pub(super) fn entry(entry: Entry) -> context::Entry {
    let pairs = entry.metadata.as_ref().iter();
    context::Entry {
        id: entry.id.to_string(),
        key: entry.key,
        payload: entry.payload.into(),
        sequence: entry.sequence,
        appended_at_ns: entry.appended_at_ns,
        metadata: pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        lamport: entry.lamport,
        content_hash: Bytes::copy_from_slice(entry.id.as_bytes()),
        request_id: entry.request_id.unwrap_or_default(),
    }
}

/// A line of a listing.
pub(super) fn context(info: &ContextInfo) -> inspect::Context {
    inspect::Context {
        id: info.id.as_str().to_owned(),
        size: info.size,
        root: Bytes::copy_from_slice(info.root.as_bytes()),
    }
}
