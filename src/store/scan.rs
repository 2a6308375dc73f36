//! Reading the log from front to back, group by group, with every check a
//! record has. Recovery, audit and read-only opening share it.
//!
//! The log ends where no complete group chains on. What that end *means*
//! (a torn tail, damage, or simply the end) is decided in `recover`, from what
//! vouches for bytes beyond it; the scan only says where and why it stopped.

use std::io;
use std::sync::Arc;

use super::disk::{Access, Disk, DiskFile};
use super::record::{
    Position, RecordHeader, RecordType, SegmentHeader, SegmentKeys, Short, TAG_INPUT_START_BYTES,
};
use crate::encoding::DecodeError;
use crate::limits::{GROUP_BYTES_MAX, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};

/// Directory of the segments.
pub(crate) const LOG_DIR: &str = "log";
/// Files are read in windows of this size, of one record if that is larger, or
/// of what is left of the file if that is smaller.
const WINDOW_BYTES: usize = 1 << 20;

/// The file name of a segment.
pub(crate) fn segment_name(number: u32) -> String {
    format!("{LOG_DIR}/{number:010}.seg")
}

/// The number in a segment's file name, if it is one.
pub(crate) fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let number = digits.parse().ok()?;
    (number > 0 && format!("{number:010}") == digits).then_some(number)
}

/// Why the scan stopped where it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The file ends at a group's end.
    EndOfFile,
    /// A seal, and no segment after it.
    Sealed,
    /// No record of this segment starts here.
    NoRecord,
    /// The file ends inside a record or group.
    CutShort,
    /// A record is here, but its body is not what was written.
    BadBody,
    /// A record is here, but other records were before it when it was written.
    BrokenChain,
    /// A record is here that breaks the rules of groups.
    BadGroup(&'static str),
    /// A record is here that this build cannot read.
    Undecodable(DecodeError),
    /// The next segment's header is not readable.
    BadSegment(DecodeError),
    /// The next segment belongs to another store, or to other bytes before it.
    ForeignSegment(&'static str),
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EndOfFile => f.write_str("the file ends"),
            Self::Sealed => f.write_str("the segment is sealed and no other follows"),
            Self::NoRecord => f.write_str("no record starts here"),
            Self::CutShort => f.write_str("the file ends inside a group"),
            Self::BadBody => f.write_str("a record's bytes are not those that were written"),
            Self::BrokenChain => f.write_str("a record does not follow the one before it"),
            Self::BadGroup(what) => write!(f, "broken group: {what}"),
            Self::Undecodable(error) => write!(f, "unreadable record: {error}"),
            Self::BadSegment(error) => write!(f, "unreadable segment header: {error}"),
            Self::ForeignSegment(what) => write!(f, "foreign segment: {what}"),
        }
    }
}

/// Where a group ends and the chain there, or why there is none and where.
type GroupRead = Result<(Position, Short), (Stop, Position)>;

/// One record of a scanned group.
#[derive(Clone, Debug)]
pub(crate) struct ScannedRecord {
    pub(crate) position: Position,
    pub(crate) header: RecordHeader,
    /// Behind what its tag is computed over in front of it, padded.
    body: std::ops::Range<usize>,
}

/// A complete group, every check verified.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScannedGroup {
    pub(crate) start: Position,
    pub(crate) end: Position,
    pub(crate) synced_through: Position,
    /// The chain after the group.
    pub(crate) chain: Short,
    pub(crate) records: Vec<ScannedRecord>,
    bytes: Vec<u8>,
}

impl ScannedGroup {
    /// The body of a record of this group.
    pub(crate) fn body(&self, record: &ScannedRecord) -> &[u8] {
        self.bytes.get(record.body.clone()).unwrap_or(&[])
    }

    /// True if the group is nothing but a voucher.
    pub(crate) fn is_mark(&self) -> bool {
        self.records
            .iter()
            .all(|r| r.header.kind == RecordType::Mark)
    }

    /// False for marks and seals, which hold nothing.
    pub(crate) fn changes_state(&self) -> bool {
        let empty = |kind| matches!(kind, RecordType::Mark | RecordType::Seal);
        !self.records.iter().all(|r| empty(r.header.kind))
    }
}

