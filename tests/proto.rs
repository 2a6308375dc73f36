//! The code that is generated from `spec/proto` is committed, so that a build
//! needs no compiler for it. This test makes it anew and fails if what is
//! committed is stale; with `UPDATE_GENERATED=1` it writes it.

// Test code outside of #[test] functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

/// The environment variable that has stale files written anew.
const UPDATE: &str = "UPDATE_GENERATED";

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Generates `files` of the folder `include` and compares them with `committed`.
fn check(include: &str, files: &[&str], committed: &str, descriptors: Option<&str>) {
    let fds = protox::compile(files, [root(include)]).unwrap();
    let fresh = tempfile::tempdir().unwrap();
    if let Some(name) = descriptors {
        fs::write(fresh.path().join(name), fds.encode_to_vec()).unwrap();
    }
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .bytes(".")
        .btree_map(".")
        .out_dir(fresh.path())
        .compile_fds(fds)
        .unwrap();
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir)
            .map(|items| items.map(|item| item.unwrap().file_name()).collect())
            .unwrap_or_default();
        names.sort();
        names
    };
    let committed = root(committed);
    let mut stale = names(&committed) != names(fresh.path());
    for name in names(fresh.path()) {
        let wanted = fs::read(fresh.path().join(&name)).unwrap();
        stale |= fs::read(committed.join(&name)).ok() != Some(wanted);
    }
    if !stale {
        return;
    }
    assert!(
        std::env::var_os(UPDATE).is_some(),
        "{} is not what {include} generates: review the change, then run \
         `{UPDATE}=1 cargo test --test proto` and commit what it writes",
        committed.display()
    );
    let _ = fs::remove_dir_all(&committed);
    fs::create_dir_all(&committed).unwrap();
    for name in names(fresh.path()) {
        fs::copy(fresh.path().join(&name), committed.join(&name)).unwrap();
    }
}

#[test]
fn the_generated_api_is_fresh() {
    check(
        "spec/proto",
        &["context.proto", "inspect.proto"],
        "src/rpc/generated",
        Some("descriptors.bin"),
    );
}

/// The messages of an old client, with which the tests ask a new server.
#[test]
fn the_generated_old_client_is_fresh() {
    check(
        "tests/proto",
        &["old_context.proto"],
        "tests/grpc/generated",
        None,
    );
}
