//! Which nodes `serve` lets in: those it was started with, and those of a file
//! that is read again whenever it changes.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::parse_node;
use crate::cli::error::CliError;
use crate::node::{Allowlist, NodeId};

/// Bytes of an allow file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How often to look whether the file has changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    inode: u64,
    bytes: u64,
    /// When it, its rights included, was changed: seconds and nanoseconds.
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            bytes: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The list, and where it comes from.
pub(super) struct Allowed {
    list: Allowlist,
    given: Vec<NodeId>,
    file: Option<(PathBuf, Stamp)>,
}

impl Allowed {
    /// Reads the file, if there is one.
    pub(super) fn read(given: Vec<NodeId>, file: Option<PathBuf>) -> Result<Self, CliError> {
        let mut nodes = given.clone();
        let file = match file {
            None => None,
            Some(path) => {
                let (stamp, more) = read(&path)?;
                nodes.extend(more);
                Some((path, stamp))
            }
        };
        let list = Allowlist::new(nodes).map_err(CliError::usage)?;
        Ok(Self { list, given, file })
    }

    pub(super) const fn list(&self) -> &Allowlist {
        &self.list
    }

    /// Reads the file again whenever it changes; never ends. One that cannot be
    /// read, or holds what is no node key, changes nothing: nobody is let in or
    /// cut off by a mistake.
    pub(super) async fn follow(mut self) {
        let Some((path, mut seen)) = self.file.take() else {
            return std::future::pending().await;
        };
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What was said of a file that cannot be followed.
        let mut said: Option<String> = None;
        loop {
            look.tick().await;
            let found = std::fs::metadata(&path).map(|metadata| Stamp::of(&metadata));
            if said.is_none() && found.as_ref().is_ok_and(|stamp| *stamp == seen) {
                continue;
            }
            let file = path.display();
            match self.take_over(&path) {
                Ok(stamp) => {
                    (seen, said) = (stamp, None);
                    tracing::info!(%file, nodes = self.list.len(), "the allow file was read again");
                }
                // It is tried again until it can be: a removed key must not stay
                // because a read failed for a moment.
                Err(error) => {
                    let error = error.message().unwrap_or_default().to_owned();
                    if said.as_ref() == Some(&error) {
                        continue;
                    }
                    tracing::warn!(%file, error, "the allow file is not followed: the list stays");
                    said = Some(error);
                }
            }
        }
    }

    fn take_over(&self, path: &Path) -> Result<Stamp, CliError> {
        let (stamp, nodes) = read(path)?;
        let nodes = self.given.iter().copied().chain(nodes);
        self.list.replace(nodes).map_err(CliError::usage)?;
        Ok(stamp)
    }
}

fn read(path: &Path) -> Result<(Stamp, Vec<NodeId>), CliError> {
    let failed = |error: std::io::Error| CliError::could_not(error).context(path.display());
    let file = File::open(path).map_err(failed)?;
    let stamp = Stamp::of(&file.metadata().map_err(failed)?);
    let mut text = String::new();
    let mut bounded = file.take(FILE_BYTES_MAX + 1);
    bounded.read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(
            CliError::usage(format_args!("longer than {FILE_BYTES_MAX} bytes"))
                .context(path.display()),
        );
    }
    let mut nodes = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let node = parse_node(line).map_err(|error| {
            CliError::usage(format_args!("line {}: {error}", at + 1)).context(path.display())
        })?;
        nodes.push(node);
    }
    Ok((stamp, nodes))
}
