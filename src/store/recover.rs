//! What opening does: read the log, decide what its end means, mend what a
//! crash left, and only then make anything visible.
//!
//! The order (`spec/05-store.md`, Opening):
//! 1. temporary files are removed; the index is opened, if the log bears it
//!    out (`keeper`);
//! 2. groups behind what the index covers are read and replayed until the log
//!    ends at `end`;
//! 3. what vouches for a position beyond `end` (a valid record found by
//!    scanning, the position in `head.note`, what the index covers, a following
//!    segment) makes the end
//!    **damage**: nothing is cut, opening fails and names the place;
//! 4. otherwise bytes after `end` are a **torn tail**: copied to `cut/`, cut;
//! 5. groups nobody vouches for may be in the page cache only: they are
//!    written again in place and synced;
//! 6. a synced mark follows, and the store is open.

use std::io;
use std::sync::Arc;

use super::body::StoreRole;
use super::disk::{Access, Disk};
use super::head_note::HeadNote;
use super::index::{Index, IndexError};
use super::layout::{Segments, list_segments};
use super::log::{LogEnd, LogReader, LogWriter};
use super::record::{Group, Position, RecordHeader, RecordType, Short};
use super::replay::{ReplayError, first_group};
use super::scan::{
    LOG_DIR, LogScan, OpenSegment, SEGMENT_HEADER_LEN, ScannedGroup, Stop, segment_name,
};
use super::{Damage, StoreError, StoreOptions};
use crate::encoding::DecodeError;
use crate::limits::RECORD_HEADER_BYTES;

/// Directory of the torn tails that were cut.
const CUT_DIR: &str = "cut";
/// A file that the last process left when its disk failed.
pub(crate) const FAILED_FILE: &str = "failed";
/// Bytes read at a time when the file behind the end is searched or copied.
const PIECE_BYTES: usize = 1 << 20;

/// A log that was read to its end.
pub(crate) struct Replayed {
    pub(crate) index: Index,
    pub(crate) end: Position,
    pub(crate) chain: Short,
    pub(crate) stop: Stop,
    /// The log is known to have been durable up to here.
    pub(crate) vouched: Position,
    /// End of the last group that is more than a mark.
    content_end: Position,
    /// End of the last group with a head.
    head_end: Position,
    pub(crate) segment: OpenSegment,
    pub(crate) head_note: Option<HeadNote>,
    pub(crate) bytes_read: u64,
}

/// Sees every group after it was replayed; an error ends the replay.
pub(crate) type Observe<'o> =
    dyn FnMut(&mut Index, &ScannedGroup, u64) -> Result<(), ReplayError> + 'o;

/// Called before a group whose header says that everything before it was
/// durable: what was replayed so far may be folded into an index.
pub(crate) type Fold<'f> = dyn FnMut(&mut Index) -> Result<(), IndexError> + 'f;

/// Where a replay starts, and what is known beforehand.
#[derive(Debug, Default)]
pub(crate) struct Start {
    /// An index over a checkpoint; none to read the log from its beginning.
    pub(crate) index: Option<Index>,
    /// The log was durable up to here, says an index that was thrown away.
    pub(crate) voucher: Position,
    /// Heads behind this are passed over.
    pub(crate) heads_through: Option<Position>,
}

/// Steps 2 and 3 for a reader. A head of an own store that nothing vouches for
/// may be lost with the power, and its epoch signed again: it is told to no one.
pub(crate) fn replay_to_read(
    disk: &dyn Disk,
    find: &mut dyn FnMut() -> Start,
) -> Result<Replayed, StoreError> {
    replay_to_read_with(disk, find, &mut |_, _, _| Ok(()))
}

/// The same, observed.
pub(crate) fn replay_to_read_with(
    disk: &dyn Disk,
    find: &mut dyn FnMut() -> Start,
    observe: &mut Observe<'_>,
) -> Result<Replayed, StoreError> {
    let (replayed, verdict) = replay_with(disk, find(), observe)?;
    verdict?;
    if replayed.index.role == StoreRole::Mirror || replayed.head_end <= replayed.vouched {
        return Ok(replayed);
    }
    let start = Start {
        heads_through: Some(replayed.vouched),
        ..find()
    };
    let (replayed, verdict) = replay_with(disk, start, observe)?;
    verdict.map(|()| replayed)
}

