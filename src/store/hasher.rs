//! A thread beside the writer that hashes the leaves of a planned group while
//! the writer seals, writes and syncs it: no byte of the group depends on them.
//! The sync stays with the writer, where it starts at once; a thread that had
//! to be woken or made for it would begin too late.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use super::plan::{Hashed, Unhashed};

/// A smaller group is hashed in less time than it takes to wake a thread.
const BESIDE_BYTES_MIN: u64 = 32 << 10;

type Job = (Unhashed, SyncSender<Option<Hashed>>);

/// The way to the thread, which starts with the first group worth it and ends
/// with this.
#[derive(Debug, Default)]
pub(super) struct Hasher {
    jobs: Option<Sender<Job>>,
}

/// A group whose leaves are being hashed, or will be when asked for.
pub(super) enum Hashing {
    Here(Unhashed),
    Beside(Receiver<Option<Hashed>>),
}

impl Hasher {
    /// Starts to hash a group of `bytes`.
    pub(super) fn start(&mut self, unhashed: Unhashed, bytes: u64) -> Hashing {
        if bytes < BESIDE_BYTES_MIN {
            return Hashing::Here(unhashed);
        }
        let Some(jobs) = self.thread() else {
            return Hashing::Here(unhashed);
        };
        let (done, outcome) = sync_channel(1);
        match jobs.send((unhashed, done)) {
            Ok(()) => Hashing::Beside(outcome),
            Err(gone) => {
                self.jobs = None;
                Hashing::Here(gone.0.0)
            }
        }
    }

    fn thread(&mut self) -> Option<&Sender<Job>> {
        if self.jobs.is_none() {
            let (jobs, inbox) = channel::<Job>();
            let work = move || {
                while let Ok((unhashed, done)) = inbox.recv() {
                    // Nobody waits for a group that was refused.
                    let _ = done.send(unhashed.hash());
                }
            };
            // No thread to be had: the writer hashes.
            thread::Builder::new()
                .name("ledger-hash".into())
                .spawn(work)
                .ok()?;
            self.jobs = Some(jobs);
        }
        self.jobs.as_ref()
    }
}

impl Hashing {
    /// What the group's leaves are. `None` is a defect of the plan or of the
    /// thread.
    pub(super) fn finish(self) -> Option<Hashed> {
        match self {
            Self::Here(unhashed) => unhashed.hash(),
            Self::Beside(outcome) => outcome.recv().ok().flatten(),
        }
    }
}
