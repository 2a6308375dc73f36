//! Layer 4. Whole frames on a QUIC stream.
//!
//! Memory follows what has arrived, never what a length promises.

use std::sync::atomic::{AtomicU64, Ordering};

use quinn::{ReadError, RecvStream};

use crate::encoding::DecodeError;
use crate::sync::message::{FRAME_HEADER_BYTES, FrameHeader};

/// Bytes set aside for a frame before any of them has arrived.
const FRAME_RESERVE_BYTES: usize = 64 << 10;

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    /// The stream or the connection broke.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The frame's header is not allowed.
    #[error(transparent)]
    Header(#[from] DecodeError),
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Cut,
}

/// The next frame, header included, or `None` at the clean end of the stream.
/// `received` grows with every byte of it that arrives.
pub(super) async fn read_frame(
    stream: &mut RecvStream,
    received: &AtomicU64,
) -> Result<Option<Vec<u8>>, FrameError> {
    let mut frame = Vec::new();
    fill(stream, &mut frame, FRAME_HEADER_BYTES, received).await?;
    let Some(header) = frame.first_chunk() else {
        return if frame.is_empty() {
            Ok(None)
        } else {
            Err(FrameError::Cut)
        };
    };
    let frame_bytes = FRAME_HEADER_BYTES + FrameHeader::decode(header)?.body_bytes;
    frame.reserve(frame_bytes.min(FRAME_RESERVE_BYTES));
    fill(stream, &mut frame, frame_bytes, received).await?;
    if frame.len() < frame_bytes {
        return Err(FrameError::Cut);
    }
    Ok(Some(frame))
}

/// True if the stream ends here.
pub(super) async fn is_finished(stream: &mut RecvStream) -> Result<bool, FrameError> {
    Ok(stream.read_chunk(1, true).await?.is_none())
}

/// Reads until `frame` has `len` bytes or the stream ends.
async fn fill(
    stream: &mut RecvStream,
    frame: &mut Vec<u8>,
    len: usize,
    received: &AtomicU64,
) -> Result<(), FrameError> {
    while frame.len() < len {
        match stream.read_chunk(len - frame.len(), true).await? {
            Some(chunk) => {
                received.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
                frame.extend_from_slice(&chunk.bytes);
            }
            None => break,
        }
    }
    Ok(())
}
