//! Layer 4. Asks a node for its newest notes and nothing else: what an own
//! store's guard needs before it signs again.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use quinn::{Connection, Endpoint};

use super::drive::{Waits, connect, leave, lost_read, request_on};
use super::frames::is_finished;
use super::mirror::{CatchUpError, within};
use super::quic::CloseCode;
use super::tls::{NodeId, NodeKey};
use crate::sync::message::{Reply, Request};
use crate::sync::{LocalFault, PeerFault, SyncError};

/// The notes a node shows to one who shows `newest` (empty for none): rotations,
/// then its newest head. They are not verified. `deadline` is for everything.
pub async fn ask_head(
    endpoint: &Endpoint,
    key: &NodeKey,
    (address, peer): (SocketAddr, NodeId),
    newest: &[u8],
    deadline: Duration,
) -> Result<Vec<Vec<u8>>, CatchUpError> {
    let newest = newest.to_vec();
    let asking = async {
        let connection = connect(endpoint, key, (address, peer), deadline).await?;
        let result = exchange(&connection, newest, deadline).await;
        let code = result
            .as_ref()
            .map_or_else(CatchUpError::code, |_| CloseCode::Done);
        leave(&connection, code).await;
        result
    };
    within(Some(deadline), asking).await
}

async fn exchange(
    connection: &Connection,
    newest: Vec<u8>,
    deadline: Duration,
) -> Result<Vec<Vec<u8>>, CatchUpError> {
    let request = Request::Head { newest }
        .encode()
        .map_err(|error| SyncError::from(LocalFault::Message(error)))?;
    let mut recv = request_on(connection, &request, deadline).await?;
    let received = &AtomicU64::new(0);
    let waits = Waits { deadline, received };
    let frame = waits.frame(&mut recv).await?;
    let fault = |fault: PeerFault| CatchUpError::from(SyncError::from(fault));
    let what = "the head";
    let frame = frame
        .map_err(lost_read)?
        .ok_or_else(|| fault(PeerFault::EndedEarly { what }))?;
    let reply = Reply::decode(&frame).map_err(|error| fault(PeerFault::Malformed(error)))?;
    let notes = match reply {
        Reply::Head { notes } => notes,
        Reply::Refused(refusal) => return Err(fault(PeerFault::Refused { refusal })),
        _ => {
            let what = "another kind of reply";
            return Err(fault(PeerFault::WrongReply { what }));
        }
    };
    if !is_finished(&mut recv).await.map_err(lost_read)? {
        return Err(fault(PeerFault::Surplus { what }));
    }
    Ok(notes)
}
