//! From the journal of a [`SimDisk`](super::SimDisk) to what a loss of power
//! leaves.
//!
//! Going on by one operation costs what the operation is worth, and an image
//! shares the bytes of every file that has nothing unsynced: thousands of crash
//! points are walked in one pass, each with as many images as one likes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::super::memory::WholeFile;
use super::{
    Dice, Edit, Inode, MemoryDisk, Names, Naming, Node, Op, SimDisk, Survivors, dirs_above, write,
};

/// The smallest unit that a disk writes whole.
const SECTOR_BYTES: usize = 512;
/// The unit in which a cache writes back.
const PAGE_BYTES: usize = 4096;
/// Of eight sectors, how many survive: an image draws one of these.
const KEPT_OF_EIGHT: [usize; 3] = [1, 4, 7];

/// A file's durable bytes and what was done to it since, in order.
#[derive(Clone, Debug, Default)]
struct File {
    durable: Arc<Vec<u8>>,
    pending: Vec<Edit>,
    private: bool,
}

/// A place in the journal of a disk: what is durable there, and what is not.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    ops: Arc<[Op]>,
    at: usize,
    files: BTreeMap<Inode, File>,
    /// Durable names.
    names: Names,
    /// Changes of names since the last sync of their directory.
    naming: BTreeMap<String, Vec<Naming>>,
}

impl Replay {
    pub(super) fn with(mut self, ops: Arc<[Op]>) -> Self {
        self.ops = ops;
        self
    }

    /// All names, durable or not.
    pub(super) fn live_names(&self) -> Names {
        let mut names = self.names.clone();
        for naming in self.naming.values().flatten() {
            naming.apply(&mut names);
        }
        names
    }

    pub(super) fn last_inode(&self) -> Inode {
        self.files.keys().next_back().copied().unwrap_or(0)
    }

    pub(super) fn add_dir(&mut self, name: &str) {
        self.names.insert(name.to_owned(), Node::Dir);
    }

    /// Adds a file that is durable, name and all.
    pub(super) fn add(&mut self, inode: Inode, file: &WholeFile) {
        self.names.insert(file.name.clone(), Node::File(inode));
        let durable = File {
            durable: file.bytes.clone(),
            pending: Vec::new(),
            private: file.private,
        };
        self.files.insert(inode, durable);
    }

    /// Operations in the journal.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// True for a journal without operations.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// True if there is anything here that a loss of power may take away.
    #[must_use]
    pub fn is_unsynced(&self) -> bool {
        let file = |file: &File| !file.pending.is_empty();
        !self.naming.is_empty() || self.files.values().any(file)
    }

    /// Goes on until right after the first `at` operations; never back.
    pub fn advance(&mut self, at: usize) {
        let ops = self.ops.clone();
        while self.at < at
            && let Some(op) = ops.get(self.at)
        {
            self.step(op);
            self.at += 1;
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Edit { inode, edit } => {
                self.files
                    .entry(*inode)
                    .or_default()
                    .pending
                    .push(edit.clone());
            }
            Op::Sync { inode } => {
                if let Some(file) = self.files.get_mut(inode)
                    && !file.pending.is_empty()
                {
                    let durable = Arc::make_mut(&mut file.durable);
                    for edit in file.pending.drain(..) {
                        edit.apply(durable);
                    }
                }
            }
            Op::SyncFailed { inode } => {
                if let Some(file) = self.files.get_mut(inode) {
                    let mut dice = Dice(self.at as u64);
                    let durable = Arc::make_mut(&mut file.durable);
                    for edit in file.pending.drain(..) {
                        if dice.toss() {
                            edit.apply(durable);
                        }
                    }
                }
            }
            Op::Naming { dir, naming } => {
                if let Naming::Make {
                    node: Node::File(inode),
                    ..
                } = naming
                {
                    self.files.entry(*inode).or_default();
                }
                let changes = self.naming.entry(dir.clone()).or_default();
                changes.push(naming.clone());
            }
            Op::SyncDir { dir } => {
                for naming in self.naming.remove(dir).unwrap_or_default() {
                    naming.apply(&mut self.names);
                }
            }
            Op::Private { inode, file } => self.add(*inode, file),
        }
    }

