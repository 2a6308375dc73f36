//! `snapshot` and `load`: a context out of a store as one archive, and back.
//!
//! Invariants: a file that `snapshot` leaves under its name is whole and on
//! disk; `load` stores nothing of an archive that does not verify.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal as _, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use super::data::{DataDir, options};
use super::error::CliError;
use super::output::{Out, STDOUT, escape};
use super::progress;
use super::remote::{ReadArguments, Remote, ServerArguments, Target};
use super::show::Text;
use crate::archive::{self, WriteError};
use crate::client::ClientError;
use crate::entry::ContextId;
use crate::hash::Hash;
use crate::node::archives::{self, LoadOptions, SnapshotError};

/// Mode of a snapshot's file: what is in a store is not for everybody.
const FILE_MODE: u32 = 0o600;
/// Bytes of an archive that are sent to a server: no server takes more.
const SENT_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a server's answer with an archive: no server makes more.
const REPLY_BYTES_MAX: usize = (1 << 30) + (1 << 20);
/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct SnapshotArguments {
    /// The context
    #[arg(long, value_name = "NAME")]
    context: String,
    /// Write the archive to this file; it is replaced when the new one is whole
    /// [default: stdout, which is - too]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object: `context`, `size`, `root`, `bytes`
    #[arg(long, requires = "output")]
    json: bool,
    #[command(flatten)]
    pub(super) read: ReadArguments,
}

#[derive(Debug, Args)]
pub(super) struct LoadArguments {
    /// The archive
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Restore it as this context [default: the one it was made of]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Refuse if the context has any entry; otherwise it is completed
    #[arg(long)]
    fail_if_exists: bool,
    /// Take entries that are more than a day ahead of the clock
    #[arg(long)]
    allow_future: bool,
    /// Print one JSON object: `context`, `restored`, `size`, `root`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) server: ServerArguments,
}

#[derive(Serialize)]
struct SnapshotJson<'a> {
    context: &'a str,
    size: u64,
    root: Text<Hash>,
    bytes: u64,
}

#[derive(Serialize)]
struct LoadJson<'a> {
    context: &'a str,
    restored: u64,
    size: u64,
    root: Text<Hash>,
}

fn context_id(name: &str) -> Result<ContextId, CliError> {
    ContextId::new(name).map_err(|error| CliError::usage(error).context("--context"))
}

/// What was written.
struct Written {
    size: u64,
    root: Hash,
    bytes: u64,
}

pub(super) fn snapshot(target: &Target, arguments: &SnapshotArguments) -> Result<(), CliError> {
    let context = context_id(&arguments.context)?;
    let output = arguments.output.as_ref();
    let Some(path) = output.filter(|path| path.as_os_str() != STDOUT) else {
        if arguments.json {
            return Err(CliError::usage(
                "--json needs -o FILE: stdout has the archive",
            ));
        }
        if io::stdout().is_terminal() {
            return Err(CliError::usage("an archive is not for a terminal")
                .hint("Give a file with -o FILE, or send stdout to one."));
        }
        let mut stdout = BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock());
        let written = write_snapshot(target, &context, &mut stdout, "stdout")?;
        stdout.flush().map_err(|error| CliError::stdout(&error))?;
        let (Written { size, bytes, .. }, name) = (written, escape(context.as_str()));
        tracing::info!(size, bytes, "wrote a snapshot of {name}");
        return Ok(());
    };
    let mut file = NewFile::create(path)?;
    let written = write_snapshot(target, &context, &mut file.writer, path.display())?;
    file.keep()?;
    let Written { size, root, bytes } = written;
    let mut out = Out::new();
    if arguments.json {
        out.json(&SnapshotJson {
            context: context.as_str(),
            size,
            root: Text(root),
            bytes,
        })?;
    } else {
        let name = escape(context.as_str());
        out.line(format_args!(
            "{name}: {size} entries, root {root}, {bytes} bytes"
        ))?;
    }
    out.flush()
}

fn write_snapshot(
    target: &Target,
    context: &ContextId,
    out: &mut impl Write,
    output: impl fmt::Display,
) -> Result<Written, CliError> {
    match target {
        Target::Directory(data) => {
            let view = data.open_view()?;
            let bar = progress::bar(None);
            let written = archives::snapshot(&view, context, Counted(out, bar.clone()));
            bar.finish_and_clear();
            let written = written.map_err(|error| match &error {
                SnapshotError::Write(WriteError::Out(_)) => CliError::from(error).context(&output),
                _ => CliError::from(error).context(data.shown()),
            })?;
            let written = written.ok_or_else(|| {
                let name = context.as_str();
                CliError::could_not(format_args!("there is no context {name:?} here"))
                    .hint("`contexts` lists them.")
            })?;
            Ok(Written {
                size: written.size,
                root: written.root,
                bytes: written.bytes,
            })
        }
        Target::Server(remote) => {
            let snapshot = remote
                .with(|options| options.message_bytes_max = REPLY_BYTES_MAX)
                .run(async |client| Ok(client.snapshot(context).await?))?;
            out.write_all(&snapshot.archive)
                .map_err(|error| CliError::unwritten(&error).context(&output))?;
            Ok(Written {
                size: snapshot.size,
                root: snapshot.root,
                bytes: snapshot.archive.len() as u64,
            })
        }
    }
}

