//! Where the server is, how to prove who one is, and how long to wait.
//!
//! Invariants: neither a token nor a private key is ever formatted; a token is
//! not sent where others could read it on the way.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr as _;
use std::time::Duration;

use http::Uri;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use zeroize::Zeroizing;

use super::ClientError;
use super::backoff::Retry;

/// Bytes of a message from the server: a snapshot of 64 MiB, and headroom.
const MESSAGE_BYTES_MAX: usize = 65 << 20;
/// What a stream may have on the way that nobody has read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// And all streams of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of a token.
const TOKEN_BYTES_MAX: usize = 4096;

/// How to reach a server.
#[derive(Clone)]
pub struct ClientOptions {
    url: String,
    ca_pem: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    token: Option<Zeroizing<String>>,
    /// A connection must have come about by then. Default: 10 s.
    pub connect_timeout: Duration,
    /// An append, a page or the opening of a watch must be answered by then.
    /// Default: 30 s.
    pub request_timeout: Duration,
    /// A snapshot or a load must be answered by then. Default: 5 min.
    pub transfer_timeout: Duration,
    /// Bytes of a message from the server. Default: 65 MiB, which fits the
    /// largest snapshot that a server makes.
    pub message_bytes_max: usize,
    /// The server is asked for a sign of life after so long without one.
    /// Default: 20 s.
    pub keepalive_every: Duration,
    /// And the connection is given up if there is none by then. Default: 10 s.
    pub keepalive_timeout: Duration,
    /// How watches and [`append_with_retry`](super::Client::append_with_retry)
    /// try again.
    pub retry: Retry,
}

impl ClientOptions {
    /// A server's URL: `http://host:port`, or `https://host:port` together with
    /// [`ClientOptions::with_ca_pem`].
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_pem: None,
            identity: None,
            token: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            transfer_timeout: Duration::from_mins(5),
            message_bytes_max: MESSAGE_BYTES_MAX,
            keepalive_every: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            retry: Retry::default(),
        }
    }

    /// The certificates, in PEM, of who may vouch for the server.
    #[must_use]
    pub fn with_ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_pem = Some(pem.into());
        self
    }

    /// The certificate to show to the server and its private key, in PEM.
    #[must_use]
    pub fn with_identity_pem(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.identity = Some((certificate.into(), Zeroizing::new(key.into())));
        self
    }

    /// The bearer token to send with each call.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Zeroizing::new(token.into()));
        self
    }

    /// Checks everything that can be checked without the server.
    pub(super) fn endpoint(&self) -> Result<Endpoint, ClientError> {
        let uri = self.uri()?;
        let tls = uri.scheme_str() == Some("https");
        self.check_secrets(&uri, tls)?;
        let mut endpoint = Endpoint::from(uri)
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.keepalive_every)
            .keep_alive_timeout(self.keepalive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        if tls {
            let mut config = ClientTlsConfig::new();
            if let Some(pem) = &self.ca_pem {
                config = config.ca_certificate(Certificate::from_pem(pem));
            }
            if let Some((certificate, key)) = &self.identity {
                config = config.identity(Identity::from_pem(certificate, key.as_slice()));
            }
            endpoint = endpoint.tls_config(config).map_err(|_| {
                options("a certificate or key for TLS cannot be used: give files in PEM")
            })?;
        }
        Ok(endpoint)
    }

    /// The URL. Its text is not repeated in errors: it may hold a password.
    fn uri(&self) -> Result<Uri, ClientError> {
        let uri = Uri::from_str(&self.url)
            .map_err(|_| options("not a URL: give http://HOST:PORT or https://HOST:PORT"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(options(
                "the URL must begin with http:// or https://, as in http://127.0.0.1:4770",
            ));
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err(options(
                "the URL must not hold a user or password: give a token instead",
            ));
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(options("the URL names no host"));
        }
        if uri
            .path_and_query()
            .is_some_and(|path| path.as_str() != "/")
        {
            return Err(options("the URL must end after the port"));
        }
        Ok(uri)
    }

    fn check_secrets(&self, uri: &Uri, tls: bool) -> Result<(), ClientError> {
        if tls {
            let pem = self.ca_pem.as_deref().unwrap_or_default();
            if pem.is_empty() {
                return Err(options(
                    "https:// needs the certificate of who vouches for the server (a CA file)",
                ));
            }
            let begin = b"-----BEGIN CERTIFICATE-----";
            if !pem.windows(begin.len()).any(|window| window == begin) {
                return Err(options("the CA file holds no certificate in PEM"));
            }
            return Ok(());
        }
        if self.ca_pem.is_some() || self.identity.is_some() {
            return Err(options(
                "certificates are of no use with http://: use https://",
            ));
        }
        if self.token.is_some() && !is_loopback(uri.host().unwrap_or_default()) {
            return Err(options(
                "with http:// everybody on the way could read the token: use https://, or a \
                 tunnel that ends on this machine",
            ));
        }
        Ok(())
    }

    /// What the `authorization` header of each call says.
    pub(super) fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, ClientError> {
        let Some(token) = &self.token else {
            return Ok(None);
        };
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(options("a token has 1 to 4096 bytes"));
        }
        let text = Zeroizing::new(format!("Bearer {}", token.as_str()));
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(options("a token is printable ASCII without blanks"));
        }
        let mut value = MetadataValue::try_from(text.as_str())
            .map_err(|_| options("the token cannot be sent in a header"))?;
        // Kept out of Debug, and out of header compression.
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl fmt::Debug for ClientOptions {
    /// No secret, and not the URL, which may hold one by mistake.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("ca", &self.ca_pem.is_some())
            .field("identity", &self.identity.is_some())
            .field("token", &self.token.is_some())
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("transfer_timeout", &self.transfer_timeout)
            .field("message_bytes_max", &self.message_bytes_max)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

const fn options(what: &'static str) -> ClientError {
    ClientError::Options { what }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || IpAddr::from_str(address).is_ok_and(|address| address.is_loopback())
}
