//! A mirror catches up with a million entries over loopback. Whoever fills the
//! store, the source and the mirror are processes of their own, so that the
//! memory of each can be told. Every byte is verified on the way and durable
//! at the end.
//!
//! `cargo bench --bench catch_up`; `LEDGER_BENCH_QUICK=1` for 50,000 entries.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{batch, directory, mb_per_s, median, options, peak_memory_mib, quick};
use converge_ledger::entry::ContextId;
use converge_ledger::node::{
    Allowlist, CatchUp, Hooks, NodeKey, ServeLimits, catch_up, client, listen, serve,
};
use converge_ledger::store::disk::RealDisk;
use converge_ledger::store::{Store, StoreRole, create};
use converge_ledger::sync::Outcome;

/// Entries of an append.
const BATCH: u64 = 10_000;

fn key(n: u8) -> NodeKey {
    NodeKey::from_seed([n; 32])
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().unwrap()
}

/// Serves until standard input ends; says where, and how much memory it took.
fn source(dir: &Path) {
    let view = Store::open_read_only(Arc::new(RealDisk::new(dir))).unwrap();
    runtime().block_on(async {
        let allowed = Allowlist::new([key(2).id()]).unwrap();
        let endpoint = listen(any_port(), &key(1), &allowed).unwrap();
        println!("{}", endpoint.local_addr().unwrap());
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        let stop = async move { _ = ended.await };
        let doors = (endpoint, allowed);
        serve(
            doors,
            Arc::new(view),
            ServeLimits::default(),
            Hooks::default(),
            stop,
        )
        .await;
    });
    println!("{}", peak_memory_mib());
}

/// Another process of this bench.
struct Other {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Other {
    fn start(arguments: &[&OsStr]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The next line it writes.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Lets it end; its last line.
    fn stop(mut self) -> String {
        drop(self.child.stdin.take());
        let line = self.line();
        assert!(self.child.wait().unwrap().success());
        line
    }
}

fn fill(dir: &Path, entries: u64, contexts: u64) {
    let disk = RealDisk::new(dir);
    create(&disk, StoreRole::Own, common::signer().verifier()).unwrap();
    let signer = Some(common::signer());
    let opened = Store::open(Arc::new(disk), options(4 << 20), signer).unwrap();
    for from in (0..entries).step_by(usize::try_from(BATCH).unwrap()) {
        let each = BATCH / contexts;
        let drafts = (0..contexts).flat_map(|i| {
            let id = ContextId::new(&format!("context-{i}")).unwrap();
            batch(&id, from + i * each, each)
        });
        opened.store.append(drafts.collect()).unwrap();
    }
    opened.store.close().unwrap();
}

/// One sync into an empty directory; writes its microseconds, the bytes
/// received and its memory in MiB.
fn mirror(address: SocketAddr, entries: u64) {
    let dir = directory();
    let disk = RealDisk::new(dir.path());
    create(&disk, StoreRole::Mirror, common::signer().verifier()).unwrap();
    let opened = Store::open(Arc::new(disk), options(4 << 20), None).unwrap();
    let store = Arc::new(opened.store);
    let config = CatchUp::new(address, key(1).id(), common::signer().verifier().clone());
    let start = Instant::now();
    let report = runtime().block_on(async {
        let endpoint = client(any_port()).unwrap();
        let me = key(2);
        let sync = catch_up(&endpoint, &me, store.clone(), &config, |_| ());
        sync.await.unwrap()
    });
    let time = start.elapsed();
    assert_eq!(report.outcome, Outcome::CaughtUp);
    assert_eq!(store.view().totals().1, entries);
    store.close().unwrap();
    let (bytes, memory) = (report.received_bytes, peak_memory_mib());
    println!("{} {bytes} {memory}", time.as_micros());
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--fill", dir, entries, contexts] => fill(
            Path::new(dir),
            entries.parse().unwrap(),
            contexts.parse().unwrap(),
        ),
        ["--source", dir] => source(Path::new(dir)),
        ["--mirror", address, entries] => {
            mirror(address.parse().unwrap(), entries.parse().unwrap());
        }
        _ => compare(),
    }
}

fn compare() {
    let (entries, rounds) = if quick() {
        (50_000u32, 2)
    } else {
        (1_000_000, 3)
    };
    println!(
        "{:>9} {:>9} {:>10} {:>11} {:>8}  {:>14} {:>14}",
        "entries", "contexts", "median", "entries/s", "MB/s", "source memory", "mirror memory"
    );
    for contexts in [1u64, 1_000] {
        let dir = directory();
        let (path, count) = (dir.path().as_os_str(), entries.to_string());
        let spread = contexts.to_string();
        Other::start(&["--fill".as_ref(), path, count.as_ref(), spread.as_ref()]).stop();
        let mut source = Other::start(&["--source".as_ref(), path]);
        let address = source.line();
        let (mut times, mut bytes, mut memory) = (Vec::new(), 0, 0);
        for _ in 0..rounds {
            let arguments = ["--mirror", &address, &count].map(OsStr::new);
            let said = Other::start(&arguments).stop();
            let said: Vec<u64> = said.split(' ').map(|n| n.parse().unwrap()).collect();
            times.push(Duration::from_micros(said[0]));
            (bytes, memory) = (said[1], memory.max(said[2]));
        }
        let middle = median(&mut times);
        let rate = f64::from(entries) / middle.as_secs_f64();
        println!(
            "{entries:>9} {contexts:>9} {middle:>10.1?} {rate:>11.0} {:>8.0}  {:>10} MiB {memory:>10} MiB",
            mb_per_s(bytes, middle),
            source.stop(),
        );
    }
}
