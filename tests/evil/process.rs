//! Processes of these tests: a mirror within bounds, and the evil source. Every
//! one of them ends with the test, whatever becomes of it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::attack::Attack;

/// Addresses a mirror may have: an allocation of what a hostile length promises
/// fails at once. An honest sync of these stores, from nothing, has 46 MiB.
const VIRTUAL_KIB_MAX: u64 = 96 << 10;
/// How often the resident memory is looked at. A peak of the last moments may
/// be missed; the bound of addresses misses nothing.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// No process takes nearly as long, however busy the machine.
const DEADLINE: Duration = Duration::from_mins(1);

/// What a bounded process left, and what it took.
#[derive(Clone, Debug)]
pub(crate) struct Bounded {
    /// -1: killed, by a signal or after the deadline.
    pub(crate) status: i32,
    pub(crate) stderr: String,
    pub(crate) elapsed: Duration,
    pub(crate) resident_kib: u64,
    pub(crate) addresses_kib: u64,
}

/// Runs a command with a bound on its addresses.
pub(crate) fn bounded(command: &Command) -> Bounded {
    let mut shell = Command::new("sh");
    let script = format!("ulimit -v {VIRTUAL_KIB_MAX} && exec \"$@\"");
    shell.args(["-c", &script, "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    // Otherwise every thread reserves 64 MiB, and the bound were as loose; and
    // a machine with many processors has a stack for each.
    shell.env("MALLOC_ARENA_MAX", "1");
    shell.env("TOKIO_WORKER_THREADS", "2");
    shell
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = shell.spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let said = thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    let status_file = format!("/proc/{}/status", child.id());
    let (mut resident_kib, mut addresses_kib) = (0, 0);
    let status = loop {
        let text = fs::read_to_string(&status_file).unwrap_or_default();
        resident_kib = peak_kib(&text, "VmHWM:").max(resident_kib);
        addresses_kib = peak_kib(&text, "VmPeak:").max(addresses_kib);
        if let Some(status) = child.try_wait().unwrap() {
            break status.code().unwrap_or(-1);
        }
        if start.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            break -1;
        }
        thread::sleep(LOOK_EVERY);
    };
    Bounded {
        status,
        stderr: said.join().unwrap().unwrap(),
        elapsed: start.elapsed(),
        resident_kib,
        addresses_kib,
    }
}

/// The most a process ever had, of its status; 0 once it has gone.
fn peak_kib(status: &str, what: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    number.map_or(0, |number| number.parse().unwrap())
}

/// The stores a source shows.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) store: PathBuf,
    pub(crate) other: Option<PathBuf>,
}

/// An evil source that listens. It ends when its stdin is closed.
pub(crate) struct Source {
    child: Child,
    _stdin: ChildStdin,
    pub(crate) address: String,
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The evil source is an example: it lies beside the directory of this test.
pub(crate) fn evil_source() -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let program = profile.join("examples/evil-source");
    assert!(
        program.exists(),
        "{} is missing: cargo build --example evil-source",
        program.display()
    );
    Command::new(program)
}

/// The names of the attacks the evil source knows.
pub(crate) fn listed() -> Vec<String> {
    let listed = evil_source().arg("--list").output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

impl Source {
    pub(crate) fn start(
        attack: Attack,
        shown: &Shown,
        allow: &[&str],
        views: &[(&str, &Path)],
    ) -> Self {
        let mut command = evil_source();
        command.args(["--attack", attack.name(), "--store"]);
        command.arg(&shown.store);
        if let Some(other) = &shown.other {
            command.arg("--other").arg(other);
        }
        command.args(allow.iter().flat_map(|key| ["--allow", key]));
        for (key, dir) in views {
            command.args(["--view", &format!("{key}={}", dir.display())]);
        }
        let (child, stdin, address) = listening(command);
        Self {
            child,
            _stdin: stdin,
            address,
        }
    }
}

/// Starts a process that says where it listens.
pub(crate) fn listening(mut command: Command) -> (Child, ChildStdin, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        while stdout.read_line(&mut line).is_ok_and(|read| read > 0) {
            let _ = sender.send(std::mem::take(&mut line));
        }
    });
    let line = receiver.recv_timeout(DEADLINE);
    let line = line.expect("it says where it listens");
    let address = line.trim_end().strip_prefix("quic listening on ");
    let address = address.expect("an address").to_owned();
    (child, stdin, address)
}
