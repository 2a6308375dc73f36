//! The rollback guard: before anything is signed, mirrors are asked for the
//! newest head they hold. One that is ahead of this store shows that it was
//! restored from an old copy, or that somebody else signs with its key.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use clap::Args;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::data::DataDir;
use super::error::CliError;
use super::mirror::local_address;
use super::output::escape;
use super::serve::parse_node;
use crate::head::SignedHead;
use crate::node::{self, NodeId};
use crate::store::{Store, StoreError, StoreRole, Witness};

/// Mirrors get this long to answer, all together.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Mirrors that may be configured.
const GUARDS_MAX: usize = 64;

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Guard")]
pub(super) struct GuardArguments {
    /// Before an own store is opened to be written, ask this mirror for the
    /// newest head it holds; may be repeated. It must allow this node's key
    #[arg(
        long = "guard",
        global = true,
        hide_env_values = true,
        value_name = "NODEKEY@ADDR",
        env = "CONVERGE_LEDGER_GUARD",
        value_delimiter = ',',
        value_parser = parse_guard
    )]
    guards: Vec<GuardPeer>,
    /// Write and sign nothing unless every --guard has answered
    #[arg(
        long,
        global = true,
        env = "CONVERGE_LEDGER_REQUIRE_GUARD",
        hide_env_values = true
    )]
    require_guard: bool,
}

/// A mirror to ask: its node key and where it listens.
#[derive(Clone, Debug)]
struct GuardPeer {
    peer: NodeId,
    address: String,
}

fn parse_guard(text: &str) -> Result<GuardPeer, String> {
    let (peer, address) = text
        .split_once('@')
        .ok_or("a guard is NODEKEY@ADDR: the mirror's node key and where it listens")?;
    Ok(GuardPeer {
        peer: parse_node(peer)?,
        address: address.to_owned(),
    })
}

impl GuardArguments {
    /// True if mirrors are to be asked.
    pub(super) fn is_set(&self) -> bool {
        self.require_guard || !self.guards.is_empty()
    }

    /// Asks the mirrors and judges what they show. An error means that this
    /// store must not sign.
    pub(super) fn check(&self, data: &DataDir, store: &Store) -> Result<(), CliError> {
        if store.view().role() == StoreRole::Mirror {
            return Ok(());
        }
        if self.guards.is_empty() {
            if self.require_guard {
                return Err(CliError::usage("--require-guard needs a --guard"));
            }
            return Ok(());
        }
        if self.guards.len() > GUARDS_MAX {
            let message = format!("at most {GUARDS_MAX} guards may be given");
            return Err(CliError::usage(message));
        }
        let silent = self.ask_all(data, store)?;
        if silent.is_empty() {
            return Ok(());
        }
        let silent = silent.join("; ");
        if self.require_guard {
            return Err(CliError::could_not(format_args!(
                "nothing was signed: {silent}"
            ))
            .hint(
                "--require-guard wants an answer of every mirror. Start them, or leave it out if \
                 you know that this directory is the newest copy.",
            ));
        }
        let silent = escape(&silent);
        tracing::warn!(guard = "unguarded", %silent, "going on without an answer of every mirror");
        Ok(())
    }

    /// Who did not answer, and why.
    fn ask_all(&self, data: &DataDir, store: &Store) -> Result<Vec<String>, CliError> {
        let key = data.node_key(false)?;
        let newest = store.view().head();
        let newest = newest.as_ref().map(SignedHead::note_bytes);
        let newest = newest.unwrap_or_default();
        let runtime = Runtime::new()
            .map_err(|error| CliError::could_not(error).context("could not start the runtime"))?;
        let answers = runtime.block_on(async {
            let mut asking = JoinSet::new();
            for guard in self.guards.clone() {
                let (key, newest) = (key.clone(), newest.clone());
                asking.spawn(async move {
                    let shown = tokio::time::timeout(ANSWER_WITHIN, async {
                        let address = guard.resolve()?;
                        let endpoint = node::client(local_address(address))
                            .map_err(|error| error.to_string())?;
                        let place = (address, guard.peer);
                        node::ask_head(&endpoint, &key, place, &newest, ANSWER_WITHIN)
                            .await
                            .map_err(|error| error.to_string())
                    });
                    let shown = shown
                        .await
                        .unwrap_or_else(|_| Err("no answer in time".into()));
                    (guard, shown)
                });
            }
            asking.join_all().await
        });
        let mut silent = Vec::new();
        for (guard, shown) in answers {
            match shown {
                Err(error) => silent.push(format!("{}: {error}", guard.address)),
                Ok(notes) => {
                    if store.witness(&notes)? == Witness::Frozen
                        && let Some(frozen) = store.frozen()
                    {
                        return Err(CliError::from(StoreError::from(frozen)).context(guard.address));
                    }
                }
            }
        }
        Ok(silent)
    }
}

impl GuardPeer {
    fn resolve(&self) -> Result<SocketAddr, String> {
        let mut all = self
            .address
            .to_socket_addrs()
            .map_err(|error| error.to_string())?;
        all.next().ok_or_else(|| "no such address".to_owned())
    }
}
