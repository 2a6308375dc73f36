//! Layer 2. The signed note (C2SP signed-note) and the keys that sign it.
//!
//! Owns: the envelope here; origin names, verifier and signer keys in `key`.
//! It does not know what a text says; `head` does.
//!
//! ```text
//! text, one or more lines, each ending in LF
//!                                                        (empty line)
//! U+2014 SP name SP base64(key id, 4 bytes || signature) LF
//! ...                                                    (1..=8 lines)
//! ```
//!
//! Invariants:
//! * parsing and printing are inverse: `Note::parse(x)?.to_bytes() == x`;
//! * the statement is the text; a line by an unknown key is never trusted and
//!   never stored (`strip_unknown`);
//! * a line that names a known key and does not verify under it refuses the
//!   whole note, and so do two lines of one known key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::encoding::{DecodeError, in_range};
use crate::limits::{NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX, NOTE_TEXT_BYTES_MAX};

mod key;
#[cfg(test)]
mod tests;

use key::hex8;
pub use key::{OriginName, SignerKey, VerifierKey};

/// An em dash and a space.
const LINE_START: &str = "\u{2014} ";
/// A signature line holds a key id and at least one byte of signature.
const LINE_PAYLOAD_BYTES_MIN: u64 = 5;

/// Why a name, a key or a note was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The bytes are no name, key or note: the fault of whoever wrote them.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// The public key has small order or an encoding that is not canonical:
    /// the fault of whoever made the key.
    #[error("the public key of {name} is weak or not canonical")]
    WeakKey {
        /// The name in front of the key.
        name: OriginName,
    },
    /// A line names a known key and does not verify: the fault of whoever
    /// passed the note on.
    #[error("the signature by {name}+{} does not verify", hex8(*key_id))]
    BadSignature {
        /// The key's name.
        name: OriginName,
        /// The key's id.
        key_id: [u8; 4],
    },
    /// One key signed twice: the fault of whoever passed the note on, or of a
    /// caller that signs again.
    #[error("two signature lines by {name}+{}", hex8(*key_id))]
    DuplicateSignature {
        /// The key's name.
        name: OriginName,
        /// The key's id.
        key_id: [u8; 4],
    },
    /// Two of the caller's keys share name and id, so a line cannot be
    /// assigned to one of them.
    #[error("two known keys share {name}+{}", hex8(*key_id))]
    AmbiguousKeys {
        /// The name of both.
        name: OriginName,
        /// The id of both.
        key_id: [u8; 4],
    },
    /// No known key signed the note, so nothing of it can be kept.
    #[error("no known key signed the note")]
    NoKnownSignature,
}

/// One signature of a note, by whatever key and algorithm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureLine {
    /// The name of the key.
    pub name: OriginName,
    /// The id of the key.
    pub key_id: [u8; 4],
    /// At least one byte; 64 for Ed25519.
    pub signature: Vec<u8>,
}

/// A text and signatures over it, well-formed but not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<SignatureLine>,
}

impl Note {
    /// An unsigned note: at most 4 KiB ending in LF, with no other control
    /// character (stricter than C2SP, which allows U+007F..=U+009F).
    pub fn new(text: String) -> Result<Self, NoteError> {
        check_text(&text)?;
        Ok(Self {
            text,
            signatures: Vec::new(),
        })
    }

