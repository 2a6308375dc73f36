//! All segments as one log: the writer that appends groups and rolls, and the
//! reader that fetches single records.
//!
//! A group is written with one `write_at` and made durable by one `sync`; it
//! never spans two segments. What a crash leaves at each step is told in
//! `spec/05-store.md` and beside the step here.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::StoreError;
use super::disk::{Access, Disk, DiskFile};
use super::index::{Cover, Location};
use super::record::{
    Group, Position, RecordHeader, RecordType, SegmentHeader, SegmentKeys, Short, TAG_INPUT_AT,
};
use super::reserve::Reserve;
use super::scan::{LOG_DIR, OpenSegment, SEGMENT_HEADER_LEN, open_segment, segment_name};
use crate::encoding::DecodeError;
use crate::limits::RECORD_HEADER_BYTES;

/// Segments kept open for reading.
const OPEN_SEGMENTS_MAX: usize = 32;

/// Memory of a group that is kept for the next one: 8 MiB, what a mirror's
/// groups of 4 MiB take while they grow.
const SPARE_BYTES_MAX: usize = 8 << 20;

/// Why a group was not made durable.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The disk is full. Nothing changed; the log goes on when there is room.
    Full(io::Error),
    /// The state of the file is unknown: nothing may be acknowledged any more.
    Failed {
        what: &'static str,
        error: io::Error,
    },
}

/// The end of the log, where groups are appended.
#[derive(Debug)]
pub(crate) struct LogWriter {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    header: SegmentHeader,
    keys: SegmentKeys,
    file: Arc<dyn DiskFile>,
    reserve: Reserve,
    end: Position,
    chain: Short,
    /// The last record before `end`, once a group was written.
    last: Position,
    /// The log is durable up to here.
    synced: Position,
    /// The segment ends with a seal and there is no next one yet.
    sealed: bool,
    /// Memory of the last group, for the next one.
    spare: Vec<u8>,
}

/// A new segment header; the tag key is random so that bytes of one segment
/// are never records of another.
pub(crate) fn new_segment(
    number: u32,
    store_id: Short,
    chain: Short,
    previous_end: Position,
) -> io::Result<SegmentHeader> {
    let mut tag_key = [0u8; 32];
    getrandom::fill(&mut tag_key).map_err(io::Error::other)?;
    Ok(SegmentHeader {
        number,
        store_id,
        tag_key,
        chain,
        previous_end,
    })
}

/// Makes a segment under a temporary name and gives it its own when its header
/// (and `first`, the first group of segment 1) is durable. A crash leaves a
/// temporary file, which opening removes, or the whole segment.
pub(crate) fn create_segment(
    disk: &dyn Disk,
    header: &SegmentHeader,
    first: &[u8],
) -> io::Result<Arc<dyn DiskFile>> {
    let name = segment_name(header.number);
    let temporary = format!("{name}.new");
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let file = disk.create(&temporary)?;
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(first);
    let written = file.write_at(0, &bytes).and_then(|()| file.sync());
    if let Err(error) = written {
        // Best effort: opening removes it too.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    disk.rename(&temporary, &name)?;
    disk.sync_dir(LOG_DIR)?;
    Ok(file)
}

/// The end of a log, as recovery has found it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogEnd {
    pub(crate) end: Position,
    pub(crate) chain: Short,
    /// The log is durable up to here; what follows are marks.
    pub(crate) synced: Position,
    pub(crate) sealed: bool,
}

