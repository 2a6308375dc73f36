//! Layer 5. The command `verify`: a file, a public key, one line. It needs no
//! store and no network, and is all there is of the program when it is built
//! without default features.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::note::VerifierKey;
use crate::verify::{self, FILE_BYTES_MAX};

/// What is said by the program that knows no other command.
const USAGE: &str = "\
converge-ledger (verifier only)

usage: converge-ledger verify FILE --origin VKEY

Checks a proof, evidence or head, offline, under the origin's public key, and says in one
line what it proves. FILE - is the standard input.

Exit status: 0 proven, 1 the file does not hold, 2 usage or no such kind of file, 3 could
not read it.
";

/// How a verification ended: the exit status and the line for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// 0 proven, 1 does not hold, 2 no such file or key, 3 not readable.
    pub status: u8,
    /// What is proven, or why nothing is. Safe to show on a terminal.
    pub line: String,
}

impl Outcome {
    fn new(status: u8, line: impl std::fmt::Display) -> Self {
        let line = escape(&line.to_string());
        Self { status, line }
    }
}

/// Verifies the file at `path`; `-` is the standard input.
#[must_use]
pub fn verify_path(path: &Path, origin: &str) -> Outcome {
    let key = match VerifierKey::parse(origin) {
        Ok(key) => key,
        Err(error) => return Outcome::new(2, format_args!("--origin: {error}")),
    };
    match read(path) {
        Ok(bytes) if bytes.len() > FILE_BYTES_MAX => Outcome::new(
            2,
            format_args!("{}: longer than {FILE_BYTES_MAX} bytes", path.display()),
        ),
        Ok(bytes) => match verify::file(&bytes, &key) {
            Ok(proven) => Outcome::new(0, format_args!("proven: {proven}")),
            Err(error) => {
                let status = if error.is_malformed() { 2 } else { 1 };
                Outcome::new(status, format_args!("{}: {error}", path.display()))
            }
        },
        Err(error) => Outcome::new(3, format_args!("{}: {error}", path.display())),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let bytes_max = FILE_BYTES_MAX as u64 + 1;
    if path.as_os_str() == "-" {
        io::stdin().lock().take(bytes_max).read_to_end(&mut bytes)?;
    } else {
        File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Prints an outcome: what is proven on stdout, anything else on stderr.
#[must_use]
pub fn report(outcome: &Outcome) -> ExitCode {
    let printed = if outcome.status == 0 {
        writeln!(io::stdout(), "{}", outcome.line)
    } else {
        writeln!(io::stderr(), "error: {}", outcome.line)
    };
    match printed {
        // Whoever would have read it is gone: the status still says it.
        Err(_) if outcome.status == 0 => ExitCode::from(3),
        _ => ExitCode::from(outcome.status),
    }
}

/// Runs the program that only verifies.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (mut file, mut origin, mut command) = (None, None, false);
    let mut arguments = arguments.into_iter().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("-h" | "--help") => {
                let printed = write!(io::stdout(), "{USAGE}");
                return ExitCode::from(if printed.is_ok() { 0 } else { 3 });
            }
            Some("verify") if !command => command = true,
            Some("--origin") if origin.is_none() => {
                let value = arguments.next();
                origin = value.and_then(|value| value.into_string().ok());
            }
            Some(text) if text.starts_with("--origin=") && origin.is_none() => {
                origin = text.strip_prefix("--origin=").map(str::to_owned);
            }
            Some(text) if text.starts_with("--") => return usage(),
            _ if command && file.is_none() => file = Some(argument),
            _ => return usage(),
        }
    }
    match (file, origin) {
        (Some(file), Some(origin)) => report(&verify_path(Path::new(&file), &origin)),
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    // Without a stderr there is nobody to tell.
    let _ = write!(io::stderr(), "{USAGE}");
    ExitCode::from(2)
}

/// Text with everything escaped that could move a cursor, change colours or
/// reorder what is read: control characters, line ends, and the Unicode
/// characters that are invisible or change direction. Backslashes double, so
/// that an escape cannot be imitated.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if is_unsafe(c) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_that_moves_a_cursor_gets_through() {
        assert_eq!(escape("plain, größer, 服务器"), "plain, größer, 服务器");
        assert_eq!(escape("\x1b[2J\x07"), "\\u{1b}[2J\\u{7}");
        assert_eq!(escape("a\nb\tc\rd\\n"), "a\\nb\\tc\\rd\\\\n");
        assert_eq!(escape("\u{202e}x\u{9b}"), "\\u{202e}x\\u{9b}");
    }
}
