//! A mirror catches up over loopback. Whoever fills the store, the source and
//! the mirror are processes of their own, so that memory and processor time of
//! each can be told. Every byte is verified on the way and durable at the end.
//! What is measured:
//!
//! * a million entries with payloads of 150 bytes, in one context and in a
//!   thousand, and three times as many, to see that memory does not grow;
//! * beside each, bare QUIC with the same endpoint settings moving as many
//!   bytes as the mirror received, on as many processes;
//! * payloads of 4 KiB, 64 KiB and 1 MiB, for memory;
//! * 100,000 contexts of which 10 have grown.
//!
//! Memory is the most a process has held (resident, code included), less what
//! the index's cache can have held: its limit, or the index's file if that is
//! smaller. Whatever else the store keeps counts.
//!
//! `cargo bench --bench catch_up`; `LEDGER_BENCH_QUICK=1` for small logs. Words
//! behind `--` choose among `one`, `many`, `long`, `large`, `changes`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{directory, mb_per_s, options, peak_memory_mib, quick, signer};
use converge_ledger::entry::{ContextId, Draft, Metadata};
use converge_ledger::limits::INDEX_CACHE_BYTES;
use converge_ledger::node::quic::client_config;
use converge_ledger::node::{
    Allowlist, CatchUp, Hooks, NodeKey, ServeLimits, catch_up, client, listen, serve,
};
use converge_ledger::store::disk::RealDisk;
use converge_ledger::store::{Store, StoreRole, create};
use converge_ledger::sync::{Outcome, Report};

/// Bytes of payloads in one append, about.
const BATCH_BYTES: u64 = 1_500_000;
/// What is aimed at: entries a second, MiB of memory beyond the cache, and for
/// contexts of which few have changed bytes and time.
const RATE_MIN: f64 = 600_000.0;
const MEMORY_MIB_MAX: u64 = 64;
const CHANGES_BYTES_MAX: u64 = 100_000;
const CHANGES_TIME_MAX: Duration = Duration::from_millis(100);
/// Bytes of one write of bare QUIC.
const BARE_WRITE_BYTES: usize = 256 << 10;

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

fn context(n: u64) -> ContextId {
    ContextId::new(&format!("context-{n}")).unwrap()
}

/// Entry `i`: a payload of `bytes`, no two alike, a key and two pairs.
fn draft(i: u64, bytes: u64) -> Draft {
    let mut payload = vec![b'.'; usize::try_from(bytes).unwrap()];
    write!(&mut payload[..], "{{\"package\":\"package-{i:08}\"}}").unwrap();
    let pairs = [
        ("agent_id", format!("agent-{:02}", i % 64)),
        ("cycle", format!("{:07}", i / 64)),
    ];
    let metadata = Metadata::from_pairs(pairs).unwrap();
    Draft::new("facts", payload)
        .unwrap()
        .with_metadata(metadata)
}

/// Processor time of this process so far, its threads and the kernel's part in
/// it, as Linux says in hundredths.
fn processor_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let fields = fields.split_whitespace().skip(11).take(2);
    fields.filter_map(|n| n.parse::<u64>().ok()).sum::<u64>() * 10
}

/// Peak memory less what the index's cache can have held, in MiB.
fn memory_mib(dir: &Path) -> u64 {
    let index = std::fs::metadata(dir.join("index.redb")).map_or(0, |meta| meta.len());
    let cache = index.min(INDEX_CACHE_BYTES as u64);
    peak_memory_mib().saturating_sub(cache >> 20)
}

/// Makes a log of `entries`, which take turns among the contexts.
fn fill(dir: &Path, entries: u64, contexts: u64, payload_bytes: u64) {
    let disk = RealDisk::new(dir);
    create(&disk, StoreRole::Own, signer().verifier()).unwrap();
    let opened = Store::open(Arc::new(disk), options(4 << 20), Some(signer())).unwrap();
    let batch = (BATCH_BYTES / payload_bytes).clamp(1, 10_000).min(entries);
    // In a batch, what belongs together stands together.
    let run = (batch / contexts).max(1);
    for from in (0..entries).step_by(usize::try_from(batch).unwrap()) {
        let drafts = (from..entries.min(from + batch))
            .map(|i| (context(i / run % contexts), draft(i, payload_bytes)));
        opened.store.append(drafts.collect()).unwrap();
    }
    opened.store.close().unwrap();
}

