//! `watch`: entries as they become durable, until told to stop.
//!
//! Entries are printed in a thread of their own, so that a signal ends the
//! command even while the reader of stdout does not read.

use std::thread;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::error::CliError;
use super::output::Out;
use super::remote::{ReadArguments, Target};
use super::show;
use crate::client::{Client, Retry};
use crate::entry::{ContextId, Entry};

/// Entries that may wait to be printed.
const ENTRIES_WAITING: usize = 16;

#[derive(Debug, Args)]
pub(super) struct WatchArguments {
    /// The context; one that does not exist yet is waited for
    #[arg(long, value_name = "NAME")]
    context: String,
    /// Print only entries with this key
    #[arg(long)]
    key: Option<String>,
    /// Begin after this sequence
    #[arg(long, value_name = "SEQUENCE", default_value_t = 0)]
    from: u64,
    /// End after so many entries [default: never]
    #[arg(long, value_name = "ENTRIES", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) read: ReadArguments,
}

pub(super) fn run(target: &Target, arguments: &WatchArguments) -> Result<(), CliError> {
    let context = ContextId::new(&arguments.context)
        .map_err(|error| CliError::usage(error).context("--context"))?;
    if arguments.key.as_deref() == Some("") {
        return Err(CliError::usage("--key must not be empty"));
    }
    let Target::Server(remote) = target else {
        return Err(
            CliError::usage("a directory does not grow unless somebody serves it").hint(
                "Run `serve --grpc` on it and watch through that with --server URL, or print what \
                 is there with `get`.",
            ),
        );
    };
    remote
        .with(|options| options.retry = Retry::default())
        .run(async |client| watch(&client, &context, arguments).await)
}

async fn watch(
    client: &Client,
    context: &ContextId,
    arguments: &WatchArguments,
) -> Result<(), CliError> {
    let signals = |error| CliError::could_not(error).context("could not wait for signals");
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let (entries, to_print) = mpsc::channel(ENTRIES_WAITING);
    let (printed, mut outcome) = oneshot::channel();
    let json = arguments.json;
    // Not joined: it may be waiting for a reader that never reads.
    let _printer = thread::Builder::new()
        .name("printer".into())
        .spawn(move || _ = printed.send(print(to_print, json)))
        .map_err(|error| CliError::could_not(error).context("could not start a thread"))?;
    let feeding = feed(client, context, arguments, entries);
    tokio::pin!(feeding);
    let fed = tokio::select! {
        fed = &mut feeding => fed,
        // It ends first only if it cannot print.
        outcome = &mut outcome => return outcome.unwrap_or(Ok(())),
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    // What came before is printed in any case.
    tokio::select! {
        outcome = &mut outcome => outcome.unwrap_or(Ok(())).and(fed),
        _ = terminate.recv() => fed,
        _ = interrupt.recv() => fed,
    }
}

/// Hands entries to the printer until there were enough, or nobody prints.
async fn feed(
    client: &Client,
    context: &ContextId,
    arguments: &WatchArguments,
    entries: mpsc::Sender<Entry>,
) -> Result<(), CliError> {
    let mut watch = client.watch(context, arguments.key.as_deref(), arguments.from);
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 {
        let entry = watch.next().await?;
        if entries.send(entry).await.is_err() {
            return Ok(());
        }
        left -= 1;
    }
    Ok(())
}

fn print(mut entries: mpsc::Receiver<Entry>, json: bool) -> Result<(), CliError> {
    let mut out = Out::new();
    while let Some(entry) = entries.blocking_recv() {
        show::entry(&mut out, &entry, json)?;
        out.flush()?;
    }
    Ok(())
}
