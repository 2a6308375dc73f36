//! `append` through a server. Over gRPC each line is an append of its own. Up
//! to [`IN_FLIGHT_MAX`] are under way at a time, but never two of one context:
//! entries of a context keep the order of their lines.
//!
//! When a line fails nothing more is sent, what is under way is waited for, and
//! the message says exactly which lines are stored.

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;

use indicatif::ProgressBar;
use tokio::task::JoinSet;

use super::{Parsed, Placed, Stored};
use crate::cli::error::CliError;
use crate::cli::progress;
use crate::client::{Client, ClientError};
use crate::entry::{ContextId, Draft, Entry};

/// Appends under way at a time.
const IN_FLIGHT_MAX: usize = 64;

/// One entry, tried again only if it has a request id.
pub(super) async fn append_one(
    client: &Client,
    context: &ContextId,
    draft: Draft,
) -> Result<Placed, CliError> {
    let has_request_id = draft.request_id().is_some();
    let entry = append(client, context, draft).await.map_err(|error| {
        let undecided = error.is_undecided();
        let error = CliError::from(error);
        match (undecided, has_request_id) {
            (false, _) => error,
            (true, true) => error.hint(
                "Whether the entry is stored is not known: run the same command again, which is \
                 safe with a --request-id.",
            ),
            (true, false) => error.hint(
                "Whether the entry is stored is not known: look with `get` before you append it \
                 again. With a --request-id repeating is safe.",
            ),
        }
    })?;
    Ok(Placed {
        sequence: entry.sequence,
        id: entry.id,
        stored_before: false,
    })
}

async fn append(client: &Client, context: &ContextId, draft: Draft) -> Result<Entry, ClientError> {
    match draft.request_id() {
        Some(_) => client.append_with_retry(context, draft).await,
        None => client.append(context, &draft).await,
    }
}

/// A line that was not stored, as far as is known.
struct Failure {
    line: u64,
    error: CliError,
    undecided: bool,
}

struct Landed {
    line: u64,
    context: ContextId,
    outcome: Result<Entry, ClientError>,
}

/// Lines under way and what became of the others.
struct Flight {
    client: Client,
    under_way: JoinSet<Landed>,
    /// Contexts with a line under way.
    busy: HashSet<ContextId>,
    /// Lines that are stored behind the first that is not, or not yet.
    beyond: BTreeSet<u64>,
    /// All lines up to `stored.lines` are stored.
    stored: Stored,
    /// The highest line that is stored.
    last_line: u64,
    failures: Vec<Failure>,
    bar: ProgressBar,
}

/// All lines of an input.
pub(super) async fn append_many(
    client: Client,
    mut batches: Parsed,
    input_bytes: Option<u64>,
) -> Result<Stored, CliError> {
    let mut flight = Flight {
        client,
        under_way: JoinSet::new(),
        busy: HashSet::new(),
        beyond: BTreeSet::new(),
        stored: Stored::default(),
        last_line: 0,
        failures: Vec::new(),
        bar: progress::bar(input_bytes),
    };
    'input: while let Some(batch) = batches.recv().await {
        let batch = match batch {
            Ok(batch) => batch,
            Err(bad) => {
                flight.failures.push(Failure {
                    line: bad.line,
                    error: bad.error,
                    undecided: false,
                });
                break;
            }
        };
        for (line, (context, draft)) in (batch.first_line..).zip(batch.drafts) {
            while flight.under_way.len() >= IN_FLIGHT_MAX || flight.busy.contains(&context) {
                flight.land().await;
            }
            if !flight.failures.is_empty() {
                break 'input;
            }
            flight.send(line, context, draft);
        }
        flight.bar.set_position(batch.input_bytes);
    }
    while !flight.under_way.is_empty() {
        flight.land().await;
    }
    flight.bar.finish_and_clear();
    flight.end()
}

impl Flight {
    fn send(&mut self, line: u64, context: ContextId, draft: Draft) {
        self.busy.insert(context.clone());
        let client = self.client.clone();
        self.under_way.spawn(async move {
            let outcome = append(&client, &context, draft).await;
            Landed {
                line,
                context,
                outcome,
            }
        });
    }

    /// Waits for one line and notes what became of it.
    async fn land(&mut self) {
        let landed = match self.under_way.join_next().await {
            Some(Ok(landed)) => landed,
            Some(Err(error)) => {
                self.failures.push(Failure {
                    line: self.stored.lines + 1,
                    error: CliError::could_not(error),
                    undecided: true,
                });
                // Whose it was is not known.
                self.busy.clear();
                return;
            }
            None => return,
        };
        self.busy.remove(&landed.context);
        match landed.outcome {
            Ok(entry) => {
                if landed.line > self.last_line {
                    self.last_line = landed.line;
                    self.stored.last_sequence = entry.sequence;
                }
                self.beyond.insert(landed.line);
                while self.beyond.remove(&(self.stored.lines + 1)) {
                    self.stored.lines += 1;
                }
                let entries = self.stored.lines;
                self.bar.set_message(format!("{entries} entries"));
            }
            Err(error) => self.failures.push(Failure {
                line: landed.line,
                undecided: error.is_undecided(),
                error: error.into(),
            }),
        }
    }

    /// What was stored, or what was not.
    fn end(mut self) -> Result<Stored, CliError> {
        self.failures.sort_by_key(|failure| failure.line);
        let undecided = self.failures.iter().filter(|failure| failure.undecided);
        let undecided = list(undecided.map(|failure| failure.line));
        let Some(first) = self.failures.into_iter().next() else {
            return Ok(self.stored);
        };
        let mut hint = match self.stored.lines {
            0 => String::new(),
            1 => "Line 1 is stored. ".to_owned(),
            lines => format!("Lines 1 to {lines} are stored. "),
        };
        // Writing to a String cannot fail.
        let _ = match (first.undecided, self.stored.lines, self.beyond.is_empty()) {
            (false, 0, true) => write!(hint, "Nothing was stored."),
            (false, ..) => write!(hint, "Line {} is the first that is not.", first.line),
            (true, ..) => Ok(()),
        };
        if !undecided.is_empty() {
            let _ = write!(
                hint,
                " Whether {undecided} got there is not known; with a request_id a line can \
                 simply be appended again."
            );
        }
        if !self.beyond.is_empty() {
            let beyond = list(self.beyond.iter().copied());
            let _ = write!(
                hint,
                " Behind it {beyond} of other contexts are stored already."
            );
        }
        Err(first
            .error
            .context(format_args!("line {}", first.line))
            .hint(hint.trim_start()))
    }
}

/// `line 3`, or `lines 3, 5, 8`; empty for none. There are never more than are
/// under way.
fn list(lines: impl Iterator<Item = u64>) -> String {
    let lines: Vec<String> = lines.map(|line| line.to_string()).collect();
    match lines.as_slice() {
        [] => String::new(),
        [line] => format!("line {line}"),
        lines => format!("lines {}", lines.join(", ")),
    }
}
