//! The walk of `README.md`, with the binary under test.

use std::path::Path;
use std::process::Command;

use crate::support::run_with;

#[test]
fn every_command_of_the_readme_runs() {
    let binary = Path::new(env!("CARGO_BIN_EXE_converge-ledger"));
    let mut walk = Command::new("sh");
    walk.arg("tests/walk.sh")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("LEDGER_BIN_DIR", binary.parent().unwrap())
        .env_remove("LEDGER_SAMPLE")
        .env_remove("CONVERGE_LEDGER_DATA");
    let ran = run_with(walk, b"");
    assert_eq!(ran.status, 0, "{}{}", ran.text(), ran.stderr);
}
