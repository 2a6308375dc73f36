//! Origin names and the Ed25519 keys that sign notes.
//!
//! ```text
//! verifier key   name+hex8(key id)+base64(0x01 || public key)
//! secret key     PRIVATE+KEY+name+hex8(key id)+base64(0x01 || seed)
//! key id         SHA-256(name || 0x0A || 0x01 || public key)[..4]
//! ```
//!
//! Invariants:
//! * each kind of key has one spelling: parsing prints again and compares;
//! * a small-order or oddly encoded public key never becomes a `VerifierKey`;
//! * a seed is wiped from memory when its owner is dropped.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{NoteError, SignatureLine, invalid};
use crate::encoding::{DecodeError, in_range};
use crate::limits::ORIGIN_NAME_BYTES_MAX;

/// The byte in front of an Ed25519 key, in keys and in key ids.
const ALGORITHM_ED25519: u8 = 1;
/// Base64 of the algorithm byte and 32 key bytes.
const KEY_BASE64_BYTES: usize = 44;
/// `name+hex8+base64`.
const VKEY_BYTES_MAX: usize = ORIGIN_NAME_BYTES_MAX + 1 + 8 + 1 + KEY_BASE64_BYTES;
const SECRET_START: &str = "PRIVATE+KEY+";

/// The name of an origin: 1..=255 bytes without white space, control
/// characters or `+`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginName(String);

impl OriginName {
    /// Checks a name.
    pub fn new(name: &str) -> Result<Self, NoteError> {
        let max = ORIGIN_NAME_BYTES_MAX as u64;
        in_range("origin name bytes", name.len() as u64, 1, max)?;
        if name
            .chars()
            .any(|c| c == '+' || c.is_whitespace() || c.is_control())
        {
            return Err(invalid("origin name holds a space, a control or a plus"));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OriginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OriginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A name and the Ed25519 public key that signs under it. `Display` prints
/// the vkey.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: OriginName,
    key_id: [u8; 4],
    key: VerifyingKey,
}

impl VerifierKey {
    /// Checks a public key.
    pub fn new(name: OriginName, public_key: &[u8; 32]) -> Result<Self, NoteError> {
        match VerifyingKey::from_bytes(public_key) {
            Ok(key) if !key.is_weak() && key.to_edwards().compress().as_bytes() == public_key => {
                Ok(Self::from_key(name, key))
            }
            _ => Err(NoteError::WeakKey { name }),
        }
    }

    /// Parses a vkey.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        in_range("vkey bytes", text.len() as u64, 1, VKEY_BYTES_MAX as u64)?;
        let (name, payload) = split_key(text)?;
        let key = Self::new(OriginName::new(name)?, &key_payload(payload)?)?;
        // Canonical by reprint: the id is right, the hex lower case.
        if key.to_string() != text {
            return Err(DecodeError::NotCanonical { what: "vkey" }.into());
        }
        Ok(key)
    }

    /// The name signatures are made under.
    #[must_use]
    pub const fn name(&self) -> &OriginName {
        &self.name
    }

    /// The first four bytes of the key's hash, as in signature lines.
    #[must_use]
    pub const fn key_id(&self) -> [u8; 4] {
        self.key_id
    }

    /// The Ed25519 public key.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    fn from_key(name: OriginName, key: VerifyingKey) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(name.as_str().as_bytes());
        hasher.update([b'\n', ALGORITHM_ED25519]);
        hasher.update(key.as_bytes());
        let [a, b, c, d, ..]: [u8; 32] = hasher.finalize().into();
        Self {
            name,
            key_id: [a, b, c, d],
            key,
        }
    }

    pub(super) fn made(&self, line: &SignatureLine) -> bool {
        self.key_id == line.key_id && self.name == line.name
    }

    pub(super) fn verify(&self, text: &str, line: &SignatureLine) -> Result<(), NoteError> {
        // verify_strict: one signature has one spelling.
        Signature::from_slice(&line.signature)
            .and_then(|signature| self.key.verify_strict(text.as_bytes(), &signature))
            .map_err(|_| NoteError::BadSignature {
                name: self.name.clone(),
                key_id: self.key_id,
            })
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut payload = [ALGORITHM_ED25519; 33];
        payload[1..].copy_from_slice(self.key.as_bytes());
        let (name, id) = (&self.name, hex8(self.key_id));
        write!(f, "{name}+{id}+{}", STANDARD.encode(payload))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A name and the Ed25519 secret that signs under it. Neither printed by
/// `Debug` nor comparable; wiped when dropped.
pub struct SignerKey {
    verifier: VerifierKey,
    key: SigningKey,
}

impl SignerKey {
    /// The key of a 32-byte seed, which the caller draws.
    #[must_use]
    pub fn from_seed(name: OriginName, seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        Self {
            verifier: VerifierKey::from_key(name, key.verifying_key()),
            key,
        }
    }

    /// Parses the text that `to_secret_text` prints.
    pub fn from_secret_text(text: &str) -> Result<Self, NoteError> {
        let max = (SECRET_START.len() + VKEY_BYTES_MAX) as u64;
        in_range("secret key bytes", text.len() as u64, 1, max)?;
        let rest = text
            .strip_prefix(SECRET_START)
            .ok_or_else(|| invalid("secret key does not begin with PRIVATE+KEY+"))?;
        let (name, payload) = split_key(rest)?;
        let seed = Zeroizing::new(key_payload(payload)?);
        let key = Self::from_seed(OriginName::new(name)?, &seed);
        if key.to_secret_text().as_str() != text {
            return Err(DecodeError::NotCanonical { what: "secret key" }.into());
        }
        Ok(key)
    }

    /// The secret as one line of text (no LF), wiped when dropped.
    #[must_use]
    pub fn to_secret_text(&self) -> Zeroizing<String> {
        let mut payload = Zeroizing::new([ALGORITHM_ED25519; 33]);
        payload[1..].copy_from_slice(self.key.as_bytes());
        // The capacity is exact, so no copy is left behind by growing.
        let name = self.verifier.name.as_str();
        let bytes = SECRET_START.len() + name.len() + 10 + KEY_BASE64_BYTES;
        let mut text = Zeroizing::new(String::with_capacity(bytes));
        for part in [SECRET_START, name, "+", &hex8(self.verifier.key_id), "+"] {
            text.push_str(part);
        }
        STANDARD.encode_string(payload.as_slice(), &mut text);
        text
    }

    pub(super) fn sign(&self, text: &str) -> SignatureLine {
        SignatureLine {
            name: self.verifier.name.clone(),
            key_id: self.verifier.key_id,
            signature: self.key.sign(text.as_bytes()).to_bytes().to_vec(),
        }
    }

    /// The public half.
    #[must_use]
    pub const fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerKey({}, secret)", self.verifier)
    }
}

/// `name+hex8+base64` to its name and base64; the reprint checks the middle.
fn split_key(text: &str) -> Result<(&str, &str), NoteError> {
    let mut parts = text.splitn(3, '+');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(_), Some(payload)) => Ok((name, payload)),
        _ => Err(invalid("key is not name+id+base64")),
    }
}

/// Base64 of the algorithm byte and 32 bytes.
fn key_payload(text: &str) -> Result<[u8; 32], NoteError> {
    let bytes = Zeroizing::new(
        STANDARD
            .decode(text)
            .map_err(|_| invalid("key is not base64"))?,
    );
    match bytes.split_first() {
        Some((&ALGORITHM_ED25519, key)) => key
            .try_into()
            .map_err(|_| invalid("key is not of 32 bytes")),
        _ => Err(invalid("key is not an Ed25519 key")),
    }
}

pub(super) fn hex8(id: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}
