//! The data directory: which store is in it, its keys, and the ways to open it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::error::CliError;
use super::guard::GuardArguments;
use super::output::escape;
use super::progress::OpeningBar;
use crate::node::NodeKey;
use crate::node::clock::SystemClock;
use crate::note::VerifierKey;
use crate::store::disk::{Access, Disk, RealDisk};
use crate::store::{
    self, Opened, Progress, Store, StoreError, StoreOpening, StoreOptions, StoreRole, View, keys,
};

/// How long a store that somebody has open is waited for, at most.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How often to look whether it is free.
const LOCK_LOOK_EVERY: Duration = Duration::from_millis(50);

/// Names a directory may hold that no store was made in yet: what a node key
/// and an `init` that was cut short leave.
const BEFORE_A_STORE: [&str; 5] = [
    "lock",
    "log",
    keys::NODE_KEY_FILE,
    "node.key.new",
    "origin.key.new",
];

/// The directory that `--data` names.
pub(super) struct DataDir {
    disk: Arc<RealDisk>,
    guard: GuardArguments,
}

impl DataDir {
    pub(super) fn new(path: Option<PathBuf>, guard: GuardArguments) -> Result<Self, CliError> {
        let path = path.filter(|path| !path.as_os_str().is_empty());
        let path = path.ok_or_else(|| {
            CliError::usage("which store?")
                .hint("Give its directory with --data DIR or in CONVERGE_LEDGER_DATA.")
        })?;
        Ok(Self {
            disk: Arc::new(RealDisk::new(path)),
            guard,
        })
    }

    pub(super) fn disk(&self) -> &RealDisk {
        &self.disk
    }

