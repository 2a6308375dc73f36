//! The API over gRPC, on loopback, over a store on disk: appends with many in
//! flight against one at a time, what an idle watcher costs, a thousand
//! watchers of one context, and how long after its acknowledgement a watcher
//! sees an entry.
//!
//! The clients whose memory must not count are a process of their own: this
//! program again, told by the environment.
//!
//! `cargo bench --bench grpc`; `LEDGER_BENCH_QUICK=1` for a short run,
//! `LEDGER_BENCH_ONLY=append`, `latency` or `watchers` for one part.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss)]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{directory, draft, median, options, quick, signer};
use converge_ledger::client::{Client, ClientOptions, Watch};
use converge_ledger::entry::{ContextId, Draft};
use converge_ledger::rpc::{Opening, Places, RpcConfig, Server};
use converge_ledger::store::disk::RealDisk;
use converge_ledger::store::{Store, StoreOptions, StoreRole, create};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The address of the server, for the process that only watches.
const WATCH_ENV: &str = "LEDGER_BENCH_WATCH";
const RESERVE_BYTES: u64 = 4 << 20;
/// Watchers that are there before memory is looked at.
const WARM: usize = 100;
const WATCHERS: usize = 1_000;
/// Watches of one connection: the server's limit is 1,024.
const PER_CONNECTION: usize = 500;

fn id(name: &str) -> ContextId {
    ContextId::new(name).unwrap()
}

fn url(address: SocketAddr) -> ClientOptions {
    ClientOptions::new(format!("http://{address}"))
}

struct Served {
    store: Store,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

fn serve() -> Served {
    let dir = directory();
    let disk = Arc::new(RealDisk::new(dir.path()));
    create(&*disk, StoreRole::Own, signer().verifier()).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(any, RpcConfig::default(), None, None).unwrap();
    let place = Opening::new();
    let options = StoreOptions {
        head_every: Some(Duration::from_secs(1)),
        listener: Some(place.listener()),
        ..options(RESERVE_BYTES)
    };
    let store = Store::open(disk, options, Some(signer())).unwrap().store;
    let address = server.local_addr();
    let (stop, stopped) = oneshot::channel();
    let places = Places::new(vec![place.with(store.clone())]).unwrap();
    let run = server.run(places, async move { _ = stopped.await });
    let task = tokio::spawn(async move { run.await.unwrap() });
    Served {
        store,
        address,
        stop,
        task,
        _dir: dir,
    }
}

impl Served {
    async fn end(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
        self.store.close().unwrap();
    }
}

/// Appends for `time` with `in_flight` of them under way; returns the rate.
async fn rate(client: &Client, in_flight: usize, time: Duration) -> f64 {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for n in 0..in_flight {
        let client = client.clone();
        tasks.spawn(async move {
            let context = id(&format!("flight-{n}"));
            let mut done = 0u64;
            while start.elapsed() < time {
                client.append(&context, &draft(done)).await.unwrap();
                done += 1;
            }
            done
        });
    }
    let done: u64 = tasks.join_all().await.iter().sum();
    done as f64 / start.elapsed().as_secs_f64()
}

async fn in_flight(client: &Client) {
    let (turn, rounds) = if quick() { (300, 2) } else { (2_000, 5) };
    let turn = Duration::from_millis(turn);
    let (mut one, mut many) = (0.0, 0.0);
    for _ in 0..rounds {
        one += rate(client, 1, turn).await / f64::from(rounds);
        many += rate(client, 64, turn).await / f64::from(rounds);
    }
    println!(
        "append, 150 B, durable: {one:.0}/s one at a time, {many:.0}/s with 64 in flight: {:.1} x",
        many / one
    );
}

/// From the acknowledgement of an entry to a watcher's sight of it.
async fn latency(client: &Client) {
    let count = if quick() { 200 } else { 5_000 };
    let context = id("latency");
    let mut watch = client.watch(&context, None, 0);
    let seen = tokio::spawn(async move {
        let mut seen = Vec::with_capacity(count);
        for _ in 0..count {
            watch.next().await.unwrap();
            seen.push(Instant::now());
        }
        seen
    });
    let mut acknowledged = Vec::with_capacity(count);
    for n in 0..count {
        client.append(&context, &draft(n as u64)).await.unwrap();
        acknowledged.push(Instant::now());
    }
    let seen = seen.await.unwrap();
    let pairs = seen.iter().zip(&acknowledged);
    let mut late: Vec<Duration> = pairs
        .map(|(s, a)| s.saturating_duration_since(*a))
        .collect();
    let before = late.iter().filter(|late| late.is_zero()).count();
    let middle = median(&mut late);
    println!(
        "watch: {middle:?} median, {:?} 99th percentile after the acknowledgement; \
         {before} of {count} before it",
        late[count * 99 / 100]
    );
}

fn resident_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse().unwrap()
}

