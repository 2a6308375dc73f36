//! Layer 5. The command `verify`: a file, a public key, one line. It needs no
//! store and no network, and is all there is of the program when it is built
//! without default features.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::note::VerifierKey;
use crate::shown::escape;
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

/// What may be wrong if the key did not sign.
const ROTATED: &str = "; if the origin rotated its key since, give the key that counted when the \
                       file was made";

/// How a verification ended: the exit status and the line for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// 0 proven, 1 does not hold, 2 no such file or key, 3 not readable.
    pub status: u8,
    /// What is proven, or why nothing is. Safe to show on a terminal.
    pub line: String,
}

impl Outcome {
    fn failed(status: u8, line: impl std::fmt::Display) -> Self {
        let line = escape(&line.to_string());
        Self { status, line }
    }
}

/// Verifies the file at `path`; `-` is the standard input.
#[must_use]
pub fn verify_path(path: &Path, origin: &str) -> Outcome {
    let key = match VerifierKey::parse(origin) {
        Ok(key) => key,
        Err(error) => return Outcome::failed(2, format_args!("--origin: {error}")),
    };
    match read(path) {
        Ok(bytes) if bytes.len() > FILE_BYTES_MAX => Outcome::failed(
            2,
            format_args!("{}: longer than {FILE_BYTES_MAX} bytes", path.display()),
        ),
        Ok(bytes) => match verify::file(&bytes, &key) {
            Ok(proven) => Outcome {
                status: 0,
                // Names in it are quoted and escaped already.
                line: format!("proven: {proven}"),
            },
            Err(error) => {
                let status = if error.is_malformed() { 2 } else { 1 };
                let hint = if error.is_not_signed() { ROTATED } else { "" };
                let changed = changed_on_the_way(&bytes);
                Outcome::failed(
                    status,
                    format_args!("{}: {error}{hint}{changed}", path.display()),
                )
            }
        },
        Err(error) => Outcome::failed(3, format_args!("{}: {error}", path.display())),
    }
}

/// What editors and transfers of text do to a file. None is made with either.
fn changed_on_the_way(bytes: &[u8]) -> &'static str {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        "; it begins with a byte order mark, which something put there on the way"
    } else if bytes.windows(2).any(|two| two == b"\r\n") {
        "; its line endings were changed on the way, from LF to CR LF"
    } else {
        ""
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
