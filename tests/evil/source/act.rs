//! What happens on a stream.

use std::time::Duration;

use quinn::{Connection, SendStream, WriteError};
use tokio::net::UdpSocket;

/// Datagrams of a flood.
const FLOOD_DATAGRAMS: u32 = 20_000;
/// Streams it tries to open.
const FLOOD_STREAMS: usize = 1000;

/// One step of an answer. After the last one the stream ends, if it can.
#[derive(Debug)]
pub(crate) enum Act {
    /// These bytes.
    Bytes(Vec<u8>),
    /// One byte of these a second.
    Drip(Vec<u8>),
    /// These bytes, again and again.
    Endless(Vec<u8>),
    /// Nothing more, and no end.
    Silence,
    /// The stream is reset.
    Reset,
    /// The connection is closed.
    Close,
}

/// One byte a second: being slow is the attack, nothing waits for it.
pub(crate) async fn drip(send: &mut SendStream, bytes: &[u8]) -> Result<(), WriteError> {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    for byte in bytes {
        tick.tick().await;
        send.write_all(&[*byte]).await?;
    }
    Ok(())
}

/// Streams and datagrams nobody asked for: over the connection, which does not
/// let them through, and past it, at the mirror's socket.
pub(crate) async fn flood(connection: Connection) {
    let mut streams = tokio::task::JoinSet::new();
    for n in 0..FLOOD_STREAMS {
        let connection = connection.clone();
        streams.spawn(async move {
            if n % 2 == 0 {
                let _ = connection.open_uni().await;
            } else {
                let _ = connection.open_bi().await;
            }
        });
    }
    let _ = connection.send_datagram(vec![0; 1000].into());
    let Ok(socket) = UdpSocket::bind("127.0.0.1:0").await else {
        return;
    };
    let to = connection.remote_address();
    let mut datagram = vec![0u8; 1200];
    for n in 0..FLOOD_DATAGRAMS {
        // Long headers, short headers and noise.
        datagram[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_le_bytes());
        let _ = socket.send_to(&datagram, to).await;
        if connection.close_reason().is_some() {
            return;
        }
    }
    connection.closed().await;
}
