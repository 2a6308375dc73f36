//! Key files of a store's directory: `origin.key`, which signs heads, and
//! `node.key`, which names this node to its peers. Both are made once and
//! readable by their owner only. `node.key` is never replaced; `origin.key` only
//! by a rotation, through `origin.key.next`.
//!
//! `origin.key` holds one line in the form that Go's `sumdb/note` prints,
//! `PRIVATE+KEY+<name>+<key id>+<base64>`; `node.key` one line
//! `converge-ledger-node-key <64 hexadecimal digits>`.

use std::io;

use zeroize::Zeroizing;

use super::StoreError;
use super::disk::Disk;
use crate::note::{OriginName, SignerKey, VerifierKey};

/// File of the origin's signing key.
pub const ORIGIN_KEY_FILE: &str = "origin.key";
/// File of the key that a rotation brings, until it takes the place of
/// `origin.key`.
pub const ORIGIN_KEY_NEXT_FILE: &str = "origin.key.next";
/// File of the node's key.
pub const NODE_KEY_FILE: &str = "node.key";
/// What could not be done, of an error about `origin.key`.
pub const READ_ORIGIN_KEY: &str = "read origin.key";
/// The same, about `origin.key.next`.
pub const READ_NEXT_ORIGIN_KEY: &str = "read origin.key.next";
/// The same, about `node.key`.
pub const READ_NODE_KEY: &str = "read node.key";
const KEY_FILE_BYTES_MAX: u64 = 1024;
const NODE_KEY_PREFIX: &str = "converge-ledger-node-key ";

/// 32 secret bytes, wiped when dropped.
pub type Seed = Zeroizing<[u8; 32]>;

/// 32 bytes from the operating system.
pub fn random_seed() -> Result<Seed, StoreError> {
    let mut seed = Seed::default();
    getrandom::fill(&mut *seed)
        .map_err(|error| StoreError::io("get randomness", io::Error::other(error)))?;
    Ok(seed)
}

/// Makes `origin.key`; `AlreadyExists` is an error, never overwritten.
pub fn create_origin_key(disk: &dyn Disk, key: &SignerKey) -> Result<(), StoreError> {
    create_signer(disk, ORIGIN_KEY_FILE, key)
        .map_err(|error| StoreError::io("make origin.key", error))
}

/// Reads `origin.key`. After a rotation that was cut off it may be the old key:
/// [`read_origin_key_for`] tells.
pub fn read_origin_key(disk: &dyn Disk) -> Result<SignerKey, StoreError> {
    read_signer(disk, ORIGIN_KEY_FILE, READ_ORIGIN_KEY)
}

/// Makes `origin.key.next`, durable when this returns; one that is there is
/// replaced, whole. Before a rotation to it, not after.
pub fn create_next_origin_key(disk: &dyn Disk, key: &SignerKey) -> Result<(), StoreError> {
    let io = |error| StoreError::io("make origin.key.next", error);
    let temporary = format!("{ORIGIN_KEY_NEXT_FILE}.new");
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => (),
    }
    create_signer(disk, &temporary, key)
        .and_then(|()| disk.rename(&temporary, ORIGIN_KEY_NEXT_FILE))
        .and_then(|()| disk.sync_dir(""))
        .map_err(io)
}

/// Reads `origin.key.next`, if it is there.
pub fn read_next_origin_key(disk: &dyn Disk) -> Result<Option<SignerKey>, StoreError> {
    match read_signer(disk, ORIGIN_KEY_NEXT_FILE, READ_NEXT_ORIGIN_KEY) {
        Ok(key) => Ok(Some(key)),
        Err(StoreError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lets `origin.key.next` take the place of `origin.key`, which is gone then.
/// Only when the rotation to it is durable in the log.
pub fn install_next_origin_key(disk: &dyn Disk) -> Result<(), StoreError> {
    disk.rename(ORIGIN_KEY_NEXT_FILE, ORIGIN_KEY_FILE)
        .and_then(|()| disk.sync_dir(""))
        .map_err(|error| StoreError::io("put origin.key.next in the place of origin.key", error))
}

/// The key `current`, and where it was found.
#[derive(Debug)]
pub struct FoundKey {
    /// The key.
    pub key: SignerKey,
    /// It is still `origin.key.next`: a rotation was cut off before it was
    /// installed.
    pub is_next: bool,
}

/// Finds the key that counts, as the log has it: `origin.key`, or else
/// `origin.key.next`. Changes nothing, since the rotation may not be durable
/// yet.
pub fn read_origin_key_for(disk: &dyn Disk, current: &VerifierKey) -> Result<FoundKey, StoreError> {
    let own = read_origin_key(disk);
    if let Ok(key) = own
        && key.verifier() == current
    {
        return Ok(FoundKey {
            key,
            is_next: false,
        });
    }
    // One that cannot be read may be the one that is looked for.
    if let Some(key) = read_next_origin_key(disk)?
        && key.verifier() == current
    {
        return Ok(FoundKey { key, is_next: true });
    }
    Err(StoreError::WrongKey {
        expected: current.to_string(),
        got: read_origin_key(disk)?.verifier().to_string(),
    })
}

fn create_signer(disk: &dyn Disk, name: &str, key: &SignerKey) -> io::Result<()> {
    let mut text = Zeroizing::new(key.to_secret_text().to_string());
    text.push('\n');
    disk.create_private(name, text.as_bytes())
}

fn read_signer(disk: &dyn Disk, name: &str, what: &'static str) -> Result<SignerKey, StoreError> {
    let text = read_line(disk, name, what)?;
    SignerKey::from_secret_text(&text).map_err(|_| unreadable(what, "not a signing key"))
}

/// A signer with a fresh key under `name`.
pub fn generate_signer(name: OriginName) -> Result<SignerKey, StoreError> {
    let seed = random_seed()?;
    Ok(SignerKey::from_seed(name, &seed))
}

/// Makes `node.key` with a fresh seed.
pub fn create_node_key(disk: &dyn Disk) -> Result<Seed, StoreError> {
    let seed = random_seed()?;
    let mut text = Zeroizing::new(String::from(NODE_KEY_PREFIX));
    for byte in *seed {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
        }
    }
    text.push('\n');
    disk.create_private(NODE_KEY_FILE, text.as_bytes())
        .map_err(|error| StoreError::io("make node.key", error))?;
    Ok(seed)
}

/// Reads `node.key`.
pub fn read_node_key(disk: &dyn Disk) -> Result<Seed, StoreError> {
    let text = read_line(disk, NODE_KEY_FILE, READ_NODE_KEY)?;
    let hex = text
        .strip_prefix(NODE_KEY_PREFIX)
        .and_then(crate::hash::Hash::from_hex);
    let hash = hex.ok_or_else(|| unreadable(READ_NODE_KEY, "not a node key"))?;
    Ok(Zeroizing::new(*hash.as_bytes()))
}

fn unreadable(what: &'static str, why: &'static str) -> StoreError {
    StoreError::io(what, io::Error::new(io::ErrorKind::InvalidData, why))
}

fn read_line(
    disk: &dyn Disk,
    name: &str,
    what: &'static str,
) -> Result<Zeroizing<String>, StoreError> {
    let bytes = disk
        .read_private(name, KEY_FILE_BYTES_MAX)
        .map(Zeroizing::new)
        .map_err(|error| StoreError::io(what, error))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unreadable(what, "not text"))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    Ok(Zeroizing::new(line.to_owned()))
}
