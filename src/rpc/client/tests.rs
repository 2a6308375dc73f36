//! The client against a server that says what a test tells it to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::*;
use crate::entry::{Metadata, leaf_hash};
use crate::rpc::proto::context::context_service_server::{ContextService, ContextServiceServer};
use crate::rpc::proto::context::{
    AppendRequest, AppendResponse, GetRequest, GetResponse, LoadRequest, LoadResponse,
    SnapshotRequest, SnapshotResponse, WatchEvent, WatchRequest,
};

mod calls;
mod watching;

/// As a server would store it.
fn stored(draft: &Draft, sequence: u64) -> proto::Entry {
    let mut header = Vec::new();
    draft
        .header(sequence, sequence, 7)
        .encode_into(&mut header)
        .unwrap();
    let id = leaf_hash(&header);
    proto::Entry {
        id: id.to_string(),
        key: draft.key().to_owned(),
        payload: Bytes::copy_from_slice(draft.payload()),
        sequence,
        appended_at_ns: 7,
        metadata: draft
            .metadata()
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        lamport: sequence,
        content_hash: Bytes::copy_from_slice(id.as_bytes()),
        request_id: draft.request_id().unwrap_or_default().to_owned(),
    }
}

fn draft(key: &str) -> Draft {
    Draft::new(key, "payload")
        .unwrap()
        .with_metadata(Metadata::from_pairs([("a", "1"), ("b", "")]).unwrap())
}

fn entry(key: &str, sequence: u64) -> proto::Entry {
    stored(&draft(key), sequence)
}

fn context() -> ContextId {
    ContextId::new("c").unwrap()
}

/// What a watch sends before it ends; a status ends it, `None` leaves it open.
type Events = Vec<Option<Result<proto::Entry, Status>>>;

/// What the server is to say, and what it was asked.
#[derive(Default)]
struct Script {
    appends: VecDeque<Result<(), Status>>,
    append_requests: Vec<AppendRequest>,
    pages: VecDeque<Result<GetResponse, Status>>,
    gets: Vec<GetRequest>,
    watches: VecDeque<Result<Events, Status>>,
    watched: Vec<WatchRequest>,
    /// If there is any: what every watch sends one entry of, before it breaks.
    history: Vec<proto::Entry>,
    authorizations: Vec<String>,
    /// Nothing is ever answered.
    silent: bool,
    /// What the first event of a watch says of its origin.
    watch_origin: String,
    snapshot_bytes: usize,
}

#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

impl Scripted {
    fn with(script: Script) -> Self {
        Self(Arc::new(Mutex::new(script)))
    }

    fn see<T>(&self, look: impl FnOnce(&mut Script) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// Starts it, on a port of its own.
    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = ContextServiceServer::new(self.clone());
        let serving = Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(serving);
        address
    }

    async fn client(&self) -> Client {
        Client::connect(quick(self.start().await)).await.unwrap()
    }
}

/// Options that do not make tests wait.
fn quick(address: SocketAddr) -> ClientOptions {
    let mut options = ClientOptions::new(format!("http://{address}"));
    options.retry = Retry {
        attempts: 5,
        first: Duration::from_millis(1),
        longest: Duration::from_millis(4),
    };
    options
}

type Stream = std::pin::Pin<
    Box<dyn tonic::codegen::tokio_stream::Stream<Item = Result<WatchEvent, Status>> + Send>,
>;

