//! The binary `converge-ledger`. Without default features it knows one command,
//! `verify`.

use std::process::ExitCode;

#[cfg(feature = "node")]
fn main() -> ExitCode {
    converge_ledger::cli::run()
}

#[cfg(not(feature = "node"))]
fn main() -> ExitCode {
    converge_ledger::verifier::run(std::env::args_os())
}
