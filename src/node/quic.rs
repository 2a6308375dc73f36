//! Layer 4. The QUIC endpoint: socket, explicit transport limits, close codes.
//!
//! Worst case of memory per peer: `RECEIVE_WINDOW_BYTES` + `SEND_WINDOW_BYTES`.
//! The library's own defaults allow 250 MB. MTU and congestion control are the
//! library's: raising them by hand was measured to be slower.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Once};
use std::time::Duration;

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, TransportConfig,
    VarInt,
};

use super::allow::Allowlist;
use super::tls::{self, NodeId, NodeKey};
use crate::hash::derive_key;

/// Bytes asked of the kernel for each direction of the socket.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Requests one peer may have open at a time.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 64;
/// Bytes a stream may have on the way to us.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes a connection may have on the way to us.
pub const RECEIVE_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes of ours a connection may have on the way.
pub const SEND_WINDOW_BYTES: u64 = 16 << 20;
/// A connection this long without a packet is dead.
pub const IDLE_TIMEOUT_MS: u32 = 30_000;
/// An idle connection is kept alive this often.
pub const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Handshakes that may wait to be taken up.
pub const INCOMING_MAX: usize = 256;
/// Bytes buffered for one waiting handshake.
pub const INCOMING_BYTES_MAX: u64 = 64 << 10;
/// Bytes buffered for all waiting handshakes.
pub const INCOMING_TOTAL_BYTES_MAX: u64 = 8 << 20;

const _: () = {
    assert!(STREAM_WINDOW_BYTES <= RECEIVE_WINDOW_BYTES);
    assert!(KEEP_ALIVE.as_millis() < IDLE_TIMEOUT_MS as u128);
};

/// Why a connection or a stream is ended; part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// The asker has what it wanted.
    Done = 0,
    /// This node is shutting down.
    ShuttingDown = 1,
    /// A limit on connections or streams is reached: come back later.
    Busy = 2,
    /// The peer sent something the protocol does not allow.
    Misbehaved = 3,
    /// A deadline passed.
    TimedOut = 4,
    /// This node failed; the peer is not to blame.
    Internal = 5,
    /// The peer's key was taken off the allowlist.
    NotAllowed = 6,
}

impl CloseCode {
    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    /// The reason sent with the code: its name, never a detail.
    #[must_use]
    pub const fn reason(self) -> &'static [u8] {
        match self {
            Self::Done => b"done",
            Self::ShuttingDown => b"shutting down",
            Self::Busy => b"busy",
            Self::Misbehaved => b"misbehaved",
            Self::TimedOut => b"timed out",
            Self::NotAllowed => b"not allowed",
            Self::Internal => b"internal",
        }
    }

    /// Closes a connection with this code.
    pub fn close(self, connection: &quinn::Connection) {
        connection.close(self.code(), self.reason());
    }
}

/// Why an endpoint could not be set up. Nothing is listening.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The socket could not be opened or set up.
    #[error("UDP socket on {address}: {source}")]
    Socket {
        /// The local address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The key or the allowlist was refused.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// An endpoint that serves the nodes in `allowed` and can call others.
pub fn listen(
    address: SocketAddr,
    key: &NodeKey,
    allowed: &Allowlist,
) -> Result<Endpoint, EndpointError> {
    let crypto = Arc::new(tls::server_config(key, allowed.clone())?);
    let mut config = quinn::ServerConfig::with_crypto(crypto);
    config
        .transport_config(Arc::new(transport(STREAMS_PER_CONNECTION_MAX)))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_TOTAL_BYTES_MAX);
    bind(address, endpoint_config(key), Some(config))
}

/// Any local address that can reach `remote`.
#[must_use]
pub const fn any_address(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        SocketAddr::V6(_) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    }
}

/// An endpoint that only calls others.
pub fn client(address: SocketAddr) -> Result<Endpoint, EndpointError> {
    bind(address, EndpointConfig::default(), None)
}

/// What tells a peer that a connection is gone. It follows from the node key, so
/// that a node that was killed can say so of connections that it does not know any
/// more (RFC 9000, 10.3), when the peer sends its next packet, and nobody has to
/// wait for the idle timeout.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let tag = blake3::keyed_hash(&self.0, data);
        for (out, byte) in signature_out.iter_mut().zip(tag.as_bytes()) {
            *out = *byte;
        }
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let tag = blake3::keyed_hash(&self.0, data);
        // Compares in constant time.
        let given = <[u8; blake3::OUT_LEN]>::try_from(signature).map_err(|_| CryptoError)?;
        if tag == given {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}

/// Random ids. Those that the library makes can be told from others only by the
/// process that has made them, and packets with others get no answer.
struct ConnectionIds(u64);

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.0 = self.0.wrapping_add(1);
        // Without randomness they are still distinct.
        let mut id = self.0.to_le_bytes();
        let _ = getrandom::fill(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        size_of::<u64>()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn endpoint_config(key: &NodeKey) -> EndpointConfig {
    let reset = derive_key("converge-ledger v1 node-reset", key.seed());
    let mut config = EndpointConfig::new(Arc::new(ResetKey(reset)));
    config.cid_generator(|| Box::new(ConnectionIds(0)));
    config
}

/// How to call `peer` as `key`.
pub fn client_config(key: &NodeKey, peer: NodeId) -> Result<quinn::ClientConfig, EndpointError> {
    Ok(client_config_from(tls::client_config(key, peer)?))
}

pub(super) fn client_config_from(
    crypto: quinn::crypto::rustls::QuicClientConfig,
) -> quinn::ClientConfig {
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    // A source opens no streams; the mirror asks.
    config.transport_config(Arc::new(transport(0)));
    config
}

fn transport(bidi_streams_max: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(bidi_streams_max))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE));
    transport
}

fn bind(
    address: SocketAddr,
    config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
) -> Result<Endpoint, EndpointError> {
    let failed = |source| EndpointError::Socket { address, source };
    let socket = UdpSocket::bind(address).map_err(failed)?;
    enlarge_buffers(&socket).map_err(failed)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    Endpoint::new(config, server, socket, runtime).map_err(failed)
}

/// Without this, thousands of packets are lost on a fast link.
fn enlarge_buffers(socket: &UdpSocket) -> io::Result<()> {
    let options = socket2::SockRef::from(socket);
    options.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    options.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    // Linux reports twice what it grants.
    let (recv_bytes, send_bytes) = (options.recv_buffer_size()?, options.send_buffer_size()?);
    if recv_bytes < SOCKET_BUFFER_BYTES || send_bytes < SOCKET_BUFFER_BYTES {
        // The same for every socket.
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            tracing::warn!(
                recv_bytes,
                send_bytes,
                wanted_bytes = SOCKET_BUFFER_BYTES,
                "the kernel clipped the socket buffers: raise net.core.rmem_max and wmem_max"
            );
        });
    }
    Ok(())
}