    /// The disk after the power failed here. The same seed gives the same disk.
    #[must_use]
    pub fn image(&self, survivors: Survivors, seed: u64) -> MemoryDisk {
        let mut dice = Dice(seed);
        let mut names = self.names.clone();
        for changes in self.naming.values() {
            let kept = match survivors {
                Survivors::None => 0,
                Survivors::All => changes.len(),
                _ => dice.below(changes.len() + 1),
            };
            for naming in changes.iter().take(kept) {
                naming.apply(&mut names);
            }
        }
        let there = |name: &str| dirs_above(name).all(|dir| names.get(dir) == Some(&Node::Dir));
        let kept_of_eight = KEPT_OF_EIGHT[dice.below(KEPT_OF_EIGHT.len())];
        let mut files = Vec::new();
        for (name, node) in &names {
            if let Node::File(inode) = node
                && there(name)
                && let Some(file) = self.files.get(inode)
            {
                files.push(WholeFile {
                    name: name.clone(),
                    bytes: file.after(survivors, kept_of_eight, &mut dice),
                    private: file.private,
                });
            }
        }
        MemoryDisk::of_files(files)
    }

    /// The disk after the process died here and the machine went on: everything
    /// is there, and what was not synced is not durable for all that.
    #[must_use]
    pub fn restart(&self) -> SimDisk {
        let mut base = self.clone().with(Arc::default());
        base.at = 0;
        SimDisk::on(self.image(Survivors::All, 0), base)
    }

    /// The last `count` operations in words, for a test that failed here.
    #[must_use]
    pub fn story(&self, count: usize) -> String {
        let first = self.at.saturating_sub(count);
        let mut story = String::new();
        for (at, op) in self.ops.iter().enumerate().take(self.at).skip(first) {
            // Writing to a String cannot fail.
            let _ = writeln!(story, "{at:6} {op:?}");
        }
        story
    }
}

impl File {
    /// What is left of the file.
    fn after(&self, survivors: Survivors, kept_of_eight: usize, dice: &mut Dice) -> Arc<Vec<u8>> {
        if self.pending.is_empty() || survivors == Survivors::None {
            return self.durable.clone();
        }
        let mut bytes = self.durable.to_vec();
        match survivors {
            Survivors::None => (),
            Survivors::All => self.pending.iter().for_each(|edit| edit.apply(&mut bytes)),
            Survivors::Prefix => self.prefix(dice, &mut bytes),
            Survivors::Subset => {
                for edit in &self.pending {
                    if dice.toss() {
                        edit.apply(&mut bytes);
                    }
                }
                self.grow(dice, &mut bytes);
            }
            Survivors::Torn512 => self.torn(SECTOR_BYTES, kept_of_eight, dice, &mut bytes),
            Survivors::Torn4096 => self.torn(PAGE_BYTES, kept_of_eight, dice, &mut bytes),
        }
        Arc::new(bytes)
    }

    fn prefix(&self, dice: &mut Dice, bytes: &mut Vec<u8>) {
        let whole = dice.below(self.pending.len() + 1);
        for edit in &self.pending[..whole] {
            edit.apply(bytes);
        }
        if let Some(Edit::Write { offset, bytes: new }) = self.pending.get(whole) {
            let sectors = (offset % SECTOR_BYTES + new.len()).div_ceil(SECTOR_BYTES);
            let end = (offset / SECTOR_BYTES + dice.below(sectors)) * SECTOR_BYTES;
            let kept = end.saturating_sub(*offset).min(new.len());
            if kept > 0 {
                write(bytes, *offset, &new[..kept]);
            }
        }
    }

    fn torn(&self, unit: usize, kept_of_eight: usize, dice: &mut Dice, bytes: &mut Vec<u8>) {
        // Backwards: a unit that holds a later write holds the earlier ones.
        let mut held = BTreeSet::new();
        let mut kept = Vec::with_capacity(self.pending.len());
        for edit in self.pending.iter().rev() {
            kept.push(match edit {
                Edit::Write { offset, bytes } => {
                    for n in offset / unit..(offset + bytes.len()).div_ceil(unit) {
                        if dice.below(8) < kept_of_eight {
                            held.insert(n);
                        }
                    }
                    Some(held.clone())
                }
                Edit::Resize { .. } => dice.toss().then(BTreeSet::new),
            });
        }
        for (edit, kept) in self.pending.iter().zip(kept.iter().rev()) {
            match (edit, kept) {
                (Edit::Write { offset, bytes: new }, Some(held)) => {
                    let end = offset + new.len();
                    for n in held.range(offset / unit..end.div_ceil(unit)) {
                        let from = (n * unit).max(*offset);
                        let to = ((n + 1) * unit).min(end);
                        write(bytes, from, &new[from - offset..to - offset]);
                    }
                }
                (Edit::Resize { .. }, Some(_)) => edit.apply(bytes),
                _ => (),
            }
        }
        self.grow(dice, bytes);
    }

    /// The length may have survived without the data.
    fn grow(&self, dice: &mut Dice, bytes: &mut Vec<u8>) {
        let becoming = self.pending.iter();
        let becoming = becoming.fold(self.durable.len(), |len, edit| edit.len_after(len));
        if becoming > bytes.len() && dice.toss() {
            bytes.resize(becoming, 0);
        }
    }
}
