//! A second opinion on every context: its root at its final size, recomputed by
//! `rs_merkle` from the stored headers, which are read again for it.
//!
//! One context at a time, in memory that does not grow with it
//! ([`SecondRoot`]).

use super::FirstBad;
use crate::entry::leaf_hash;
use crate::run::Run;
use crate::store::StoreError;
use crate::store::body;
use crate::store::disk::Disk;
use crate::store::index::{Inconsistency, Index, TailContext};
use crate::store::log::LogReader;
use crate::store::record::RecordType;
use crate::tree::second_opinion::SecondRoot;

/// Recomputes every root; returns how many agree, and the first that does not.
/// An error is the disk's. `progress` hears how many bytes were read.
pub(super) fn check(
    disk: &dyn Disk,
    index: &Index,
    progress: &mut dyn FnMut(u64),
) -> Result<(u64, Option<FirstBad>), StoreError> {
    let log = LogReader::over(disk);
    let mut contexts: Vec<&TailContext> = index.tail.contexts().map(AsRef::as_ref).collect();
    contexts.sort_unstable_by_key(|context| context.state.number);
    let (mut agree, mut bytes) = (0, 0);
    for context in contexts {
        let outcome = second_root(&log, context, &mut |read| {
            bytes += read;
            progress(bytes);
        });
        match outcome {
            Ok(()) => agree += 1,
            Err(error) if error.is_verification_failure() => {
                let at = context.runs.first();
                let position = match &error {
                    StoreError::Corrupt { position, .. }
                    | StoreError::Inconsistent { position, .. } => *position,
                    _ => at.map(|run| run.at.position).unwrap_or_default(),
                };
                let bad = FirstBad {
                    context: context.state.name.as_ref().map(|id| id.as_str().to_owned()),
                    sequence: None,
                    position,
                    reason: error.to_string(),
                };
                return Ok((agree, Some(bad)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((agree, None))
}

fn second_root(
    log: &LogReader<&dyn Disk>,
    context: &TailContext,
    read: &mut dyn FnMut(u64),
) -> Result<(), StoreError> {
    let mut second = SecondRoot::default();
    for run in &context.runs {
        let position = run.at.position;
        let corrupt = |error| StoreError::Corrupt { position, error };
        let record = log.body(run.at, RecordType::Run)?;
        read(record.len() as u64);
        let (_, bytes) = body::get_run(&record).map_err(corrupt)?;
        for header in Run::decode(bytes).map_err(corrupt)?.headers() {
            second.push(leaf_hash(header));
        }
    }
    let after = &context.state.after;
    if second.size() == after.size() && second.root() == after.root() {
        return Ok(());
    }
    let last = context.runs.last();
    Err(StoreError::Inconsistent {
        position: last.map(|run| run.at.position).unwrap_or_default(),
        error: Inconsistency::Rule("a second implementation of the tree computes another root"),
    })
}
