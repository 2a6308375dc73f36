//! `audit`: recompute and verify a store, without lock or index; an index that
//! nobody uses is compared with the outcome.

use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::condition::{self, ConditionJson};
use super::data::DataDir;
use super::error::{self, CliError};
use super::output::{Out, escape, seconds};
use super::progress;
use super::serve::parse_node;
use crate::node::NodeId;
use crate::store::{self, AuditOptions, AuditReport, AuditedIndex, FirstBad, Position, StoreError};

mod remote;

#[derive(Debug, Args)]
pub(super) struct AuditArguments {
    /// Check the source at this address from outside, and keep nothing of it;
    /// --data then only holds this node's key
    #[arg(long, value_name = "ADDR", requires_all = ["peer", "origin"], conflicts_with = "paranoid")]
    from: Option<String>,
    /// The source's node key: whom to talk to
    #[arg(long, value_name = "NODEKEY", value_parser = parse_node, requires = "from")]
    peer: Option<NodeId>,
    /// The origin's public key: whose history to believe
    #[arg(long, value_name = "VKEY", requires = "from")]
    origin: Option<String>,
    /// Check only so many entries, picked at random [default: all]
    #[arg(long, value_name = "ENTRIES", requires = "from", value_parser = clap::value_parser!(u64).range(1..))]
    sample: Option<u64>,
    /// What the picks follow from [default: random, and printed]
    #[arg(long, requires = "sample")]
    seed: Option<u64>,
    /// Recompute the root of every context by a second, independent
    /// implementation as well, from leaves that are hashed again for it: takes
    /// about half as long again, and a few KiB of memory for each context
    #[arg(long)]
    paranoid: bool,
    /// Print one JSON object; without --from: `ok`, `contexts`, `entries`, `bytes`, `seconds`,
    /// `first_bad`, `index`, `index_reason`, `second_roots`, `fork`, `frozen`, `head_note`
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct AuditJson<'a> {
    ok: bool,
    contexts: u64,
    entries: u64,
    bytes: u64,
    seconds: f64,
    first_bad: Option<FirstBadJson<'a>>,
    index: Option<&'static str>,
    index_reason: Option<&'a str>,
    second_roots: Option<u64>,
    #[serde(flatten)]
    condition: ConditionJson,
}

#[derive(Serialize)]
struct FirstBadJson<'a> {
    context: Option<&'a str>,
    sequence: Option<u64>,
    segment: u32,
    offset: u32,
    reason: &'a str,
}

pub(super) fn run(data: &DataDir, arguments: &AuditArguments) -> Result<(), CliError> {
    if let Some(from) = &arguments.from {
        return remote::run(data, from, arguments);
    }
    let start = Instant::now();
    let options = AuditOptions {
        paranoid: arguments.paranoid,
    };
    let bar = progress::bar(Some(data.log_bytes()));
    let outcome = store::audit_with(data.disk(), options, &mut |bytes| bar.set_position(bytes));
    bar.finish_and_clear();
    let (report, first_bad) = match outcome {
        Ok(mut report) => {
            let first_bad = report.first_bad.take();
            (Some(report), first_bad)
        }
        // Not even the beginning of the log, or head.note, can be read.
        Err(error) if error.is_verification_failure() => (None, Some(unnamed(&error))),
        Err(error) => return Err(CliError::from(error).context(data.path().display())),
    };
    let seconds = seconds(start.elapsed());
    let mut out = Out::new();
    if arguments.json {
        let of = |count: fn(&AuditReport) -> u64| report.as_ref().map_or(0, count);
        out.json(&AuditJson {
            ok: first_bad.is_none(),
            contexts: of(|report| report.contexts),
            entries: of(|report| report.entries),
            bytes: of(|report| report.bytes),
            seconds,
            first_bad: first_bad.as_ref().map(|bad| FirstBadJson {
                context: bad.context.as_deref(),
                sequence: bad.sequence,
                segment: bad.position.segment(),
                offset: bad.position.offset(),
                reason: &bad.reason,
            }),
            index: report.as_ref().map(|report| index_word(&report.index)),
            index_reason: report.as_ref().and_then(|report| reason(&report.index)),
            second_roots: report.as_ref().and_then(|report| report.second_roots),
            condition: report
                .as_ref()
                .map(|report| ConditionJson::from(&report.condition))
                .unwrap_or_default(),
        })?;
    } else {
        if let Some(report) = &report {
            print_report(&mut out, report, seconds)?;
        }
        match &first_bad {
            None => out.line("audit passed")?,
            Some(bad) => print_bad(&mut out, bad)?,
        }
        if let Some(report) = &report {
            print_index(&mut out, &report.index)?;
            condition::print(&mut out, &report.condition)?;
        }
    }
    out.flush()?;
    match first_bad {
        None => Ok(()),
        // Said above, in whatever form was asked for.
        Some(_) if arguments.json => Err(CliError::quiet(error::VERIFICATION)),
        Some(_) => Err(CliError::verification("the store does not verify").hint(
            "Nothing was changed. What lies before the first bad entry is sound; restore the \
             directory from a mirror or a copy.",
        )),
    }
}

