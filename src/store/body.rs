//! The bodies of records (`spec/05-store.md`, Record types): encode and decode only.
//! Openings and seen heads are the directory's (`directory::seen`).

use crate::encoding::{DecodeError, Reader, in_range};
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::limits::{
    NOTE_BYTES_MAX, ORIGIN_NAME_BYTES_MAX, PAYLOAD_BYTES_MAX, PAYLOAD_INLINE_BYTES_MAX,
    SEQUENCE_MAX,
};
use crate::note::VerifierKey;
use crate::store::record::Position;

/// The version byte of a `store` record.
const STORE_VERSION: u8 = 1;
/// A vkey: name, `+`, 8 digits, `+`, base64 of 33 bytes.
const VKEY_BYTES_MAX: usize = ORIGIN_NAME_BYTES_MAX + 1 + 8 + 1 + 44;

/// Whose history a store holds. Written once, never changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreRole {
    /// Its own: it has the origin's key and signs.
    Own,
    /// Another origin's, verified against the pinned key.
    Mirror,
}

impl std::fmt::Display for StoreRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Own => "own store",
            Self::Mirror => "mirror",
        })
    }
}

/// Appends the body of a `store` record: version, role, reserved, vkey.
pub(crate) fn put_store(role: StoreRole, origin: &VerifierKey, out: &mut Vec<u8>) {
    let role = match role {
        StoreRole::Own => 1,
        StoreRole::Mirror => 2,
    };
    out.extend_from_slice(&[STORE_VERSION, role, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(origin.to_string().as_bytes());
}

/// Reads the body of a `store` record.
pub(crate) fn get_store(body: &[u8]) -> Result<(StoreRole, VerifierKey), DecodeError> {
    let mut r = Reader::new(body);
    r.version("store record", STORE_VERSION)?;
    let role = match r.u8("store role")? {
        1 => StoreRole::Own,
        2 => StoreRole::Mirror,
        _ => return Err(DecodeError::Invalid { what: "store role" }),
    };
    r.reserved("store record bytes 2..8", 6)?;
    in_range(
        "vkey in bytes",
        r.remaining() as u64,
        1,
        VKEY_BYTES_MAX as u64,
    )?;
    let vkey = r.utf8("vkey", r.remaining())?;
    let origin = VerifierKey::parse(vkey).map_err(|_| DecodeError::Invalid { what: "vkey" })?;
    Ok((role, origin))
}

/// Appends the body of a `context` record: number, id.
pub(crate) fn put_context(number: u64, id: &ContextId, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(id.as_str().as_bytes());
}

/// Reads the body of a `context` record.
pub(crate) fn get_context(body: &[u8]) -> Result<(u64, ContextId), DecodeError> {
    let mut r = Reader::new(body);
    let number = r.u64("context number")?;
    Ok((number, ContextId::decode(r.rest())?))
}

/// Appends the body of a `named` record: number, size, root, id.
pub(crate) fn put_named(number: u64, size: u64, root: &Hash, id: &ContextId, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&size.to_le_bytes());
    out.extend_from_slice(root.as_bytes());
    out.extend_from_slice(id.as_str().as_bytes());
}

/// Reads the body of a `named` record.
pub(crate) fn get_named(body: &[u8]) -> Result<(u64, u64, Hash, ContextId), DecodeError> {
    let mut r = Reader::new(body);
    let number = r.u64("context number")?;
    let size = r.u64("loaded size")?;
    in_range("loaded size", size, 1, SEQUENCE_MAX)?;
    let root = r.hash("loaded root")?;
    Ok((number, size, root, ContextId::decode(r.rest())?))
}

/// Splits the body of a `run` record: context number, run.
pub(crate) fn get_run(body: &[u8]) -> Result<(u64, &[u8]), DecodeError> {
    let mut r = Reader::new(body);
    let number = r.u64("context number")?;
    Ok((number, r.rest()))
}

/// Splits the body of a `payload` record: hash, payload.
pub(crate) fn get_payload(body: &[u8]) -> Result<(Hash, &[u8]), DecodeError> {
    let mut r = Reader::new(body);
    let hash = r.hash("payload hash")?;
    in_range(
        "payload outside its run in bytes",
        r.remaining() as u64,
        PAYLOAD_INLINE_BYTES_MAX as u64 + 1,
        PAYLOAD_BYTES_MAX as u64,
    )?;
    Ok((hash, r.rest()))
}

/// Appends the body of a `resolved` record: evidence, directory root.
pub(crate) fn put_resolved(evidence: &Hash, root: &Hash, out: &mut Vec<u8>) {
    out.extend_from_slice(evidence.as_bytes());
    out.extend_from_slice(root.as_bytes());
}

/// Reads the body of a `resolved` record.
pub(crate) fn get_resolved(body: &[u8]) -> Result<(Hash, Hash), DecodeError> {
    let mut r = Reader::new(body);
    let evidence = r.hash("evidence")?;
    let root = r.hash("directory root")?;
    r.finish("resolved record")?;
    Ok((evidence, root))
}

/// Appends the body of a `note` record.
pub(crate) fn put_note(note: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(note);
}

/// Appends the body of a `head` record: position covered, note.
pub(crate) fn put_head(covered: Position, note: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&covered.as_u64().to_le_bytes());
    out.extend_from_slice(note);
}

/// Splits the body of a `head` record: position covered, note.
pub(crate) fn get_head(body: &[u8]) -> Result<(Position, &[u8]), DecodeError> {
    let mut r = Reader::new(body);
    let covered = Position::from_u64(r.u64("covered position")?);
    in_range(
        "note in bytes",
        r.remaining() as u64,
        1,
        NOTE_BYTES_MAX as u64,
    )?;
    Ok((covered, r.rest()))
}