/// A segment opened for reading.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) header: SegmentHeader,
    pub(crate) keys: SegmentKeys,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// Opens a segment and checks its header. The outer error is the disk's, the
/// inner one the bytes'.
pub(crate) fn open_segment(
    disk: &dyn Disk,
    number: u32,
    access: Access,
) -> io::Result<Result<OpenSegment, DecodeError>> {
    let file = disk.open(&segment_name(number), access)?;
    let mut bytes = [0u8; SEGMENT_HEADER_BYTES];
    if file.read_at(0, &mut bytes)? < bytes.len() {
        let have = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        let what = "segment header";
        return Ok(Err(DecodeError::Truncated {
            what,
            needed: bytes.len(),
            have,
        }));
    }
    Ok(SegmentHeader::decode(&bytes).and_then(|header| {
        if header.number != number {
            return Err(DecodeError::Invalid {
                what: "segment number is not its file's",
            });
        }
        Ok(OpenSegment {
            header,
            keys: header.keys(),
            file,
        })
    }))
}

/// A window over a file that only moves forward.
#[derive(Debug, Default)]
struct Window {
    at: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// `len` bytes at `offset`, or fewer at the end of the file. Every byte is
    /// read once: what is left of a window goes to the front of the next one.
    fn get(&mut self, file: &dyn DiskFile, offset: u64, len: usize) -> io::Result<&[u8]> {
        let skip = offset
            .checked_sub(self.at)
            .and_then(|skip| usize::try_from(skip).ok())
            .filter(|skip| *skip <= self.bytes.len())
            .unwrap_or(self.bytes.len());
        let have = self.bytes.len() - skip;
        if have >= len {
            return Ok(self.bytes.get(skip..skip + len).unwrap_or(&[]));
        }
        self.bytes.copy_within(skip.., 0);
        self.at = offset;
        let left = usize::try_from(file.len()?.saturating_sub(offset));
        let window = left.map_or(WINDOW_BYTES, |left| left.min(WINDOW_BYTES));
        self.bytes.resize(len.max(window), 0);
        let rest = self.bytes.get_mut(have..).unwrap_or_default();
        let got = file.read_at(offset + have as u64, rest)?;
        self.bytes.truncate(have + got);
        let end = len.min(self.bytes.len());
        Ok(self.bytes.get(..end).unwrap_or(&[]))
    }
}

/// A scan of all segments from the first.
#[derive(Debug)]
pub(crate) struct LogScan<'d> {
    disk: &'d dyn Disk,
    last_segment: u32,
    segment: OpenSegment,
    window: Window,
    /// End of the last complete group, and the chain there.
    end: Position,
    chain: Short,
    stop: Option<Stop>,
    /// Where the record that stopped the scan starts.
    stopped_at: Position,
    bytes_read: u64,
    /// Memory of a group that nobody needs any more.
    spare: ScannedGroup,
}

impl<'d> LogScan<'d> {
    /// Starts at segment 1. The inner error means that segment 1 itself is
    /// unreadable: there is no log.
    pub(crate) fn start(
        disk: &'d dyn Disk,
        last_segment: u32,
    ) -> io::Result<Result<Self, DecodeError>> {
        let segment = match open_segment(disk, 1, Access::Read)? {
            Ok(segment) => segment,
            Err(error) => return Ok(Err(error)),
        };
        if segment.header.chain != [0; 16] || segment.header.previous_end != Position::default() {
            return Ok(Err(DecodeError::Invalid {
                what: "segment 1 claims a segment before it",
            }));
        }
        let end = Position::new(1, SEGMENT_HEADER_LEN);
        let chain = segment.keys.start();
        Ok(Ok(Self {
            disk,
            last_segment,
            segment,
            window: Window::default(),
            end,
            chain,
            stop: None,
            stopped_at: end,
            bytes_read: u64::from(SEGMENT_HEADER_LEN),
            spare: ScannedGroup::default(),
        }))
    }

