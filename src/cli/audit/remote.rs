//! `audit --from`: check a source from outside, and keep nothing of it.

use std::time::Instant;

use serde::Serialize;
use tokio::runtime::Runtime;

use super::AuditArguments;
use crate::cli::data::DataDir;
use crate::cli::error::CliError;
use crate::cli::init::parse_vkey;
use crate::cli::mirror::{explain, resolve};
use crate::cli::output::{Out, escape, seconds};
use crate::cli::progress;
use crate::node::{self, NodeId, RemoteAudit, RemoteAuditOptions};
use crate::note::VerifierKey;
use crate::store::keys;

#[derive(Serialize)]
struct RemoteJson<'a> {
    ok: bool,
    origin: &'a str,
    term: u64,
    epoch: u64,
    directory_root: String,
    contexts: u64,
    entries: u64,
    sampled: Option<u64>,
    seed: Option<u64>,
    payload_bytes: u64,
    received_bytes: u64,
    seconds: f64,
}

#[derive(Serialize)]
struct FailedJson<'a> {
    ok: bool,
    error: &'a str,
}

/// Whom to ask and whom to believe.
struct Remote {
    peer: NodeId,
    origin: VerifierKey,
    options: RemoteAuditOptions,
}

pub(super) fn run(data: &DataDir, from: &str, arguments: &AuditArguments) -> Result<(), CliError> {
    let start = Instant::now();
    // The argument tree wants both with --from.
    let (Some(peer), Some(origin)) = (arguments.peer, &arguments.origin) else {
        return Err(CliError::usage("--from needs --peer and --origin"));
    };
    let origin = parse_vkey(origin).map_err(|error| error.context("--origin"))?;
    let address = resolve(from)?;
    let remote = Remote {
        peer,
        origin,
        options: RemoteAuditOptions {
            sample: arguments.sample,
            seed: arguments.seed.map_or_else(random_seed, Ok)?,
            ..RemoteAuditOptions::default()
        },
    };
    if data.peek_if_any()?.is_none() {
        data.prepare_new()?;
    }
    let key = data.node_key(true)?;
    let bar = progress::bar(None);
    let runtime = Runtime::new()
        .map_err(|error| CliError::could_not(error).context("could not start the runtime"))?;
    let outcome = runtime.block_on(async {
        let endpoint = node::client(node::any_address(address))?;
        let shown = bar.clone();
        let progress = move |progress: node::Progress| {
            shown.set_position(progress.received_bytes);
            shown.set_message(format!("{} entries", progress.entries));
        };
        let place = (address, remote.peer);
        let origin = remote.origin.clone();
        node::audit_remote(&endpoint, &key, place, origin, remote.options, progress).await
    });
    bar.finish_and_clear();
    let audited = outcome.map_err(|error| {
        let error = explain(error, &key);
        if !error.is_verification() {
            return error;
        }
        error.hint(
            "Nothing of it was kept. Is --origin the key of that source's origin (`keys` there \
             prints it)? If it is, the source shows what the origin did not sign: ask another.",
        )
    });
    let json = arguments.json;
    let printed =
        audited.and_then(|audited| print(&audited, &remote, seconds(start.elapsed()), json));
    printed.or_else(|error| {
        if json && let Some(message) = error.message() {
            let mut out = Out::new();
            let failed = FailedJson {
                ok: false,
                error: message,
            };
            out.json(&failed)?;
            out.flush()?;
        }
        Err(error)
    })
}

/// A source must not be able to guess what will be picked.
fn random_seed() -> Result<u64, CliError> {
    let seed = keys::random_seed()?;
    let (first, _) = seed.split_at(8);
    Ok(first
        .iter()
        .fold(0, |seed, &byte| seed << 8 | u64::from(byte)))
}

fn print(audited: &RemoteAudit, remote: &Remote, seconds: f64, json: bool) -> Result<(), CliError> {
    let Some(signed) = &audited.head else {
        return Err(CliError::could_not("the source has published nothing yet"));
    };
    let head = signed.head();
    let mut out = Out::new();
    if json {
        out.json(&RemoteJson {
            ok: true,
            origin: head.origin.as_str(),
            term: head.term,
            epoch: head.epoch,
            directory_root: head.directory_root.to_string(),
            contexts: audited.contexts,
            entries: audited.entries,
            sampled: remote.options.sample,
            seed: remote.options.sample.map(|_| remote.options.seed),
            payload_bytes: audited.payload_bytes,
            received_bytes: audited.received_bytes,
            seconds,
        })?;
        return out.flush();
    }
    out.line(format_args!(
        "head {} of {}: {} entries in {} contexts, directory root {}",
        signed.order(),
        escape(head.origin.as_str()),
        head.entries,
        head.contexts,
        head.directory_root
    ))?;
    let which = match remote.options.sample {
        None => String::from("all of them"),
        Some(_) => format!("picked at random, seed {}", remote.options.seed),
    };
    out.line(format_args!(
        "verified {} entries in {} contexts ({which}), {} bytes of payload; {} bytes received in \
         {seconds:.3} s",
        audited.entries, audited.contexts, audited.payload_bytes, audited.received_bytes
    ))?;
    out.line("audit passed; nothing was stored")?;
    out.flush()
}
