//! `keys`: what others need to know of this store.

use clap::Args;
use serde::Serialize;

use super::data::DataDir;
use super::error::CliError;
use super::output::{Out, escape};
use crate::store::StoreRole;

#[derive(Debug, Args)]
pub(super) struct KeysArguments {
    /// Print one JSON object: `origin_vkey`, `node_key`
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct KeysJson<'a> {
    origin_vkey: &'a str,
    node_key: &'a str,
}

pub(super) fn run(data: &DataDir, arguments: &KeysArguments) -> Result<(), CliError> {
    let (role, origin) = data.peek()?;
    let origin = origin.to_string();
    let node = data.node_key(false)?.id().to_string();
    let mut out = Out::new();
    if arguments.json {
        out.json(&KeysJson {
            origin_vkey: &origin,
            node_key: &node,
        })?;
    } else {
        let whose = match role {
            StoreRole::Own => "own store",
            StoreRole::Mirror => "mirror",
        };
        out.line(format_args!("origin key  {} ({whose})", escape(&origin)))?;
        out.line(format_args!("node key    {node}"))?;
    }
    out.flush()
}
