//! `append`: one entry from arguments or stdin, or many from NDJSON.
//!
//! Many: a parser thread makes the next batch while the store makes the one
//! before it durable. Batches are stored strictly one after the other, so that
//! what is stored is always the beginning of the input. Through a server each
//! line is an append of its own (`server`).

use std::fs;
use std::io::{self, BufReader, IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc::{Receiver, channel};

use super::data::{DataDir, options};
use super::error::CliError;
use super::ndjson::{BadLine, Batch, Batches};
use super::output::{Out, escape, seconds};
use super::progress;
use super::remote::{ServerArguments, Target};
use crate::client::Client;
use crate::entry::{ContextId, Draft, Metadata};
use crate::hash::Hash;
use crate::limits::{NDJSON_BATCH_LINES_MAX, PAYLOAD_BYTES_MAX};
use crate::store::{AppendError, Appended, Store, StoreError};

mod server;

/// Batches that may wait between the parser and the store.
const BATCHES_WAITING: usize = 2;

#[derive(Debug, Args)]
pub(super) struct AppendArguments {
    /// The context; with --ndjson, for lines that name none
    #[arg(long, value_name = "NAME", required_unless_present = "ndjson")]
    context: Option<String>,
    /// What the entry is
    #[arg(long, required_unless_present = "ndjson", conflicts_with = "ndjson")]
    key: Option<String>,
    /// The payload [default: read from stdin]
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["ndjson", "file"])]
    payload: Option<String>,
    /// Read the payload from a file
    #[arg(long, value_name = "FILE", conflicts_with = "ndjson")]
    file: Option<PathBuf>,
    /// Metadata, may be repeated
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "ndjson")]
    meta: Vec<String>,
    /// Makes a retry safe: the same id with the same content is stored once
    #[arg(long, value_name = "ID", conflicts_with = "ndjson")]
    request_id: Option<String>,
    /// Append an entry per line of a file, or of stdin if it is `-`: JSON
    /// objects with `key`, `payload` or `payload_base64`, and if wanted
    /// `metadata`, `context`, `request_id`
    #[arg(long, value_name = "FILE")]
    ndjson: Option<PathBuf>,
    /// Print one JSON object: `entries`, `last_sequence`, `seconds`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) server: ServerArguments,
}

#[derive(Serialize)]
struct AppendJson {
    entries: u64,
    last_sequence: u64,
    seconds: f64,
}

pub(super) fn run(target: &Target, arguments: &AppendArguments) -> Result<(), CliError> {
    let context = match &arguments.context {
        Some(name) => Some(
            ContextId::new(name).map_err(|error| CliError::usage(error).context("--context"))?,
        ),
        None => None,
    };
    if let Some(path) = &arguments.ndjson {
        return append_many(target, path, context, arguments.json);
    }
    // clap requires both without --ndjson.
    let context = context.ok_or_else(|| CliError::usage("--context is missing"))?;
    let draft = draft(arguments.key.as_deref().unwrap_or_default(), arguments)?;
    append_one(target, &context, draft, arguments.json)
}

fn draft(key: &str, arguments: &AppendArguments) -> Result<Draft, CliError> {
    let mut pairs = Vec::with_capacity(arguments.meta.len());
    for pair in &arguments.meta {
        pairs.push(pair.split_once('=').ok_or_else(|| {
            CliError::usage(format_args!("--meta {pair:?} is not of the form key=value"))
        })?);
    }
    let metadata =
        Metadata::from_pairs(pairs).map_err(|error| CliError::usage(error).context("--meta"))?;
    let payload = match (&arguments.payload, &arguments.file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(path)) => read_payload(open(path)?)?,
        (None, None) => {
            if io::stdin().is_terminal() {
                tracing::warn!("reading the payload from the terminal: end it with Ctrl-D");
            }
            read_payload(io::stdin().lock())?
        }
    };
    Draft::new(key, payload)
        .map_err(CliError::usage)?
        .with_metadata(metadata)
        .with_request_id(arguments.request_id.as_deref().unwrap_or_default())
        .map_err(CliError::usage)
}

fn open(path: &Path) -> Result<fs::File, CliError> {
    fs::File::open(path).map_err(|error| CliError::could_not(error).context(path.display()))
}

/// Reads a payload; one byte more than allowed is enough to refuse it.
fn read_payload(reader: impl Read) -> Result<Vec<u8>, CliError> {
    let mut payload = Vec::new();
    reader
        .take(PAYLOAD_BYTES_MAX as u64 + 1)
        .read_to_end(&mut payload)
        .map_err(|error| CliError::could_not(error).context("could not read the payload"))?;
    Ok(payload)
}

/// What one append is told of its entry.
struct Placed {
    sequence: u64,
    id: Hash,
    /// Not known of a server: it answers as it did the first time.
    stored_before: bool,
}

fn append_one(
    target: &Target,
    context: &ContextId,
    draft: Draft,
    json: bool,
) -> Result<(), CliError> {
    let start = Instant::now();
    let placed = match target {
        Target::Directory(data) => append_to_directory(data, context, draft)?,
        Target::Server(remote) => {
            remote.run(async |client: Client| server::append_one(&client, context, draft).await)?
        }
    };
    let mut out = Out::new();
    if json {
        out.json(&AppendJson {
            entries: 1,
            last_sequence: placed.sequence,
            seconds: seconds(start.elapsed()),
        })?;
    } else {
        let before = if placed.stored_before {
            " (stored before)"
        } else {
            ""
        };
        let Placed { sequence, id, .. } = placed;
        let context = escape(context.as_str());
        out.line(format_args!("{context} {sequence} {id}{before}"))?;
    }
    out.flush()
}

