//! Layer 4. Bearer tokens: who may read and who may write.
//!
//! A file of lines `read TOKEN` and `write TOKEN`; `#` begins a comment. Only
//! digests are kept, every one of them is compared, and each in constant time,
//! so that neither memory nor timing tells what the others are.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tonic::Status;

use super::private::{FileError, read_secret};

/// Tokens in a file.
const TOKENS_MAX: usize = 1024;
/// Bytes of a token, at least: what cannot be guessed.
const TOKEN_BYTES_MIN: usize = 16;
/// Bytes of a token, at most: fits a header.
const TOKEN_BYTES_MAX: usize = 1024;

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    /// Nothing.
    Open,
    Read,
    /// Includes reading.
    Write,
}

/// Why a file of tokens was not taken. Says on which line, and never what.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line is not `read TOKEN` or `write TOKEN`.
    #[error("line {line}: expected `read TOKEN` or `write TOKEN`")]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// A token cannot be used.
    #[error(
        "line {line}: a token has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} printable ASCII \
         characters without spaces (`openssl rand -hex 32` makes one)"
    )]
    Token {
        /// The line's number, from 1.
        line: usize,
    },
    /// A token stands there twice.
    #[error("line {line}: this token is on an earlier line too")]
    Twice {
        /// The second line's number, from 1.
        line: usize,
    },
    /// There are too many, or none.
    #[error("{got} tokens: give 1 to {TOKENS_MAX}")]
    Count {
        /// How many there are.
        got: usize,
    },
}

/// The tokens of a server.
#[derive(Clone)]
pub struct Tokens(Vec<(blake3::Hash, Access)>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

impl Tokens {
    /// Reads a file that only its owner can read.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        Self::parse(&read_secret(path)?)
    }

    /// Reads the text of such a file.
    pub fn parse(text: &[u8]) -> Result<Self, TokenError> {
        let mut tokens = Vec::new();
        let mut seen = HashSet::new();
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line_number = at + 1;
            let mut words = line
                .split(|byte| *byte == b'#')
                .next()
                .unwrap_or_default()
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty());
            let access = match words.next() {
                None => continue,
                Some(b"read") => Access::Read,
                Some(b"write") => Access::Write,
                Some(_) => return Err(TokenError::Line { line: line_number }),
            };
            let (Some(token), None) = (words.next(), words.next()) else {
                return Err(TokenError::Line { line: line_number });
            };
            if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len())
                || !token.iter().all(u8::is_ascii_graphic)
            {
                return Err(TokenError::Token { line: line_number });
            }
            let digest = blake3::hash(token);
            if !seen.insert(*digest.as_bytes()) {
                return Err(TokenError::Twice { line: line_number });
            }
            tokens.push((digest, access));
        }
        match tokens.len() {
            1..=TOKENS_MAX => Ok(Self(tokens)),
            got => Err(TokenError::Count { got }),
        }
    }

    /// What a token opens.
    fn opens(&self, token: &[u8]) -> Option<Access> {
        let digest = blake3::hash(token);
        let mut opens = None;
        for (known, access) in &self.0 {
            // Constant-time equality; no early end.
            if *known == digest {
                opens = Some(*access);
            }
        }
        opens
    }

    /// Refuses a call whose token does not open enough.
    pub(super) fn check(&self, headers: &HeaderMap, needed: Access) -> Result<(), Status> {
        if needed == Access::Open {
            return Ok(());
        }
        let Some(token) = bearer(headers) else {
            return Err(Status::unauthenticated(
                "this server asks for a token: send the metadata `authorization: Bearer TOKEN`",
            ));
        };
        match self.opens(token) {
            Some(access) if access >= needed => Ok(()),
            Some(_) => Err(Status::permission_denied(
                "this token may only read: use one that may write",
            )),
            None => Err(Status::unauthenticated(
                "this token is not known here: check it with the operator of this server",
            )),
        }
    }
}

/// The token of the only `authorization` header.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use tonic::Code::{Ok as Fine, PermissionDenied, Unauthenticated};

    use super::*;

    const READ: &str = "abcdefghijklmnop";
    const WRITE: &str = "ABCDEFGHIJKLMNOP";

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn tokens_open_what_they_say() {
        let text = format!("# ours\n\n read {READ} # ci\r\nwrite\t{WRITE}\n");
        let tokens = Tokens::parse(text.as_bytes()).unwrap();
        let code = |header: &str, needed| {
            let outcome = tokens.check(&headers(header), needed);
            outcome.map_or_else(|status| status.code(), |()| Fine)
        };
        assert_eq!(code(&format!("Bearer {READ}"), Access::Read), Fine);
        assert_eq!(
            code(&format!("bearer {READ}"), Access::Write),
            PermissionDenied
        );
        assert_eq!(code(&format!("Bearer {WRITE}"), Access::Write), Fine);
        assert_eq!(code(&format!("Bearer {WRITE}"), Access::Read), Fine);
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            READ,
            "Basic abcdefghijklmnop",
            "Bearer x",
        ] {
            assert_eq!(code(wrong, Access::Read), Unauthenticated, "{wrong}");
            assert_eq!(code(wrong, Access::Open), Fine);
        }
        let mut twice = headers(&format!("Bearer {READ}"));
        twice.append(AUTHORIZATION, format!("Bearer {WRITE}").parse().unwrap());
        assert!(tokens.check(&twice, Access::Read).is_err());
        assert_eq!(format!("{tokens:?}"), "Tokens(2)");
    }

    #[test]
    fn bad_files_are_refused_without_telling() {
        let refused = |text: &str| Tokens::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(refused("").contains("0 tokens"));
        assert!(refused("read").starts_with("line 1: expected"));
        assert!(refused(&format!("\nadmin {READ}")).starts_with("line 2: expected"));
        assert!(refused(&format!("read {READ} more")).starts_with("line 1: expected"));
        assert!(refused("read short").starts_with("line 1: a token has"));
        assert!(refused(&format!("read {}", "x".repeat(1025))).contains("a token has"));
        let twice = refused(&format!("read {READ}\nwrite {READ}"));
        assert!(twice.starts_with("line 2: this token"));
        let many: Vec<String> = (0..=TOKENS_MAX).map(|n| format!("read {n:016}")).collect();
        let many = many.join("\n");
        assert!(refused(&many).contains("1025 tokens"));
        for error in [
            refused(&format!("admin {READ}")),
            refused("read secretsecret!\u{e9}"),
        ] {
            assert!(!error.contains(READ) && !error.contains("secret"));
        }
    }
}
