//! Evidence on its way into a mirror's log, and out of it into files that an
//! operator finds (`spec/12-guard.md`).

use std::sync::mpsc::sync_channel;

use super::body;
use super::disk::{Disk, read_whole, replace_atomically};
use super::handle::{Command, StoreDone};
use super::index::forks::Fork;
use super::index::{Effect, Index, Location};
use super::plan::Planned;
use super::record::{Group, RecordType};
use super::view::View;
use super::writer::Writer;
use super::{Store, StoreError};
use crate::evidence::{Evidence, Verdict};
use crate::hash::Hash;
use crate::head::{HeadOrder, SignedHead};
use crate::ledger::ForkState;
use crate::limits::{EVIDENCE_BYTES_MAX, EVIDENCE_RECORDS_MAX};

/// Bytes of an origin's name in the name of a file.
const FILE_ORIGIN_BYTES_MAX: usize = 100;

impl Store {
    /// Says which of the two branches that evidence is about is to be followed:
    /// the one of which this store holds the head with this directory root, or
    /// whichever goes on from the complete head, if `root` is that one's.
    pub fn resolve(&self, evidence: Hash, root: Hash) -> Result<(), StoreError> {
        let (sender, receiver) = sync_channel(1);
        let done: StoreDone = Box::new(move |outcome| _ = sender.send(outcome));
        let command = Command::Resolve {
            evidence,
            root,
            done,
        };
        self.queue(0, command);
        receiver.recv().unwrap_or_else(|_| Err(self.closed()))
    }
}

/// The newest evidence against the origin, if there is any.
pub(super) fn newest(index: &Index) -> Option<ForkState> {
    index.forks().last().map(|fork| ForkState {
        evidence: fork.evidence,
        verdict: fork.verdict.to_string(),
        resolved: fork.resolved,
    })
}

impl View {
    /// The newest evidence against the origin, if there is any.
    #[must_use]
    pub fn fork(&self) -> Option<ForkState> {
        newest(&self.index())
    }

    /// What the newest evidence proves.
    #[must_use]
    pub fn fork_verdict(&self) -> Option<Verdict> {
        self.index().forks().last().map(|fork| fork.verdict.clone())
    }

    /// Which of the two branches of a verdict is held, the earlier statement's and
    /// the later one's: whose head was complete, or is a rotation that is followed
    /// (a mirror that was told of it together with a later head has no other trace
    /// of it). If neither is, whose head was seen: nothing is held that keeps the
    /// mirror from it.
    pub fn held_branches(&self, verdict: &Verdict) -> Result<(bool, bool), StoreError> {
        let Some((earlier, later)) = verdict.roots else {
            return Ok((false, false));
        };
        let branches = [(verdict.earlier, earlier), (verdict.later, later)];
        let [mut complete, mut seen] = [[false; 2]; 2];
        for (at, (order, root)) in branches.into_iter().enumerate() {
            let same =
                |head: &SignedHead| head.order() == order && head.head().directory_root == root;
            let past = self.head_at(order)?.is_some_and(|past| same(&past.head));
            let index = self.index();
            complete[at] = past || index.chain.rotations().any(same);
            seen[at] = index.seen_heads().any(|seen| same(&seen.head));
        }
        let [earlier, later] = if complete == [false; 2] {
            seen
        } else {
            complete
        };
        Ok((earlier, later))
    }

    /// Writes the files of all evidence, as far as they are not there.
    pub(super) fn write_evidence(&self, disk: &dyn Disk) {
        let forks = self.index().forks().to_vec();
        for fork in forks {
            let written = self
                .log()
                .body(fork.at, RecordType::Evidence)
                .and_then(|bytes| {
                    write_file(disk, &fork, &bytes)
                        .map_err(|error| StoreError::io("write an evidence file", error))
                });
            if let Err(error) = written {
                // The log has it.
                tracing::warn!(%error, "an evidence file was not written");
            }
        }
    }
}

/// `fork-<origin>-<term>-<epoch>.evidence`, or with a number before the point if
/// other evidence has the name.
fn write_file(disk: &dyn Disk, fork: &Fork, bytes: &[u8]) -> std::io::Result<()> {
    let plain = |c: char| match c {
        'A'..='Z' | 'a'..='z' | '0'..='9' | '.' | '_' => c,
        _ => '-',
    };
    let origin = fork.verdict.origin.as_str().chars().map(plain);
    let origin: String = origin.take(FILE_ORIGIN_BYTES_MAX).collect();
    let HeadOrder { term, epoch } = fork.verdict.later;
    for number in 1..=EVIDENCE_RECORDS_MAX {
        let more = match number {
            1 => String::new(),
            _ => format!("-{number}"),
        };
        let name = format!("fork-{origin}-{term}-{epoch}{more}.evidence");
        match read_whole(disk, &name, EVIDENCE_BYTES_MAX as u64) {
            Ok(there) if there == bytes => return Ok(()),
            Ok(_) => (),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return replace_atomically(disk, &name, bytes);
            }
            Err(error) => return Err(error),
        }
    }
    Err(std::io::ErrorKind::AlreadyExists.into())
}

impl Writer {
    pub(super) fn evidence(&mut self, evidence: &Evidence) -> Result<(), StoreError> {
        let bytes = evidence.to_bytes();
        let fork = {
            let index = self.view.index();
            let at = Location::default();
            let fork = Fork::open(&index, &bytes, at).map_err(StoreError::Refused)?;
            index.check_evidence(&fork).map_err(StoreError::Refused)?;
            fork
        };
        let mut group = Group::new();
        let (offset, len) = group.add(RecordType::Evidence, |out| out.extend_from_slice(&bytes));
        let effect = Effect::Evidence {
            fork: Box::new(fork),
            at: Location::default(),
        };
        self.commit(Planned::new(group, vec![(offset, len, effect)]))?;
        self.view.write_evidence(&*self.disk);
        Ok(())
    }

    pub(super) fn resolve(&mut self, evidence: Hash, root: Hash) -> Result<(), StoreError> {
        let (verdict, complete) = {
            let index = self.view.index();
            let checked = index.check_resolved(&evidence, &root);
            checked.map_err(StoreError::Refused)?;
            let mut forks = index.forks().iter();
            let fork = forks.find(|fork| fork.evidence == evidence);
            let verdict = fork.map(|fork| fork.verdict.clone());
            (verdict, index.published.root())
        };
        if let Some(verdict) = verdict
            && root != complete
        {
            let (earlier, later) = self.view.held_branches(&verdict)?;
            let roots = verdict.roots.unzip();
            if !(earlier && roots.0 == Some(root) || later && roots.1 == Some(root)) {
                return Err(StoreError::Refused("this store does not hold that branch"));
            }
        }
        let mut group = Group::new();
        let (offset, len) = group.add(RecordType::Resolved, |out| {
            body::put_resolved(&evidence, &root, out);
        });
        let at = Location::default();
        let effect = Effect::Resolved { evidence, root, at };
        self.commit(Planned::new(group, vec![(offset, len, effect)]))?;
        Ok(())
    }
}
