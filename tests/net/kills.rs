//! Processes that are killed in the middle of a sync, again and again: what was
//! verified is stored, and little comes twice.
//!
//! When it is time is decided by bytes that went through the relay. What comes
//! twice after a kill is what was on its way or held in memory: for each context
//! under way the span being received, what waits for the disk, and the group
//! that is being written. The mirror's budgets bound that (24 MiB of spans, 12
//! MiB of payloads, and the windows of the connection), and from a source that
//! is faster than the disk much of that is lost. Behind a link that the disk
//! keeps up with it is far less, and that is asserted here.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use converge_ledger::node::{CatchUp, CatchUpError, NodeId};
use converge_ledger::note::VerifierKey;
use converge_ledger::sync::Outcome;

use crate::node::{key, mirror_of, pull_as};
use crate::relay::{Dice, Faults, Relay};
use crate::support::{Place, Server};

/// Contexts under way at a time.
const CONTEXTS: usize = 4;
/// Bytes that one kill may cost: a span of 256 KiB and a run for each context,
/// and as much again that is not on the disk yet.
const KILL_BYTES_MAX: u64 = CONTEXTS as u64 * (384 << 10) * 2;
/// Far below what the disk of a busy machine takes.
const SLOW: Faults = Faults {
    down_rate: Some(6 << 20),
    ..Faults::NONE
};
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
        for _ in 0..=dice.below(120) {
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
    let relay = Relay::new(target(&server), SLOW, seed);
    let mut once = mirroring(&place, "undisturbed", relay.address, &peer, &origin);
    assert!(once.status().unwrap().success());
    let whole = relay.counts().down.bytes;
    drop(relay);

    let relay = Relay::new(target(&server), SLOW, seed);
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

/// The mirror stays; each time it has to notice, and to call again.
fn a_source_is_killed(bytes: usize, kills: u64, seed: u64) {
    let place = Place::new();
    let (origin, peer) = source(&place, bytes, seed);
    let allow = key(2).id().to_string();
    let mut server = place.serve("s", &[&allow]);
    let relay = Relay::new(target(&server), SLOW, seed);
    let vkey: VerifierKey = VerifierKey::parse(&origin).unwrap();
    let mut config = CatchUp::new(
        relay.address,
        NodeId::from_hex(&peer).unwrap(),
        vkey.clone(),
    );
    config.frame_deadline = FRAME_DEADLINE;
    config.connect_deadline = FRAME_DEADLINE;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let undisturbed = mirror_of(&vkey).0;
    runtime.block_on(pull_as(&undisturbed, &config)).unwrap();
    let whole = relay.counts().down.bytes;

    let copy = mirror_of(&vkey).0;
    let mut dice = Dice::new(seed);
    let mut killed = 0;
    while killed < kills {
        let share = whole / kills;
        let goal = relay.counts().down.bytes + share / 2 + dice.next() % share;
        let (store, config) = (copy.clone(), config.clone());
        let sync = runtime.spawn(async move { pull_as(&store, &config).await });
        if !relay.wait_for(|counts| counts.down.bytes >= goal, || sync.is_finished()) {
            runtime.block_on(sync).unwrap().unwrap();
            break;
        }
        // As it is dropped, by SIGKILL.
        drop(server);
        let ended = runtime.block_on(sync).unwrap();
        server = place.serve("s", &[&allow]);
        relay.aim(target(&server));
        match ended {
            // All that was missing had been sent.
            Ok(_) => break,
            Err(CatchUpError::Connection(_) | CatchUpError::TimedOut { .. }) => (),
            Err(error) => panic!("{error}"),
        }
        killed += 1;
    }
    assert!(killed * 3 >= kills * 2, "{killed} kills of {kills}");
    let last = runtime.block_on(pull_as(&copy, &config)).unwrap();
    assert!(matches!(last.outcome, Outcome::CaughtUp | Outcome::Current));
    assert_cheap("source", relay.counts().down.bytes - whole, whole, killed);
    let (held, undisturbed) = (
        copy.view().head().unwrap(),
        undisturbed.view().head().unwrap(),
    );
    assert_eq!(
        held.head().directory_root,
        undisturbed.head().directory_root
    );
    assert_eq!(server.stop("TERM"), 0);
    place.run("s", &["audit"]).expect(0);
}

#[test]
fn a_mirror_that_is_killed_goes_on_where_it_was() {
    a_mirror_is_killed(12 << 20, 6, 31);
}

#[test]
fn a_mirror_goes_on_when_its_source_was_killed() {
    a_source_is_killed(12 << 20, 6, 32);
}

#[test]
#[ignore = "takes about a minute"]
fn a_mirror_is_killed_fifty_times() {
    a_mirror_is_killed(96 << 20, 50, 33);
}

#[test]
#[ignore = "takes about a minute"]
fn a_source_is_killed_fifty_times() {
    a_source_is_killed(96 << 20, 50, 34);
}
