//! `rotate-key`: a new key for the origin, and the end of the old one.

use clap::Args;
use serde::Serialize;

use super::data::{DataDir, options};
use super::error::CliError;
use super::output::{Out, escape};
use crate::limits::ROTATIONS_MAX;
use crate::store::rotate_origin_key;

/// From then on it is said how many rotations are left: the 56th is the first.
const WARN_ROTATIONS_LEFT: usize = 7;

#[derive(Debug, Args)]
pub(super) struct RotateArguments {
    /// Print one JSON object: `old_vkey`, `new_vkey`, `term`, `epoch`
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct RotateJson<'a> {
    old_vkey: &'a str,
    new_vkey: &'a str,
    term: u64,
    epoch: u64,
}

pub(super) fn run(data: &DataDir, arguments: &RotateArguments) -> Result<(), CliError> {
    let store = data.open(&options())?;
    let old = store.view().origin().to_string();
    let rotated = rotate_origin_key(data.disk(), &store);
    let left = store.view().rotations_left();
    let closed = store.close();
    let head = rotated.map_err(|error| data.named(error))?;
    closed?;
    if left <= WARN_ROTATIONS_LEFT {
        tracing::warn!(
            "this ledger's key can be rotated {left} times more, {ROTATIONS_MAX} times in all"
        );
    }
    let new = head.next_key().to_string();
    let order = head.order();
    let mut out = Out::new();
    if arguments.json {
        out.json(&RotateJson {
            old_vkey: &old,
            new_vkey: &new,
            term: order.term,
            epoch: order.epoch,
        })?;
        return out.flush();
    }
    let dir = escape(&data.path().display().to_string());
    out.line(format_args!("head {order} is signed by both keys"))?;
    out.line(format_args!("old key  {}", escape(&old)))?;
    out.line(format_args!("new key  {}", escape(&new)))?;
    out.line(format_args!(
        "
From now on only the new key signs. Mirrors that pinned the old key follow by themselves,
and files they or auditors hold keep verifying under it. Give new mirrors and auditors the
new key. {dir}/origin.key holds the new secret; your copy of it is out of date:
    install -m 600 {dir}/origin.key /path/to/safe/place/"
    ))?;
    out.flush()
}
