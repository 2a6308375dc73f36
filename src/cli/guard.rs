//! The rollback guard: before anything is written, mirrors are asked for the
//! newest complete head they hold. One that is ahead of this store shows that it was
//! restored from an old copy, or that somebody else signs with its key.

use std::env::VarError;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::data::DataDir;
use super::error::CliError;
use super::output::escape;
use crate::head::Head;
use crate::node::{self, NodeId, NodeKey, Peer, PeerError};
use crate::note::Note;
use crate::store::{StoreError, StoreOpening, StoreRole};

/// Mirrors get this long to answer, all together.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Mirrors to ask, if no `--guard` is given.
const GUARD_ENV: &str = "CONVERGE_LEDGER_GUARD";
/// Whether all of them must answer.
const REQUIRE_GUARD_ENV: &str = "CONVERGE_LEDGER_REQUIRE_GUARD";
/// Mirrors that may be configured.
const GUARDS_MAX: usize = 64;

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Guard")]
pub(super) struct GuardArguments {
    /// Before an own store is opened to be written, ask this mirror for the
    /// newest complete head it holds; may be repeated. It must allow this node's key
    /// [default: those in the variable `CONVERGE_LEDGER_GUARD`, separated by commas]
    #[arg(
        long = "guard",
        global = true,
        value_name = "NODEKEY@ADDR",
        value_delimiter = ',',
        value_parser = parse_guard
    )]
    guards: Vec<Peer>,
    /// Write and sign nothing unless every --guard has shown a head that the
    /// store has signed
    /// [default: what the variable `CONVERGE_LEDGER_REQUIRE_GUARD` says: 1, yes, on or true; 0,
    /// no, off or false]
    #[arg(long, global = true)]
    require_guard: bool,
}

fn parse_guard(text: &str) -> Result<Peer, String> {
    text.parse().map_err(|error: PeerError| error.to_string())
}

/// Unlike clap, which asks the environment for commands that need no guard, and
/// takes an empty variable for a value.
fn variable(name: &str) -> Result<Option<String>, CliError> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(CliError::usage("not text").context(name)),
    }
}

impl GuardArguments {
    /// The same, with what the environment says where the flags say nothing.
    pub(super) fn with_environment(mut self) -> Result<Self, CliError> {
        if self.guards.is_empty()
            && let Some(guards) = variable(GUARD_ENV)?
        {
            let guards = guards.split(',').map(str::trim);
            self.guards = guards
                .filter(|guard| !guard.is_empty())
                .map(parse_guard)
                .collect::<Result<_, _>>()
                .map_err(|error| CliError::usage(error).context(GUARD_ENV))?;
        }
        if !self.require_guard
            && let Some(value) = variable(REQUIRE_GUARD_ENV)?
        {
            self.require_guard = match value.to_ascii_lowercase().as_str() {
                "1" | "yes" | "on" | "true" => true,
                "0" | "no" | "off" | "false" => false,
                _ => {
                    let error = CliError::usage(format_args!("{value:?} is neither yes nor no"));
                    return Err(error.context(REQUIRE_GUARD_ENV));
                }
            };
        }
        Ok(self)
    }

    /// Refuses what cannot be done, before an own store is opened.
    pub(super) fn check_arguments(&self) -> Result<(), CliError> {
        if self.require_guard && self.guards.is_empty() {
            return Err(CliError::usage("--require-guard needs a --guard"));
        }
        if self.guards.len() > GUARDS_MAX {
            let message = format!("at most {GUARDS_MAX} guards may be given");
            return Err(CliError::usage(message));
        }
        Ok(())
    }

    /// Asks the mirrors and judges what they show. An error means that this
    /// store must not be started.
    pub(super) fn check(&self, data: &DataDir, opening: &mut StoreOpening) -> Result<(), CliError> {
        if opening.role() == StoreRole::Mirror || self.guards.is_empty() {
            return Ok(());
        }
        let asking = Asking {
            key: data.node_key(false)?,
            noted: opening.noted().unwrap_or_default().to_vec(),
            within: ANSWER_WITHIN,
        };
        let silent = ask_all(&self.guards, &asking, look_up, opening)?;
        if silent.is_empty() {
            return Ok(());
        }
        let silent = silent.join("; ");
        if self.require_guard {
            return Err(CliError::could_not(format_args!(
                "nothing was signed: {silent}"
            ))
            .hint(
                "--require-guard wants every mirror to show a head that is in this store's log. \
                 Start them and let them pull, or leave it out if you know that this directory is \
                 the newest copy.",
            ));
        }
        let silent = escape(&silent);
        tracing::warn!(guard = "unguarded", %silent, "going on without an answer of every mirror");
        Ok(())
    }
}

/// How mirrors are asked.
#[derive(Clone)]
struct Asking {
    key: NodeKey,
    /// The note that is shown to them.
    noted: Vec<u8>,
    within: Duration,
}

impl Asking {
    async fn ask<A>(&self, peer: NodeId, address: A) -> Result<Vec<Vec<u8>>, String>
    where
        A: Future<Output = Result<SocketAddr, String>>,
    {
        let asked = tokio::time::timeout(self.within, async {
            let address = address.await?;
            let endpoint = node::client(node::any_address(address)).map_err(|e| e.to_string())?;
            node::ask_head(
                &endpoint,
                &self.key,
                (address, peer),
                &self.noted,
                self.within,
            )
            .await
            .map_err(|error| {
                let refused = error.is_refusal();
                let key = self.key.id();
                let hint = || format!("; does it allow this node? This node's key is {key}");
                format!("{error}{}", refused.then(hint).unwrap_or_default())
            })
        });
        asked
            .await
            .unwrap_or_else(|_| Err("no answer in time".into()))
    }
}