pub(super) fn load(target: &Target, arguments: &LoadArguments) -> Result<(), CliError> {
    let path = &arguments.file;
    let failed = |error| CliError::could_not(error).context(path.display());
    let mut file = File::open(path).map_err(failed)?;
    let context = if let Some(name) = &arguments.context {
        context_id(name)?
    } else {
        let name = archive::name_of(io::BufReader::new(&mut file));
        name.map_err(|error| CliError::from(error).context(path.display()))?
    };
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let loaded = match target {
        Target::Directory(data) => load_into_directory(data, &context, file, arguments),
        Target::Server(remote) => load_into_server(remote, &context, file, arguments),
    };
    let LoadJson {
        restored,
        size,
        root,
        ..
    } = loaded.map_err(|error| error.context(path.display()))?;
    let mut out = Out::new();
    if arguments.json {
        out.json(&LoadJson {
            context: context.as_str(),
            restored,
            size,
            root,
        })?;
    } else {
        let (name, Text(root)) = (escape(context.as_str()), root);
        out.line(format_args!(
            "{name}: {restored} entries restored, {size} in all, root of the archive {root}"
        ))?;
    }
    out.flush()
}

fn load_into_directory(
    data: &DataDir,
    context: &ContextId,
    file: File,
    arguments: &LoadArguments,
) -> Result<LoadJson<'static>, CliError> {
    let options_of_load = LoadOptions {
        fail_if_exists: arguments.fail_if_exists,
        allow_future: arguments.allow_future,
    };
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let store = data.open(&options())?;
    // It is read twice: verified, then stored.
    let bar = progress::bar(Some(bytes.saturating_mul(2)));
    let loaded = archives::load(
        &store,
        context,
        Counted(file, bar.clone()),
        &options_of_load,
    );
    bar.finish_and_clear();
    let closed = store.close();
    let loaded = loaded?;
    closed?;
    Ok(LoadJson {
        context: "",
        restored: loaded.restored,
        size: loaded.size,
        root: Text(loaded.root),
    })
}

fn load_into_server(
    remote: &Remote,
    context: &ContextId,
    mut file: File,
    arguments: &LoadArguments,
) -> Result<LoadJson<'static>, CliError> {
    const TOO_LARGE: &str = "If it is too large for one message, stop the server and run \
                             `load --data DIR` on its machine, which takes any size.";
    if arguments.allow_future {
        return Err(CliError::usage(
            "--allow-future needs a directory: --data DIR",
        ));
    }
    let failed = |error| CliError::could_not(error);
    if file.metadata().map_err(failed)?.len() > SENT_BYTES_MAX {
        let error = format_args!("larger than the {SENT_BYTES_MAX} bytes that a server can take");
        return Err(CliError::could_not(error).hint(TOO_LARGE));
    }
    let mut archive = Vec::new();
    let read = (&mut file).take(SENT_BYTES_MAX).read_to_end(&mut archive);
    read.map_err(failed)?;
    // What is not sound is not sent; and the root is printed.
    let verified = archive::verify(archive.as_slice(), None)?;
    let fail_if_exists = arguments.fail_if_exists;
    let loaded = remote.run(async |client| {
        let loaded = client.load(context, archive.into(), fail_if_exists).await;
        loaded.map_err(|error| {
            let (overload, undecided) = (error.is_overload(), error.is_undecided());
            let error = CliError::from(error);
            match (overload, undecided) {
                (true, _) => error.hint(TOO_LARGE),
                (_, true) => error.hint(
                    "Whether it was loaded is not known: run the same command again, which \
                     completes what is there.",
                ),
                _ => error,
            }
        })
    })?;
    if loaded.size < verified.size() {
        return Err(ClientError::Unverified {
            sequence: loaded.size,
            what: "the context has fewer entries than were loaded",
        }
        .into());
    }
    Ok(LoadJson {
        context: "",
        restored: loaded.restored,
        size: loaded.size,
        root: Text(verified.root()),
    })
}

/// Bytes that pass move a bar.
struct Counted<T>(T, ProgressBar);

impl<T: Write> Write for Counted<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1.inc(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<T: Read> Read for Counted<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(bytes)?;
        self.1.inc(read as u64);
        Ok(read)
    }
}

impl<T: Seek> Seek for Counted<T> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// A file that gets its name when it is whole, and is removed if it never is.
struct NewFile {
    name: PathBuf,
    temporary: PathBuf,
    writer: BufWriter<File>,
    kept: bool,
}

impl NewFile {
    fn create(name: &Path) -> Result<Self, CliError> {
        let Some(last) = name.file_name() else {
            return Err(CliError::usage("not the name of a file").context(name.display()));
        };
        let mut temporary = last.to_os_string();
        temporary.push(format!(".{}.new", std::process::id()));
        let temporary = name.with_file_name(temporary);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&temporary)
            .map_err(|error| CliError::could_not(error).context(temporary.display()))?;
        Ok(Self {
            name: name.to_path_buf(),
            temporary,
            writer: BufWriter::with_capacity(BUFFER_BYTES, file),
            kept: false,
        })
    }

    /// Makes it durable and gives it its name.
    fn keep(mut self) -> Result<(), CliError> {
        let outcome = self.settle();
        outcome.map_err(|error| CliError::unwritten(&error).context(self.name.display()))
    }

    fn settle(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        self.writer.get_ref().sync_all()?;
        fs::rename(&self.temporary, &self.name)?;
        self.kept = true;
        let parent = self.name.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing is lost if it stays.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
