//! Layer 4. Who may talk to whom: TLS 1.3 with Ed25519 raw public keys
//! (RFC 7250) in both directions, and nothing else.
//!
//! Invariants:
//! * a node is its key; there are no certificates, names or authorities;
//! * a server lets in the keys on its allowlist, and an empty list lets in
//!   nobody; a client talks to the one key it was given;
//! * no session is ever resumed and no early data taken: both would go past
//!   the verifier, and a key taken off the list would come back;
//! * the seed of a key is wiped from memory and never printed.
//!
//! A client's handshake succeeds before the server has judged the client's
//! key. Only an answer to a request shows that one is let in.

use std::fmt;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime, alg_id,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};
use zeroize::Zeroizing;

use super::allow::Allowlist;
use crate::hash::Hash;

/// The protocol spoken after the handshake; another version, another name.
pub const ALPN: &[u8] = b"converge-ledger/1";
/// Clients send no name, but the library wants one.
pub(super) const SERVER_NAME: &str = "node.invalid";

/// PKCS#8 version 1 of an Ed25519 seed is these bytes and the seed.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
];

/// A node's public key: 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// Wraps a public key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The public key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses exactly what [`fmt::Display`] prints.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        Hash::from_hex(text).map(|digits| Self(*digits.as_bytes()))
    }

    fn spki(&self) -> SubjectPublicKeyInfoDer<'static> {
        rustls::sign::public_key_to_spki(&alg_id::ED25519, self.0)
    }

    /// The key in a peer's SPKI, if that is Ed25519 and nothing else.
    fn from_spki(der: &[u8]) -> Option<Self> {
        let (_, key) = der.split_last_chunk::<32>()?;
        let id = Self(*key);
        (id.spki().as_ref() == der).then_some(id)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hash::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A node's secret key: the 32-byte Ed25519 seed.
#[derive(Clone)]
pub struct NodeKey(Zeroizing<[u8; 32]>);

impl NodeKey {
    /// Wraps a seed. Seeds come from the operating system's randomness.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// The seed, to be written to a file only its owner can read.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> NodeId {
        let key = ed25519_dalek::SigningKey::from_bytes(&self.0);
        NodeId(key.verifying_key().to_bytes())
    }

    fn certified(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
        // The DER is handed over and wiped by nobody but the allocator's next
        // user; rustls offers no other way in.
        let der = [&PKCS8_PREFIX[..], &self.0[..]].concat();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der));
        let key = provider.key_provider.load_private_key(der)?;
        let spki = CertificateDer::from(self.id().spki().to_vec());
        Ok(Arc::new(CertifiedKey::new(vec![spki], key)))
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({}, seed withheld)", self.id())
    }
}

/// The key a connected peer has proven to hold.
#[must_use]
pub fn peer_id(connection: &quinn::Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?;
    let certificates = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match certificates.as_slice() {
        [one] => NodeId::from_spki(one.as_ref()),
        _ => None,
    }
}

/// Lets in the keys of a list.
#[derive(Debug)]
struct Verifier {
    allowed: Allowlist,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn check(&self, key: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<(), Error> {
        let known = NodeId::from_spki(key.as_ref()).is_some_and(|id| self.allowed.allows(&id));
        if known && rest.is_empty() {
            Ok(())
        } else {
            Err(CertificateError::UnknownIssuer.into())
        }
    }

    fn signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signed, &self.algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(key, rest)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(key, rest)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn verifier(allowed: Allowlist) -> (Arc<CryptoProvider>, Arc<Verifier>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Verifier {
        allowed,
        algorithms: provider.signature_verification_algorithms,
    });
    (provider, verifier)
}

fn no_initial_suite(error: impl fmt::Display) -> Error {
    Error::General(error.to_string())
}

/// TLS of a node that serves the nodes in `allowed`.
pub fn server_config(key: &NodeKey, allowed: Allowlist) -> Result<QuicServerConfig, Error> {
    let (provider, verifier) = verifier(allowed);
    let own = Arc::new(AlwaysResolvesServerRawPublicKeys::new(
        key.certified(&provider)?,
    ));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    QuicServerConfig::try_from(config).map_err(no_initial_suite)
}

/// TLS of a node that talks to exactly `peer`.
pub fn client_config(key: &NodeKey, peer: NodeId) -> Result<QuicClientConfig, Error> {
    client_config_with_alpn(key, peer, ALPN)
}

pub(super) fn client_config_with_alpn(
    key: &NodeKey,
    peer: NodeId,
    alpn: &[u8],
) -> Result<QuicClientConfig, Error> {
    let peer = Allowlist::new([peer]).map_err(|error| Error::General(error.to_string()))?;
    let (provider, verifier) = verifier(peer);
    let own = Arc::new(AlwaysResolvesClientRawPublicKeys::new(
        key.certified(&provider)?,
    ));
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(own);
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_sni = false;
    config.enable_early_data = false;
    config.resumption = rustls::client::Resumption::disabled();
    QuicClientConfig::try_from(config).map_err(no_initial_suite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_prints_its_public_half_only() {
        let key = NodeKey::from_seed([7; 32]);
        let text = format!("{key:?}");
        assert!(text.contains(&key.id().to_string()));
        assert!(!text.contains("0707"));
        assert_eq!(NodeId::from_hex(&key.id().to_string()), Some(key.id()));
        assert_eq!(NodeId::from_hex(&key.id().to_string().to_uppercase()), None);
    }

    #[test]
    fn only_an_exact_ed25519_spki_is_a_node() {
        let id = NodeKey::from_seed([7; 32]).id();
        let spki = id.spki().to_vec();
        assert_eq!(NodeId::from_spki(&spki), Some(id));
        assert_eq!(NodeId::from_spki(&spki[1..]), None);
        assert_eq!(NodeId::from_spki(&[&spki[..], &[0]].concat()), None);
        for at in 0..spki.len() - 32 {
            let mut other = spki.clone();
            other[at] ^= 1;
            assert_eq!(NodeId::from_spki(&other), None);
        }
    }
}
