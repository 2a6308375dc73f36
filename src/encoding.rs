//! Layer 0. The one spelling of everything that is decoded.
//!
//! Fixed layouts are read with [`Reader`], which never allocates, never
//! panics, and whose [`Reader::finish`] refuses bytes that are left. What is
//! read with postcard goes through [`from_postcard`], which decodes, requires
//! that nothing is left, encodes again and compares: postcard alone accepts
//! more than one spelling of a value (overlong varints, trailing bytes).

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes were refused. The bytes' producer is at fault, never the reader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("truncated: {what} needs {needed} bytes, {have} are left")]
    Truncated {
        /// The field that did not fit.
        what: &'static str,
        /// Bytes the field needs.
        needed: usize,
        /// Bytes that were left.
        have: usize,
    },
    /// Bytes are left after the value.
    #[error("{surplus} surplus bytes after {what}")]
    Trailing {
        /// The value that ended too early.
        what: &'static str,
        /// Bytes left over.
        surplus: usize,
    },
    /// The value can be spelled otherwise; only one spelling is accepted.
    #[error("not canonical: {what}")]
    NotCanonical {
        /// The rule that was broken.
        what: &'static str,
    },
    /// A length or count is outside its limit.
    #[error("{what} is {got}, allowed are {min}..={max}")]
    OutOfRange {
        /// The field.
        what: &'static str,
        /// The value found.
        got: u64,
        /// The smallest allowed value.
        min: u64,
        /// The largest allowed value.
        max: u64,
    },
    /// A structure of a version this build does not know.
    #[error("{what} has version {found}, this build reads version {known}")]
    UnknownVersion {
        /// The structure.
        what: &'static str,
        /// The version found.
        found: u16,
        /// The version this build reads.
        known: u16,
    },
    /// The bytes break a rule of their structure.
    #[error("invalid: {what}")]
    Invalid {
        /// The rule that was broken.
        what: &'static str,
    },
}

/// Checks that `got` lies in `min..=max`.
pub fn in_range(what: &'static str, got: u64, min: u64, max: u64) -> Result<(), DecodeError> {
    if got < min || got > max {
        return Err(DecodeError::OutOfRange {
            what,
            got,
            min,
            max,
        });
    }
    Ok(())
}

/// Reads little-endian fixed layouts from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the first byte of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, what: &'static str, n: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(n) else {
            return Err(DecodeError::Truncated {
                what,
                needed: n,
                have: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated {
                what,
                needed: N,
                have: self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(what)?[0])
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// 32 bytes as a hash.
    pub fn hash(&mut self, what: &'static str) -> Result<crate::hash::Hash, DecodeError> {
        Ok(crate::hash::Hash::from_bytes(self.array(what)?))
    }

    /// `n` bytes that must be zero.
    pub fn reserved(&mut self, what: &'static str, n: usize) -> Result<(), DecodeError> {
        if self.bytes(what, n)?.iter().any(|&b| b != 0) {
            return Err(DecodeError::NotCanonical { what });
        }
        Ok(())
    }

    /// A one-byte version that must be `known`.
    pub fn version(&mut self, what: &'static str, known: u8) -> Result<(), DecodeError> {
        let found = self.u8(what)?;
        if found != known {
            return Err(DecodeError::UnknownVersion {
                what,
                found: u16::from(found),
                known: u16::from(known),
            });
        }
        Ok(())
    }

    /// `n` bytes of UTF-8.
    pub fn utf8(&mut self, what: &'static str, n: usize) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(what, n)?).map_err(|_| DecodeError::Invalid { what })
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Refuses bytes that are left.
    pub fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing {
                what,
                surplus: self.rest.len(),
            })
        }
    }
}

/// Encodes with postcard.
pub fn to_postcard<T: Serialize>(value: &T) -> Result<Vec<u8>, DecodeError> {
    postcard::to_stdvec(value).map_err(|_| DecodeError::Invalid {
        what: "postcard value",
    })
}

/// Decodes the only spelling of a postcard value in at most `bytes_max` bytes.
pub fn from_postcard<T: Serialize + DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
    bytes_max: usize,
) -> Result<T, DecodeError> {
    in_range(what, bytes.len() as u64, 0, bytes_max as u64)?;
    let (value, rest) =
        postcard::take_from_bytes::<T>(bytes).map_err(|_| DecodeError::Invalid { what })?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing {
            what,
            surplus: rest.len(),
        });
    }
    if to_postcard(&value)? != bytes {
        return Err(DecodeError::NotCanonical { what });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postcard_has_one_spelling() {
        let ok = to_postcard(&(5u64, true)).unwrap();
        assert_eq!(
            from_postcard::<(u64, bool)>("t", &ok, 16).unwrap(),
            (5, true)
        );
        assert_eq!(
            from_postcard::<u64>("t", &[0x80, 0x00], 16),
            Err(DecodeError::NotCanonical { what: "t" })
        );
        assert_eq!(
            from_postcard::<u64>("t", &[5, 5], 16),
            Err(DecodeError::Trailing {
                what: "t",
                surplus: 1
            })
        );
        assert!(matches!(
            from_postcard::<u64>("t", &[5], 0),
            Err(DecodeError::OutOfRange { got: 1, .. })
        ));
    }

    #[test]
    fn the_reader_refuses_short_and_surplus_input() {
        let mut r = Reader::new(&[1, 0, 2]);
        assert_eq!(r.u16("a").unwrap(), 1);
        assert_eq!(
            r.u16("b"),
            Err(DecodeError::Truncated {
                what: "b",
                needed: 2,
                have: 1
            })
        );
        assert_eq!(
            r.finish("c"),
            Err(DecodeError::Trailing {
                what: "c",
                surplus: 1
            })
        );
        assert!(Reader::new(&[0, 1]).reserved("z", 2).is_err());
        assert!(Reader::new(&[0, 0]).reserved("z", 2).is_ok());
    }
}
