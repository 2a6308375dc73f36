//! Servers over stores in memory, and clients of them.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use converge_ledger::node::clock::SystemClock;
use converge_ledger::note::{OriginName, SignerKey};
use converge_ledger::rpc::proto::context::context_service_client::ContextServiceClient;
use converge_ledger::rpc::proto::context::{AppendRequest, Entry, GetRequest, GetResponse};
use converge_ledger::rpc::{Opening, Place, Places, RpcConfig, RunError, Server, TlsFiles, Tokens};
use converge_ledger::store::disk::MemoryDisk;
use converge_ledger::store::{Store, StoreOptions, StoreRole, create};
use http_body::Frame;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Nothing here takes nearly as long, however busy the machine.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

pub(crate) type Client = ContextServiceClient<Channel>;

pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) store: Store,
    pub(crate) disk: MemoryDisk,
    served: Served,
}

/// How a node is started.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) config: RpcConfig,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) mirror: bool,
}

/// The key of an origin.
pub(crate) fn signer(origin: &str) -> SignerKey {
    SignerKey::from_seed(OriginName::new(origin).unwrap(), &[7; 32])
}

/// A store in memory and the place it is served from.
pub(crate) fn place(role: StoreRole, origin: &str) -> (Place, Store, MemoryDisk) {
    let (signer, disk, opening) = (signer(origin), MemoryDisk::new(), Opening::new());
    create(&disk, role, signer.verifier()).unwrap();
    let mut options = StoreOptions::new(Arc::new(SystemClock));
    options.reserve_bytes = 0;
    options.listener = Some(opening.listener());
    let signer = (role == StoreRole::Own).then_some(signer);
    let opened = Store::open(Arc::new(disk.clone()), options, signer).unwrap();
    let store = opened.store;
    (opening.with(store.clone()), store, disk)
}

impl Setup {
    pub(crate) fn start(self) -> Node {
        let role = if self.mirror {
            StoreRole::Mirror
        } else {
            StoreRole::Own
        };
        let (place, store, disk) = place(role, "test.example");
        let served = self.serve(Places::new(vec![place]).unwrap());
        Node {
            address: served.address,
            store,
            disk,
            served,
        }
    }

    /// Serves what there is.
    pub(crate) fn serve(self, places: Places) -> Served {
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind(address, self.config, self.tls.as_ref(), self.tokens).unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(places, async move { _ = stopped.await }));
        Served {
            address,
            stop: Some(stop),
            task,
        }
    }
}

/// A server that runs.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Served {
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        let most = 128 << 20;
        Client::new(self.channel().await)
            .max_decoding_message_size(most)
            .max_encoding_message_size(most)
    }

    pub(crate) fn tell_to_stop(&mut self) {
        _ = self.stop.take().unwrap().send(());
    }

    /// Stops it and waits for its end.
    pub(crate) async fn stop(mut self) {
        if self.stop.is_some() {
            self.tell_to_stop();
        }
        within(&mut self.task).await.unwrap().unwrap();
    }
}

impl Node {
    pub(crate) fn start() -> Self {
        Setup::default().start()
    }

    pub(crate) async fn channel(&self) -> Channel {
        self.served.channel().await
    }

    pub(crate) async fn client(&self) -> Client {
        self.served.client().await
    }

    pub(crate) fn tell_to_stop(&mut self) {
        self.served.tell_to_stop();
    }

    /// Stops it and waits for its end.
    pub(crate) async fn stop(self) {
        self.served.stop().await;
        self.store.close().unwrap();
    }

    /// It still works, for a client of its own.
    pub(crate) async fn assert_serves(&self) {
        let mut client = self.client().await;
        let entry = append(&mut client, "still-there", "k", b"p").await.unwrap();
        assert_eq!(
            get(&mut client, "still-there", entry.sequence - 1)
                .await
                .entries,
            [entry]
        );
    }
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    let done = tokio::time::timeout(DEADLINE, future).await;
    done.expect("it ends in time")
}

/// Tries again and again until it is so.
pub(crate) async fn until<F: Future<Output = bool>>(mut so: impl FnMut() -> F) {
    within(async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub(crate) fn request(context: &str, key: &str, payload: &[u8]) -> AppendRequest {
    AppendRequest {
        context_id: context.into(),
        key: key.into(),
        payload: Bytes::copy_from_slice(payload),
        ..AppendRequest::default()
    }
}

pub(crate) async fn append(
    client: &mut Client,
    context: &str,
    key: &str,
    payload: &[u8],
) -> Result<Entry, Status> {
    let reply = within(client.append(request(context, key, payload))).await?;
    Ok(reply.into_inner().entry.unwrap())
}

pub(crate) async fn get(client: &mut Client, context: &str, after: u64) -> GetResponse {
    let request = GetRequest {
        context_id: context.into(),
        after_sequence: after,
        ..GetRequest::default()
    };
    within(client.get(request)).await.unwrap().into_inner()
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, says: &str) {
    let status = outcome.expect_err("refused");
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(says), "{says:?} in {status:?}");
}

/// A body whose bytes are sent by hand.
pub(crate) struct ByHand(mpsc::UnboundedReceiver<Bytes>);

pub(crate) fn by_hand() -> (mpsc::UnboundedSender<Bytes>, Body) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Body::new(ByHand(receiver)))
}

impl http_body::Body for ByHand {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let next = self.0.poll_recv(cx);
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A message with its prefix.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut bytes = prefix(message.len()).to_vec();
    bytes.extend_from_slice(message);
    bytes.into()
}

/// The prefix of a message of so many bytes.
pub(crate) fn prefix(length: usize) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
    bytes.into()
}

/// Calls with a body made by hand, and says how that ended.
pub(crate) async fn call_raw(channel: Channel, path: &str, body: Body) -> Status {
    let request = http::Request::post(path)
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap();
    send_raw(channel, request).await
}

pub(crate) async fn send_raw(mut channel: Channel, request: http::Request<Body>) -> Status {
    use tower::Service as _;
    within(async {
        std::future::poll_fn(|cx| channel.poll_ready(cx))
            .await
            .unwrap();
        let response = match channel.call(request).await {
            Ok(response) => response,
            Err(error) => return Status::from_error(error.into()),
        };
        if let Some(status) = Status::from_header_map(response.headers()) {
            return status;
        }
        let http = response.status();
        let mut body = response.into_body();
        loop {
            let next =
                std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx));
            match next.await {
                Some(Ok(frame)) => {
                    let status = frame.trailers_ref().and_then(Status::from_header_map);
                    if let Some(status) = status {
                        return status;
                    }
                }
                Some(Err(status)) => return status,
                None => return Status::unknown(format!("no status, HTTP {http}")),
            }
        }
    })
    .await
}