    /// Goes on where a group ends with this chain. The inner error means that
    /// the segment is unreadable.
    pub(crate) fn from(
        disk: &'d dyn Disk,
        last_segment: u32,
        end: Position,
        chain: Short,
    ) -> io::Result<Result<Self, DecodeError>> {
        let opened = open_segment(disk, end.segment(), Access::Read)?;
        Ok(opened.map(|segment| Self {
            disk,
            last_segment,
            segment,
            window: Window::default(),
            end,
            chain,
            stop: None,
            stopped_at: end,
            bytes_read: 0,
            spare: ScannedGroup::default(),
        }))
    }

    /// The end of the last complete group.
    pub(crate) fn end(&self) -> Position {
        self.end
    }

    /// The chain at [`Self::end`].
    pub(crate) fn chain(&self) -> Short {
        self.chain
    }

    /// Why the scan stopped; `None` while it goes on.
    pub(crate) fn stop(&self) -> Option<&Stop> {
        self.stop.as_ref()
    }

    /// Where the record lies that stopped the scan.
    pub(crate) fn stopped_at(&self) -> Position {
        self.stopped_at
    }

    /// The segment the scan is in.
    pub(crate) fn segment(&self) -> &OpenSegment {
        &self.segment
    }

    /// Looks again behind the end, in case a writer has gone on meanwhile.
    pub(crate) fn resume(&mut self, last_segment: u32) -> io::Result<()> {
        self.last_segment = self.last_segment.max(last_segment);
        self.window = Window::default();
        if self.stop.take() == Some(Stop::Sealed) {
            self.enter_next_segment()?;
        }
        Ok(())
    }

    /// Hands out the segment the scan is in.
    pub(crate) fn into_segment(self) -> OpenSegment {
        self.segment
    }

    /// Bytes of log read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Takes a group back: the next one is read into its memory.
    pub(crate) fn reuse(&mut self, mut group: ScannedGroup) {
        group.records.clear();
        group.bytes.clear();
        self.spare = group;
    }

    /// The next complete group, or `None` where the log ends.
    pub(crate) fn next_group(&mut self) -> io::Result<Option<ScannedGroup>> {
        if self.stop.is_some() {
            return Ok(None);
        }
        let mut group = std::mem::take(&mut self.spare);
        group.start = self.end;
        match self.read_group(&mut group)? {
            Ok((end, chain)) => {
                group.end = end;
                group.chain = chain;
                self.bytes_read += u64::from(end.offset()) - u64::from(group.start.offset());
                self.end = end;
                self.chain = chain;
                if group
                    .records
                    .iter()
                    .any(|r| r.header.kind == RecordType::Seal)
                {
                    self.enter_next_segment()?;
                }
                Ok(Some(group))
            }
            Err((stop, at)) => {
                self.stop = Some(stop);
                self.stopped_at = at;
                Ok(None)
            }
        }
    }

