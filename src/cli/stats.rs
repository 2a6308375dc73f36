//! `stats`: what a store holds and how much room it takes, without changing it.

use clap::Args;
use serde::Serialize;

use super::condition::{self, ConditionJson};
use super::data::DataDir;
use super::error::CliError;
use super::output::{Out, escape, utc};
use crate::store::{self, CheckpointStats, HeadStats, IndexFound, Stats, StoreRole};

#[derive(Debug, Args)]
pub(super) struct StatsArguments {
    /// Print one JSON object: `role`, `origin`, `origin_vkey`, `in_use`,
    /// `contexts`, `entries`, `log_bytes`, `segments`, `reserve_bytes`,
    /// `index_bytes`, `index`, `index_reason`, `checkpoint`, `head`,
    /// `fork`, `frozen`, `head_note`
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct StatsJson<'a> {
    role: &'static str,
    origin: &'a str,
    origin_vkey: &'a str,
    in_use: Option<bool>,
    contexts: u64,
    entries: u64,
    log_bytes: u64,
    segments: u32,
    reserve_bytes: u64,
    index_bytes: Option<u64>,
    index: &'static str,
    index_reason: Option<&'a str>,
    checkpoint: Option<CheckpointJson>,
    head: Option<HeadJson>,
    #[serde(flatten)]
    condition: ConditionJson,
}

#[derive(Serialize)]
struct CheckpointJson {
    time_ns: u64,
    segment: u32,
    offset: u32,
    behind_bytes: u64,
}

#[derive(Serialize)]
struct HeadJson {
    term: u64,
    epoch: u64,
    time_ns: u64,
    directory_root: String,
}

impl From<CheckpointStats> for CheckpointJson {
    fn from(checkpoint: CheckpointStats) -> Self {
        Self {
            time_ns: checkpoint.time_ns,
            segment: checkpoint.position.segment(),
            offset: checkpoint.position.offset(),
            behind_bytes: checkpoint.behind_bytes,
        }
    }
}

impl From<HeadStats> for HeadJson {
    fn from(head: HeadStats) -> Self {
        Self {
            term: head.term,
            epoch: head.epoch,
            time_ns: head.time_ns,
            directory_root: head.directory_root.to_string(),
        }
    }
}

pub(super) fn run(data: &DataDir, arguments: &StatsArguments) -> Result<(), CliError> {
    let stats = {
        let (_bar, progress) = data.opening_bar();
        store::stats(&data.shared_disk(), Some(&progress)).map_err(|error| data.named(error))?
    };
    let mut out = Out::new();
    let (index, index_reason) = match &stats.index {
        IndexFound::None => ("none", None),
        IndexFound::Good => ("good", None),
        IndexFound::NotRead { reason } => ("not read", Some(reason.as_str())),
        IndexFound::Wanting { reason } => ("wanting", Some(reason.as_str())),
    };
    if arguments.json {
        out.json(&StatsJson {
            role: match stats.role {
                StoreRole::Own => "own",
                StoreRole::Mirror => "mirror",
            },
            origin: &stats.origin,
            origin_vkey: &stats.origin_vkey,
            in_use: stats.in_use,
            contexts: stats.contexts,
            entries: stats.entries,
            log_bytes: stats.log_bytes,
            segments: stats.segments,
            reserve_bytes: stats.reserve_bytes,
            index_bytes: stats.index_bytes,
            index,
            index_reason,
            checkpoint: stats.checkpoint.map(CheckpointJson::from),
            head: stats.head.map(HeadJson::from),
            condition: ConditionJson::from(&stats.condition),
        })?;
    } else {
        print(&mut out, &stats, index, index_reason)?;
    }
    out.flush()
}

fn print(
    out: &mut Out,
    stats: &Stats,
    index: &str,
    index_reason: Option<&str>,
) -> Result<(), CliError> {
    let in_use = match stats.in_use {
        Some(true) => ", in use by another process",
        Some(false) | None => "",
    };
    out.line(format_args!(
        "{} of {}{in_use}",
        stats.role,
        escape(&stats.origin_vkey)
    ))?;
    out.line(format_args!(
        "{} entries in {} contexts",
        stats.entries, stats.contexts
    ))?;
    out.line(format_args!(
        "log: {} bytes, segments: {}, reserve: {} bytes",
        stats.log_bytes, stats.segments, stats.reserve_bytes
    ))?;
    let bytes = match stats.index_bytes {
        Some(bytes) => format!("{bytes} bytes, "),
        None => String::new(),
    };
    let reason = index_reason.map(|reason| format!(": {}", escape(reason)));
    out.line(format_args!(
        "index: {bytes}{index}{}",
        reason.unwrap_or_default()
    ))?;
    if let Some(checkpoint) = &stats.checkpoint {
        out.line(format_args!(
            "checkpoint: {}, covers the log up to segment {}, offset {}; {} bytes behind it",
            utc(checkpoint.time_ns),
            checkpoint.position.segment(),
            checkpoint.position.offset(),
            checkpoint.behind_bytes
        ))?;
    }
    match &stats.head {
        Some(head) => out.line(format_args!(
            "head: term {}, epoch {}, {}, directory root {}",
            head.term,
            head.epoch,
            utc(head.time_ns),
            head.directory_root
        )),
        None => out.line("no head yet"),
    }?;
    condition::print(out, &stats.condition)
}
