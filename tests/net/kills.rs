//! Processes that are killed in the middle of a sync, again and again: what was
//! verified is stored, and little comes twice.
//!
//! When it is time is decided by bytes that went through the relay. What comes
//! twice after a kill is what was on its way or held in memory: for each context
//! under way the span being received, what waits for the disk, and the group
//! that is being written. The mirror's budgets bound that (24 MiB of spans, 12
//! MiB of payloads); a disk that keeps up leaves it far below, and that is
//! asserted here.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use converge_ledger::node::{CatchUp, CatchUpError, NodeId, NodeKey};
use converge_ledger::note::VerifierKey;
use converge_ledger::store::disk::MemoryDisk;
use converge_ledger::store::{Store, StoreOptions, StoreRole, create};
use converge_ledger::sync::{Outcome, SyncError};

use crate::node::{key, pull_as};
use crate::relay::{Dice, Faults, Relay};
use crate::support::{Place, Server, command};

/// Contexts under way at a time.
const CONTEXTS: usize = 4;
/// Bytes that one kill may cost.
const KILL_BYTES_MAX: u64 = 2 << 20;
/// Of a dead source nothing more is expected.
const FRAME_DEADLINE: Duration = Duration::from_millis(500);

/// A process that ends with the test.
struct Doomed(Child);

impl Drop for Doomed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A source with so many bytes, its origin's key and its node key.
fn source(place: &Place, bytes: usize, seed: u64) -> (String, String) {
    place.run("s", &["init", "--name", "net.test"]).expect(0);
    let mut dice = Dice::new(seed);
    let mut lines = String::new();
    while lines.len() < bytes {
        let context = dice.below(CONTEXTS);
        let mut payload = String::new();
        for _ in 0..1 + dice.below(120) {
            write!(payload, "{:016x}", dice.next()).unwrap();
        }
        let line = format!(r#"{{"context":"context {context}","key":"k","payload":"{payload}"}}"#);
        lines.push_str(&line);
        lines.push('\n');
    }
    let append = ["append", "--ndjson", "-"];
    place.run_in("s", &append, lines.as_bytes()).expect(0);
    place.keys("s")
}

fn target(server: &Server) -> SocketAddr {
    server.address.parse().unwrap()
}

/// `mirror --once` into the store `name`.
fn mirroring(place: &Place, name: &str, from: SocketAddr, peer: &str, origin: &str) -> Command {
    let from = from.to_string();
    let arguments = [
        "mirror", "--from", &from, "--peer", peer, "--origin", origin, "--once", "--json",
    ];
    let mut command = place.command(name, &arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Whatever was killed, this is what becomes of it.
fn assert_whole(place: &Place, name: &str) {
    let head = |name: &str| place.run(name, &["head"]).expect(0).stdout;
    assert_eq!(head(name), head("s"));
    place.run(name, &["audit"]).expect(0);
}

#[track_caller]
fn assert_cheap(what: &str, all: u64, whole: u64, kills: u64) {
    let each = all.saturating_sub(whole) / kills;
    eprintln!("{what}: {kills} kills, {all} bytes instead of {whole}, {each} for each");
    let most = whole + whole / 20 + kills * KILL_BYTES_MAX;
    assert!(all <= most, "{what}: {all} bytes instead of {whole}");
}

fn a_mirror_is_killed(bytes: usize, kills: u64, seed: u64) {
    let place = Place::new();
    let (origin, peer) = source(&place, bytes, seed);
    for name in ["undisturbed", "m"] {
        place.run(name, &["init", "--mirror", &origin]).expect(0);
    }
    let nodes = ["undisturbed", "m"].map(|name| place.keys(name).1);
    let server = place.serve("s", &[&nodes[0], &nodes[1]]);
    let relay = Relay::new(target(&server), Faults::NONE, seed);
    let mut once = mirroring(&place, "undisturbed", relay.address, &peer, &origin);
    assert!(once.status().unwrap().success());
    let whole = relay.counts().down.bytes;
    drop(relay);

    let relay = Relay::new(target(&server), Faults::NONE, seed);
    let mut dice = Dice::new(seed);
    let mut killed = 0;
    while killed < kills {
        // On average all kills together get a little more than once through.
        let share = whole / kills;
        let part = share / 2 + dice.next() % share;
        let goal = relay.counts().down.bytes + part;
        let mut once = mirroring(&place, "m", relay.address, &peer, &origin);
        let mut child = Doomed(once.spawn().unwrap());
        let mut over = || child.0.try_wait().unwrap().is_some();
        let reached = relay.wait_for(|counts| counts.down.bytes >= goal, &mut over);
        if !reached {
            // It was quicker than the rest of the kills.
            assert!(child.0.wait().unwrap().success());
            break;
        }
        drop(child);
        killed += 1;
    }
    assert!(killed * 3 >= kills * 2, "{killed} kills of {kills}");
    let mut once = mirroring(&place, "m", relay.address, &peer, &origin);
    assert!(once.status().unwrap().success());
    assert_cheap("mirror", relay.counts().down.bytes, whole, killed);
    assert_whole(&place, "m");
    assert_eq!(server.stop("TERM"), 0);
}

#[test]
fn a_mirror_that_is_killed_goes_on_where_it_was() {
    a_mirror_is_killed(12 << 20, 8, 31);
}

#[test]
#[ignore = "takes about a minute"]
fn a_mirror_that_is_killed_fifty_times() {
    a_mirror_is_killed(96 << 20, 50, 32);
}