#[tonic::async_trait]
impl ContextService for Scripted {
    async fn append(
        &self,
        request: Request<AppendRequest>,
    ) -> Result<Response<AppendResponse>, Status> {
        if self.see(|script| script.silent) {
            std::future::pending::<()>().await;
        }
        let authorization = request.metadata().get("authorization");
        let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
        let request = request.into_inner();
        let draft = Draft::new(request.key.clone(), request.payload.to_vec())
            .unwrap()
            .with_metadata(Metadata::from_pairs(&request.metadata).unwrap())
            .with_request_id(request.request_id.clone())
            .unwrap();
        self.see(|script| {
            script.authorizations.extend(authorization);
            script.append_requests.push(request);
            script.appends.pop_front().unwrap_or(Ok(()))
        })?;
        Ok(Response::new(AppendResponse {
            entry: Some(stored(&draft, 1)),
        }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let page = self.see(|script| {
            script.gets.push(request.into_inner());
            script
                .pages
                .pop_front()
                .unwrap_or(Ok(GetResponse::default()))
        });
        page.map(Response::new)
    }

    async fn snapshot(
        &self,
        _: Request<SnapshotRequest>,
    ) -> Result<Response<SnapshotResponse>, Status> {
        let bytes = self.see(|script| script.snapshot_bytes);
        Ok(Response::new(SnapshotResponse {
            snapshot: vec![0; bytes].into(),
            sequence: 1,
            metadata: Some(proto::SnapshotMetadata {
                entry_count: 1,
                version: 1,
                created_at_ns: 7,
                merkle_root: vec![1; 32].into(),
            }),
            origin: String::new(),
        }))
    }

    async fn load(&self, _: Request<LoadRequest>) -> Result<Response<LoadResponse>, Status> {
        Err(Status::invalid_argument("not a snapshot"))
    }

    type WatchStream = Stream;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Stream>, Status> {
        let events = self.see(|script| {
            let request = request.into_inner();
            let from = request.from_sequence;
            script.watched.push(request);
            if let Some(next) = script.history.iter().find(|entry| entry.sequence > from) {
                let broken = Err(Status::unavailable("one at a time"));
                return Ok(vec![Some(Ok(next.clone())), Some(broken)]);
            }
            script
                .watches
                .pop_front()
                .unwrap_or(Err(Status::unavailable("the script has ended")))
        })?;
        let mut said = Some(self.see(|script| script.watch_origin.clone()));
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            for event in events {
                let Some(event) = event else {
                    return sender.closed().await;
                };
                let event = event.map(|entry| WatchEvent {
                    entry: Some(entry),
                    origin: said.take().unwrap_or_default(),
                });
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        Ok(Response::new(Box::pin(stream)))
    }
}

#[test]
fn what_is_wrong_with_options_is_said_before_anything_is_sent() {
    let refused = |options: ClientOptions| match (options.endpoint(), options.authorization()) {
        (Err(error), _) | (_, Err(error)) => error.to_string(),
        _ => panic!("taken"),
    };
    let url = |url: &str| refused(ClientOptions::new(url));
    assert!(url("").contains("not a URL"));
    assert!(url("127.0.0.1:80").contains("begin with http://"));
    assert!(url("ftp://a").contains("begin with http://"));
    assert!(url("http://a/path").contains("end after the port"));
    assert!(url("http://a?x").contains("end after the port"));
    assert!(url("https://a").contains("CA file"));
    let with_password = url("http://user:secret@a");
    assert!(with_password.contains("give a token"));
    assert!(!with_password.contains("secret"));
    let https = ClientOptions::new("https://a:1");
    assert!(refused(https.clone().with_ca_pem("x")).contains("no certificate"));
    let http = ClientOptions::new("http://a:1");
    assert!(refused(http.clone().with_ca_pem("x")).contains("no use"));
    assert!(refused(http.clone().with_token("t")).contains("could read the token"));
    for host in ["127.0.0.1", "[::1]", "localhost", "127.9.9.9"] {
        let options = ClientOptions::new(format!("http://{host}:1"));
        assert!(options.clone().with_token("t").endpoint().is_ok(), "{host}");
        for token in ["", "a b", "a\n", "\u{e9}"] {
            assert!(options.clone().with_token(token).authorization().is_err());
        }
    }
}

#[test]
fn secrets_are_not_formatted() {
    let options = ClientOptions::new("https://a:1")
        .with_token("hush-hush")
        .with_identity_pem("certificate", "hush-hush");
    let header = options.authorization().unwrap();
    let shown = format!("{options:?} {header:?}");
    assert!(!shown.contains("hush"), "{shown}");
}

proptest! {
    #[test]
    fn waits_grow_and_are_bounded(failures in 1u32..200, chance: u32) {
        let retry = Retry::default();
        let wait = retry.wait(failures, chance);
        prop_assert_eq!(wait.is_none(), failures >= retry.attempts);
        if let Some(wait) = wait {
            prop_assert!(wait <= retry.longest && wait >= retry.first / 2);
            prop_assert!(wait <= retry.wait(failures, 0).unwrap());
        }
    }
}

/// Every field of an entry is held to its hash.
#[test]
fn a_changed_entry_does_not_verify() {
    let good = stored(&draft("k").with_request_id("r").unwrap(), 3);
    let taken = checked::entry(good.clone()).unwrap();
    assert_eq!((taken.sequence, taken.key.as_str()), (3, "k"));
    assert_eq!(taken.request_id.as_deref(), Some("r"));
    let changes: [fn(&mut proto::Entry); 15] = [
        |e| e.id = e.id.to_uppercase(),
        |e| e.id.clear(),
        |e| e.content_hash = Bytes::new(),
        |e| e.content_hash = Bytes::from(vec![7; 32]),
        |e| e.key = "l".into(),
        |e| e.key.clear(),
        |e| e.key = "k".repeat(513),
        |e| e.payload = Bytes::from_static(b"other"),
        |e| e.sequence = 4,
        |e| e.sequence = 0,
        |e| e.lamport = u64::MAX,
        |e| e.appended_at_ns += 1,
        |e| _ = e.metadata.insert("c".into(), "3".into()),
        |e| e.request_id.clear(),
        |e| *e = proto::Entry::default(),
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut entry = good.clone();
        change(&mut entry);
        let outcome = checked::entry(entry);
        assert!(
            matches!(outcome, Err(ClientError::Unverified { .. })),
            "change {at}: {outcome:?}"
        );
    }
}
