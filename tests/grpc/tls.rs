//! TLS and mutual TLS with certificates made on the spot.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use converge_ledger::rpc::{RpcConfig, Server, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::support::{Client, Node, Setup, append};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certificate(authority: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.into()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

struct Files {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            dir: tempfile::tempdir().unwrap(),
            authority: authority(),
        };
        let (certificate, key) = certificate(&files.authority, "localhost");
        files.write("cert", &certificate, 0o644);
        files.write("key", &key, 0o600);
        files.write("ca", &files.authority.pem(), 0o644);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn server(&self, mutual: bool) -> TlsFiles {
        TlsFiles {
            cert: self.path("cert"),
            key: self.path("key"),
            client_ca: mutual.then(|| self.path("ca")),
        }
    }

    fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.pem()))
            .domain_name("localhost")
    }
}

async fn connect(node: &Node, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("https://{}", node.address))?
        .tls_config(tls)?
        .connect()
        .await
}

async fn works(node: &Node, tls: ClientTlsConfig) -> bool {
    match connect(node, tls).await {
        // A client may be told only with its first call that it is not let in.
        Ok(channel) => append(&mut Client::new(channel), "c", "k", b"p")
            .await
            .is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_server_shows_who_it_is() {
    let files = Files::new();
    let node = Setup {
        tls: Some(files.server(false)),
        ..Setup::default()
    }
    .start();
    assert!(works(&node, files.client()).await);
    let stranger = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority().pem()))
        .domain_name("localhost");
    assert!(!works(&node, stranger).await);
    assert!(!works(&node, files.client().domain_name("other.example")).await);
    let plain = Endpoint::from_shared(format!("http://{}", node.address)).unwrap();
    let plain = match plain.connect().await {
        Ok(channel) => append(&mut Client::new(channel), "c", "k", b"p")
            .await
            .is_ok(),
        Err(_) => false,
    };
    assert!(!plain);
    assert!(works(&node, files.client()).await);
    node.stop().await;
}

#[tokio::test]
async fn with_mutual_tls_clients_show_who_they_are() {
    let files = Files::new();
    let node = Setup {
        tls: Some(files.server(true)),
        ..Setup::default()
    }
    .start();
    let (cert, key) = certificate(&files.authority, "client");
    let known = files.client().identity(Identity::from_pem(cert, key));
    assert!(works(&node, known.clone()).await);
    assert!(!works(&node, files.client()).await);
    let (cert, key) = certificate(&authority(), "client");
    let unknown = files.client().identity(Identity::from_pem(cert, key));
    assert!(!works(&node, unknown).await);
    assert!(works(&node, known).await);
    node.stop().await;
}

fn bind(address: &str, config: RpcConfig, tls: Option<&TlsFiles>) -> Result<Server, String> {
    let bound = Server::bind(address.parse().unwrap(), config, tls, None);
    bound.map_err(|error| error.to_string())
}

#[track_caller]
fn says<T>(outcome: Result<T, String>, what: &str) {
    let Err(message) = outcome else {
        panic!("not refused")
    };
    assert!(message.contains(what), "{what:?} in {message:?}");
}

#[tokio::test]
async fn what_cannot_be_served_safely_is_refused() {
    let files = Files::new();
    let tls = files.server(true);
    let insecure = RpcConfig {
        insecure: true,
        ..RpcConfig::default()
    };
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        says(bind(address, RpcConfig::default(), None), "--grpc-cert");
    }
    bind("0.0.0.0:0", insecure, None).unwrap();
    let bound = bind("0.0.0.0:0", RpcConfig::default(), Some(&tls)).unwrap();
    let taken = bound.local_addr().to_string();
    says(bind(&taken, RpcConfig::default(), Some(&tls)), "GRPC_PORT");

    let with = |change: &dyn Fn(&mut TlsFiles)| {
        let mut tls = tls.clone();
        change(&mut tls);
        bind("127.0.0.1:0", RpcConfig::default(), Some(&tls))
    };
    files.write(
        "open",
        &fs::read_to_string(files.path("key")).unwrap(),
        0o640,
    );
    files.write("junk", "-----BEGIN", 0o600);
    let (_, other) = certificate(&files.authority, "localhost");
    files.write("other", &other, 0o600);
    says(with(&|tls| tls.key = files.path("open")), "chmod 600");
    says(with(&|tls| tls.key = files.path("junk")), "no private key");
    says(
        with(&|tls| tls.key = files.path("none")),
        "could not read it",
    );
    says(
        with(&|tls| tls.key = files.dir.path().into()),
        "regular file",
    );
    says(
        with(&|tls| tls.key = Path::new("/dev/zero").into()),
        "regular file",
    );
    says(with(&|tls| tls.key = files.path("other")), "cannot be used");
    says(with(&|tls| tls.cert = files.path("junk")), "PEM");
    says(
        with(&|tls| tls.client_ca = Some(files.path("key"))),
        "0 certificates",
    );
}
