//! `resolve`: an operator looks at a fork, and names the branch to go on with.

use clap::Args;

use super::data::{DataDir, options};
use super::error::CliError;
use super::output::Out;
use crate::directory::empty_root;
use crate::hash::Hash;
use crate::head::HeadOrder;

#[derive(Debug, Args)]
pub(super) struct ResolveArguments {
    /// Go on with the branch whose head has this directory root (64
    /// hexadecimal digits); it must be the one that is held here, or the root
    /// of the complete head. Without it both branches are shown
    #[arg(long, value_name = "ROOT", value_parser = parse_root)]
    branch: Option<Hash>,
}

fn parse_root(text: &str) -> Result<Hash, String> {
    Hash::from_hex(&text.to_ascii_lowercase())
        .ok_or_else(|| "a directory root has 64 hexadecimal digits".into())
}

pub(super) fn run(data: &DataDir, arguments: &ResolveArguments) -> Result<(), CliError> {
    let view = data.open_view()?;
    let Some(fork) = view.fork() else {
        return Err(CliError::could_not("there is no evidence of a fork here"));
    };
    let Some(root) = arguments.branch else {
        let mut out = Out::new();
        out.line(&fork.verdict)?;
        let mut held = false;
        if let Some(verdict) = view.fork_verdict() {
            let holds = view.held_branches(&verdict)?;
            if let Some((earlier, later)) = verdict.roots {
                branch(&mut out, verdict.earlier, earlier, holds.0)?;
                branch(&mut out, verdict.later, later, holds.1)?;
            }
            held = holds.0 || holds.1;
        }
        if !held {
            let complete = view.head();
            let root = complete.map_or_else(empty_root, |head| head.head().directory_root);
            out.line(format_args!(
                "neither is held here; what is complete has directory root {root}"
            ))?;
        }
        out.line(if fork.resolved {
            "resolved: the branch that is held here is followed"
        } else {
            "not resolved: nothing is pulled until `resolve --branch ROOT` names the branch"
        })?;
        return out.flush();
    };
    drop(view);
    let store = data.open(&options())?;
    let resolved = store.resolve(fork.evidence, root);
    let closed = store.close();
    resolved.map_err(|error| {
        CliError::from(error).hint(
            "A mirror keeps what it holds. To follow the other branch, make another mirror: \
             `init --mirror` in an empty directory. The evidence stays either way.",
        )
    })?;
    closed?;
    let mut out = Out::new();
    out.line(format_args!(
        "going on with the branch of directory root {root}; the evidence stays"
    ))?;
    out.flush()
}

fn branch(out: &mut Out, order: HeadOrder, root: Hash, held: bool) -> Result<(), CliError> {
    let said = if held { "  (held here)" } else { "" };
    out.line(format_args!("head {order}  directory root {root}{said}"))
}