impl LogWriter {
    /// Continues a log that recovery has read and mended.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        segment_bytes: u64,
        reserve_bytes: u64,
        segment: &OpenSegment,
        at: LogEnd,
    ) -> io::Result<Self> {
        let LogEnd {
            end,
            chain,
            synced,
            sealed,
        } = at;
        let (header, keys) = (segment.header, segment.keys.clone());
        let file = disk.open(&segment_name(header.number), Access::Write)?;
        let reserve = Reserve::new(
            disk.clone(),
            reserve_bytes,
            segment_bytes,
            header.number,
            end.offset(),
        );
        Ok(Self {
            disk,
            segment_bytes,
            header,
            keys,
            file,
            reserve,
            end,
            chain,
            last: end,
            synced,
            sealed,
            spare: Vec::new(),
        })
    }

    /// Memory to build the next group in: fresh pages for every group would
    /// cost more than hashing it.
    pub(crate) fn take_spare(&mut self) -> Vec<u8> {
        let spare = std::mem::take(&mut self.spare);
        if spare.capacity() <= SPARE_BYTES_MAX {
            spare
        } else {
            Vec::new()
        }
    }

    /// The end of the last group.
    pub(crate) fn end(&self) -> Position {
        self.end
    }

    /// The chain at the end of the last group.
    pub(crate) fn chain(&self) -> Short {
        self.chain
    }

    /// Where the last group ends, and with which record.
    pub(crate) fn cover(&self) -> Cover {
        Cover {
            end: self.end,
            last: self.last,
            chain: self.chain,
        }
    }

    /// The same in all segments.
    pub(crate) fn store_id(&self) -> Short {
        self.header.store_id
    }

    /// Appends a group and makes it durable; returns where it starts.
    pub(crate) fn append(&mut self, group: Group) -> Result<Position, WriteError> {
        let start = self.write(group)?;
        self.sync()?;
        Ok(start)
    }

    /// Appends a group without syncing it. Only a mark, which holds nothing, may
    /// stay so; any other group is synced ([`Self::sync`]) before the next.
    pub(crate) fn write(&mut self, group: Group) -> Result<Position, WriteError> {
        let would_end = u64::from(self.end.offset()) + group.len();
        let full = would_end > self.segment_bytes && self.end.offset() > SEGMENT_HEADER_LEN;
        if full || self.sealed {
            self.roll()?;
        }
        self.put(group)
    }

    /// Writes a group at the end of the current segment.
    fn put(&mut self, group: Group) -> Result<Position, WriteError> {
        let too_long = || WriteError::Failed {
            what: "a group does not fit a segment",
            error: io::ErrorKind::FileTooLarge.into(),
        };
        let start = self.end;
        let end = start.forward(group.len()).ok_or_else(too_long)?;
        let last = start.forward(group.last_offset()).ok_or_else(too_long)?;
        let (bytes, chain) = group
            .seal(&self.keys, start, self.synced, self.chain)
            .ok_or_else(too_long)?;
        self.reserve
            .prepare(end.offset())
            .map_err(|error| WriteError::Failed {
                what: "sync of the reserve",
                error,
            })?;
        if let Err(error) = self.file.write_at(u64::from(start.offset()), &bytes) {
            return Err(self.after_failed_write(error));
        }
        self.reserve.wrote(end.offset());
        self.end = end;
        self.chain = chain;
        self.last = last;
        self.spare = bytes;
        Ok(start)
    }

    /// A write that failed may have left a part of the group. It was never
    /// synced and does not chain into anything that was acknowledged; it is
    /// cut, so that nothing stale follows the end. If even that fails, the
    /// file's state is unknown.
    fn after_failed_write(&mut self, error: io::Error) -> WriteError {
        if error.kind() != io::ErrorKind::StorageFull
            && error.kind() != io::ErrorKind::QuotaExceeded
        {
            return WriteError::Failed {
                what: "write",
                error,
            };
        }
        match self.trim() {
            Ok(()) => WriteError::Full(error),
            Err(error) => WriteError::Failed {
                what: "cut after a full disk",
                error,
            },
        }
    }

    /// Cuts what lies beyond the end: the reserve, or a group that failed.
    fn trim(&mut self) -> io::Result<()> {
        self.reserve.release(self.end.offset())?;
        self.file.truncate(u64::from(self.end.offset()))
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&mut self) -> Result<(), WriteError> {
        self.file.sync().map_err(|error| WriteError::Failed {
            what: "sync",
            error,
        })?;
        self.synced = self.end;
        Ok(())
    }

    /// Gives the reserve back and makes the log durable.
    pub(crate) fn close(&mut self) -> Result<(), WriteError> {
        self.trim().map_err(|error| WriteError::Failed {
            what: "trim",
            error,
        })?;
        self.sync()
    }

    /// Seals the segment and goes on in a new one. A crash leaves: no seal (the
    /// segment goes on); a seal and no next segment (opening makes it); both.
    fn roll(&mut self) -> Result<(), WriteError> {
        // The next segment's header names the chain after the seal, so the seal
        // comes first, whole and durable.
        if !self.sealed {
            let mut seal = Group::new();
            seal.add(RecordType::Seal, |_| ());
            self.put(seal)?;
            self.sealed = true;
            self.close()?;
        }
        let number = self.header.number.saturating_add(1);
        let header =
            new_segment(number, self.header.store_id, self.chain, self.end).map_err(|error| {
                WriteError::Failed {
                    what: "randomness",
                    error,
                }
            })?;
        let file = create_segment(&*self.disk, &header, &[]).map_err(|error| {
            // The seal stays: the next attempt only makes the segment.
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    WriteError::Full(error)
                }
                _ => WriteError::Failed {
                    what: "new segment",
                    error,
                },
            }
        })?;
        self.keys = header.keys();
        self.chain = self.keys.start();
        self.header = header;
        self.file = file;
        self.end = Position::new(number, SEGMENT_HEADER_LEN);
        self.synced = self.end;
        self.sealed = false;
        self.reserve.enter(number, self.end.offset());
        Ok(())
    }
}

