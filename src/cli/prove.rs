//! `prove`: a file that an auditor can check offline with `verify`.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};

use super::data::DataDir;
use super::error::CliError;
use super::output::{Out, STDOUT};
use crate::entry::ContextId;
use crate::limits::NOTE_BYTES_MAX;
use crate::store::{ProveError, View};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["sequence", "consistency"]))]
pub(super) struct ProveArguments {
    /// The context
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Prove that this entry of --context is under the newest head
    #[arg(long, value_name = "SEQUENCE", requires = "context")]
    sequence: Option<u64>,
    /// Put the entry's payload into the file, not its hash alone
    #[arg(long, requires = "sequence")]
    payload: bool,
    /// Prove that the newest head extends the one in this file (`head` printed
    /// it; - is stdin): all of it, or --context alone
    #[arg(long, value_name = "OLD_HEAD")]
    consistency: Option<PathBuf>,
    /// Write to this file, which must not exist [default: stdout, which is - too]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(data: &DataDir, arguments: &ProveArguments) -> Result<(), CliError> {
    let context = match &arguments.context {
        Some(name) => Some(
            ContextId::new(name).map_err(|error| CliError::usage(error).context("--context"))?,
        ),
        None => None,
    };
    if arguments.sequence == Some(0) {
        return Err(CliError::usage("--sequence: sequences begin at 1"));
    }
    let older = match &arguments.consistency {
        Some(path) => Some(read_note(path)?),
        None => None,
    };
    let view = data.open_view()?;
    let bytes = match (&context, arguments.sequence, &older) {
        (Some(id), Some(sequence), _) => {
            let proven = view.prove_entry(id, sequence, arguments.payload);
            proven
                .map_err(|error| not_covered(&view, id, sequence, error))?
                .to_bytes()
        }
        (Some(id), None, Some(note)) => view.prove_context(id, note)?.to_bytes(),
        (None, None, Some(note)) => view.prove_store(note)?.to_bytes(),
        // The argument tree asks for one of them.
        _ => return Err(CliError::usage("nothing is to be proven")),
    };
    let output = arguments.output.as_ref();
    match output.filter(|path| path.as_os_str() != STDOUT) {
        None => {
            let mut out = Out::new();
            out.bytes(&bytes)?;
            out.flush()
        }
        Some(path) => write(path, &bytes),
    }
}

/// An entry that is not under the newest head may be stored, or not.
fn not_covered(view: &View, id: &ContextId, sequence: u64, error: ProveError) -> CliError {
    let stored = view.size(id).ok().flatten().unwrap_or(0);
    match error {
        ProveError::NotCovered { .. } if sequence > stored => {
            CliError::could_not(error).hint("There is no such entry yet.")
        }
        error => error.into(),
    }
}

fn read_note(path: &Path) -> Result<Vec<u8>, CliError> {
    let failed = |error: std::io::Error| CliError::could_not(error).context(path.display());
    let mut note = Vec::new();
    let bytes_max = NOTE_BYTES_MAX as u64 + 1;
    let read = if path.as_os_str() == STDOUT {
        io::stdin().lock().take(bytes_max).read_to_end(&mut note)
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(bytes_max).read_to_end(&mut note)
    };
    read.map_err(failed)?;
    Ok(note)
}

/// A file that is there was not made by this command, and is left alone.
fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::could_not(error).context(path.display());
    let mut file = std::fs::File::create_new(path).map_err(failed)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a proof is none.
        let _ = std::fs::remove_file(path);
        failed(error)
    })
}

impl From<ProveError> for CliError {
    fn from(error: ProveError) -> Self {
        match error {
            ProveError::Store(error) => error.into(),
            ProveError::NoHead | ProveError::NotCovered { .. } => Self::could_not(error).hint(
                "The next command that writes signs one, and `serve` one a second while it runs; a \
                 mirror has it when its source has.",
            ),
            ProveError::NoContext { .. } => Self::could_not(error).hint("`contexts` lists them."),
            ProveError::NotOurs(_) => Self::usage(error)
                .context("--consistency")
                .hint("Give a file that `head` printed for this origin."),
            ProveError::Ahead { .. } => Self::verification(error).hint(
                "Either this copy is behind, or it lost its end. If this is the origin's own \
                 store, do not append to it before you know.",
            ),
            ProveError::NotKept { .. } => Self::could_not(error)
                .hint("Heads are kept for the newest thousand, and one a minute."),
            ProveError::OtherHistory { .. } => Self::verification(error).hint(
                "Keep that head: with this store's own it proves that the origin signed two \
                 histories.",
            ),
            ProveError::TooLarge => Self::could_not(error).hint("Give --context."),
            ProveError::Unsound(_) => {
                Self::verification(error).hint("Run `audit` for the first bad entry.")
            }
        }
    }
}