    /// Parses a note with 1..=8 signature lines. No signature is checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        in_range("note bytes", bytes.len() as u64, 1, NOTE_BYTES_MAX as u64)?;
        let note = std::str::from_utf8(bytes).map_err(|_| invalid("note is not UTF-8"))?;
        // The last empty line ends the text: a text may hold empty lines.
        let (head, lines) = note
            .rsplit_once("\n\n")
            .ok_or_else(|| invalid("note has no empty line before its signatures"))?;
        let text = note.get(..=head.len()).unwrap_or_default();
        check_text(text)?;
        let lines = lines
            .strip_suffix('\n')
            .ok_or_else(|| invalid("note does not end in a line feed"))?;
        let count = lines.split('\n').count() as u64;
        in_range("signature lines", count, 1, NOTE_SIGNATURES_MAX as u64)?;
        Ok(Self {
            text: text.to_owned(),
            signatures: lines
                .split('\n')
                .map(parse_line)
                .collect::<Result<_, _>>()?,
        })
    }

    /// The statement.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines, in their order.
    #[must_use]
    pub fn signatures(&self) -> &[SignatureLine] {
        &self.signatures
    }

    /// Adds a signature line.
    pub fn sign(&mut self, key: &SignerKey) -> Result<(), NoteError> {
        let by = key.verifier();
        if self.signatures.iter().any(|line| by.made(line)) {
            return Err(NoteError::DuplicateSignature {
                name: by.name().clone(),
                key_id: by.key_id(),
            });
        }
        let count = self.signatures.len() as u64 + 1;
        in_range("signature lines", count, 1, NOTE_SIGNATURES_MAX as u64)?;
        self.signatures.push(key.sign(&self.text));
        Ok(())
    }

    /// The bytes of the envelope. Without a signature they do not parse.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = format!("{}\n", self.text);
        for line in &self.signatures {
            let payload = [&line.key_id, line.signature.as_slice()].concat();
            out.push_str(LINE_START);
            out.push_str(line.name.as_str());
            out.push(' ');
            STANDARD.encode_string(payload, &mut out);
            out.push('\n');
        }
        out.into_bytes()
    }

    /// Which of `keys` signed the note, as ascending positions in `keys`; none
    /// is no error. Lines by other keys are ignored (rule R2).
    pub fn open(&self, keys: &[&VerifierKey]) -> Result<Vec<usize>, NoteError> {
        Ok(self
            .verified(keys)?
            .into_iter()
            .map(|(position, _)| position)
            .collect())
    }

    /// The same statement with only the lines of `keys`, verified, in the
    /// order of `keys`.
    pub fn strip_unknown(&self, keys: &[&VerifierKey]) -> Result<Self, NoteError> {
        let (signed, stripped) = self.open_and_strip(keys)?;
        if signed.is_empty() {
            return Err(NoteError::NoKnownSignature);
        }
        Ok(stripped)
    }

    /// Both at once, so that each signature is verified once; the note has no
    /// lines left if none of `keys` signed it.
    pub(crate) fn open_and_strip(
        &self,
        keys: &[&VerifierKey],
    ) -> Result<(Vec<usize>, Self), NoteError> {
        let verified = self.verified(keys)?;
        let stripped = Self {
            text: self.text.clone(),
            signatures: verified.iter().map(|&(_, line)| line.clone()).collect(),
        };
        let signed = verified.into_iter().map(|(position, _)| position);
        Ok((signed.collect(), stripped))
    }

    fn verified(&self, keys: &[&VerifierKey]) -> Result<Vec<(usize, &SignatureLine)>, NoteError> {
        let mut found = Vec::new();
        for (position, &key) in keys.iter().enumerate() {
            let (name, key_id) = (|| key.name().clone(), key.key_id());
            let mut same = keys.iter().skip(position + 1);
            if same.any(|other| other.key_id() == key_id && other.name() == key.name()) {
                let name = name();
                return Err(NoteError::AmbiguousKeys { name, key_id });
            }
            let mut lines = self.signatures.iter().filter(|line| key.made(line));
            let Some(line) = lines.next() else {
                continue;
            };
            if lines.next().is_some() {
                let name = name();
                return Err(NoteError::DuplicateSignature { name, key_id });
            }
            key.verify(&self.text, line)?;
            found.push((position, line));
        }
        Ok(found)
    }
}

fn parse_line(line: &str) -> Result<SignatureLine, NoteError> {
    let (name, payload) = line
        .strip_prefix(LINE_START)
        .and_then(|rest| rest.split_once(' '))
        .ok_or_else(|| invalid("signature line is not dash, name, base64"))?;
    let name = OriginName::new(name)?;
    // Strict: padded, no stray bits. Bounded by the note's length.
    let payload = STANDARD
        .decode(payload)
        .map_err(|_| invalid("signature line is not base64"))?;
    let max = NOTE_BYTES_MAX as u64;
    let len = payload.len() as u64;
    in_range("signature bytes", len, LINE_PAYLOAD_BYTES_MIN, max)?;
    let (key_id, signature) = payload
        .split_first_chunk::<4>()
        .ok_or_else(|| invalid("signature line has no key id"))?;
    Ok(SignatureLine {
        name,
        key_id: *key_id,
        signature: signature.to_vec(),
    })
}

fn check_text(text: &str) -> Result<(), NoteError> {
    let max = NOTE_TEXT_BYTES_MAX as u64;
    in_range("note text bytes", text.len() as u64, 1, max)?;
    if !text.ends_with('\n') {
        return Err(invalid("note text does not end in a line feed"));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(invalid("note text holds a control character"));
    }
    Ok(())
}

const fn invalid(what: &'static str) -> NoteError {
    NoteError::Malformed(DecodeError::Invalid { what })
}