/// Reads single records, each verified on its own.
#[derive(Debug)]
pub(crate) struct LogReader<D = Arc<dyn Disk>> {
    disk: D,
    open: Mutex<HashMap<u32, Arc<OpenSegment>>>,
}

impl<'d, D: std::ops::Deref<Target = dyn Disk + 'd>> LogReader<D> {
    pub(crate) fn over(disk: D) -> Self {
        Self {
            disk,
            open: Mutex::default(),
        }
    }

    fn segment(&self, number: u32) -> Result<Arc<OpenSegment>, StoreError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(segment) = open.get(&number) {
            return Ok(segment.clone());
        }
        let segment = open_segment(&*self.disk, number, Access::Read)
            .map_err(|error| StoreError::io("open a segment", error))?
            .map_err(|error| corrupt(Position::new(number, 0), error))?;
        if open.len() >= OPEN_SEGMENTS_MAX
            && let Some(oldest) = open.keys().min().copied()
        {
            open.remove(&oldest);
        }
        let segment = Arc::new(segment);
        open.insert(number, segment.clone());
        Ok(segment)
    }

    /// The header of a segment.
    pub(crate) fn header(&self, number: u32) -> Result<SegmentHeader, StoreError> {
        self.segment(number).map(|segment| segment.header)
    }

    /// The body of the record at `at`; its header check and body tag are
    /// verified, so these are the bytes that were written there.
    pub(crate) fn body(&self, at: Location, kind: RecordType) -> Result<Vec<u8>, StoreError> {
        let (found, bytes) = self.read(at)?;
        if found != kind {
            return Err(other_record(at.position));
        }
        Ok(bytes)
    }

    /// The same for a record of whatever type.
    pub(crate) fn read(&self, at: Location) -> Result<(RecordType, Vec<u8>), StoreError> {
        let (header, mut bytes) = self.record(at.position, padded_len(at))?;
        if header.body_len != at.body_len {
            return Err(other_record(at.position));
        }
        bytes.drain(..RECORD_HEADER_BYTES);
        bytes.truncate(at.body_len as usize);
        Ok((header.kind, bytes))
    }

    /// The header of the record at `at`, and where the next record of the log
    /// begins, if there is one.
    pub(crate) fn step(&self, at: Position) -> Result<(RecordHeader, Position), StoreError> {
        let header = self.header_at(at)?;
        let next = if header.kind == RecordType::Seal {
            at.segment()
                .checked_add(1)
                .map(|next| Position::new(next, SEGMENT_HEADER_LEN))
        } else {
            at.forward((RECORD_HEADER_BYTES + header.padded_len()) as u64)
        };
        let next = next.ok_or_else(|| no_record(at, "a record reaches beyond its segment"))?;
        Ok((header, next))
    }

    fn header_at(&self, at: Position) -> Result<RecordHeader, StoreError> {
        let segment = self.segment(at.segment())?;
        let mut header = [0; RECORD_HEADER_BYTES];
        segment
            .file
            .read_at(u64::from(at.offset()), &mut header)
            .map_err(|error| StoreError::io("read a record", error))?;
        vouched(&segment, at, &header)
    }

    /// What the last record of a group, at `last`, says of all bytes before its
    /// end.
    pub(crate) fn cover_at(&self, last: Position) -> Result<Cover, StoreError> {
        let header = self.header_at(last)?;
        let (header, bytes) = self.record(last, header.padded_len())?;
        let end = last.forward(bytes.len() as u64);
        match end {
            Some(end) if header.is_last() => Ok(Cover {
                end,
                last,
                chain: header.stored_chain(),
            }),
            _ => Err(no_record(last, "no group ends here")),
        }
    }

    /// The bodies of records of one type. The same as [`Self::body`] for each, but
    /// their tags are computed side by side, which takes a fraction of the time.
    pub(crate) fn bodies(
        &self,
        places: &[Location],
        kind: RecordType,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut bodies = Vec::with_capacity(places.len());
        for places in places.chunk_by(|a, b| a.position.segment() == b.position.segment()) {
            let mut records = Vec::with_capacity(places.len());
            for at in places {
                let (header, mut bytes) = self.untagged(at.position, padded_len(*at))?;
                if header.kind != kind || header.body_len != at.body_len {
                    return Err(other_record(at.position));
                }
                // What the tag covers in front of the body, in front of the body.
                if let Some(start) = bytes.get_mut(TAG_INPUT_AT..RECORD_HEADER_BYTES) {
                    start.copy_from_slice(&header.tag_input_start(at.position));
                }
                records.push((header, bytes));
            }
            let Some(first) = places.first() else {
                continue;
            };
            let segment = self.segment(first.position.segment())?;
            let inputs: Vec<(&RecordHeader, &[u8])> = records
                .iter()
                .map(|(header, bytes)| (header, bytes.get(TAG_INPUT_AT..).unwrap_or_default()))
                .collect();
            if let Some(bad) = RecordHeader::first_bad_tag(&segment.keys, &inputs) {
                let at = places.get(bad).unwrap_or(first);
                return Err(bad_tag(at.position));
            }
            bodies.extend(records.into_iter().zip(places).map(|((_, mut bytes), at)| {
                bytes.drain(..RECORD_HEADER_BYTES);
                bytes.truncate(at.body_len as usize);
                bytes
            }));
        }
        Ok(bodies)
    }

    /// A record with its header, verified on its own.
    fn record(&self, at: Position, padded: usize) -> Result<(RecordHeader, Vec<u8>), StoreError> {
        let (header, bytes) = self.untagged(at, padded)?;
        let segment = self.segment(at.segment())?;
        let body = bytes.get(RECORD_HEADER_BYTES..).unwrap_or_default();
        if !header.tag_matches(&segment.keys, at, body) {
            return Err(bad_tag(at));
        }
        Ok((header, bytes))
    }

    /// A record with its header, of which only the header is verified.
    fn untagged(&self, at: Position, padded: usize) -> Result<(RecordHeader, Vec<u8>), StoreError> {
        let segment = self.segment(at.segment())?;
        let mut bytes = vec![0; RECORD_HEADER_BYTES + padded];
        let got = segment
            .file
            .read_at(u64::from(at.offset()), &mut bytes)
            .map_err(|error| StoreError::io("read a record", error))?;
        if got < bytes.len() {
            return Err(no_record(at, "the file ends inside a record"));
        }
        let header = bytes
            .first_chunk::<RECORD_HEADER_BYTES>()
            .ok_or_else(|| no_record(at, "no record"))?;
        let header = vouched(&segment, at, header)?;
        if header.padded_len() != padded {
            return Err(other_record(at));
        }
        Ok((header, bytes))
    }
}

fn padded_len(at: Location) -> usize {
    (at.body_len as usize).next_multiple_of(64)
}

fn other_record(at: Position) -> StoreError {
    no_record(at, "another record is where the index has one")
}

fn bad_tag(at: Position) -> StoreError {
    no_record(at, "a record's bytes are not those that were written")
}

fn vouched(
    segment: &OpenSegment,
    at: Position,
    header: &[u8; RECORD_HEADER_BYTES],
) -> Result<RecordHeader, StoreError> {
    RecordHeader::vouched(&segment.keys, at, header)
        .map_err(|error| corrupt(at, error))?
        .ok_or_else(|| no_record(at, "no record is where the index has one"))
}

fn no_record(at: Position, what: &'static str) -> StoreError {
    corrupt(at, DecodeError::Invalid { what })
}

fn corrupt(position: Position, error: DecodeError) -> StoreError {
    StoreError::Corrupt { position, error }
}
