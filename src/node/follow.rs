//! Layer 4. Follows a source: one sync after the other over one connection, each
//! begun by a head that the source tells; and a new connection when that ends.
//!
//! ```text
//!  connect --> sync --> Follow? --> head told --> sync --> head told --> ...
//!     ^                                 |
//!     +------ wait, longer each time ---+-- the connection ends, the peer fails
//! ```
//!
//! Invariants:
//! * what is told is judged like what is asked for; of several heads that were
//!   told during a sync only the newest is looked at;
//! * a peer's fault ends its connection, and it is tried again; a fault of this
//!   side, or a contradiction of the origin, ends everything: nobody else can
//!   mend those.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use quinn::{Connection, Endpoint, RecvStream};
use tokio::sync::watch;

use super::drive::{connect, leave, lost_read, request_on};
use super::frames::read_frame;
use super::mirror::{CatchUp, CatchUpError, log, sync_over};
use super::tls::NodeKey;
use crate::ledger::{ReadMirror, StoreMirror};
use crate::sync::message::Request;
use crate::sync::{LocalFault, Report, SyncError, Telling, Told};

/// The first wait after a connection that failed; twice as long each time.
const RETRY_MIN: Duration = Duration::from_millis(200);
/// The longest wait.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Follows one source until `shutdown`, or until something is wrong that trying
/// again cannot mend. `done` hears of every sync that ended well, on this task.
pub async fn follow<S: StoreMirror + 'static>(
    endpoint: &Endpoint,
    key: &NodeKey,
    store: Arc<S>,
    config: &CatchUp,
    mut done: impl FnMut(Report),
    shutdown: impl Future<Output = ()>,
) -> Result<(), CatchUpError> {
    let mut shutdown = std::pin::pin!(shutdown);
    let mut failures = 0u32;
    loop {
        let place = (config.address, config.peer);
        let session = async {
            let connection = connect(endpoint, key, place, config.connect_deadline).await?;
            let mut synced = |report, told| {
                // That it can be reached is not enough: a source that tells
                // nobody would be called again and again.
                if told {
                    failures = 0;
                }
                done(report);
            };
            let error = session(&connection, &store, config, &mut synced).await;
            leave(&connection, error.code()).await;
            Err::<(), _>(error)
        };
        let error = tokio::select! {
            () = &mut shutdown => return Ok(()),
            ended = session => match ended {
                Ok(()) => continue,
                Err(error) => error,
            },
        };
        if !error.may_pass() {
            return Err(error);
        }
        let wait = retry_after(failures);
        failures = failures.saturating_add(1);
        tracing::warn!(
            peer = %config.peer, %error, wait_ms = wait.as_millis(),
            "not following; will be tried again"
        );
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            () = tokio::time::sleep(wait) => (),
        }
    }
}

/// Between half of the wait and all of it, so that mirrors that lost a source
/// together do not come back together.
fn retry_after(failures: u32) -> Duration {
    let whole = RETRY_MIN
        .saturating_mul(1 << failures.min(16))
        .min(RETRY_MAX);
    let mut byte = [0u8; 1];
    // Without randomness the whole wait.
    let part = getrandom::fill(&mut byte).map_or(u32::from(u8::MAX), |()| u32::from(byte[0]));
    whole / 2 + whole / 2 * part / u32::from(u8::MAX)
}

/// Syncs over a connection until it fails. `done` hears too whether the sync
/// began with a head that was told.
async fn session<S: StoreMirror + 'static>(
    connection: &Connection,
    store: &Arc<S>,
    config: &CatchUp,
    done: &mut impl FnMut(Report, bool),
) -> CatchUpError {
    let mut told = None;
    // The newest head that was told and not looked at.
    let (tell, mut heads) = watch::channel(None::<Told>);
    let mut listening = None;
    loop {
        let was_told = told.is_some();
        let synced = sync_over(connection, Arc::clone(store), config, told.take(), |_| ()).await;
        log(config.peer, &synced);
        match synced {
            Ok(report) => done(report, was_told),
            Err(error) => return error,
        }
        let listening = if let Some(listening) = &mut listening {
            listening
        } else {
            let stream = match ask(connection, &**store, config).await {
                Ok(stream) => stream,
                Err(error) => return error,
            };
            listening.insert(Box::pin(listen(stream, &tell)))
        };
        tokio::select! {
            error = listening => return error,
            // The sender is here.
            _ = heads.changed() => told.clone_from(&heads.borrow_and_update()),
        }
    }
}

/// Asks to be told heads from the newest on that is complete.
async fn ask<S: StoreMirror>(
    connection: &Connection,
    store: &S,
    config: &CatchUp,
) -> Result<RecvStream, CatchUpError> {
    let complete = store.view().complete_head();
    let complete = complete.map_err(|error| CatchUpError::Sync(LocalFault::read(error)))?;
    let newest = complete.map(|head| head.note_bytes()).unwrap_or_default();
    let request = Request::Follow { newest }.encode();
    let request = request.map_err(|error| SyncError::from(LocalFault::Message(error)))?;
    request_on(connection, &request, config.frame_deadline).await
}

/// Takes every head that is told. A source that has nothing new says nothing, so
/// there is no deadline but the connection's own.
async fn listen(mut stream: RecvStream, tell: &watch::Sender<Option<Told>>) -> CatchUpError {
    let received = AtomicU64::new(0);
    let mut telling = Telling::default();
    loop {
        let frame = match read_frame(&mut stream, &received).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return CatchUpError::TimedOut { what: "heads" },
            Err(error) => return lost_read(error),
        };
        match telling.frame(&frame) {
            Ok(None) => {}
            Ok(Some(told)) => _ = tell.send_replace(Some(told)),
            Err(fault) => return SyncError::from(fault).into(),
        }
    }
}
