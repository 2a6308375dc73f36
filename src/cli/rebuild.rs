//! `rebuild-index`: throw the index away and make it anew from the log.

use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::data::{DataDir, options};
use super::error::CliError;
use super::output::{Out, seconds};
use super::progress;
use crate::store::{self, Progress, RebuiltIndex};

#[derive(Debug, Args)]
pub(super) struct RebuildArguments {
    /// Print one JSON object: `contexts`, `entries`, `bytes`, `seconds`,
    /// `index_bytes`, `covers`
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct RebuildJson {
    contexts: u64,
    entries: u64,
    bytes: u64,
    seconds: f64,
    index_bytes: u64,
    covers: Option<CoversJson>,
}

#[derive(Serialize)]
struct CoversJson {
    segment: u32,
    offset: u32,
    behind_bytes: u64,
}

pub(super) fn run(data: &DataDir, arguments: &RebuildArguments) -> Result<(), CliError> {
    let start = Instant::now();
    // Before a bar: a directory without a store has nothing to show.
    data.peek()?;
    let bar = progress::bar(Some(data.log_bytes()));
    let shown = bar.clone();
    let mut options = options();
    options.progress = Some(Progress(std::sync::Arc::new(move |bytes| {
        shown.set_position(bytes);
    })));
    let outcome = store::rebuild_index(&data.shared_disk(), &options);
    bar.finish_and_clear();
    let rebuilt = outcome.map_err(|error| data.named(error))?;
    print(&rebuilt, seconds(start.elapsed()), arguments.json)
}

fn print(rebuilt: &RebuiltIndex, seconds: f64, json: bool) -> Result<(), CliError> {
    let mut out = Out::new();
    if json {
        out.json(&RebuildJson {
            contexts: rebuilt.contexts,
            entries: rebuilt.entries,
            bytes: rebuilt.bytes_read,
            seconds,
            index_bytes: rebuilt.index_bytes,
            covers: rebuilt.position.map(|position| CoversJson {
                segment: position.segment(),
                offset: position.offset(),
                behind_bytes: rebuilt.behind_bytes,
            }),
        })?;
        return out.flush();
    }
    out.line(format_args!(
        "read {} bytes of log in {seconds:.3} s ({:.1} MB/s): {} entries in {} contexts",
        rebuilt.bytes_read,
        megabytes_per_second(rebuilt.bytes_read, seconds),
        rebuilt.entries,
        rebuilt.contexts
    ))?;
    match rebuilt.position {
        Some(position) => out.line(format_args!(
            "the index covers the log up to segment {}, offset {}: {} bytes; {} bytes of log lie \
             behind it",
            position.segment(),
            position.offset(),
            rebuilt.index_bytes,
            rebuilt.behind_bytes
        ))?,
        None => out.line(
            "no index: no head covers what is in the log; whoever opens the store signs one and \
             makes the index",
        )?,
    }
    out.flush()
}

#[allow(clippy::cast_precision_loss)] // for people
fn megabytes_per_second(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / 1e6 / seconds.max(0.001)
}
