//! Layer 4. A node to be called: whom we talk to, and where.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use super::tls::NodeId;

/// Peers of one origin.
pub const PEERS_MAX: usize = 16;
/// Addresses of one name that are tried, in turn.
const ADDRESSES_MAX: usize = 8;
/// A name must have been looked up by then.
const LOOK_UP_WITHIN: Duration = Duration::from_secs(5);

/// A node to be called: `NODEKEY@HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its node key: whom we talk to.
    pub id: NodeId,
    /// Where it listens, `host:port`. Names are looked up at every call.
    pub address: String,
}

/// Why a text names no peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No `@`.
    #[error("not NODEKEY@HOST:PORT")]
    Parts,
    /// The part before the `@`.
    #[error("a node key has 64 lower-case hexadecimal digits (`keys` prints it)")]
    Key,
    /// The part after it.
    #[error("{0:?} is not host:port")]
    Address(String),
}

impl FromStr for Peer {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let (id, address) = text.split_once('@').ok_or(PeerError::Parts)?;
        let id = NodeId::from_hex(id).ok_or(PeerError::Key)?;
        let is_whole = address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if !is_whole {
            return Err(PeerError::Address(address.to_owned()));
        }
        let address = address.to_owned();
        Ok(Self { id, address })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.address)
    }
}

impl Peer {
    /// Where it is now, according to the resolver: none if that does not answer.
    pub(super) async fn look_up(&self) -> Vec<SocketAddr> {
        let asked = tokio::net::lookup_host(self.address.as_str());
        match tokio::time::timeout(LOOK_UP_WITHIN, asked).await {
            Ok(Ok(found)) => found.take(ADDRESSES_MAX).collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_key_and_an_address() {
        let key = "0b".repeat(32);
        let text = format!("{key}@[::1]:7000");
        let peer: Peer = text.parse().unwrap();
        assert_eq!(
            (peer.address.as_str(), peer.to_string()),
            ("[::1]:7000", text)
        );
        let refused = |text: &str| text.parse::<Peer>().unwrap_err();
        assert_eq!(refused("host:1"), PeerError::Parts);
        assert_eq!(refused("0b@host:1"), PeerError::Key);
        for address in ["", "host", "host:", ":1", "host:0", "host:65536"] {
            let error = refused(&format!("{key}@{address}"));
            assert_eq!(error, PeerError::Address(address.to_owned()));
        }
    }
}
