//! Zero-written, synced bytes ahead of the end of the log, so that the sync of
//! a group changes no file metadata (half the latency of an extending write on
//! the machines it was measured on, see `benches/`), and a full disk shows
//! before a group is promised.
//!
//! A helper thread extends the file in pieces while the writer goes on in what
//! is ready. The two never touch the same bytes: the writer waits rather than
//! write where a piece is under way, and the helper starts only where nothing
//! was written. The helper opens the file itself, because Linux reports a
//! write-back error once per open file description: an error of its sync is the
//! writer's failure too.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::disk::{Access, Disk};
use super::scan::segment_name;

/// Groups a process writes before it reserves: short runs never pay for it.
const WARM_UP_GROUPS: u64 = 8;
/// After the disk was full, so many groups pass before the next attempt.
const RETRY_GROUPS: u64 = 256;

/// One piece to be zero-written.
struct Piece {
    segment: u32,
    from: u64,
    to: u64,
}

/// The reserve of the segment being written.
#[derive(Debug)]
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    /// Bytes kept ready; 0 for no reserve.
    target_bytes: u64,
    segment: u32,
    /// Everything below is either written or ready.
    ready: u64,
    groups: u64,
    next_attempt: u64,
    helper: Option<Sender<Piece>>,
    /// The end of the piece under way, and where its outcome arrives.
    pending: Option<(u64, Receiver<io::Result<()>>)>,
    outcomes: Option<Receiver<io::Result<()>>>,
}

impl Reserve {
    pub(crate) fn new(disk: Arc<dyn Disk>, target_bytes: u64, segment: u32, end: u32) -> Self {
        Self {
            disk,
            target_bytes,
            segment,
            ready: u64::from(end),
            groups: 0,
            next_attempt: WARM_UP_GROUPS,
            helper: None,
            pending: None,
            outcomes: None,
        }
    }

    /// Called before a group is written that ends at `end`: afterwards nothing
    /// else writes below `end`. An error means that a sync failed.
    pub(crate) fn prepare(&mut self, end: u32) -> io::Result<()> {
        let wait = u64::from(end) > self.ready;
        self.collect(wait)
    }

    /// Takes in the outcome of the piece under way, waiting for it if told to.
    fn collect(&mut self, wait: bool) -> io::Result<()> {
        let Some((to, outcomes)) = self.pending.take() else {
            return Ok(());
        };
        let outcome = if wait {
            outcomes.recv().ok()
        } else {
            outcomes.try_recv().ok()
        };
        match outcome {
            None if wait => Err(io::Error::other("the helper that extends the log is gone")),
            None => {
                self.pending = Some((to, outcomes));
                Ok(())
            }
            Some(Ok(())) => {
                self.ready = to;
                self.outcomes = Some(outcomes);
                Ok(())
            }
            Some(Err(error)) if error.kind() == io::ErrorKind::StorageFull => {
                self.outcomes = Some(outcomes);
                self.next_attempt = self.groups.saturating_add(RETRY_GROUPS);
                Ok(())
            }
            Some(Err(error)) => Err(error),
        }
    }

    /// Called after a group was written that ends at `end`.
    pub(crate) fn wrote(&mut self, end: u32) {
        self.groups += 1;
        self.ready = self.ready.max(u64::from(end));
        let left = self.ready - u64::from(end);
        if self.target_bytes > 0
            && self.pending.is_none()
            && self.groups >= self.next_attempt
            && left < self.target_bytes / 2
        {
            self.ask();
        }
    }

    fn ask(&mut self) {
        let to = (self.ready + self.target_bytes).min(u64::from(u32::MAX) & !63);
        if to <= self.ready {
            return;
        }
        if self.helper.is_none() {
            let (pieces, inbox) = channel::<Piece>();
            let (outbox, outcomes) = channel();
            let disk = self.disk.clone();
            let spawned = thread::Builder::new()
                .name("ledger-reserve".into())
                .spawn(move || {
                    while let Ok(piece) = inbox.recv() {
                        if outbox.send(extend(&*disk, &piece)).is_err() {
                            return;
                        }
                    }
                });
            if spawned.is_err() {
                // No thread to be had: the log goes on without a reserve.
                self.next_attempt = self.groups.saturating_add(RETRY_GROUPS);
                return;
            }
            self.helper = Some(pieces);
            self.outcomes = Some(outcomes);
        }
        let piece = Piece {
            segment: self.segment,
            from: self.ready,
            to,
        };
        if let (Some(helper), Some(outcomes)) = (&self.helper, self.outcomes.take())
            && helper.send(piece).is_ok()
        {
            self.pending = Some((to, outcomes));
        }
    }

    /// Waits for the piece under way; afterwards the file may be cut at `end`.
    pub(crate) fn release(&mut self, end: u32) -> io::Result<()> {
        self.collect(true)?;
        self.ready = u64::from(end);
        Ok(())
    }

    /// Goes on in another segment.
    pub(crate) fn enter(&mut self, segment: u32, end: u32) {
        self.segment = segment;
        self.ready = u64::from(end);
    }
}

impl Drop for Reserve {
    /// The helper writes nothing once the writer is gone: whoever opens the
    /// store next appends where a late piece would put zeros.
    fn drop(&mut self) {
        let _ = self.collect(true);
    }
}

fn extend(disk: &dyn Disk, piece: &Piece) -> io::Result<()> {
    let file = disk.open(&segment_name(piece.segment), Access::Write)?;
    if let Err(error) = file.extend(piece.from, piece.to) {
        if error.kind() == io::ErrorKind::StorageFull
            || error.kind() == io::ErrorKind::QuotaExceeded
        {
            // Give back what was taken in vain.
            file.truncate(piece.from)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        return Err(error);
    }
    // Whatever a sync reports, its effect is unknown: never merely "full".
    file.sync().map_err(io::Error::other)
}