/// Reads the log where `start` says. Also hands out what could be read of a log
/// that is damaged or contradicts itself, for audits. The outer error means
/// that nothing could.
pub(crate) fn replay_with(
    disk: &dyn Disk,
    start: Start,
    observe: &mut Observe<'_>,
) -> Result<(Replayed, Result<(), StoreError>), StoreError> {
    replay_and_fold(disk, start, observe, &mut |_| Ok(()))
}

/// The same; `fold` may take what is known to be durable off the tail.
pub(crate) fn replay_and_fold(
    disk: &dyn Disk,
    start: Start,
    observe: &mut Observe<'_>,
    fold: &mut Fold<'_>,
) -> Result<(Replayed, Result<(), StoreError>), StoreError> {
    let read = |error| StoreError::io("read the log", error);
    let segments = list_segments(disk)?;
    // Before the log: a running writer only ever makes the log longer.
    let head_note = HeadNote::read(disk)?;
    let (mut scan, index, first) = if let Some(index) = start.index {
        let cover = index.cover();
        check_sealed(disk, segments, cover.end)?;
        let scan = LogScan::from(disk, segments.contiguous, cover.end, cover.chain);
        (unreadable(scan, cover.end.segment())?, index, None)
    } else {
        let mut scan = unreadable(LogScan::start(disk, segments.contiguous), 1)?;
        let first = scan.next_group().map_err(read)?;
        let first = first.ok_or_else(|| no_beginning(&scan))?;
        (scan, first_group(&first)?, Some(first))
    };
    let mut replay = Replay {
        vouched: scan.end(),
        content_end: scan.end(),
        head_end: Position::default(),
        heads_through: start.heads_through,
        voucher: start.voucher,
        note_seen: match &head_note {
            Some(note) if first.is_none() && note.position <= scan.end() => {
                Some(is_in_log(note, &LogReader::over(disk)))
            }
            _ => None,
        },
        head_note,
        index,
        verdict: Ok(()),
    };
    let mut next = match first {
        Some(first) => Some(first),
        None => scan.next_group().map_err(read)?,
    };
    while let Some(group) = next {
        // An index must never cover what a loss of power could still take.
        if group.synced_through >= replay.index.state_end() {
            fold(&mut replay.index)?;
        }
        if let Err(error) = replay.take(&group, &scan, observe) {
            replay.verdict = Err(error.verdict()?);
            break;
        }
        scan.reuse(group);
        next = scan.next_group().map_err(read)?;
    }
    if replay.verdict.is_ok() {
        replay.verdict = replay.judge(disk, &scan)?;
        replay.read_on(disk, &mut scan, observe)?;
        // Its header check is right: this was written on purpose, by a build
        // that knows more. It may be acknowledged, and is not ours to cut.
        if let (Ok(()), Some(Stop::Undecodable(error))) = (&replay.verdict, scan.stop()) {
            replay.verdict = Err(StoreError::Corrupt {
                position: scan.stopped_at(),
                error: error.clone(),
            });
        }
    }
    Ok(replay.finish(scan))
}

/// Segments that are not read must be there, each continuing the one before it:
/// its header names the chain and the end that the seal before it has.
fn check_sealed(disk: &dyn Disk, segments: Segments, covered: Position) -> Result<(), StoreError> {
    let damage = |number: u32, reason: String| {
        let position = Position::new(number, 0);
        let vouched = covered;
        StoreError::Damaged(Damage {
            position,
            vouched,
            reason,
        })
    };
    if segments.contiguous < covered.segment() {
        let missing = segments.contiguous + 1;
        return Err(damage(missing, "the segment is missing".into()));
    }
    let log = LogReader::over(disk);
    for number in 2..=covered.segment() {
        let header = log.header(number)?;
        let seal = header.previous_end.offset().checked_sub(64);
        let seal = seal.map(|offset| Position::new(number - 1, offset));
        let before = seal.and_then(|seal| log.cover_at(seal).ok());
        let continues = before.is_some_and(|before| {
            (before.end, before.chain) == (header.previous_end, header.chain)
        });
        if !continues || header.store_id != log.header(1)?.store_id {
            let reason = "the segment does not continue the one before it";
            return Err(damage(number, reason.into()));
        }
    }
    Ok(())
}

