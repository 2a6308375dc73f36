//! Layer 4. TLS of the API from PEM files: the server's certificate and key,
//! and, for mutual TLS, the authority of its clients' certificates.
//!
//! Unlike the nodes' own protocol this one speaks to clients in any language,
//! which know certificates and names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::private::{FileError, read_public, read_secret};

/// What HTTP/2 is called in a handshake.
const ALPN: &[u8] = b"h2";
/// Certificates in a chain, and authorities.
const CERTIFICATES_MAX: usize = 256;

/// Where the certificates are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate and those between it and its authority, PEM.
    pub cert: PathBuf,
    /// The server's key, PEM; only its owner may read it.
    pub key: PathBuf,
    /// Authorities: a client needs a certificate of one of them, PEM.
    pub client_ca: Option<PathBuf>,
}

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not hold what it should.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key do not make a server.
    #[error("certificate and key cannot be used: {0}")]
    Unusable(String),
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::Content {
        path: path.to_path_buf(),
        reason,
    };
    let pem = read_public(path)?;
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        found.push(certificate.map_err(|error| wrong(format!("not PEM: {error:?}")))?);
    }
    match found.len() {
        1..=CERTIFICATES_MAX => Ok(found),
        got => Err(wrong(format!(
            "{got} certificates, expected 1 to {CERTIFICATES_MAX} in PEM"
        ))),
    }
}

fn unusable(error: impl std::fmt::Display) -> TlsError {
    TlsError::Unusable(error.to_string())
}

/// Reads the files.
pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates(&files.cert)?;
    let pem = read_secret(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| TlsError::Content {
        path: files.key.clone(),
        // The error names no part of the key.
        reason: format!("no private key in PEM: {error:?}"),
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| TlsError::Content {
                    path: path.clone(),
                    reason: error.to_string(),
                })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                .build()
                .map_err(unusable)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
    config.alpn_protocols.push(ALPN.into());
    Ok(TlsAcceptor::from(Arc::new(config)))
}
