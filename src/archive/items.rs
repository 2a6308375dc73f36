//! Layer 3. What the bodies of sections are lists of, item by item.
//!
//! ```text
//! runs       length u32 | run
//! payloads   hash 32 | length u32 | bytes
//! ```
//!
//! Invariant: a payload is looked at only if it is the one that is wanted next,
//! of the length its entry says, so none longer than 4 MiB is read.

use std::io::Read;

use super::fault::{Fault, ReadError};
use super::fold::Wanted;
use super::input::Body;
use crate::encoding::{DecodeError, Reader};
use crate::hash::Stream;
use crate::limits::{ARCHIVE_PAYLOAD_FIXED_BYTES, ARCHIVE_SECTION_BYTES_MAX};

/// The next run of a section's body.
pub(super) fn next_run<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
    if reader.remaining() == 0 {
        return Ok(None);
    }
    let bytes = reader.u32("run length")? as usize;
    reader.bytes("run", bytes).map(Some)
}

/// What stands in front of a payload.
pub(super) fn payload_item<R: Read>(body: &mut Body<'_, R>) -> Result<Wanted, ReadError> {
    let mut fixed = [0; ARCHIVE_PAYLOAD_FIXED_BYTES];
    let at = body.at()..body.end();
    body.fill("payload's hash and length", &mut fixed)?;
    let mut reader = Reader::new(&fixed);
    let malformed = |why| ReadError::new(at.clone(), Fault::Section(why));
    Ok(Wanted {
        hash: reader.hash("payload's hash").map_err(malformed)?,
        bytes: reader.u32("payload's length").map_err(malformed)?,
    })
}

/// Reads a section of payloads, which must begin with the first of `wanted`;
/// how many of them there were. `before` is how long the section of payloads
/// before it was.
pub(super) fn payload_items<R: Read>(
    body: &mut Body<'_, R>,
    wanted: &[Wanted],
    before: Option<u64>,
) -> Result<usize, ReadError> {
    let mut given = 0;
    while body.left() > 0 {
        let start = body.at();
        let found = payload_item(body)?;
        let here = start..body.at();
        let refuse = |fault| Err(ReadError::new(here.clone(), fault));
        let hash = found.hash;
        let Some(next) = wanted.get(given) else {
            return refuse(Fault::SurplusPayload { hash });
        };
        if next.hash != hash {
            // One that is to come later is not surplus: the next one is missing.
            return refuse(if wanted[given..].iter().any(|later| later.hash == hash) {
                Fault::MissingPayload { hash: next.hash }
            } else {
                Fault::SurplusPayload { hash }
            });
        }
        if next.bytes != found.bytes {
            return refuse(Fault::PayloadLength {
                hash,
                expected: next.bytes,
                found: found.bytes,
            });
        }
        let bytes = u64::from(found.bytes);
        let item = ARCHIVE_PAYLOAD_FIXED_BYTES as u64 + bytes;
        if given == 0
            && before.is_some_and(|before| before + item <= ARCHIVE_SECTION_BYTES_MAX as u64)
        {
            return refuse(Fault::Underfull);
        }
        let mut content = Stream::content();
        body.pass("payload", bytes, |chunk| _ = content.update(chunk))?;
        if content.finish() != hash {
            return Err(ReadError::new(start..body.at(), Fault::Payload { hash }));
        }
        given += 1;
    }
    if given == 0 {
        let what = "a section of payloads without payloads";
        let fault = Fault::Section(DecodeError::Invalid { what });
        return Err(ReadError::new(body.start()..body.end(), fault));
    }
    Ok(given)
}