    /// The same, to be kept.
    pub(super) fn shared_disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }

    /// Bytes of all segments, for progress bars only.
    pub(super) fn log_bytes(&self) -> u64 {
        log_bytes(self.disk())
    }

    /// A bar that shows when much of the log is read, and who moves it.
    pub(super) fn opening_bar(&self) -> (OpeningBar, Progress) {
        let disk = self.disk.clone();
        OpeningBar::new(move || log_bytes(&*disk))
    }

    /// The directory's name, to be shown.
    pub(super) fn shown(&self) -> impl fmt::Display + '_ {
        self.path().display()
    }

    pub(super) fn path(&self) -> &Path {
        self.disk.root()
    }

    /// Role and pinned key of the store.
    pub(super) fn peek(&self) -> Result<(StoreRole, VerifierKey), CliError> {
        store::peek(self.disk()).map_err(|error| self.named(error))
    }

    /// The same; `None` if there is no store yet.
    pub(super) fn peek_if_any(&self) -> Result<Option<(StoreRole, VerifierKey)>, CliError> {
        match store::peek(self.disk()) {
            Ok(found) => Ok(Some(found)),
            Err(StoreError::NotAStore) => Ok(None),
            Err(error) => Err(self.named(error)),
        }
    }

    pub(super) fn named(&self, error: StoreError) -> CliError {
        CliError::from(error).context(self.path().display())
    }

    /// Makes the directory, and refuses one that is in use for anything else.
    pub(super) fn prepare_new(&self) -> Result<(), CliError> {
        let failed = |error: io::Error| {
            self.named(StoreError::Io {
                what: "make the data directory",
                error: Arc::new(error),
            })
        };
        self.disk.create_dir("").map_err(failed)?;
        let names = self.disk.list("").map_err(failed)?;
        if names.iter().any(|name| name == keys::ORIGIN_KEY_FILE) {
            return Err(CliError::could_not(format_args!(
                "{}: origin.key is here, but no log",
                self.path().display()
            ))
            .hint(
                "If it has ever signed a head, restore the log from a copy: starting anew with \
                 this key would sign a second history. If it has not, move it away first.",
            ));
        }
        match names
            .iter()
            .find(|name| !BEFORE_A_STORE.contains(&name.as_str()))
        {
            None => Ok(()),
            Some(name) => Err(CliError::could_not(format_args!(
                "{}: not a store, and not empty: {name} is there",
                self.path().display()
            ))
            .hint("Give an empty directory, or one that does not exist yet.")),
        }
    }

    /// Makes an empty store.
    pub(super) fn create(&self, role: StoreRole, origin: &VerifierKey) -> Result<(), CliError> {
        store::create(self.disk(), role, origin).map_err(|error| self.named(error))
    }

    /// The node's key; made if `or_make` and there is none.
    pub(super) fn node_key(&self, or_make: bool) -> Result<NodeKey, CliError> {
        let seed = match keys::read_node_key(self.disk()) {
            Err(StoreError::Io { error, .. })
                if or_make && error.kind() == io::ErrorKind::NotFound =>
            {
                keys::create_node_key(self.disk())
            }
            outcome => outcome,
        };
        seed.map(|seed| NodeKey::from_seed(*seed))
            .map_err(|error| self.named(error))
    }

    /// Opens the store for writing, if its mirrors know of nothing newer. They
    /// are asked before anything is written.
    pub(super) fn open(&self, options: &StoreOptions) -> Result<Store, CliError> {
        self.open_within(options, Duration::ZERO)
    }

    /// The same for a process that is to run for long: whoever only looks at the
    /// store holds its lock for a moment, and is waited for.
    pub(super) fn open_when_free(&self, options: &StoreOptions) -> Result<Store, CliError> {
        self.open_within(options, LOCK_PATIENCE)
    }

    fn open_within(&self, options: &StoreOptions, patience: Duration) -> Result<Store, CliError> {
        if self.peek()?.0 == StoreRole::Own {
            self.guard.check_arguments()?;
        }
        let begun = Instant::now();
        let mut opening = loop {
            match self.read(options.clone()) {
                Err(StoreError::Locked) if begun.elapsed() < patience => {
                    thread::sleep(LOCK_LOOK_EVERY);
                }
                read => break read.map_err(|error| self.named(error))?,
            }
        };
        self.guard.check(self, &mut opening)?;
        start(opening).map_err(|error| self.named(error))
    }

    /// Opens a store that nobody can have a newer copy of.
    pub(super) fn open_new(&self, options: StoreOptions) -> Result<Store, CliError> {
        self.try_open(options).map_err(|error| self.named(error))
    }

    fn try_open(&self, options: StoreOptions) -> Result<Store, StoreError> {
        start(self.read(options)?)
    }

    fn read(&self, mut options: StoreOptions) -> Result<StoreOpening, StoreError> {
        // A directory without a store is not even locked.
        store::peek(self.disk())?;
        let (_bar, progress) = self.opening_bar();
        options.progress = Some(progress);
        StoreOpening::read(self.disk.clone(), options)
    }

    /// Opens the store for reading: it is shown up to what its log vouches for.
    /// Nothing is signed, and neither the log nor `head.note` is changed: it may
    /// be a copy, and what a crash left is mended by whoever writes next. Only
    /// the index is made anew, if it is of no use and nobody has the store open.
    pub(super) fn open_view(&self) -> Result<View, CliError> {
        self.peek()?;
        match self.read(options()) {
            Ok(opening) => {
                tell_note_missing(opening.head_note_missing());
                let discarded = opening.index_discarded().map(str::to_owned);
                drop(opening);
                if let Some(reason) = discarded {
                    let made = store::rebuild_index(&self.shared_disk(), &options());
                    match made {
                        Ok(_) => tell_discarded(&reason),
                        Err(error) => tracing::info!(%error, "reading without an index"),
                    }
                }
            }
            // It must not sign; it can be read all the same.
            Err(error @ StoreError::Frozen(_)) => tracing::warn!(%error),
            Err(error) if error.is_verification_failure() => return Err(self.named(error)),
            Err(error) => tracing::info!(%error, "reading without the lock"),
        }
        Store::open_read_only(self.disk.clone()).map_err(|error| self.named(error))
    }
}

fn log_bytes(disk: &dyn Disk) -> u64 {
    let names = disk.list("log").unwrap_or_default();
    let lengths = names.iter().filter_map(|name| {
        let file = disk.open(&format!("log/{name}"), Access::Read).ok()?;
        file.len().ok()
    });
    lengths.sum()
}

/// How a command opens a store.
pub(super) fn options() -> StoreOptions {
    StoreOptions::new(Arc::new(SystemClock))
}

fn start(opening: StoreOpening) -> Result<Store, StoreError> {
    let opened = opening.start_with_key_files()?;
    tell(&opened);
    Ok(opened.store)
}

/// Says what opening had to mend.
fn tell(opened: &Opened) {
    if opened.torn_bytes > 0 {
        let bytes = opened.torn_bytes;
        tracing::warn!(
            bytes,
            "a write that was cut short was removed (copy in cut/)"
        );
    }
    tell_note_missing(opened.head_note_missing);
    if let Some(reason) = &opened.index_discarded {
        tell_discarded(reason);
    }
}

fn tell_note_missing(missing: bool) {
    if missing {
        tracing::warn!("head.note was missing: a log that lost its end would not be noticed");
    }
}

fn tell_discarded(reason: &str) {
    let reason = escape(reason);
    tracing::warn!(%reason, "the index was thrown away and made anew from the log");
}
