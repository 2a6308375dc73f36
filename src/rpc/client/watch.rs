//! Entries as they become durable, for as long as somebody listens. A broken
//! connection, or a server that is started again, is not seen from outside: the
//! watch asks again for what follows the last entry it handed out, of the same
//! origin.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Request, Streaming};

use super::checked::{self, Order};
use super::{Client, ClientError, answer, backoff};
use crate::entry::{ContextId, Entry};
use crate::rpc::proto::context as proto;

/// A stream that lasted so long was a good one, even if nothing came: failures
/// before it do not count any more.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// A failure is logged as a warning once there were so many in a row.
const TOLD_AFTER: u32 = 4;

/// The entries of a context, from a place on.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    context: ContextId,
    order: Order,
    stream: Option<Open>,
    /// In a row.
    failures: u32,
    /// Nothing is asked before this.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    events: Streaming<proto::WatchEvent>,
    since: Instant,
    /// Nothing came yet: the first event says whose context it is.
    is_new: bool,
}

impl Watch {
    pub(super) fn new(client: Client, context: ContextId, key: Option<&str>, from: u64) -> Self {
        Self {
            client,
            context,
            order: Order {
                key: key.unwrap_or_default().to_owned(),
                last: from,
            },
            stream: None,
            failures: 0,
            not_before: None,
        }
    }

    /// The sequence of the last entry that was handed out, or where the watch
    /// began: what to give to another watch to go on from here.
    #[must_use]
    pub const fn last_sequence(&self) -> u64 {
        self.order.last
    }

    /// The next entry, waited for however long it takes. A watch does not end
    /// by itself. It tries again as [`Retry`](super::Retry) says when the
    /// server is out of reach or busy; any other error is returned, and so is
    /// the last one when it gives up. The call can be cancelled without loss,
    /// and repeated after an error.
    pub async fn next(&mut self) -> Result<Entry, ClientError> {
        loop {
            match self.attempt().await {
                Ok(entry) => {
                    self.failures = 0;
                    return Ok(entry);
                }
                Err(error) => self.failed(error)?,
            }
        }
    }

    /// One entry from the stream, which is opened if need be.
    async fn attempt(&mut self) -> Result<Entry, ClientError> {
        if self.stream.is_none() {
            if let Some(at) = self.not_before {
                tokio::time::sleep_until(at).await;
                self.not_before = None;
            }
            self.open().await?;
        }
        let Some(open) = &mut self.stream else {
            return Err(ended());
        };
        let message = open.events.message().await;
        match message {
            Ok(Some(event)) => {
                if open.is_new {
                    open.is_new = false;
                    let origin = checked::origin(self.client.origin.as_ref(), &event.origin)?;
                    // What follows is asked for there, should the stream break.
                    if let Some(origin) = origin {
                        self.client.origin = Some(origin);
                    }
                }
                self.order.take(event.entry.unwrap_or_default())
            }
            Ok(None) => Err(ended()),
            Err(status) => Err(ClientError::of_call(&status, self.client.request_timeout)),
        }
    }

    async fn open(&mut self) -> Result<(), ClientError> {
        let message = proto::WatchRequest {
            context_id: self.context.as_str().to_owned(),
            key: self.order.key.clone(),
            from_sequence: self.order.last,
            origin: self.client.origin_field(),
        };
        let mut engine = self.client.engine.clone();
        // The deadline is for the beginning only; the server is not told one.
        let within = self.client.request_timeout;
        let events = answer(within, engine.watch(Request::new(message))).await?;
        let since = Instant::now();
        self.stream = Some(Open {
            events,
            since,
            is_new: true,
        });
        Ok(())
    }

    /// Decides whether to go on.
    fn failed(&mut self, error: ClientError) -> Result<(), ClientError> {
        let was_steady = self
            .stream
            .take()
            .is_some_and(|open| open.since.elapsed() >= STEADY_AFTER);
        if !may_pass(&error) {
            return Err(error);
        }
        self.failures = if was_steady { 1 } else { self.failures + 1 };
        let Some(wait) = self.client.retry.wait(self.failures, backoff::chance()) else {
            // Whoever asks all the same begins anew.
            self.failures = 0;
            return Err(error);
        };
        if self.failures == TOLD_AFTER {
            tracing::warn!(%error, "the server is out of reach or busy: the watch goes on asking");
        } else {
            tracing::debug!(%error, ?wait, after = self.order.last, "the watch asks again");
        }
        self.not_before = Some(Instant::now() + wait);
        Ok(())
    }
}

/// A server that ends a watch is about to go.
fn ended() -> ClientError {
    ClientError::Lost {
        reason: "the server ended the watch".into(),
    }
}

/// Whether asking again may help. All reads are safe to repeat, so everything
/// counts that is not known to stay as it is.
const fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. } | ClientError::Lost { .. } | ClientError::Timeout { .. } => {
            true
        }
        ClientError::Status { code, .. } => matches!(
            code,
            Code::Unavailable
                | Code::ResourceExhausted
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::Cancelled
                | Code::Unknown
                | Code::Internal
        ),
        _ => false,
    }
}