    /// Bodies are checked together in the end, because side by side it takes a
    /// third of the time; the first thing that is wrong counts all the same.
    fn read_group(&mut self, group: &mut ScannedGroup) -> io::Result<GroupRead> {
        let read = self.read_records(group)?;
        let with_input = |record: &'_ ScannedRecord| {
            let body = record.header.padded_len();
            let start = record.body.start;
            let input = start - TAG_INPUT_START_BYTES..start + body;
            group.bytes.get(input).unwrap_or_default()
        };
        let records: Vec<(&RecordHeader, &[u8])> = group
            .records
            .iter()
            .map(|record| (&record.header, with_input(record)))
            .collect();
        let bad = RecordHeader::first_bad_tag(&self.segment.keys, &records);
        Ok(match bad.and_then(|bad| group.records.get(bad)) {
            Some(bad) => Err((Stop::BadBody, bad.position)),
            None => read,
        })
    }

    /// All of a group, without looking at body tags.
    fn read_records(&mut self, group: &mut ScannedGroup) -> io::Result<GroupRead> {
        let mut bodies_bytes = 0;
        let (mut at, mut chain) = (self.end, self.chain);
        loop {
            let stop = |stop| Ok(Err((stop, at)));
            let index = u32::try_from(group.records.len()).unwrap_or(u32::MAX);
            let header = {
                let offset = u64::from(at.offset());
                let file = &*self.segment.file;
                let bytes = self.window.get(file, offset, RECORD_HEADER_BYTES)?;
                let Ok(bytes) = <&[u8; RECORD_HEADER_BYTES]>::try_from(bytes) else {
                    let clean = bytes.is_empty() && index == 0;
                    return stop(if clean {
                        Stop::EndOfFile
                    } else {
                        Stop::CutShort
                    });
                };
                match RecordHeader::vouched(&self.segment.keys, at, bytes) {
                    Ok(Some(header)) => header,
                    Ok(None) => return stop(Stop::NoRecord),
                    Err(error) => return stop(Stop::Undecodable(error)),
                }
            };
            let body_at = u64::from(at.offset()) + RECORD_HEADER_BYTES as u64;
            let padded = header.padded_len();
            let keys = &self.segment.keys;
            let body = self.window.get(&*self.segment.file, body_at, padded)?;
            if body.len() < padded {
                return stop(Stop::CutShort);
            }
            let Some(next_chain) = header.chains_on(keys, &chain, at) else {
                return stop(Stop::BrokenChain);
            };
            if bodies_bytes + padded + RECORD_HEADER_BYTES > GROUP_BYTES_MAX {
                return stop(Stop::BadGroup("a group is larger than 64 MiB"));
            }
            group.bytes.extend_from_slice(&header.tag_input_start(at));
            let start = group.bytes.len();
            let unpadded = header.body_len as usize;
            bodies_bytes += unpadded;
            group.bytes.extend_from_slice(body);
            group.records.push(ScannedRecord {
                position: at,
                header,
                body: start..start + unpadded,
            });
            if header.is_first() != (index == 0) || header.index != index {
                return stop(Stop::BadGroup("records are out of order"));
            }
            if index == 0 {
                group.synced_through = header.synced_through;
            } else if header.synced_through != group.synced_through {
                return stop(Stop::BadGroup("synced_through differs within the group"));
            }
            if header.synced_through > group.start {
                return stop(Stop::BadGroup("synced_through is ahead of its own group"));
            }
            let seal = header.kind == RecordType::Seal;
            if seal && !(header.is_first() && header.is_last()) {
                return stop(Stop::BadGroup("a seal must be a group of its own"));
            }
            if body
                .get(unpadded..)
                .is_some_and(|padding| padding.iter().any(|&b| b != 0))
            {
                return stop(Stop::BadGroup("padding is not zero"));
            }
            let Some(next) = at.forward((RECORD_HEADER_BYTES + padded) as u64) else {
                return stop(Stop::BadGroup("a segment grows beyond 4 GiB"));
            };
            at = next;
            chain = next_chain;
            if header.is_last() {
                return Ok(Ok((at, chain)));
            }
        }
    }

    /// After a seal: the next segment must name the chain and place it
    /// continues from.
    fn enter_next_segment(&mut self) -> io::Result<()> {
        let number = self.segment.header.number.saturating_add(1);
        if number > self.last_segment {
            self.stop = Some(Stop::Sealed);
            self.stopped_at = self.end;
            return Ok(());
        }
        let at = Position::new(number, 0);
        let next = match open_segment(self.disk, number, Access::Read)? {
            Ok(next) => next,
            Err(error) => {
                self.stop = Some(Stop::BadSegment(error));
                self.stopped_at = at;
                return Ok(());
            }
        };
        let foreign = if next.header.store_id != self.segment.header.store_id {
            Some("it belongs to another store")
        } else if next.header.chain != self.chain || next.header.previous_end != self.end {
            Some("it continues other bytes than those before it")
        } else {
            None
        };
        if let Some(what) = foreign {
            self.stop = Some(Stop::ForeignSegment(what));
            self.stopped_at = at;
            return Ok(());
        }
        self.end = Position::new(number, SEGMENT_HEADER_LEN);
        self.chain = next.keys.start();
        self.segment = next;
        self.window = Window::default();
        self.bytes_read += u64::from(SEGMENT_HEADER_LEN);
        Ok(())
    }
}

/// [`SEGMENT_HEADER_BYTES`] as an offset.
#[allow(clippy::cast_possible_truncation)] // 128
pub(crate) const SEGMENT_HEADER_LEN: u32 = SEGMENT_HEADER_BYTES as u32;