/// Segment 1 appears with its first record or not at all: without it, the log
/// is damaged.
pub(crate) fn no_beginning(scan: &LogScan<'_>) -> StoreError {
    let stop = scan.stop().map(ToString::to_string).unwrap_or_default();
    StoreError::Damaged(Damage {
        position: scan.stopped_at(),
        vouched: scan.stopped_at(),
        reason: format!("the first record cannot be read: {stop}"),
    })
}

/// A scan that could not even start is an error of its first segment.
fn unreadable(
    scan: io::Result<Result<LogScan<'_>, DecodeError>>,
    segment: u32,
) -> Result<LogScan<'_>, StoreError> {
    scan.map_err(|error| StoreError::io("read the log", error))?
        .map_err(|error| StoreError::Corrupt {
            position: Position::new(segment, 0),
            error,
        })
}

/// True if the log has the head record that `note` names. Its place follows
/// from its length.
fn is_in_log(note: &HeadNote, log: &LogReader<&dyn Disk>) -> bool {
    let body = (8 + note.note.len()).next_multiple_of(RECORD_HEADER_BYTES);
    let start = u32::try_from(RECORD_HEADER_BYTES + body)
        .ok()
        .and_then(|len| note.position.offset().checked_sub(len))
        .map(|offset| Position::new(note.position.segment(), offset));
    let cover = start.and_then(|start| log.cover_at(start).ok());
    cover.is_some_and(|cover| (cover.end, cover.chain) == (note.position, note.chain))
}

/// A replay under way.
struct Replay {
    index: Index,
    vouched: Position,
    content_end: Position,
    head_end: Position,
    /// Heads behind this are passed over.
    heads_through: Option<Position>,
    /// What an index that was thrown away covered.
    voucher: Position,
    head_note: Option<HeadNote>,
    /// Whether the chain at `head.note`'s position is the one it names.
    note_seen: Option<bool>,
    verdict: Result<(), StoreError>,
}

impl Replay {
    fn take(
        &mut self,
        group: &ScannedGroup,
        scan: &LogScan<'_>,
        observe: &mut Observe<'_>,
    ) -> Result<(), ReplayError> {
        let kinds = || group.records.iter().map(|r| r.header.kind);
        let head = kinds().any(|kind| kind == RecordType::Head);
        if head {
            self.head_end = group.end;
        }
        if !(head
            && self
                .heads_through
                .is_some_and(|through| group.end > through))
        {
            self.index.replay(group)?;
        }
        observe(&mut self.index, group, scan.bytes_read())?;
        self.vouched = self.vouched.max(group.synced_through);
        if !group.is_mark() {
            self.content_end = group.end;
        }
        if scan.end().segment() > group.end.segment() {
            // A segment is made only when the one before it is durable.
            self.vouched = self.vouched.max(scan.end());
        }
        if let Some(note) = &self.head_note
            && note.position == group.end
        {
            self.note_seen = Some(note.chain == group.chain);
        }
        Ok(())
    }

    fn finish(self, scan: LogScan<'_>) -> (Replayed, Result<(), StoreError>) {
        let noted = self.head_note.as_ref().map(|note| note.position);
        let replayed = Replayed {
            vouched: noted.map_or(self.vouched, |noted| self.vouched.max(noted)),
            index: self.index,
            end: scan.end(),
            chain: scan.chain(),
            stop: scan.stop().cloned().unwrap_or(Stop::EndOfFile),
            content_end: self.content_end,
            head_end: self.head_end,
            bytes_read: scan.bytes_read(),
            segment: scan.into_segment(),
            head_note: self.head_note,
        };
        (replayed, self.verdict)
    }

