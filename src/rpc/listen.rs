//! Layer 4. Takes up connections: at most so many, each only when it has shown
//! within a deadline that it speaks HTTP/2, by TLS if the server has it.
//!
//! ```text
//! accept -> seat? -> lane -> task: [deadline: TLS -> 24 bytes of preface] -> server
//! ```

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use super::lane::{Arrival, Entrance, Seat};

/// The first bytes of every HTTP/2 connection.
const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait when the system has no place for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that wait to be taken up by the server.
const READY_MAX: usize = 64;

/// What a connection has to pass.
pub(super) struct Handshake {
    pub(super) tls: Option<TlsAcceptor>,
    /// The preface must be there by then, TLS included.
    pub(super) deadline: Duration,
    /// Connections are cut when this turns true or its sender is gone.
    pub(super) cut: watch::Receiver<bool>,
}

/// Connections that speak HTTP/2, for the server.
pub(super) struct Incoming(mpsc::Receiver<Connection>);

impl Stream for Incoming {
    type Item = Result<Connection, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|next| next.map(Ok))
    }
}

/// Accepts connections, at most so many at a time, and sends each to the lane
/// that has the fewest. When this is dropped nothing is listening any more.
pub(super) async fn accept(listener: TcpListener, connections_max: usize, lanes: Vec<Entrance>) {
    let seats = Arc::new(Semaphore::new(connections_max));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not take up a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
            tracing::info!(%address, "closed: there are as many connections as there may be");
            continue;
        };
        let lane = lanes.iter().min_by_key(|lane| lane.connections());
        let is_in = match (lane, stream.into_std()) {
            (Some(lane), Ok(stream)) => lane.send(stream, address, seat),
            _ => false,
        };
        if !is_in {
            tracing::info!(%address, "closed: too many connections at once");
        }
    }
}

/// The connections of a lane, and what has to run for them to come.
pub(super) fn take_up(
    arrivals: mpsc::Receiver<Arrival>,
    handshake: Handshake,
) -> (Incoming, impl Future<Output = ()>) {
    let (sender, receiver) = mpsc::channel(READY_MAX);
    (Incoming(receiver), shake_hands(arrivals, handshake, sender))
}

async fn shake_hands(
    mut arrivals: mpsc::Receiver<Arrival>,
    handshake: Handshake,
    ready: mpsc::Sender<Connection>,
) {
    // No more than there are seats.
    let mut handshakes = JoinSet::new();
    loop {
        let arrival = tokio::select! {
            Some(_) = handshakes.join_next() => continue,
            arrival = arrivals.recv() => arrival,
        };
        let Some(Arrival {
            stream,
            address,
            seat,
        }) = arrival
        else {
            return;
        };
        let tls = handshake.tls.clone();
        let cut = handshake.cut.clone();
        let deadline = handshake.deadline;
        let ready = ready.clone();
        handshakes.spawn(async move {
            match timeout(deadline, Connection::begin(stream, tls, seat, cut)).await {
                Ok(Ok(connection)) => _ = ready.send(connection).await,
                Ok(Err(error)) => tracing::debug!(%address, %error, "connection refused"),
                Err(_) => tracing::debug!(%address, "the handshake took too long"),
            }
        });
    }
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection whose preface has been read and is told again.
pub(super) struct Connection {
    io: Io,
    /// Bytes of the preface that were told.
    told: usize,
    cutting: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_cut: bool,
    _seat: Seat,
}

impl Connection {
    async fn begin(
        stream: std::net::TcpStream,
        tls: Option<TlsAcceptor>,
        seat: Seat,
        mut cut: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let stream = TcpStream::from_std(stream)?;
        stream.set_nodelay(true)?;
        let mut io = match tls {
            None => Io::Plain(stream),
            Some(tls) => Io::Tls(Box::new(tls.accept(stream).await?)),
        };
        let mut preface = [0; PREFACE.len()];
        match &mut io {
            Io::Plain(stream) => stream.read_exact(&mut preface).await?,
            Io::Tls(stream) => stream.read_exact(&mut preface).await?,
        };
        if preface != PREFACE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it does not speak HTTP/2",
            ));
        }
        Ok(Self {
            io,
            told: 0,
            cutting: Box::pin(async move { _ = cut.wait_for(|cut| *cut).await }),
            is_cut: false,
            _seat: seat,
        })
    }

    fn check_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.is_cut = self.is_cut || self.cutting.as_mut().poll(cx).is_ready();
        if self.is_cut {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A connection is always being read: this is where it is woken.
        self.check_cut(cx)?;
        if self.told < PREFACE.len() {
            let rest = &PREFACE[self.told..];
            let now = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..now]);
            self.told += now;
            return Poll::Ready(Ok(()));
        }
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

/// Not vectored: then replies of a kilobyte or less are put together before they
/// are written, where a vectored one would be written by itself.
impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A peer that takes no more bytes must not hold the connection.
        self.check_cut(cx)?;
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// Whether only this machine can reach an address.
pub(super) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}
