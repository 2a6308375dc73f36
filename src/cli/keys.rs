//! `keys`: what others need to know of this store.

use clap::Args;
use serde::Serialize;

use super::data::DataDir;
use super::error::CliError;
use super::output::{Out, escape};
use crate::store::{Store, StoreRole};

#[derive(Debug, Args)]
pub(super) struct KeysArguments {
    /// Print one JSON object: `origin_vkey`, `pinned_vkey`, `node_key`
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct KeysJson<'a> {
    origin_vkey: &'a str,
    pinned_vkey: &'a str,
    node_key: &'a str,
}

pub(super) fn run(data: &DataDir, arguments: &KeysArguments) -> Result<(), CliError> {
    // The pinned key stands at the beginning of the log; which one counts now,
    // only the whole log says.
    let view = Store::open_read_only(data.shared_disk()).map_err(|error| data.named(error))?;
    let origin = view.origin().to_string();
    let pinned = view.pinned().to_string();
    let node = data.node_key(false)?.id().to_string();
    let mut out = Out::new();
    if arguments.json {
        out.json(&KeysJson {
            origin_vkey: &origin,
            pinned_vkey: &pinned,
            node_key: &node,
        })?;
    } else {
        let whose = match view.role() {
            StoreRole::Own => "own store",
            StoreRole::Mirror => "mirror",
        };
        out.line(format_args!("origin key  {} ({whose})", escape(&origin)))?;
        if pinned != origin {
            out.line(format_args!("pinned key  {}", escape(&pinned)))?;
        }
        out.line(format_args!("node key    {node}"))?;
    }
    out.flush()
}
