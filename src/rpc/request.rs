//! Layer 4. The body of a request as the guard lets it through: the length of
//! a message is looked at before the message is buffered.
//!
//! ```text
//! flag u8 | length u32 big-endian | message | flag ...
//! ```
//!
//! Invariants: no message is passed on that is larger than its call may send,
//! or for which the server has no room; the room is held until the call has
//! been answered, not only until it has been read.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;

/// Bytes before each message.
const PREFIX_BYTES: usize = 5;

/// Room taken for a call's message: shared by its request and its reply.
#[derive(Clone, Debug, Default)]
pub(super) struct Charge(Arc<Mutex<Charged>>);

#[derive(Debug, Default)]
struct Charged {
    permit: Option<OwnedSemaphorePermit>,
    bytes: u64,
}

impl Charge {
    fn take(&self, room: &Arc<Semaphore>, bytes: usize) -> Result<(), Status> {
        let mut charged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Of a stream of messages one is looked at at a time.
        charged.permit = None;
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(room).try_acquire_many_owned(count) else {
            return Err(Status::resource_exhausted(
                "the server is working on as many bytes of requests as it may: try again",
            ));
        };
        charged.permit = Some(permit);
        charged.bytes += bytes as u64;
        Ok(())
    }

    /// Bytes of the messages that were let through.
    pub(super) fn bytes(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
}

/// See the module.
pub(super) struct RequestBody {
    inner: Body,
    /// Bytes of one message.
    limit: usize,
    /// Messages that may still come; `None` for as many as wanted.
    messages_left: Option<usize>,
    room: Arc<Semaphore>,
    charge: Charge,
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    message_left: usize,
}

impl RequestBody {
    pub(super) fn new(
        inner: Body,
        limit: usize,
        several: bool,
        room: Arc<Semaphore>,
        charge: Charge,
    ) -> Self {
        Self {
            inner,
            limit,
            messages_left: (!several).then_some(1),
            room,
            charge,
            prefix: [0; PREFIX_BYTES],
            prefix_len: 0,
            message_left: 0,
        }
    }

    /// Walks over what has arrived.
    fn look_at(&mut self, mut bytes: &[u8]) -> Result<(), Status> {
        while !bytes.is_empty() {
            if self.message_left > 0 {
                let passed = self.message_left.min(bytes.len());
                self.message_left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let missing = (PREFIX_BYTES - self.prefix_len).min(bytes.len());
            let (now, later) = bytes.split_at(missing);
            self.prefix[self.prefix_len..self.prefix_len + missing].copy_from_slice(now);
            self.prefix_len += missing;
            bytes = later;
            if self.prefix_len == PREFIX_BYTES {
                self.prefix_len = 0;
                self.begin_message()?;
            }
        }
        Ok(())
    }

    fn begin_message(&mut self) -> Result<(), Status> {
        let [_, a, b, c, d] = self.prefix;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        match &mut self.messages_left {
            None => (),
            Some(0) => {
                return Err(Status::invalid_argument(
                    "more than one message: this call takes one",
                ));
            }
            Some(left) => *left -= 1,
        }
        if length > self.limit {
            let limit = self.limit;
            return Err(Status::resource_exhausted(format!(
                "a message of {length} bytes is too large: this call takes {limit} bytes"
            )));
        }
        self.charge.take(&self.room, length)?;
        self.message_left = length;
        Ok(())
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        if let Some(bytes) = frame.data_ref()
            && let Err(status) = self.look_at(bytes)
        {
            return Poll::Ready(Some(Err(status)));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(limit: usize, several: bool, room: &Arc<Semaphore>) -> RequestBody {
        let (room, charge) = (Arc::clone(room), Charge::default());
        RequestBody::new(Body::empty(), limit, several, room, charge)
    }

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        bytes.extend(vec![7; length]);
        bytes
    }

    #[test]
    fn lengths_are_seen_however_the_bytes_arrive() {
        let room = Arc::new(Semaphore::new(1000));
        for step in 1..20 {
            let mut body = body(10, true, &room);
            let mut bytes = message(10);
            bytes.extend(message(0));
            bytes.extend(message(3));
            for part in bytes.chunks(step) {
                body.look_at(part).unwrap();
            }
            assert_eq!(body.charge.bytes(), 13);
            assert_eq!(room.available_permits(), 997);
            let seen: Result<Vec<()>, Status> = message(11)
                .chunks(step)
                .map(|part| body.look_at(part))
                .collect();
            assert_eq!(seen.unwrap_err().code(), tonic::Code::ResourceExhausted);
            drop(body);
            assert_eq!(room.available_permits(), 1000);
        }
    }

    #[test]
    fn a_second_message_is_refused_where_one_is_due() {
        let room = Arc::new(Semaphore::new(1000));
        let mut body = body(10, false, &room);
        body.look_at(&message(2)).unwrap();
        let status = body.look_at(&message(0)).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn without_room_a_message_is_refused_and_with_it_taken() {
        let room = Arc::new(Semaphore::new(10));
        let mut first = body(10, false, &room);
        first.look_at(&message(8)).unwrap();
        let status = body(10, false, &room).look_at(&message(3)).unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        let reply = first.charge.clone();
        drop(first);
        assert_eq!(room.available_permits(), 2);
        drop(reply);
        body(10, false, &room).look_at(&message(10)).unwrap();
    }
}
