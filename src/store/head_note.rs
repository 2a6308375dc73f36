//! The file `head.note`: the last signed head and where its group ends in the
//! log, outside the log on purpose, so that a log that lost its end is noticed.
//!
//! One line `log <segment> <offset> <chain, hex>`, then the note as it is:
//! `tail -n +2 head.note` is a plain signed note.

use super::disk::{Disk, replace_atomically};
use super::layout::read_optional;
use super::record::{Position, Short};
use super::{Damage, StoreError};
use crate::limits::NOTE_BYTES_MAX;

/// The file's name.
pub(crate) const HEAD_NOTE_FILE: &str = "head.note";
/// `log `, two numbers of ten digits, 32 hexadecimal digits, spaces.
const LINE_BYTES_MAX: usize = 4 + 10 + 1 + 10 + 1 + 32 + 1;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeadNote {
    /// The end of the head record's group.
    pub(crate) position: Position,
    /// The chain there.
    pub(crate) chain: Short,
    pub(crate) note: Vec<u8>,
}

impl HeadNote {
    fn encode(&self) -> Vec<u8> {
        use std::fmt::Write as _;
        let mut line = format!(
            "log {} {} ",
            self.position.segment(),
            self.position.offset()
        );
        for byte in self.chain {
            // Writing to a String cannot fail.
            let _ = write!(line, "{byte:02x}");
        }
        line.push('\n');
        let mut bytes = line.into_bytes();
        bytes.extend_from_slice(&self.note);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let at = bytes
            .iter()
            .take(LINE_BYTES_MAX)
            .position(|&b| b == b'\n')?;
        let (line, note) = bytes.split_at_checked(at + 1)?;
        let mut words = std::str::from_utf8(line).ok()?.trim_end().split(' ');
        if words.next() != Some("log") {
            return None;
        }
        let segment = words.next()?.parse().ok()?;
        let offset = words.next()?.parse().ok()?;
        let hex = words.next()?;
        let mut chain = Short::default();
        if hex.len() != 2 * chain.len() || !hex.is_ascii() {
            return None;
        }
        for (i, byte) in chain.iter_mut().enumerate() {
            *byte = u8::from_str_radix(hex.get(2 * i..2 * i + 2)?, 16).ok()?;
        }
        let position = Position::new(segment, offset);
        let read = Self {
            position,
            chain,
            note: note.to_vec(),
        };
        // One spelling only.
        (words.next().is_none() && read.encode() == bytes).then_some(read)
    }

    /// Reads the file, if there is one. It is only ever replaced whole, so a
    /// file that cannot be read is damage.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Self>, StoreError> {
        let bytes_max = (LINE_BYTES_MAX + NOTE_BYTES_MAX) as u64;
        let Some(bytes) = read_optional(disk, HEAD_NOTE_FILE, bytes_max)? else {
            return Ok(None);
        };
        Self::decode(&bytes).map(Some).ok_or_else(|| {
            StoreError::Damaged(Damage {
                position: Position::default(),
                vouched: Position::default(),
                reason: "head.note is damaged: it cannot be read".into(),
            })
        })
    }

    /// Replaces the file: a crash leaves the old or the new one.
    pub(crate) fn replace(&self, disk: &dyn Disk) -> std::io::Result<()> {
        replace_atomically(disk, HEAD_NOTE_FILE, &self.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::MemoryDisk;

    #[test]
    fn the_file_has_one_spelling() {
        let note = HeadNote {
            position: Position::new(3, 640),
            chain: [0xab; 16],
            note: b"text\n\nsig\n".to_vec(),
        };
        let bytes = note.encode();
        assert_eq!(HeadNote::decode(&bytes), Some(note.clone()));
        for at in 0..bytes.len().min(50) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x20;
            assert_ne!(HeadNote::decode(&changed), Some(note.clone()), "byte {at}");
        }
        assert_eq!(HeadNote::decode(b"log 03 640 "), None);
        let disk = MemoryDisk::new();
        note.replace(&disk).unwrap();
        note.replace(&disk).unwrap();
        assert_eq!(HeadNote::read(&disk).unwrap(), Some(note));
    }
}
