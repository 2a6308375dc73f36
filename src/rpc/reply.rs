//! Layer 4. The body of a reply as the guard hands it out: it holds what the
//! call has taken until the reply has been given away, and says in the log how
//! the call ended.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::Span;

use super::request::Charge;

/// Room for a reply. Goes from the service to the guard with the reply.
#[derive(Clone, Debug)]
pub(super) struct ReplyPermit(Arc<Mutex<OwnedSemaphorePermit>>);

impl ReplyPermit {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Mutex::new(permit)))
    }

    /// Gives back what is not needed.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let mut permit = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let surplus = permit.num_permits().saturating_sub(bytes);
        drop(permit.split(surplus));
    }
}

/// What a call holds while it is answered.
#[expect(dead_code, reason = "held, and given back by being dropped")]
pub(super) struct Held {
    pub(super) seat: OwnedSemaphorePermit,
    pub(super) charge: Charge,
    pub(super) reply: Option<ReplyPermit>,
}

/// What is said of a call when it is over.
pub(super) struct Account {
    pub(super) span: Span,
    pub(super) began: Instant,
    /// Known from the headers if there is no body, from the trailers else.
    pub(super) code: Option<Code>,
    pub(super) request_bytes: u64,
    pub(super) reply_bytes: u64,
}

impl Account {
    pub(super) fn hear(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get(Status::GRPC_STATUS) {
            self.code = Some(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Without a code the client went away before it was told.
        let code = self.code.unwrap_or(Code::Cancelled);
        self.span.in_scope(|| {
            tracing::debug!(
                ?code,
                request_bytes = self.request_bytes,
                reply_bytes = self.reply_bytes,
                ms = self.began.elapsed().as_millis(),
                "answered"
            );
        });
    }
}

/// See the module.
pub(super) struct ReplyBody {
    inner: Body,
    /// Ends the stream when it completes.
    ends: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    account: Account,
    held: Option<Held>,
    ended: bool,
}

impl ReplyBody {
    pub(super) fn new(
        inner: Body,
        ends: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
        account: Account,
        held: Option<Held>,
    ) -> Self {
        Self {
            inner,
            ends,
            account,
            held,
            ended: false,
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.held = None;
    }
}

impl HttpBody for ReplyBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Pending => (),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(bytes) = frame.data_ref() {
                    this.account.reply_bytes += bytes.len() as u64;
                } else if let Some(trailers) = frame.trailers_ref() {
                    this.account.hear(trailers);
                    this.end();
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(other) => {
                this.end();
                return Poll::Ready(other);
            }
        }
        let Some(ends) = &mut this.ends else {
            return Poll::Pending;
        };
        if ends.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let mut trailers = HeaderMap::new();
        let status = Status::unavailable("the server is shutting down: ask again");
        // Fails only if the message cannot be a header.
        let _ = status.add_header(&mut trailers);
        this.account.hear(&trailers);
        this.end();
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Frames of its own may follow.
        match self.ends {
            Some(_) => SizeHint::default(),
            None => self.inner.size_hint(),
        }
    }
}