/// The process that watches, and what it says.
struct Watchers {
    child: Child,
    says: BufReader<std::process::ChildStdout>,
}

impl Watchers {
    fn start(address: SocketAddr, entries: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(WATCH_ENV, format!("{address} {entries}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        Self { child, says }
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn go_on(&mut self) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(b"\n").unwrap();
    }
}

async fn watchers(served: &Served) {
    let entries = if quick() { 200 } else { 10_000 };
    let (store, address) = (served.store.clone(), served.address);
    let work = move || {
        let put = |from: usize, count: usize| {
            let drafts: Vec<(ContextId, Draft)> = (from..from + count)
                .map(|n| (id("watched"), draft(n as u64)))
                .collect();
            store.append(drafts).unwrap();
        };
        put(0, 1);
        let mut watchers = Watchers::start(address, entries);
        assert_eq!(watchers.hear(), "warm");
        let before = resident_kib();
        watchers.go_on();
        assert_eq!(watchers.hear(), "idle");
        let after = resident_kib();
        println!(
            "idle watchers: {:.1} KiB each ({WATCHERS} more take the server from {before} to {after} KiB)",
            (after - before) as f64 / WATCHERS as f64
        );
        watchers.go_on();
        let start = Instant::now();
        // Single entries and batches.
        let mut at = 1;
        while at < entries {
            let count = [1, 1, 1, 50][at % 4].min(entries - at);
            put(at, count);
            at += count;
        }
        let stored = start.elapsed();
        assert_eq!(watchers.hear(), "all");
        let took = start.elapsed();
        let all = (entries * (WATCHERS + WARM)) as f64;
        println!(
            "{} watchers of one context have {entries} entries each, in order, after {:.1} s \
             (stored in {:.1} s): {:.0} entries/s; the server has {} KiB",
            WATCHERS + WARM,
            took.as_secs_f64(),
            stored.as_secs_f64(),
            all / took.as_secs_f64(),
            resident_kib()
        );
        watchers.child.wait().unwrap();
    };
    tokio::task::spawn_blocking(work).await.unwrap();
}

/// The other process: watches, says so, and counts.
async fn watch(told: &str) {
    let (address, entries) = told.split_once(' ').unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let entries: u64 = entries.parse().unwrap();
    let mut watches = Vec::new();
    open(&mut watches, address, WARM).await;
    say("warm");
    open(&mut watches, address, WATCHERS).await;
    say("idle");
    let mut tasks = JoinSet::new();
    for mut watch in watches {
        tasks.spawn(async move {
            for expected in 2..=entries {
                assert_eq!(watch.next().await.unwrap().sequence, expected);
            }
        });
    }
    tasks.join_all().await;
    println!("all");
}

/// Watches that have seen the first entry, and so are there.
async fn open(watches: &mut Vec<Watch>, address: SocketAddr, count: usize) {
    let mut client = None;
    for n in 0..count {
        if n % PER_CONNECTION == 0 {
            client = Some(Client::connect(url(address)).await.unwrap());
        }
        let mut watch = client.as_ref().unwrap().watch(&id("watched"), None, 0);
        assert_eq!(watch.next().await.unwrap().sequence, 1);
        watches.push(watch);
    }
}

/// Says where it is and waits to be told to go on.
fn say(what: &str) {
    println!("{what}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Ok(told) = std::env::var(WATCH_ENV) {
        return runtime.block_on(watch(&told));
    }
    runtime.block_on(async {
        let served = serve();
        let client = Client::connect(url(served.address)).await.unwrap();
        let only = std::env::var("LEDGER_BENCH_ONLY").unwrap_or_default();
        let wanted = |part: &str| only.is_empty() || only == part;
        if wanted("append") {
            in_flight(&client).await;
        }
        if wanted("latency") {
            latency(&client).await;
        }
        if wanted("watchers") {
            watchers(&served).await;
        }
        served.end().await;
    });
}
