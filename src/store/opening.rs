//! Opening a store to be written, in two steps: the log is read, and nothing in
//! it is changed yet; then what a crash left is mended, and the writer starts.
//! Between the two, with the store's lock held, others can be asked whether this
//! log is the newest ([`StoreOpening::holds_shown`]): from the second step on the
//! store signs, if only for what the last process left unsigned.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::thread;

use super::body::StoreRole;
use super::disk::{Access, Disk, DiskLock};
use super::frozen::{self, Freezing, Frozen};
use super::guard::{self, Judge, Judged, Past};
use super::handle::{Inner, Store};
use super::index::base::Alone;
use super::index::filter::RequestFilter;
use super::index::{Base, Index};
use super::indexer::{Indexer, Mailbox, Work};
use super::keeper::{Found, Keeper};
use super::keys;
use super::layout;
use super::log::LogReader;
use super::past;
use super::queue::Queue;
use super::recover::{self, FAILED_FILE, Replayed, Start};
use super::rotate::Signing;
use super::view::View;
use super::writer::Writer;
use super::{StoreError, StoreOptions};
use crate::limits::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, TAIL_BYTES_MIN};
use crate::note::{SignerKey, VerifierKey};

/// What opening found and did.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Bytes of log read.
    pub bytes_read: u64,
    /// Bytes of a torn tail that were cut (and copied to `cut/`).
    pub torn_bytes: u64,
    /// Bytes written again because nothing vouched for them.
    pub rewritten_bytes: u64,
    /// `head.note` was there before and is gone: nobody but who can write the
    /// store's directory does that, and perhaps with an older log in the place of
    /// the newest. An own store skips an epoch and publishes a head at once.
    pub head_note_missing: bool,
    /// Why an index that was there was thrown away, if it was.
    pub index_discarded: Option<String>,
}

/// A store that is locked and read, and not written yet. Dropping it leaves the
/// log as it was.
pub struct StoreOpening {
    disk: Arc<dyn Disk>,
    options: StoreOptions,
    mailbox: Arc<Mailbox>,
    keeper: Keeper,
    replayed: Replayed,
    index_discarded: Option<String>,
    past: Past,
    frozen: Option<Frozen>,
    // The last field: what is dropped before it is still under the lock.
    lock: Box<dyn DiskLock>,
}

impl fmt::Debug for StoreOpening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("StoreOpening");
        shown.field("disk", &self.disk).finish_non_exhaustive()
    }
}