    /// A writer beside us may have written on while we read: what vouches for
    /// more was written after it, so reading on must find it. Where that ends
    /// is far enough; a writer that never rests is not chased.
    fn read_on(
        &mut self,
        disk: &dyn Disk,
        scan: &mut LogScan<'_>,
        observe: &mut Observe<'_>,
    ) -> Result<(), StoreError> {
        let read = |error| StoreError::io("read the log", error);
        let beyond = match &self.verdict {
            Err(StoreError::Damaged(damage)) if damage.vouched > scan.end() => damage.vouched,
            _ => return Ok(()),
        };
        scan.resume(list_segments(disk)?.contiguous).map_err(read)?;
        while scan.end() < beyond {
            let Some(group) = scan.next_group().map_err(read)? else {
                return Ok(());
            };
            if let Err(error) = self.take(&group, scan, observe) {
                self.verdict = Err(error.verdict()?);
                return Ok(());
            }
        }
        self.verdict = Ok(());
        Ok(())
    }

    /// Damage, if anything vouches for bytes beyond the end.
    fn judge(
        &self,
        disk: &dyn Disk,
        scan: &LogScan<'_>,
    ) -> Result<Result<(), StoreError>, StoreError> {
        let (mut beyond, mut witness) = (self.vouched, "a record before it");
        let mut what_to_do = "";
        let highest = list_segments(disk)?.highest;
        if highest > scan.end().segment() {
            (beyond, witness) = (Position::new(highest, 0), "a later segment");
        }
        let scanned = highest_voucher(scan.segment(), scan.end())
            .map_err(|error| StoreError::io("search the end of the log", error))?;
        if scanned > beyond {
            (beyond, witness) = (scanned, "a record after it");
        }
        if self.voucher > beyond {
            (beyond, witness) = (self.voucher, "index.redb");
            what_to_do = "; if log/ is not the one it was made from, remove index.redb";
        }
        if let Some(note) = &self.head_note {
            if note.position > beyond {
                (beyond, witness) = (note.position, "head.note");
                what_to_do = "";
            }
            if note.position <= scan.end() && self.note_seen != Some(true) {
                return Ok(Err(StoreError::Damaged(Damage {
                    position: note.position,
                    vouched: note.position,
                    reason: "head.note names another history than the log holds".into(),
                })));
            }
        }
        if beyond <= scan.end() {
            return Ok(Ok(()));
        }
        let stop = scan.stop().map(ToString::to_string).unwrap_or_default();
        Ok(Err(StoreError::Damaged(Damage {
            position: scan.stopped_at(),
            vouched: beyond,
            reason: format!("{stop}, but {witness} vouches for bytes up to {beyond}{what_to_do}"),
        })))
    }
}

/// The highest `synced_through` of any valid record behind `end`, wherever it
/// starts.
fn highest_voucher(segment: &OpenSegment, end: Position) -> io::Result<Position> {
    let mut highest = Position::default();
    let mut at = end;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let got = segment.file.read_at(u64::from(at.offset()), &mut piece)?;
        for bytes in piece
            .get(..got)
            .unwrap_or(&[])
            .chunks_exact(RECORD_HEADER_BYTES)
        {
            if let Ok(bytes) = <&[u8; RECORD_HEADER_BYTES]>::try_from(bytes)
                && let Ok(Some(header)) = RecordHeader::vouched(&segment.keys, at, bytes)
            {
                highest = highest.max(header.synced_through);
            }
            match at.forward(RECORD_HEADER_BYTES as u64) {
                Some(next) => at = next,
                None => return Ok(highest),
            }
        }
        if got < PIECE_BYTES {
            return Ok(highest);
        }
    }
}

