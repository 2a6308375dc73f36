//! Zero-written, synced bytes ahead of the end of the log, so that the sync of
//! a group changes no file metadata (half the latency of an extending write on
//! the machines it was measured on, see `benches/`), and a full disk shows
//! before a group is promised.
//!
//! A helper thread extends the file in small pieces, each with a sync of its
//! own, while the writer goes on in what is ready: whoever syncs a file waits
//! for all that is written to it, so a large piece would hold a group up. The
//! two never touch the same bytes: the writer waits rather than write where a
//! piece is under way, and a piece starts only where nothing was written. The
//! helper opens the file itself, because Linux reports a write-back error once
//! per open file description: an error of its sync is the writer's failure too.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::disk::{Access, Disk, DiskFile};
use super::scan::segment_name;

/// Groups a process writes before it reserves: short runs never pay for it.
const WARM_UP_GROUPS: u64 = 8;
/// Bytes after which a run is not short, however few its groups: 1 MiB.
const WARM_UP_BYTES: u64 = 1 << 20;
/// Groups of the present size for which the reserve is to last; with large ones
/// that is more than the bytes asked for, up to a limit.
const TARGET_GROUPS: u64 = 16;
const TARGET_BYTES_MAX: u64 = 64 << 20;
/// Groups larger than this do without: the disk would write everything twice,
/// which takes longer than what the sync of an extending write costs.
const GROUP_BYTES_MAX: u64 = 1 << 20;
/// After the disk was full, so many groups pass before the next attempt.
const RETRY_GROUPS: u64 = 256;
/// Bytes zero-written and synced at a time.
const PIECE_BYTES: u64 = 256 << 10;

/// What writer and helper share.
#[derive(Debug)]
struct State {
    segment: u32,
    /// Everything below is either written, about to be, or ready.
    ready: u64,
    /// The helper extends the file up to here.
    wanted: u64,
    /// The helper is at work on what follows `ready`.
    under_way: bool,
    /// The last piece found the disk full.
    full: bool,
    /// Why there is no helper any more: a failure of the store.
    failed: Option<io::Error>,
    /// The writer is gone.
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let woken = self.changed.wait(state);
        woken.unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no piece is under way.
    fn settled(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.under_way {
            state = self.wait(state);
        }
        state
    }
}

/// The reserve of the segment being written.
#[derive(Debug)]
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    /// Bytes kept ready; 0 for no reserve.
    target_bytes: u64,
    /// Where segments end: nothing is reserved beyond.
    segment_bytes: u64,
    groups: u64,
    last_end: u64,
    /// The size of the larger groups of late.
    group_bytes: u64,
    next_attempt: u64,
    /// The end when the process began.
    began: u64,
    has_helper: bool,
    shared: Arc<Shared>,
}