impl StoreOpening {
    /// Takes the lock and reads the log.
    pub fn read(disk: Arc<dyn Disk>, options: StoreOptions) -> Result<Self, StoreError> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&options.segment_bytes)
            || options.reserve_bytes > SEGMENT_BYTES_MAX
            || options.tail_bytes_max < TAIL_BYTES_MIN
        {
            return Err(StoreError::Refused(
                "segments are 4 KiB to 3 GiB, the reserve at most 3 GiB, the tail at least 4 KiB",
            ));
        }
        let lock = disk.lock("lock").map_err(StoreError::from_lock)?;
        let mailbox = Arc::new(Mailbox::default());
        let (replayed, keeper, index_discarded) = read_log(&disk, &options, &mailbox)?;
        let mut opening = Self {
            disk,
            options,
            mailbox,
            keeper,
            replayed,
            index_discarded,
            past: Past::default(),
            frozen: None,
            lock,
        };
        opening.past = opening.ask_index(|opening| {
            let log = LogReader::over(opening.disk.clone());
            guard::look_back(&*opening.disk, &log, &opening.replayed)
        })?;
        Ok(opening)
    }

    pub(super) const fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Own store or mirror.
    #[must_use]
    pub fn role(&self) -> StoreRole {
        self.replayed.index.role
    }

    /// Whose history this is: the key whose heads count now.
    #[must_use]
    pub fn origin(&self) -> &VerifierKey {
        self.replayed.index.origin()
    }

    /// True if the log has a head.
    #[must_use]
    pub fn has_head(&self) -> bool {
        self.replayed.index.published.head().is_some()
    }

    /// `head.note` was there before and is gone ([`Opened::head_note_missing`]).
    #[must_use]
    pub const fn head_note_missing(&self) -> bool {
        self.past.note_lost
    }

    /// Why an index that was there is of no use, if it is.
    #[must_use]
    pub fn index_discarded(&self) -> Option<&str> {
        self.index_discarded.as_deref()
    }

    /// The note of `head.note`. The log may have newer heads, but none of them
    /// may be told before it is known to be durable.
    #[must_use]
    pub fn noted(&self) -> Option<&[u8]> {
        let note = self.replayed.head_note.as_ref()?;
        Some(&note.note)
    }

    /// Judges notes that somebody showed, as [`Store::witness`] does: true if the
    /// log holds a statement among them, false if none is this store's own. One
    /// that the log cannot account for is the error [`StoreError::Frozen`], and
    /// the store does not start.
    pub fn holds_shown(&mut self, notes: &[Vec<u8>]) -> Result<bool, StoreError> {
        if self.role() == StoreRole::Mirror {
            return Ok(false);
        }
        let (judged, against) = self.ask_index(|opening| {
            let index = &opening.replayed.index;
            let log = LogReader::over(opening.disk.clone());
            let mut find = |order| past::find_in(index, &log, order);
            let newest = index.published.head().cloned();
            Judge::new(index.chain.clone(), newest, &mut find).all(notes)
        })?;
        match judged {
            Judged::NotOurs => Ok(false),
            Judged::Known => Ok(true),
            Judged::Against(why) => {
                frozen::tell(&*self.disk, why, &against);
                self.frozen = Some(why);
                Err(why.into())
            }
        }
    }

    /// Mends what a crash left, and starts the writer. An own store needs its
    /// signer, the key that counts now; a mirror none.
    pub fn start(self, signer: Option<SignerKey>) -> Result<Opened, StoreError> {
        self.start_with(|_| Ok(Signing::from(signer)))
    }

    /// The same; `signer` is asked for the key that counts now.
    pub(super) fn start_with(
        self,
        signer: impl FnOnce(&VerifierKey) -> Result<Signing, StoreError>,
    ) -> Result<Opened, StoreError> {
        let Self {
            disk,
            options,
            mailbox,
            keeper,
            replayed,
            index_discarded,
            past,
            frozen,
            lock,
        } = self;
        if let Some(frozen) = frozen {
            return Err(frozen.into());
        }
        let Signing { signer, is_next } = match replayed.index.role {
            StoreRole::Own => signer(replayed.index.origin())?,
            StoreRole::Mirror => Signing::default(),
        };
        check_signer(&replayed.index, signer.as_ref())?;
        let head_note_missing = past.note_lost;
        if head_note_missing && replayed.index.role == StoreRole::Own {
            tracing::error!("head.note is gone: the log may be an old copy of itself");
        }
        let bytes_read = replayed.bytes_read;
        let (mut index, log, mended) = replayed.mend(&disk, &options)?;
        if is_next {
            // Not before the rotation is known to be durable: this is the end
            // of the old key.
            keys::install_next_origin_key(&*disk)?;
        }
        if past.thawed
            && let Err(error) = frozen::clear(&*disk)
        {
            // Next time it says the same.
            tracing::warn!(%error, "frozen.note was not removed");
        }
        let filter = Arc::new(RequestFilter::new());
        index.below.filter = Some(filter.clone());
        let (torn_bytes, rewritten_bytes) = (mended.torn_bytes, mended.rewritten_bytes);
        let covered = index.covered();
        let index = Arc::new(RwLock::new(index));
        let view = View::new(index.clone(), LogReader::over(disk.clone()));
        view.write_evidence(&*disk);
        let queue = Arc::new(Queue::new());
        let (failed, frozen) = (Arc::new(OnceLock::new()), Arc::new(Freezing::default()));
        let indexer = Indexer::start(Work {
            keeper,
            index: index.clone(),
            queue: queue.clone(),
            clock: options.clock.clone(),
            tail_bytes_max: options.tail_bytes_max,
            mailbox: mailbox.clone(),
            covered,
            filter,
        })?;
        let writer = Writer::new(
            disk.clone(),
            options,
            signer,
            (queue.clone(), failed.clone(), frozen.clone()),
            (index, view.clone(), indexer),
            log,
            (&mended, past),
            lock,
        );
        let thread = thread::Builder::new()
            .name("ledger-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::io("start the writer", error))?;
        let store = Store::from(Inner {
            queue,
            view,
            failed,
            frozen,
            disk,
            thread: Mutex::new(Some(thread)),
            mailbox,
        });
        Ok(Opened {
            store,
            bytes_read,
            torn_bytes,
            rewritten_bytes,
            head_note_missing,
            index_discarded,
        })
    }

    /// Asks what the index has an answer to; once more, of an index made anew
    /// from the log, if it has none.
    fn ask_index<T>(
        &mut self,
        ask: impl Fn(&Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match ask(self) {
            Err(StoreError::IndexLost { reason }) => {
                let covered = self.replayed.index.covered().unwrap_or_default();
                self.keeper.let_go();
                let found = Found {
                    discarded: Some(reason),
                    voucher: covered.end,
                    ..Found::default()
                };
                self.replayed = read_all(&self.options, &mut self.keeper, &found)?;
                self.index_discarded = found.discarded;
                ask(self)
            }
            answer => answer,
        }
    }
}

impl Store {
    /// Opens a store for writing. An own store needs its signer, the key that
    /// counts now; a mirror none.
    pub fn open(
        disk: Arc<dyn Disk>,
        options: StoreOptions,
        signer: Option<SignerKey>,
    ) -> Result<Opened, StoreError> {
        StoreOpening::read(disk, options)?.start(signer)
    }

    /// Opens a store for reading only: neither lock nor change. What lies
    /// behind the last complete group is not shown. The index is used unless a
    /// process writes to it; then, and without a good one, all of the log is
    /// read into memory.
    pub fn open_read_only(disk: Arc<dyn Disk>) -> Result<View, StoreError> {
        let of = layout::peek(&*disk)?;
        let log = LogReader::over(disk.clone());
        let mut keeper = Keeper::new(disk.clone(), Arc::new(Alone))?;
        let mut find = || {
            if disk.open(FAILED_FILE, Access::Read).is_ok() {
                return Start::default();
            }
            let found = keeper.open_read_only(&log, of.clone());
            Start {
                index: found.index,
                voucher: found.voucher,
                heads_through: None,
            }
        };
        let replayed = match recover::replay_to_read(&*disk, &mut find) {
            // It may be the index that contradicts the log.
            Err(StoreError::IndexLost { .. } | StoreError::Inconsistent { .. }) => {
                recover::replay_to_read(&*disk, &mut Start::default)?
            }
            other => other?,
        };
        let index = Arc::new(RwLock::new(replayed.index));
        Ok(View::new(index, LogReader::over(disk)))
    }
}

/// A log that was read, its index, and why one that was there was thrown away.
type Read = (Replayed, Keeper, Option<String>);

/// Reads the log behind what the index covers; all of it, into a new index, if
/// there is none or it is not good.
fn read_log(
    disk: &Arc<dyn Disk>,
    options: &StoreOptions,
    mailbox: &Arc<Mailbox>,
) -> Result<Read, StoreError> {
    layout::remove_temporaries(&**disk)?;
    let of = layout::peek(&**disk)?;
    let mut keeper = Keeper::new(disk.clone(), mailbox.clone())?;
    let mut found = keeper.open(&LogReader::over(disk.clone()), of);
    if found.index.is_some() && disk.open(FAILED_FILE, Access::Read).is_ok() {
        // Pages of it may be marked clean that never reached the disk.
        found.index = None;
        found.discarded = Some("the last process failed".into());
        keeper.let_go();
    }
    if let Some(index) = found.index.take() {
        let start = Start {
            index: Some(index),
            ..Start::default()
        };
        match keeper.replay(options, start) {
            Ok(replayed) => return Ok((replayed, keeper, None)),
            Err(StoreError::IndexLost { reason }) => {
                found.discarded = Some(reason);
                keeper.let_go();
            }
            // It may be the index that contradicts the log: without it the log
            // is asked alone.
            Err(error @ StoreError::Inconsistent { .. }) => {
                found.discarded = Some(error.to_string());
                keeper.let_go();
            }
            Err(error) => return Err(error),
        }
    }
    let replayed = read_all(options, &mut keeper, &found)?;
    Ok((replayed, keeper, found.discarded))
}

/// Reads the log from its beginning; `found` is what was left of an index.
fn read_all(
    options: &StoreOptions,
    keeper: &mut Keeper,
    found: &Found,
) -> Result<Replayed, StoreError> {
    if let Some(reason) = &found.discarded {
        // Whoever opens hears it when it is done ([`Opened::index_discarded`]).
        tracing::info!(%reason, "the index is made anew from the log");
    }
    let start = Start {
        voucher: found.voucher,
        ..Start::default()
    };
    let replayed = keeper.replay(options, start)?;
    keeper.name()?;
    if found.discarded.is_some() && matches!(replayed.index.below.base, Base::Empty) {
        // Nothing was folded that would have taken its place. One that cannot
        // be removed is of no use next time either.
        if let Err(error) = keeper.discard() {
            tracing::warn!(%error, "the index was not removed");
        }
    }
    Ok(replayed)
}

fn check_signer(index: &Index, signer: Option<&SignerKey>) -> Result<(), StoreError> {
    match (index.role, signer) {
        (StoreRole::Own, Some(signer)) if signer.verifier() == index.origin() => Ok(()),
        (StoreRole::Own, Some(signer)) => Err(StoreError::WrongKey {
            expected: index.origin().to_string(),
            got: signer.verifier().to_string(),
        }),
        (StoreRole::Own, None) => Err(StoreError::WrongKey {
            expected: index.origin().to_string(),
            got: "missing".into(),
        }),
        (StoreRole::Mirror, _) => Ok(()),
    }
}