fn append_to_directory(
    data: &DataDir,
    context: &ContextId,
    draft: Draft,
) -> Result<Placed, CliError> {
    let store = data.open(&options())?;
    let appended = store.append(vec![(context.clone(), draft)]);
    let closed = store.close();
    let appended = appended?;
    closed?;
    let Some(Appended {
        sequence,
        id,
        stored_before,
        ..
    }) = appended.into_iter().next()
    else {
        return Err(CliError::could_not("the store did not say where it is"));
    };
    Ok(Placed {
        sequence,
        id,
        stored_before,
    })
}

/// What has been stored of an input.
#[derive(Default)]
struct Stored {
    lines: u64,
    last_sequence: u64,
    repeated: u64,
}

fn append_many(
    target: &Target,
    path: &Path,
    context: Option<ContextId>,
    json: bool,
) -> Result<(), CliError> {
    let (input, input_bytes): (Box<dyn Read + Send>, _) = if path == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let file = open(path)?;
        let bytes = file
            .metadata()
            .ok()
            .filter(fs::Metadata::is_file)
            .map(|metadata| metadata.len());
        (Box::new(file), bytes)
    };
    let start = Instant::now();
    let stored = match target {
        Target::Directory(data) => append_many_to_directory(data, input, context, input_bytes)?,
        Target::Server(remote) => remote.run(async |client: Client| {
            let batches = read_batches(input, context)?;
            server::append_many(client, batches, input_bytes).await
        })?,
    };
    let seconds = seconds(start.elapsed());
    let mut out = Out::new();
    if json {
        out.json(&AppendJson {
            entries: stored.lines,
            last_sequence: stored.last_sequence,
            seconds,
        })?;
    } else {
        let before = match stored.repeated {
            0 => String::new(),
            some => format!(", {some} of them before"),
        };
        out.line(format_args!(
            "stored {} entries in {seconds:.3} s{before}",
            stored.lines
        ))?;
    }
    out.flush()
}

fn append_many_to_directory(
    data: &DataDir,
    input: Box<dyn Read + Send>,
    context: Option<ContextId>,
    input_bytes: Option<u64>,
) -> Result<Stored, CliError> {
    let store = data.open(&options())?;
    let mut stored = Stored::default();
    let outcome = read_batches(input, context)
        .and_then(|batches| pump(&store, batches, input_bytes, &mut stored));
    let closed = store.close();
    outcome?;
    closed.map_err(|error| {
        // Acknowledged is durable, whatever happens at the end.
        let what = format!("all {} lines are stored, but closing failed", stored.lines);
        CliError::from(error).context(what)
    })?;
    Ok(stored)
}

/// Batches of an input, parsed in a thread of their own.
type Parsed = Receiver<Result<Batch, BadLine>>;

fn read_batches(
    input: Box<dyn Read + Send>,
    context: Option<ContextId>,
) -> Result<Parsed, CliError> {
    let (sender, receiver) = channel(BATCHES_WAITING);
    // Not joined: it may be waiting for input that nobody needs any more.
    let _parser = thread::Builder::new()
        .name("ndjson".into())
        .spawn(move || {
            for batch in Batches::new(BufReader::with_capacity(1 << 20, input), context) {
                if sender.blocking_send(batch).is_err() {
                    return;
                }
            }
        })
        .map_err(|error| CliError::could_not(error).context("could not start a thread"))?;
    Ok(receiver)
}

/// Parser thread to store, batch by batch.
fn pump(
    store: &Store,
    mut batches: Parsed,
    input_bytes: Option<u64>,
    stored: &mut Stored,
) -> Result<(), CliError> {
    let bar = progress::bar(input_bytes);
    let outcome = std::iter::from_fn(|| batches.blocking_recv()).try_for_each(|batch| {
        let batch = batch.map_err(|bad| {
            let what = format!("line {}", bad.line);
            not_stored(bad.error, &what, bad.first_line, stored.lines)
        })?;
        let (first, last) = (batch.first_line, batch.last_line);
        let appended = store.append(batch.drafts).map_err(|error| {
            let what = format!("lines {first} to {last}");
            if matches!(error, AppendError::Store(StoreError::Failed { .. })) {
                return undecided(error.into(), &what, stored.lines);
            }
            not_stored(error.into(), &what, first, stored.lines)
        })?;
        stored.lines = last;
        stored.last_sequence = appended.last().map_or(0, |appended| appended.sequence);
        stored.repeated += appended
            .iter()
            .filter(|appended| appended.stored_before)
            .count() as u64;
        bar.set_position(batch.input_bytes);
        bar.set_message(format!("{last} entries"));
        Ok(())
    });
    bar.finish_and_clear();
    outcome
}

/// The disk failed under a batch: only opening the store anew tells whether it
/// is there, whole or not at all.
fn undecided(error: CliError, what: &str, stored: u64) -> CliError {
    let before = match stored {
        0 => String::new(),
        _ => format!("Lines 1 to {stored} are stored. "),
    };
    error.context(what).hint(format_args!(
        "{before}Whether {what} are is not known until the store is opened again: check the disk, \
         then look with `contexts`; lines with a request_id can simply be appended again."
    ))
}

/// Says what is stored and what is not.
fn not_stored(error: CliError, what: &str, first_line: u64, stored: u64) -> CliError {
    let error = error.context(what);
    match stored {
        0 => error.hint("Nothing was stored."),
        _ => error.hint(format_args!(
            "Lines 1 to {stored} are stored. Line {first_line} is the first that is not: a batch \
             of up to {NDJSON_BATCH_LINES_MAX} lines is stored whole or not at all."
        )),
    }
}