/// Serves `dir` until standard input ends. For each line the contexts named in
/// it grow by an entry.
fn source(dir: &Path) {
    let disk = Arc::new(RealDisk::new(dir));
    let opened = Store::open(disk, options(4 << 20), Some(signer())).unwrap();
    let (store, before) = (opened.store, processor_ms());
    let view = Arc::new(store.view().clone());
    runtime().block_on(async {
        let allowed = Allowlist::new([key(2).id()]).unwrap();
        let endpoint = listen(any_port(), &key(1), &allowed).unwrap();
        println!("{}", endpoint.local_addr().unwrap());
        let ended = tokio::task::spawn_blocking(move || {
            for line in std::io::stdin().lines() {
                let line = line.unwrap();
                let grown = line.split(' ').map(|n| context(n.parse().unwrap()));
                store
                    .append(grown.map(|id| (id, draft(0, 150))).collect())
                    .unwrap();
                store.publish().unwrap();
                println!("grown");
            }
        });
        let stop = async move { ended.await.unwrap() };
        let doors = (endpoint, allowed);
        let (limits, hooks) = (ServeLimits::default(), Hooks::default());
        serve(doors, view, limits, hooks, stop).await;
    });
    println!("{} {}", memory_mib(dir), processor_ms() - before);
}

/// Another process of this bench.
struct Other {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Other {
    fn start(arguments: &[&dyn AsRef<OsStr>]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(arguments.iter().map(|argument| (*argument).as_ref()))
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

    /// The same, of numbers.
    fn numbers<const N: usize>(&mut self) -> [u64; N] {
        let line = self.line();
        let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Lets it end; its last numbers.
    fn stop<const N: usize>(mut self) -> [u64; N] {
        drop(self.child.stdin.take());
        let numbers = self.numbers();
        assert!(self.child.wait().unwrap().success());
        numbers
    }
}

/// Syncs into an empty directory, and again for each line of standard input.
/// After each it writes microseconds, bytes received and entries; at the end
/// its memory in MiB and its processor time in ms.
fn mirror(address: SocketAddr) {
    let dir = directory();
    let disk = RealDisk::new(dir.path());
    create(&disk, StoreRole::Mirror, signer().verifier()).unwrap();
    let opened = Store::open(Arc::new(disk), options(4 << 20), None).unwrap();
    let (store, before) = (Arc::new(opened.store), processor_ms());
    let config = CatchUp::new(address, key(1).id(), signer().verifier().clone());
    let runtime = runtime();
    let sync = || -> (Duration, Report) {
        let start = Instant::now();
        let report = runtime.block_on(async {
            let endpoint = client(any_port()).unwrap();
            let me = key(2);
            let sync = catch_up(&endpoint, &me, store.clone(), &config, |_| ());
            sync.await.unwrap()
        });
        (start.elapsed(), report)
    };
    let mut lines = std::io::stdin().lines();
    loop {
        let (time, report) = sync();
        assert_eq!(report.outcome, Outcome::CaughtUp);
        let signed = report.head.unwrap().head().entries;
        assert_eq!(store.view().totals().1, signed);
        println!(
            "{} {} {}",
            time.as_micros(),
            report.received_bytes,
            report.entries
        );
        if lines.next().is_none() {
            break;
        }
    }
    let spent = processor_ms() - before;
    let memory = memory_mib(dir.path());
    store.close().unwrap();
    println!("{memory} {spent}");
}

/// Sends as many bytes as are asked for, on every stream, and checks nothing.
fn bare_source() {
    let before = processor_ms();
    runtime().block_on(async {
        let allowed = Allowlist::new([key(2).id()]).unwrap();
        let endpoint = listen(any_port(), &key(1), &allowed).unwrap();
        println!("{}", endpoint.local_addr().unwrap());
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let (mut send, mut recv) = connection.accept_bi().await.unwrap();
        let asked = recv.read_to_end(8).await.unwrap();
        let mut left = usize::try_from(u64::from_le_bytes(asked.try_into().unwrap())).unwrap();
        let zeros = Bytes::from(vec![0; BARE_WRITE_BYTES]);
        while left > 0 {
            let part = zeros.slice(..left.min(BARE_WRITE_BYTES));
            left -= part.len();
            send.write_chunk(part).await.unwrap();
        }
        send.finish().unwrap();
        connection.closed().await;
    });
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    println!("{} {}", peak_memory_mib(), processor_ms() - before);
}

/// Asks for `bytes` and drops them; writes microseconds.
fn bare_mirror(address: SocketAddr, bytes: u64) {
    let start = Instant::now();
    runtime().block_on(async {
        let endpoint = client(any_port()).unwrap();
        let config = client_config(&key(2), key(1).id()).unwrap();
        let connecting = endpoint.connect_with(config, address, "node.invalid");
        let connection = connecting.unwrap().await.unwrap();
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes.to_le_bytes()).await.unwrap();
        send.finish().unwrap();
        let mut got = 0;
        while let Some(chunk) = recv.read_chunk(BARE_WRITE_BYTES, true).await.unwrap() {
            got += chunk.bytes.len() as u64;
        }
        assert_eq!(got, bytes);
        connection.close(0u32.into(), b"");
        endpoint.wait_idle().await;
    });
    println!("{}", start.elapsed().as_micros());
    println!("{}", processor_ms());
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().unwrap();
    match arguments[..] {
        ["--fill", dir, entries, contexts, payload] => {
            fill(
                Path::new(dir),
                number(entries),
                number(contexts),
                number(payload),
            );
        }
        ["--source", dir] => source(Path::new(dir)),
        ["--mirror", address] => mirror(address.parse().unwrap()),
        ["--bare-source"] => bare_source(),
        ["--bare-mirror", address, bytes] => {
            bare_mirror(address.parse().unwrap(), number(bytes));
        }
        // Cargo adds words of its own.
        _ => compare(&arguments),
    }
}

/// A log to be caught up with.
struct Case {
    word: &'static str,
    entries: u64,
    contexts: u64,
    payload_bytes: u64,
    rounds: usize,
}

fn cases() -> Vec<Case> {
    let (many, rounds) = if quick() { (50_000, 1) } else { (1_000_000, 3) };
    // As many bytes, whatever the payloads.
    let large = |payload_bytes| Case {
        word: "large",
        entries: many * 400 / payload_bytes,
        contexts: 4,
        payload_bytes,
        rounds: 1,
    };
    let small = |word, entries, contexts, rounds| Case {
        word,
        entries,
        contexts,
        payload_bytes: 150,
        rounds,
    };
    vec![
        small("one", many, 1, rounds),
        small("many", many, 1_000, rounds),
        small("long", 3 * many, 1, 1),
        small("long", 3 * many, 1_000, 1),
        large(4 << 10),
        large(64 << 10),
        large(1 << 20),
    ]
}

fn compare(words: &[&str]) {
    let known = ["one", "many", "long", "large", "changes"];
    let chosen: Vec<_> = words.iter().filter(|word| known.contains(word)).collect();
    let wanted = |word| chosen.is_empty() || chosen.contains(&&word);
    println!(
        "{:>8} {:>8} {:>8} {:>8} {:>10} {:>6}  {:>6} {:>6}  {:>7} {:>7}  {:>8} {:>6}",
        "entries",
        "contexts",
        "payload",
        "median",
        "entries/s",
        "MB/s",
        "source",
        "mirror",
        "source",
        "mirror",
        "bare",
        "ratio"
    );
    for case in cases().iter().filter(|case| wanted(case.word)) {
        measure(case);
    }
    println!(
        "aims: {RATE_MIN} entries/s of 150 B; {MEMORY_MIB_MAX} MiB on either side. Memory is beyond the cache."
    );
    if wanted("changes") {
        changes(if quick() { 5_000 } else { 100_000 });
    }
}

fn filled(entries: u64, contexts: u64, payload_bytes: u64) -> tempfile::TempDir {
    let dir = directory();
    let [entries, contexts, payload] = [entries, contexts, payload_bytes].map(|n| n.to_string());
    let mut child = Other::start(&[&"--fill", &dir.path(), &entries, &contexts, &payload]).child;
    assert!(child.wait().unwrap().success());
    dir
}

#[allow(clippy::cast_precision_loss)] // figures for people
fn measure(case: &Case) {
    let dir = filled(case.entries, case.contexts, case.payload_bytes);
    let mut source = Other::start(&[&"--source", &dir.path()]);
    let address = source.line();
    let (mut times, mut bares, mut bytes, mut memory, mut spent) = (vec![], vec![], 0, 0, 0);
    for _ in 0..case.rounds {
        let mut mirror = Other::start(&[&"--mirror", &address]);
        let [us, received, entries] = mirror.numbers();
        assert_eq!(entries, case.entries);
        let [peak, ms] = mirror.stop();
        times.push(Duration::from_micros(us));
        (bytes, memory, spent) = (received, memory.max(peak), spent + ms);
        // Beside it, so that both see the same machine.
        let mut bare = Other::start(&[&"--bare-source"]);
        let to = bare.line();
        let other = Other::start(&[&"--bare-mirror", &to, &bytes.to_string()]);
        bares.push(Duration::from_micros(bare_time(other)));
        let [_, _] = bare.stop();
    }
    let [source_memory, source_spent] = source.stop();
    let (middle, bare) = (common::median(&mut times), common::median(&mut bares));
    let rounds = case.rounds as u64;
    println!(
        "{:>8} {:>8} {:>8} {:>8.2?} {:>10.0} {:>6.0}  {:>4}ms {:>4}ms  {:>3} MiB {:>3} MiB  {:>8.2?} {:>6.2}",
        case.entries,
        case.contexts,
        case.payload_bytes,
        middle,
        case.entries as f64 / middle.as_secs_f64(),
        mb_per_s(bytes, middle),
        source_spent / rounds,
        spent / rounds,
        source_memory,
        memory,
        bare,
        middle.as_secs_f64() / bare.as_secs_f64(),
    );
}

fn bare_time(mut other: Other) -> u64 {
    let [us] = other.numbers();
    let [_] = other.stop();
    us
}

/// Contexts of one entry, of which ten grow by another.
fn changes(contexts: u64) {
    let dir = filled(contexts, contexts, 150);
    let mut source = Other::start(&[&"--source", &dir.path()]);
    let mut mirror = Other::start(&[&"--mirror", &source.line()]);
    let [first_us, first_bytes, _] = mirror.numbers();
    println!(
        "{contexts} contexts of one entry: {:.2?}, {first_bytes} bytes",
        Duration::from_micros(first_us)
    );
    for round in 0..5 {
        let grown: Vec<u64> = (0..10).map(|n| (n * 7919 + round) % contexts).collect();
        let line: Vec<String> = grown.iter().map(u64::to_string).collect();
        source.say(&line.join(" "));
        assert_eq!(source.line(), "grown");
        mirror.say("again");
        let [us, bytes, entries] = mirror.numbers();
        assert_eq!(entries, 10);
        println!(
            "10 of {contexts} contexts changed, {} levels of the directory: {:.1?}, {bytes} bytes (aims: {CHANGES_TIME_MAX:.0?} and one round trip per level, {CHANGES_BYTES_MAX} bytes)",
            levels(&grown, contexts),
            Duration::from_micros(us),
        );
    }
    let [memory, _] = mirror.stop();
    let [source_memory, _] = source.stop();
    println!("memory beyond the cache: source {source_memory} MiB, mirror {memory} MiB");
}

/// Levels of the directory down to these contexts, the root's included.
fn levels(of: &[u64], contexts: u64) -> usize {
    let nibbles = |n: u64| {
        let path = context(n).path();
        let halves = path
            .as_bytes()
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15]);
        halves.collect::<Vec<u8>>()
    };
    let mut all: Vec<_> = (0..contexts).map(nibbles).collect();
    all.sort_unstable();
    let shared = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let depth = |n: &u64| {
        let path = nibbles(*n);
        let at = all.binary_search(&path).unwrap();
        let beside = [at.checked_sub(1), Some(at + 1)];
        let beside = beside.into_iter().flatten().filter_map(|at| all.get(at));
        1 + beside.map(|other| shared(&path, other)).max().unwrap_or(0)
    };
    of.iter().map(depth).max().unwrap_or(0)
}