/// What can be said of a store whose log cannot be followed at all.
fn unnamed(error: &StoreError) -> FirstBad {
    let position = match error {
        StoreError::Damaged(damage) => damage.position,
        StoreError::Corrupt { position, .. } | StoreError::Inconsistent { position, .. } => {
            *position
        }
        _ => Position::default(),
    };
    FirstBad {
        context: None,
        sequence: None,
        position,
        reason: error.to_string(),
    }
}

fn print_report(out: &mut Out, report: &AuditReport, seconds: f64) -> Result<(), CliError> {
    out.line(format_args!(
        "{} of {}",
        report.role,
        escape(&report.origin)
    ))?;
    out.line(format_args!(
        "verified {} entries in {} contexts, {} bytes of log in {seconds:.3} s: every record's \
         tag and chain,",
        report.entries, report.contexts, report.bytes
    ))?;
    out.line("every leaf, payload, run, tile and root, every head's signature and directory")?;
    if let Some(roots) = report.second_roots {
        out.line(format_args!(
            "a second implementation of the tree computes the same roots: {roots}"
        ))?;
    }
    match (report.head, report.directory_root) {
        (Some((term, epoch)), Some(root)) => out.line(format_args!(
            "newest head: term {term}, epoch {epoch}, directory root {root}"
        )),
        _ => out.line("no head yet"),
    }
}

fn print_bad(out: &mut Out, bad: &FirstBad) -> Result<(), CliError> {
    let context = match &bad.context {
        Some(context) => format!("context {}", escape(context)),
        None => "the log itself".into(),
    };
    let sequence = match bad.sequence {
        Some(sequence) => format!(", sequence {sequence}"),
        None => String::new(),
    };
    let reason = escape(&bad.reason);
    if bad.position == Position::default() {
        // It is in no place of the log.
        return out.line(format_args!("audit FAILED: {reason}"));
    }
    out.line(format_args!(
        "audit FAILED: {context}{sequence}: segment {}, offset {}: {reason}",
        bad.position.segment(),
        bad.position.offset(),
    ))
}

const fn index_word(index: &AuditedIndex) -> &'static str {
    match index {
        AuditedIndex::None => "none",
        AuditedIndex::Matches { .. } => "matches",
        AuditedIndex::NotCompared { .. } => "not compared",
        AuditedIndex::Differs { .. } => "differs",
    }
}

fn reason(index: &AuditedIndex) -> Option<&str> {
    match index {
        AuditedIndex::None | AuditedIndex::Matches { .. } => None,
        AuditedIndex::NotCompared { reason } | AuditedIndex::Differs { reason } => Some(reason),
    }
}

/// What the index is worth changes nothing about the log.
fn print_index(out: &mut Out, index: &AuditedIndex) -> Result<(), CliError> {
    match index {
        AuditedIndex::None => out.line("index: none; whoever opens the store makes one"),
        AuditedIndex::Matches { rows } => {
            out.line(format_args!("index: matches the log, {rows} rows"))
        }
        AuditedIndex::NotCompared { reason } => {
            out.line(format_args!("index: not compared: {}", escape(reason)))
        }
        AuditedIndex::Differs { reason } => out.line(format_args!(
            "index: DIFFERS from the log: {}",
            escape(reason)
        )),
    }
}
