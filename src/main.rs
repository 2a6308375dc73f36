//! The binary `converge-ledger`.

use std::process::ExitCode;

fn main() -> ExitCode {
    converge_ledger::cli::run()
}
