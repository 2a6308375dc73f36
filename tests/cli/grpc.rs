//! `serve` with its gRPC part: where it listens, what it refuses, how it ends.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use converge_ledger::rpc::proto::context::context_service_client::ContextServiceClient;
use converge_ledger::rpc::proto::context::{AppendRequest, WatchRequest};
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::support::{Place, Server, run_with};

async fn connect(address: String) -> ContextServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(address).unwrap();
    ContextServiceClient::new(endpoint.connect().await.unwrap())
}

fn request() -> AppendRequest {
    AppendRequest {
        context_id: "c".into(),
        key: "k".into(),
        payload: "p".into(),
        ..AppendRequest::default()
    }
}

#[test]
fn it_serves_the_api_and_ends_its_watches_when_told() {
    for signal in ["TERM", "INT"] {
        let place = Place::new();
        place.run("s", &["init"]).expect(0);
        let server = Server::start(place.command("s", &["serve", "--grpc", "127.0.0.1:0"]));
        assert!(server.address.is_empty(), "no QUIC without --listen");
        let runtime = Runtime::new().unwrap();
        let address = format!("http://{}", server.grpc);
        let mut events = runtime.block_on(async {
            let mut client = connect(address).await;
            let watch = WatchRequest {
                context_id: "c".into(),
                ..WatchRequest::default()
            };
            let mut events = client.watch(watch).await.unwrap().into_inner();
            client.append(request()).await.unwrap();
            events.next().await.unwrap().unwrap();
            events
        });
        let stopped = std::thread::spawn(move || server.stop(signal));
        let end = runtime.block_on(events.next()).unwrap().unwrap_err();
        assert_eq!(end.code(), Code::Unavailable, "{end:?}");
        assert_eq!(stopped.join().unwrap(), 0);
        // The last head covers what was appended.
        place.run("s", &["audit"]).expect(0);
        let head = place.run("s", &["head", "--json"]).expect(0).json();
        assert_eq!(head["entries"], 1);
    }
}

#[test]
fn the_port_comes_from_the_environment_and_is_checked() {
    let place = Place::new();
    place.run("s", &["init"]).expect(0);
    let with_port = |port: &str, arguments: &[&str]| {
        let mut command = place.command("s", arguments);
        command.env("GRPC_PORT", port);
        command
    };
    for port in ["", "x", "65536", "-1"] {
        run_with(with_port(port, &["serve"]), b"").refuses(2, "GRPC_PORT");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    run_with(with_port(&port, &["serve"]), b"").refuses(3, "choose another with --grpc");
    // The flag wins.
    let server = Server::start(with_port("x", &["serve", "--grpc", "127.0.0.1:0"]));
    assert_eq!(server.stop("TERM"), 0);
    drop(taken);
    let server = Server::start(with_port(&port, &["serve"]));
    assert_eq!(server.grpc, format!("127.0.0.1:{port}"));
    assert_eq!(server.stop("TERM"), 0);
}

#[test]
fn tokens_are_asked_for_and_their_file_is_private() {
    let place = Place::new();
    place.run("s", &["init"]).expect(0);
    let file = place.path("tokens");
    let token = "a-token-of-this-test";
    std::fs::write(&file, format!("write {token}\n")).unwrap();
    let mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&file, mode).unwrap();
    };
    let serve = ["serve", "--grpc-tokens", file.to_str().unwrap()];
    mode(0o644);
    let ran = place.run("s", &serve).refuses(3, "chmod 600");
    assert!(!ran.stderr.contains(token));
    mode(0o600);
    let server = Server::start(place.command("s", &serve));
    let address = format!("http://{}", server.grpc);
    Runtime::new().unwrap().block_on(async {
        let mut client = connect(address).await;
        let refused = client.append(request()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        let mut allowed = Request::new(request());
        let value = format!("Bearer {token}").parse().unwrap();
        allowed.metadata_mut().insert("authorization", value);
        client.append(allowed).await.unwrap();
    });
    assert_eq!(server.stop("TERM"), 0);
}
