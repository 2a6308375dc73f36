//! `verify`: a proof, evidence or head, offline, with a public key only.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::verifier;

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// The file; - reads it from stdin
    file: PathBuf,
    /// The origin's public key (`keys` prints it)
    #[arg(long, value_name = "VKEY")]
    origin: String,
}

pub(super) fn run(arguments: &VerifyArguments) -> ExitCode {
    verifier::report(&verifier::verify_path(&arguments.file, &arguments.origin))
}