/// Not `to_socket_addrs`, which would keep a thread of the runtime, the QUIC
/// connections of other mirrors among them, waiting for a name server.
async fn look_up(address: String) -> Result<SocketAddr, String> {
    let all = tokio::net::lookup_host(address).await;
    let mut all = all.map_err(|error| error.to_string())?;
    all.next().ok_or_else(|| "no such address".to_owned())
}

/// Who did not answer, and why. Each answer is judged as it comes: what freezes
/// the store waits for nobody.
fn ask_all<L, A>(
    guards: &[Peer],
    asking: &Asking,
    look_up: L,
    opening: &mut StoreOpening,
) -> Result<Vec<String>, CliError>
where
    L: Fn(String) -> A,
    A: Future<Output = Result<SocketAddr, String>> + Send + 'static,
{
    let runtime = Runtime::new()
        .map_err(|error| CliError::could_not(error).context("could not start the runtime"))?;
    let outcome = runtime.block_on(async {
        let mut answers = JoinSet::new();
        for guard in guards.iter().cloned() {
            let (asking, address) = (asking.clone(), look_up(guard.address.clone()));
            answers.spawn(async move { (asking.ask(guard.id, address).await, guard.address) });
        }
        let mut silent = Vec::new();
        while let Some(answer) = answers.join_next().await {
            let (shown, address) = answer.map_err(CliError::could_not)?;
            let missing = match shown {
                Err(error) => Some(error),
                Ok(notes) => missing(opening, &notes)
                    .map_err(|error| CliError::from(error).context(&address))?,
            };
            silent.extend(missing.map(|missing| format!("{address}: {missing}")));
        }
        Ok(silent)
    });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    outcome
}

/// What is missing for `notes` to be an answer: a newest head that the log
/// holds. An error if they freeze the store.
fn missing(opening: &mut StoreOpening, notes: &[Vec<u8>]) -> Result<Option<String>, StoreError> {
    let Some(newest) = notes.last() else {
        let nothing = || "it holds nothing".to_owned();
        return Ok(opening.has_head().then(nothing));
    };
    opening.holds_shown(notes)?;
    // Rotations before it may be known, and the head itself not.
    if opening.holds_shown(std::slice::from_ref(newest))? {
        return Ok(None);
    }
    let note = Note::parse(newest).ok();
    let head = note.and_then(|note| Head::parse(note.text()).ok());
    Ok(Some(match head {
        None => "what it shows is no head".into(),
        Some(head) if head.origin == *opening.origin().name() => format!(
            "it shows head {} of {}, signed by no key of this store's log",
            head.order(),
            head.origin
        ),
        Some(head) => format!("it shows a head of another origin, {}", head.origin),
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use super::*;
    use crate::entry::{ContextId, Draft};
    use crate::node::ServeLimits;
    use crate::node::clock::SystemClock;
    use crate::note::{OriginName, SignerKey};
    use crate::store::disk::MemoryDisk;
    use crate::store::{Store, StoreOptions, create};

    fn read(disk: &MemoryDisk) -> StoreOpening {
        let options = StoreOptions::new(Arc::new(SystemClock));
        StoreOpening::read(Arc::new(disk.clone()), options).unwrap()
    }

    #[test]
    fn a_name_server_that_hangs_keeps_nobody_waiting() {
        let signer = SignerKey::from_seed(OriginName::new("o").unwrap(), &[1; 32]);
        let disk = MemoryDisk::new();
        create(&disk, StoreRole::Own, signer.verifier()).unwrap();
        let store: Store = read(&disk).start(Some(signer)).unwrap().store;
        store.publish().unwrap();
        let old = disk.fork();
        let draft = Draft::new("k", "lost").unwrap();
        store
            .append(vec![(ContextId::new("c").unwrap(), draft)])
            .unwrap();
        store.publish().unwrap();

        let key = |n: u8| NodeKey::from_seed([n; 32]);
        let live = Runtime::new().unwrap();
        let allowed = node::Allowlist::new([key(2).id()]).unwrap();
        let endpoint = live.block_on(async {
            let any = "127.0.0.1:0".parse().unwrap();
            node::listen(any, &key(1), &allowed).unwrap()
        });
        let address = endpoint.local_addr().unwrap().to_string();
        let view = Arc::new(store.view().clone());
        let limits = ServeLimits::default();
        live.spawn(async move {
            node::serve(
                (endpoint, allowed),
                view,
                limits,
                node::Hooks::default(),
                std::future::pending(),
            )
            .await;
        });

        let (_answers, name_server) = mpsc::channel::<()>();
        let name_server = Arc::new(Mutex::new(name_server));
        let look_up = |name: String| {
            let name_server = name_server.clone();
            async move {
                let Ok(address) = name.parse() else {
                    let hang = move || name_server.lock().map(|server| server.recv()).is_ok();
                    let _ = tokio::task::spawn_blocking(hang).await;
                    return Err("it does not hang".to_owned());
                };
                Ok(address)
            }
        };
        let guard = |address: &str| Peer {
            id: key(1).id(),
            address: address.to_owned(),
        };
        let asking = |within| Asking {
            key: key(2),
            noted: Vec::new(),
            within,
        };
        let guards = [guard("hangs"), guard(&address)];
        // Far longer than the test may take.
        let asked = ask_all(
            &guards,
            &asking(Duration::from_hours(1)),
            look_up,
            &mut read(&old),
        );
        let said = format!("{:?}", asked.unwrap_err());
        assert!(said.contains("the store is frozen"), "{said}");
        let short = asking(Duration::from_millis(50));
        let silent = ask_all(&guards[..1], &short, look_up, &mut read(&disk.fork()));
        assert_eq!(silent.unwrap(), ["hangs: no answer in time"]);
    }
}