impl Replayed {
    /// Steps 4 to 6: mends what a crash left, and opens the log for writing.
    pub(crate) fn mend(
        self,
        disk: &Arc<dyn Disk>,
        options: &StoreOptions,
    ) -> Result<(Index, LogWriter, Mended), StoreError> {
        let io = |what| move |error| StoreError::io(what, error);
        let mut mended = Mended::default();
        let name = segment_name(self.segment.header.number);
        let file = disk
            .open(&name, Access::Write)
            .map_err(io("open the last segment"))?;
        let file_len = file.len().map_err(io("open the last segment"))?;
        let end = u64::from(self.end.offset());
        if file_len > end {
            mended.torn_bytes = self
                .copy_torn(&**disk, file_len)
                .map_err(io("copy a torn tail"))?;
            file.truncate(end).map_err(io("cut a torn tail"))?;
            file.sync().map_err(io("cut a torn tail"))?;
        }
        let unvouched = if self.vouched.segment() == self.end.segment() {
            u64::from(self.vouched.offset().max(SEGMENT_HEADER_LEN))
        } else {
            u64::from(SEGMENT_HEADER_LEN)
        };
        let mut at = unvouched;
        // A mark alone is not worth a sync: it holds nothing. It is written
        // again all the same, for the next sync to reach it, and until then
        // nothing vouches for it.
        let nothing = self.vouched >= self.content_end;
        while at < end {
            let n = usize::try_from(end - at)
                .unwrap_or(PIECE_BYTES)
                .min(PIECE_BYTES);
            let mut piece = vec![0; n];
            let got = file.read_at(at, &mut piece).map_err(io("read the tail"))?;
            piece.truncate(got);
            if piece.is_empty() {
                break;
            }
            file.write_at(at, &piece).map_err(io("rewrite the tail"))?;
            at += piece.len() as u64;
            if !nothing {
                mended.rewritten_bytes += piece.len() as u64;
            }
        }
        if mended.rewritten_bytes > 0 {
            file.sync().map_err(io("sync the tail"))?;
        }
        let synced = if nothing { self.vouched } else { self.end };
        // The process that made the last segment, or the whole log, may have
        // ended before its name was durable.
        for dir in [LOG_DIR, ""] {
            disk.sync_dir(dir).map_err(io("sync the log's names"))?;
        }
        let sealed = self.stop == Stop::Sealed;
        let mut log = LogWriter::new(
            disk.clone(),
            options.segment_bytes,
            options.reserve_bytes,
            &self.segment,
            LogEnd {
                end: self.end,
                chain: self.chain,
                synced,
                sealed,
            },
        )
        .map_err(io("open the last segment"))?;
        // A clean close leaves nothing to rewrite and needs no second mark.
        if mended.rewritten_bytes > 0 || mended.torn_bytes > 0 || sealed {
            let mut mark = Group::new();
            mark.add(RecordType::Mark, |_| ());
            log.append(mark).map_err(StoreError::from_write)?;
        }
        match disk.remove(FAILED_FILE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove the failure mark", error));
            }
            _ => (),
        }
        mended.head_note = self.head_note;
        Ok((self.index, log, mended))
    }

    /// Copies the bytes about to be cut to `cut/`; best effort but for reading
    /// them. Returns how many were not zero-filled reserve.
    fn copy_torn(&self, disk: &dyn Disk, file_len: u64) -> io::Result<u64> {
        let mut last_used = 0u64;
        let mut at = u64::from(self.end.offset());
        let name = format!(
            "{CUT_DIR}/{:010}-{:010}.bin",
            self.end.segment(),
            self.end.offset()
        );
        let mut copy = None;
        let start = at;
        while at < file_len {
            let mut piece = vec![0; PIECE_BYTES];
            let got = self.segment.file.read_at(at, &mut piece)?;
            piece.truncate(got);
            if piece.is_empty() {
                break;
            }
            if let Some(used) = piece.iter().rposition(|&b| b != 0) {
                last_used = at + used as u64 + 1;
                if copy.is_none() {
                    copy = disk
                        .create_dir(CUT_DIR)
                        .and_then(|()| match disk.remove(&name) {
                            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                            _ => disk.create(&name),
                        })
                        .ok();
                }
            }
            if let Some(copy) = &copy {
                let _ = copy.write_at(at - start, &piece);
            }
            at += piece.len() as u64;
        }
        let torn = last_used.saturating_sub(start);
        if let Some(copy) = copy {
            let _ = copy.truncate(torn);
            let _ = copy.sync();
        }
        Ok(torn)
    }
}

/// What mending did.
#[derive(Debug, Default)]
pub(crate) struct Mended {
    /// Bytes of a torn tail that were cut.
    pub(crate) torn_bytes: u64,
    /// Bytes that were written again because nothing vouched for them.
    pub(crate) rewritten_bytes: u64,
    pub(crate) head_note: Option<HeadNote>,
}

impl Mended {
    /// True if the last process did not close the store.
    pub(crate) fn was_unclean(&self) -> bool {
        self.torn_bytes > 0 || self.rewritten_bytes > 0
    }
}
