//! Runs the binary in directories that are thrown away. Every process has a
//! deadline and dies with its owner.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// No command of these tests takes nearly as long, however busy the machine.
const DEADLINE: Duration = Duration::from_mins(2);

pub(crate) const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sample.ndjson");

/// What a finished process left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// The lines of stdout as JSON objects.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap();
        self.text().lines().map(parse).collect()
    }

    /// The one line of stdout as a JSON object.
    pub(crate) fn json(&self) -> Value {
        let mut lines = self.json_lines();
        assert_eq!(lines.len(), 1, "{self:?}");
        lines.remove(0)
    }

    #[track_caller]
    pub(crate) fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:?}\n{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// Fails with this status and says this.
    #[track_caller]
    pub(crate) fn refuses(self, status: i32, says: &str) -> Self {
        let ran = self.expect(status);
        assert!(ran.stderr.contains("error: "), "{}", ran.stderr);
        assert!(ran.stderr.contains(says), "{:?} in {}", says, ran.stderr);
        ran
    }
}

/// The names of an object's fields, in the order they are printed.
pub(crate) fn fields(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// A process that is killed when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_converge-ledger"));
    command.env_remove("CONVERGE_LEDGER_DATA");
    command.env_remove("CONVERGE_LEDGER_LOG");
    command.env_remove("CONVERGE_LEDGER_SERVER");
    // Tests run side by side.
    command.env("GRPC_PORT", "0");
    command
}

/// Runs to the end, with `input` on stdin.
pub(crate) fn run_with(mut command: Command, input: &[u8]) -> Ran {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut stdin = child.0.stdin.take().unwrap();
    let mut stdout = child.0.stdout.take().unwrap();
    let mut stderr = child.0.stderr.take().unwrap();
    let input = input.to_vec();
    // A process that refuses its arguments does not read.
    thread::spawn(move || stdin.write_all(&input));
    let (sender, receiver) = mpsc::channel();
    let errors = thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).map(|_| text)
    });
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stdout.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    let stdout = receiver.recv_timeout(DEADLINE).expect("it ends in time");
    let status = child.0.wait().unwrap();
    Ran {
        status: status.code().unwrap_or(-1),
        stdout,
        stderr: errors.join().unwrap().unwrap(),
    }
}

/// A temporary directory and the commands run in it.
pub(crate) struct Place(pub(crate) tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A command on the store `name`.
    pub(crate) fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = command();
        command.arg("--data").arg(self.path(name)).args(arguments);
        command
    }

    pub(crate) fn run(&self, name: &str, arguments: &[&str]) -> Ran {
        self.run_in(name, arguments, b"")
    }

    pub(crate) fn run_in(&self, name: &str, arguments: &[&str], input: &[u8]) -> Ran {
        run_with(self.command(name, arguments), input)
    }

    /// Makes the store `name`, with the sample in the context `packages`.
    pub(crate) fn with_sample(&self, name: &str) {
        self.run(name, &["init", "--name", "test.example"])
            .expect(0);
        let append = ["append", "--context", "packages", "--ndjson", SAMPLE];
        self.run(name, &append).expect(0);
    }

    pub(crate) fn keys(&self, name: &str) -> (String, String) {
        let keys = self.run(name, &["keys", "--json"]).expect(0).json();
        let text = |field: &str| keys[field].as_str().unwrap().to_owned();
        (text("origin_vkey"), text("node_key"))
    }

    pub(crate) fn size(&self, name: &str, context: &str) -> u64 {
        let contexts = self.run(name, &["contexts", "--json"]).expect(0);
        let of = |line: &Value| line["context"] == context;
        let found = contexts.json_lines().into_iter().find(of);
        found.map_or(0, |line| line["size"].as_u64().unwrap())
    }

    pub(crate) fn segment(&self, name: &str) -> PathBuf {
        self.path(name).join("log/0000000001.seg")
    }

    pub(crate) fn serve(&self, name: &str, allow: &[&str]) -> Server {
        let mut arguments = vec!["serve", "--listen", "127.0.0.1:0"];
        arguments.extend(allow.iter().flat_map(|key| ["--allow", key]));
        Server::start(self.command(name, &arguments))
    }

    pub(crate) fn pull(&self, name: &str, server: &Server, peer: &str, origin: &str) -> Ran {
        let address = server.address.as_str();
        let arguments = [
            "mirror", "--from", address, "--peer", peer, "--origin", origin, "--once", "--json",
        ];
        self.run(name, &arguments)
    }
}

/// A `serve` that listens.
pub(crate) struct Server {
    child: Killed,
    pub(crate) address: String,
    pub(crate) grpc: String,
    /// What else listens, and where.
    pub(crate) others: Vec<(String, String)>,
}

impl Server {
    pub(crate) fn start(mut command: Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let mut stdout = BufReader::new(child.0.stdout.take().unwrap());
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|read| read > 0) {
                let _ = sender.send(std::mem::take(&mut line));
            }
        });
        // Every test has the gRPC line, which is the last one.
        let (mut address, mut grpc) = (String::new(), String::new());
        let mut others = Vec::new();
        while grpc.is_empty() {
            let line = receiver.recv_timeout(DEADLINE).expect("it says so in time");
            match line.trim_end().split_once(" listening on ") {
                Some(("quic", at)) => at.clone_into(&mut address),
                Some(("grpc", at)) => at.clone_into(&mut grpc),
                Some((what, at)) => others.push((what.to_owned(), at.to_owned())),
                None => panic!("{line:?}"),
            }
        }
        Self {
            child,
            address,
            grpc,
            others,
        }
    }

    /// Its process.
    #[allow(dead_code)] // the tests over bad networks look at it
    pub(crate) fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// Where something else listens.
    pub(crate) fn other(&self, what: &str) -> &str {
        let found = self.others.iter().find(|(name, _)| name == what);
        &found.expect("it says so").1
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn stop(self, signal: &str) -> i32 {
        kill(&self.child, signal);
        ended(self.child)
    }

    /// Waits for it to end by itself.
    pub(crate) fn ended(self) -> i32 {
        ended(self.child)
    }
}

/// A command that prints lines until it is told to stop.
pub(crate) struct Running {
    child: Killed,
    lines: mpsc::Receiver<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let stdout = BufReader::new(child.0.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // Ends, and closes the pipe, when nobody listens any more.
        thread::spawn(move || {
            for line in stdout.lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("a line in time")
    }

    /// Nothing more is read.
    pub(crate) fn deaf(self) -> Ending {
        Ending(self.child)
    }

    /// Sends a signal and waits for the end: the status, and what was printed
    /// since.
    pub(crate) fn stop(self, signal: &str) -> (i32, Vec<String>) {
        kill(&self.child, signal);
        let status = ended(self.child);
        (status, self.lines.iter().collect())
    }
}

/// A process that ends by itself.
pub(crate) struct Ending(Killed);

impl Ending {
    pub(crate) fn status(self) -> i32 {
        ended(self.0)
    }
}

fn kill(child: &Killed, signal: &str) {
    let pid = child.0.id().to_string();
    let told = Command::new("kill").args(["-s", signal, &pid]).status();
    assert!(told.unwrap().success());
}

fn ended(mut child: Killed) -> i32 {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let status = child.0.wait();
        let _ = sender.send(status);
    });
    let status = receiver.recv_timeout(DEADLINE).expect("it ends in time");
    status.unwrap().code().unwrap_or(-1)
}

/// Every file below a directory with its bytes, sorted.
pub(crate) fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for item in std::fs::read_dir(dir).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.push((path.clone(), std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let path = item.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            // Keeps the mode, which matters for keys.
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
