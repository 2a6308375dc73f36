//! Mirrors that come and go: what they leave behind in the source's process.

use std::fs;
use std::time::{Duration, Instant};

use converge_ledger::node::{CatchUp, NodeId, client, quic};
use converge_ledger::note::VerifierKey;
use converge_ledger::sync::Outcome;

use crate::node::{key, mirror_of, pull_as};
use crate::relay::{Counts, Faults, LOCALHOST, Relay};
use crate::support::{Place, SAMPLE, Server};

/// Connections before anything is measured: caches and pools are full then.
const WARM: usize = 100;
const CONNECTIONS: usize = 300;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Longer than any draining.
const DEADLINE: Duration = Duration::from_secs(40);
/// Resident memory may differ by this much, since an allocator is not exact: 14
/// KiB for each connection.
const RESIDENT_KIB: u64 = 4 << 10;

/// Names say nothing; keys do.
const NAME: &str = "node.invalid";

/// Open files and resident memory of a process, in KiB.
fn takes(pid: u32) -> (usize, u64) {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    (files, kib.parse().unwrap())
}

/// Of four: one that syncs, one that leaves during the handshake, one that is let
/// in and asks nothing, and one that is not let in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_come_and_go_leave_nothing_behind() {
    let place = Place::new();
    place.run("s", &["init", "--name", "net.test"]).expect(0);
    let append = ["append", "--context", "packages", "--ndjson", SAMPLE];
    place.run("s", &append).expect(0);
    let (origin, peer) = place.keys("s");
    let server: Server = place.serve("s", &[&key(2).id().to_string()]);
    let relay = Relay::new(server.address.parse().unwrap(), Faults::NONE, 61);
    let vkey = VerifierKey::parse(&origin).unwrap();
    let config = CatchUp::new(
        relay.address,
        NodeId::from_hex(&peer).unwrap(),
        vkey.clone(),
    );
    let copy = mirror_of(&vkey).0;
    assert_eq!(
        pull_as(&copy, &config).await.unwrap().outcome,
        Outcome::CaughtUp
    );
    let mut before = (0, 0);
    for n in 0..WARM + CONNECTIONS {
        if n == WARM {
            before = takes(server.id());
        }
        let me = key(if n % 4 == 3 { 3 } else { 2 });
        if n % 4 == 0 {
            let synced = pull_as(&copy, &config).await.unwrap();
            assert_eq!(synced.entries, 0);
            continue;
        }
        let endpoint = client(LOCALHOST).unwrap();
        let to = quic::client_config(&me, config.peer).unwrap();
        let connecting = endpoint.connect_with(to, config.address, NAME).unwrap();
        if n % 4 == 1 {
            // Its first packet has gone out.
            let sent = relay.counts().up.datagrams;
            let reached = |counts: &Counts| counts.up.datagrams > sent;
            assert!(tokio::task::block_in_place(
                || relay.wait_for(reached, || false)
            ));
            drop(connecting);
        } else if let Ok(connection) = connecting.await {
            connection.close(0u8.into(), b"");
        }
    }
    // Connections whose mirror has just left may be open for a moment.
    let begun = Instant::now();
    let after = loop {
        let after = takes(server.id());
        if after.1 <= before.1 + RESIDENT_KIB || begun.elapsed() > DEADLINE {
            break after;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    eprintln!("{CONNECTIONS} connections: {before:?}, then {after:?}");
    assert!(after.0 <= before.0 + 2, "{before:?}, then {after:?}");
    assert!(
        after.1 <= before.1 + RESIDENT_KIB,
        "{before:?}, then {after:?}"
    );
    assert_eq!(server.stop("TERM"), 0);
}
