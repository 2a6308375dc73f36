//! `resolve`: an operator looks at a fork and names the branch to go on with.

use clap::Args;

use super::data::{DataDir, options};
use super::error::CliError;
use super::output::{Out, escape};
use crate::evidence::Verdict;
use crate::hash::Hash;
use crate::store::{ForkInfo, Store};

#[derive(Debug, Args)]
pub(super) struct ResolveArguments {
    /// Go on with the branch whose head has this directory root (64
    /// hexadecimal digits); it must be the one this mirror holds. Without it
    /// both branches are shown
    #[arg(long, value_name = "ROOT", value_parser = parse_root)]
    branch: Option<Hash>,
}

fn parse_root(text: &str) -> Result<Hash, String> {
    Hash::from_hex(text).ok_or_else(|| "a directory root has 64 hexadecimal digits".into())
}