impl Reserve {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        target_bytes: u64,
        segment_bytes: u64,
        segment: u32,
        end: u32,
    ) -> Self {
        let state = State {
            segment,
            ready: u64::from(end),
            wanted: 0,
            under_way: false,
            full: false,
            failed: None,
            closed: false,
        };
        Self {
            disk,
            target_bytes,
            segment_bytes: segment_bytes.min(u64::from(u32::MAX)),
            groups: 0,
            last_end: u64::from(end),
            group_bytes: 0,
            next_attempt: WARM_UP_GROUPS,
            began: u64::from(end),
            has_helper: false,
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                changed: Condvar::new(),
            }),
        }
    }

    /// Called before a group is written that ends at `end`: afterwards nothing
    /// else writes below `end`. An error means that a sync failed.
    pub(crate) fn prepare(&mut self, end: u32) -> io::Result<()> {
        let end = u64::from(end);
        let mut state = self.shared.lock();
        while state.under_way && end > state.ready {
            state = self.shared.wait(state);
        }
        state.failed.take().map_or(Ok(()), Err)?;
        state.ready = state.ready.max(end);
        Ok(())
    }

    /// Called after a group was written that ends at `end`.
    pub(crate) fn wrote(&mut self, end: u32) {
        self.groups += 1;
        if self.target_bytes == 0 {
            return;
        }
        let end = u64::from(end);
        let target = self.target(end);
        let mut state = self.shared.lock();
        if std::mem::take(&mut state.full) {
            self.next_attempt = self.groups.saturating_add(RETRY_GROUPS);
        }
        if self.next_attempt == WARM_UP_GROUPS && end.saturating_sub(self.began) > WARM_UP_BYTES {
            self.next_attempt = 0;
        }
        let left = state.ready.saturating_sub(end);
        let large = self.group_bytes > GROUP_BYTES_MAX;
        if large || self.groups < self.next_attempt || left >= target / 2 {
            return;
        }
        let wanted = end.saturating_add(target) & !63;
        let wanted = wanted.min(self.segment_bytes & !63);
        if wanted <= state.wanted || wanted <= state.ready {
            return;
        }
        state.wanted = wanted;
        drop(state);
        if self.has_helper {
            self.shared.changed.notify_all();
        } else {
            self.start_helper();
        }
    }

    /// Bytes to keep ready after a group that ends at `end`.
    fn target(&mut self, end: u64) -> u64 {
        let bytes = end.saturating_sub(self.last_end);
        self.last_end = end;
        self.group_bytes = bytes.max(self.group_bytes - self.group_bytes / 8);
        let groups = self.group_bytes.saturating_mul(TARGET_GROUPS);
        self.target_bytes.max(groups.min(TARGET_BYTES_MAX))
    }

    fn start_helper(&mut self) {
        let (shared, disk) = (self.shared.clone(), self.disk.clone());
        let spawned = thread::Builder::new()
            .name("ledger-reserve".into())
            .spawn(move || help(&shared, &*disk));
        match spawned {
            Ok(_) => self.has_helper = true,
            // No thread to be had: the log goes on without a reserve.
            Err(_) => self.next_attempt = self.groups.saturating_add(RETRY_GROUPS),
        }
    }

    /// Waits for the piece under way; afterwards the file may be cut at `end`.
    pub(crate) fn release(&mut self, end: u32) -> io::Result<()> {
        self.shared.lock().wanted = 0;
        let mut state = self.shared.settled();
        state.ready = u64::from(end);
        state.failed.take().map_or(Ok(()), Err)
    }

    /// Goes on in another segment.
    pub(crate) fn enter(&mut self, segment: u32, end: u32) {
        self.last_end = u64::from(end);
        self.shared.lock().wanted = 0;
        let mut state = self.shared.settled();
        state.segment = segment;
        state.ready = u64::from(end);
    }
}

impl Drop for Reserve {
    /// The helper writes nothing once the writer is gone: whoever opens the
    /// store next appends where a late piece would put zeros.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        drop(self.shared.settled());
    }
}

/// A helper that panics keeps nobody waiting.
struct Watch<'a>(&'a Shared);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut state = self.0.lock();
            state.under_way = false;
            state.failed = Some(io::Error::other("the helper that extends the log is gone"));
            self.0.changed.notify_all();
        }
    }
}

/// Extends the file piece by piece as far as it is wanted, until the writer is
/// gone or a piece fails.
fn help(shared: &Shared, disk: &dyn Disk) {
    let _watch = Watch(shared);
    let mut open: Option<(u32, Arc<dyn DiskFile>)> = None;
    let mut state = shared.lock();
    while !state.closed {
        let (segment, from) = (state.segment, state.ready);
        if state.wanted <= from {
            state = shared.wait(state);
            continue;
        }
        let to = (from / PIECE_BYTES + 1) * PIECE_BYTES;
        let to = to.min(state.wanted);
        state.under_way = true;
        drop(state);
        let outcome = extend(disk, &mut open, segment, from, to);
        state = shared.lock();
        state.under_way = false;
        match outcome {
            Ok(()) => state.ready = to,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                (state.wanted, state.full) = (0, true);
            }
            Err(error) => {
                (state.wanted, state.failed) = (0, Some(error));
            }
        }
        shared.changed.notify_all();
    }
}

fn extend(
    disk: &dyn Disk,
    open: &mut Option<(u32, Arc<dyn DiskFile>)>,
    segment: u32,
    from: u64,
    to: u64,
) -> io::Result<()> {
    let file = match open.take() {
        Some((number, file)) if number == segment => file,
        _ => disk.open(&segment_name(segment), Access::Write)?,
    };
    let (_, file) = open.insert((segment, file));
    if let Err(error) = file.extend(from, to) {
        if error.kind() == io::ErrorKind::StorageFull
            || error.kind() == io::ErrorKind::QuotaExceeded
        {
            // Give back what was taken in vain.
            file.truncate(from)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        return Err(error);
    }
    // Whatever a sync reports, its effect is unknown: never merely "full".
    file.sync().map_err(io::Error::other)
}
