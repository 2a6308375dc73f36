//! `keys`: what others need to know of this store.

use std::io::ErrorKind;

use clap::Args;
use serde::Serialize;

use super::data::DataDir;
use super::error::CliError;
use super::output::{Out, escape};
use crate::node::NodeKey;
use crate::store::{Store, StoreError, StoreRole, keys};

#[derive(Debug, Args)]
pub(super) struct KeysArguments {
    /// Print one JSON object: `origin_vkey`, `pinned_vkey` (both null without a
    /// store), `node_key` (null if there is none)
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct KeysJson<'a> {
    origin_vkey: Option<&'a str>,
    pinned_vkey: Option<&'a str>,
    node_key: Option<&'a str>,
}

pub(super) fn run(data: &DataDir, arguments: &KeysArguments) -> Result<(), CliError> {
    if data.peek_if_any()?.is_none() {
        return without_store(data, arguments);
    }
    // The pinned key stands at the beginning of the log; which one counts now,
    // only the whole log says.
    let view = Store::open_read_only(data.shared_disk()).map_err(|error| data.named(error))?;
    let origin = view.origin().to_string();
    let pinned = view.pinned().to_string();
    let node = node_key(data)?;
    let mut out = Out::new();
    if arguments.json {
        out.json(&KeysJson {
            origin_vkey: Some(&origin),
            pinned_vkey: Some(&pinned),
            node_key: node.as_deref().ok(),
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
        let (Ok(node) | Err(node)) = node;
        out.line(format_args!("node key    {node}"))?;
    }
    out.flush()
}

/// This node's key, or why it is not known: the origin's keys need no secret.
fn node_key(data: &DataDir) -> Result<Result<String, String>, CliError> {
    match keys::read_node_key(data.disk()) {
        Ok(seed) => Ok(Ok(NodeKey::from_seed(*seed).id().to_string())),
        Err(StoreError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => {
            Ok(Err("none".into()))
        }
        // Refused by the system: somebody else's. One that others may read is
        // refused by this program.
        Err(StoreError::Io { error, .. })
            if error.kind() == ErrorKind::PermissionDenied && error.raw_os_error().is_some() =>
        {
            Ok(Err("(you may not read node.key)".into()))
        }
        Err(error) => Err(data.named(error)),
    }
}

/// A directory that holds a node's key only: an auditor's.
fn without_store(data: &DataDir, arguments: &KeysArguments) -> Result<(), CliError> {
    let Ok(node) = node_key(data)? else {
        return Err(data.named(StoreError::NotAStore));
    };
    let mut out = Out::new();
    if arguments.json {
        out.json(&KeysJson {
            origin_vkey: None,
            pinned_vkey: None,
            node_key: Some(&node),
        })?;
    } else {
        out.line(format_args!("node key    {node}"))?;
    }
    out.flush()
}
