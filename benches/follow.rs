//! How late a mirror is that follows: from one appended entry to the moment
//! when it is durable, verified and complete on the mirror. Source and mirror in
//! one process, over loopback.
//!
//! `cargo bench --bench follow`; `LEDGER_BENCH_QUICK=1` for a short run.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{directory, draft, median, options, quick, signer};
use converge_ledger::entry::ContextId;
use converge_ledger::node::{
    Allowlist, Before, Held, Hooks, KeepUp, NodeKey, OriginGauge, Peer, ServeLimits, Turn, Waiting,
    keep_up, listen, serve,
};
use converge_ledger::store::disk::RealDisk;
use converge_ledger::store::{Store, StoreOptions, StoreRole, create};
use converge_ledger::sync::{MirrorLimits, Report};
use tokio::sync::mpsc;

/// Fewer than the heads that are published at once.
const ENTRIES: u64 = 900;
const CONTEXTS: u64 = 100;
const RESERVE_BYTES: u64 = 4 << 20;

fn key(n: u8) -> NodeKey {
    NodeKey::from_seed([n; 32])
}

fn open(dir: &tempfile::TempDir, role: StoreRole, options: StoreOptions) -> Store {
    let disk = Arc::new(RealDisk::new(dir.path()));
    create(&*disk, role, signer().verifier()).unwrap();
    let own = (role == StoreRole::Own).then(signer);
    Store::open(disk, options, own).unwrap().store
}

fn main() {
    let (own_dir, mirror_dir) = (directory(), directory());
    let mut own_options = options(RESERVE_BYTES);
    let news = Before::default().prepare(&mut own_options, None);
    let own = open(&own_dir, StoreRole::Own, own_options);
    let mirror = open(&mirror_dir, StoreRole::Mirror, options(RESERVE_BYTES));
    let id = |n: u64| ContextId::new(&format!("context {}", n % CONTEXTS)).unwrap();
    // All contexts are there before anything is timed.
    let drafts = (0..CONTEXTS).map(|n| (id(n), draft(n)));
    own.append(drafts.collect()).unwrap();
    own.publish().unwrap();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let entries = if quick() { 50 } else { ENTRIES };
    let (mut late, mut acknowledged) = runtime.block_on(async {
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let allowed = Allowlist::new([key(2).id()]).unwrap();
        let endpoint = listen(any, &key(1), &allowed).unwrap();
        let address = endpoint.local_addr().unwrap();
        let followers = news.followers.clone();
        let hooks = Hooks {
            news: Some(news),
            ..Hooks::default()
        };
        let ledger = Arc::new(own.view().clone());
        let doors = (endpoint, allowed);
        tokio::spawn(async move {
            serve(
                doors,
                ledger,
                ServeLimits::default(),
                hooks,
                std::future::pending(),
            )
            .await;
        });
        let (tell, mut heads) = mpsc::unbounded_channel();
        let store = Arc::new(mirror.clone());
        tokio::spawn(async move {
            let origin = signer().verifier().clone();
            let peer = format!("{}@{address}", key(1).id());
            let peers: Vec<Peer> = vec![peer.parse().unwrap()];
            let name = origin.name().clone();
            let gauge = OriginGauge::new(
                name,
                &peers,
                Some(0),
                Duration::from_mins(5),
                &Held::default(),
            );
            let config = KeepUp {
                origin,
                peers,
                allowed: Arc::new(|| Ok(MirrorLimits::default())),
                waiting: Waiting::default(),
                turn: Turn::default(),
            };
            let done = |_: &Peer, report: &Report| {
                _ = tell.send(report.head.as_ref().map(|head| head.head().entries));
            };
            let never = std::future::pending();
            keep_up(Arc::new(key(2)), store, &config, &gauge, done, never).await
        });
        // It has caught up and follows.
        heads.recv().await.unwrap();
        while followers.count() == 0 {
            tokio::task::yield_now().await;
        }
        let (mut late, mut acknowledged) = (Vec::new(), Vec::new());
        for n in 0..entries {
            let (store, draft) = (own.clone(), (id(n), draft(n)));
            let start = Instant::now();
            tokio::task::spawn_blocking(move || store.append(vec![draft]).unwrap())
                .await
                .unwrap();
            acknowledged.push(start.elapsed());
            while heads.recv().await.unwrap() < Some(CONTEXTS + n + 1) {}
            late.push(start.elapsed());
        }
        (late, acknowledged)
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    let percentile = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() * 99 / 100]
    };
    let (far, near) = (percentile(&mut late), percentile(&mut acknowledged));
    println!(
        "{entries} entries, one at a time, median and 99 %: acknowledged {:.2?} {near:.2?}, on the mirror {:.2?} {far:.2?}",
        median(&mut acknowledged),
        median(&mut late),
    );
}
