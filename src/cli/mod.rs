//! Layer 5. The command line: one file per command, each of which parses its
//! arguments, calls the library and prints. No logic worth testing on its own.
//!
//! Contract with scripts (README, Scripts):
//! * exit status 0 done, 1 verification failed, 2 usage or bad input, 3 could
//!   not run, 4 frozen;
//! * results on stdout, diagnostics on stderr; `--json` output is stable;
//! * a reader of stdout that goes away ends the command quietly.

mod append;
mod archive;
mod audit;
mod condition;
mod data;
mod error;
mod grpc;
mod guard;
mod init;
mod keys;
mod mirror;
mod ndjson;
mod output;
mod progress;
mod prove;
mod read;
mod rebuild;
mod remote;
mod resolve;
mod rotate;
mod serve;
mod show;
mod stats;
mod status;
mod verify;
mod watch;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use error::CliError;
use guard::GuardArguments;
use remote::{ReadArguments, ServerArguments, Target};

/// Environment variable that sets what is logged.
const LOG_ENV: &str = "CONVERGE_LEDGER_LOG";

/// A Merkle-verified, append-only ledger: signed roots, and mirrors that verify
/// every byte before they store it.
#[derive(Debug, Parser)]
#[command(name = "converge-ledger", version, about, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 done, 1 verification failed, 2 usage or bad input, 3 could not run, \
                  4 frozen: this store must not sign."
)]
struct Arguments {
    /// Directory of the store
    #[arg(
        long,
        global = true,
        env = "CONVERGE_LEDGER_DATA",
        value_name = "DIR",
        hide_env_values = true
    )]
    data: Option<PathBuf>,
    #[command(flatten)]
    guard: GuardArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a store with fresh keys, or a mirror of another origin
    Init(init::InitArguments),
    /// Append one entry, or many from NDJSON
    Append(append::AppendArguments),
    /// Print entries of a context
    Get(read::GetArguments),
    /// Print entries of a server's context as they become durable
    Watch(watch::WatchArguments),
    /// Write a context into one self-verifying archive
    Snapshot(archive::SnapshotArguments),
    /// Restore a context from an archive, verified before anything is stored
    Load(archive::LoadArguments),
    /// List contexts with their sizes and roots
    Contexts(read::ContextsArguments),
    /// Print the newest signed head
    Head(read::HeadArguments),
    /// Print the origin's public key that counts now, and this node's
    Keys(keys::KeysArguments),
    /// Serve the store over gRPC, and to mirrors over QUIC, until SIGTERM or SIGINT
    Serve(serve::ServeArguments),
    /// Pull from a source, verifying every byte before it is stored
    Mirror(mirror::MirrorArguments),
    /// Recompute and verify every byte of the store
    Audit(audit::AuditArguments),
    /// Give the origin a new key and end the old one (at most 63 times)
    RotateKey(rotate::RotateArguments),
    /// Show a fork's two branches, or go on with the one that is held
    Resolve(resolve::ResolveArguments),
    /// Make a proof that an auditor can check offline with `verify`
    Prove(prove::ProveArguments),
    /// Check a proof, evidence or head offline, with the origin's public key
    Verify(verify::VerifyArguments),
    /// Say how mirrors stand and who follows, from what `serve` or `mirror --follow`
    /// writes down every second
    Status(status::StatusArguments),
    /// Say what the store holds and how much room it takes
    Stats(stats::StatsArguments),
    /// Throw the index away and make it anew from the log
    RebuildIndex(rebuild::RebuildArguments),
}

impl Command {
    /// What is logged if the environment does not say.
    const fn log_level(&self) -> &'static str {
        match self {
            Self::Serve(_) => "info",
            // Why a sync failed is the command's own error message.
            Self::Mirror(_) => "warn,converge_ledger::node::mirror=error",
            _ => "warn",
        }
    }

    /// How to reach a server, of commands that can work through one.
    const fn server(&self) -> Option<&ServerArguments> {
        match self {
            Self::Append(arguments) => Some(&arguments.server),
            Self::Load(arguments) => Some(&arguments.server),
            _ => match self.reads() {
                Some(arguments) => Some(&arguments.server),
                None => None,
            },
        }
    }

    /// The same, of commands that read.
    const fn reads(&self) -> Option<&ReadArguments> {
        match self {
            Self::Get(arguments) => Some(&arguments.read),
            Self::Watch(arguments) => Some(&arguments.read),
            Self::Snapshot(arguments) => Some(&arguments.read),
            Self::Contexts(arguments) => Some(&arguments.read),
            _ => None,
        }
    }

    fn run(self, target: &Target) -> Result<(), CliError> {
        if let Some(server) = self.server() {
            server.check_unused(target)?;
        }
        match self {
            Self::Init(arguments) => init::run(target.directory()?, arguments),
            Self::Append(arguments) => append::run(target, &arguments),
            Self::Get(arguments) => read::get(target, &arguments),
            Self::Watch(arguments) => watch::run(target, &arguments),
            Self::Snapshot(arguments) => archive::snapshot(target, &arguments),
            Self::Load(arguments) => archive::load(target, &arguments),
            Self::Contexts(arguments) => read::contexts(target, &arguments),
            Self::Head(arguments) => read::head(target.directory()?, &arguments),
            Self::Keys(arguments) => keys::run(target.directory()?, &arguments),
            Self::Serve(arguments) => serve::run(Some(target.directory()?), arguments),
            Self::Mirror(arguments) => mirror::run(target.directory()?, &arguments),
            Self::Audit(arguments) => audit::run(target.directory()?, &arguments),
            Self::RotateKey(arguments) => rotate::run(target.directory()?, &arguments),
            Self::Resolve(arguments) => resolve::run(target.directory()?, &arguments),
            Self::Prove(arguments) => prove::run(target.directory()?, &arguments),
            // Done before a target was chosen.
            Self::Verify(_) => Ok(()),
            Self::Status(arguments) => status::run(target.directory()?, &arguments),
            Self::Stats(arguments) => stats::run(target.directory()?, &arguments),
            Self::RebuildIndex(arguments) => rebuild::run(target.directory()?, &arguments),
        }
    }
}

/// Parses the process's arguments, runs the command and reports.
#[must_use]
pub fn run() -> ExitCode {
    // What was given how is known only of the matches.
    let parsed = Arguments::command().try_get_matches().and_then(|matches| {
        let arguments = Arguments::from_arg_matches(&matches)?;
        Ok((arguments, matches))
    });
    let (arguments, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version are "errors" that go to stdout with status 0.
            // A closed pipe is all that can go wrong here.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(error::USAGE));
        }
    };
    let Arguments {
        data,
        guard,
        command,
    } = arguments;
    start_log(command.log_level());
    if let Command::Verify(arguments) = &command {
        // It needs neither directory nor server.
        return verify::run(arguments);
    }
    let command = match command {
        Command::Serve(arguments) if arguments.has_mirrors() && data.is_none() => {
            return status_of(serve::run(None, arguments));
        }
        command => command,
    };
    let target = guard
        .with_environment()
        .and_then(|guard| Target::choose(data, command.server(), guard, &matches))
        .and_then(|target| match command.reads() {
            Some(arguments) => target.reading(arguments),
            None => Ok(target),
        });
    status_of(target.and_then(|target| command.run(&target)))
}

fn status_of(outcome: Result<(), CliError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn start_log(default_level: &str) {
    let filter = EnvFilter::try_from_env(LOG_ENV).unwrap_or_else(|_| EnvFilter::new(default_level));
    // Fails only if a subscriber is set already, which then serves.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_tree_is_sound() {
        Arguments::command().debug_assert();
    }
}
