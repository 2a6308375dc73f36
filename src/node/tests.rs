//! Over real QUIC on loopback. Deadlines are short where they are to pass and
//! long where they are not; nothing sleeps to wait for anything.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::Endpoint;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::mirror::{CatchUp, CatchUpError, catch_up};
use super::quic::{self, CloseCode, client_config_from};
use super::serve::{ServeLimits, Shown, serve};
use super::tls::{self, NodeId, NodeKey, SERVER_NAME};
use crate::entry::{ContextId, Draft};
use crate::ledger::{ReadLedger, StoreMirror};
use crate::node::{Allowlist, Hooks};
use crate::store::disk::MemoryDisk;
use crate::store::{Clock, Store, StoreOptions, StoreRole, create};
use crate::sync::message::{Reply, Request};
use crate::sync::testing::{FakeLedger, FakeMirror, signer};
use crate::sync::{Outcome, PeerFault, Report, SyncError};

mod audit;
mod keep_up;
mod station;

const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const SHORT: Duration = Duration::from_millis(200);

fn key(n: u8) -> NodeKey {
    NodeKey::from_seed([n; 32])
}

/// A server that runs until it is dropped or told to stop.
struct Server {
    address: SocketAddr,
    allowed: Allowlist,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    fn new<L: ReadLedger + 'static>(ledger: L, allowed: &[NodeId], limits: ServeLimits) -> Self {
        Self::with(ledger, allowed, limits, None)
    }

    fn hearing<L: ReadLedger + 'static>(
        ledger: L,
        allowed: &[NodeId],
        shown: Option<Shown>,
    ) -> Self {
        Self::with(ledger, allowed, ServeLimits::default(), shown)
    }

    fn with<L: ReadLedger + 'static>(
        ledger: L,
        allowed: &[NodeId],
        limits: ServeLimits,
        shown: Option<Shown>,
    ) -> Self {
        let hooks = Hooks {
            shown,
            ..Hooks::default()
        };
        Self::telling(ledger, allowed, limits, hooks)
    }

    fn telling<L: ReadLedger + 'static>(
        ledger: L,
        allowed: &[NodeId],
        limits: ServeLimits,
        hooks: Hooks,
    ) -> Self {
        let allowed = Allowlist::new(allowed.iter().copied()).unwrap();
        let endpoint = quic::listen(LOCALHOST, &key(1), &allowed).unwrap();
        let address = endpoint.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move { _ = stopped.await };
        let doors = (endpoint, allowed.clone());
        let task = tokio::spawn(serve(doors, Arc::new(ledger), limits, hooks, shutdown));
        Self {
            address,
            allowed,
            stop: Some(stop),
            task,
        }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap();
    }
}

fn only(key: &NodeKey) -> Allowlist {
    Allowlist::new([key.id()]).unwrap()
}

fn config(address: SocketAddr) -> CatchUp {
    CatchUp::new(address, key(1).id(), signer(1).verifier().clone())
}

async fn pull<S: StoreMirror + 'static>(
    me: &NodeKey,
    store: &Arc<S>,
    config: &CatchUp,
) -> Result<Report, CatchUpError> {
    let endpoint = quic::client(LOCALHOST).unwrap();
    catch_up(&endpoint, me, Arc::clone(store), config, |_| ()).await
}

fn peer(error: CatchUpError) -> PeerFault {
    match error {
        CatchUpError::Sync(SyncError::Peer(fault)) => *fault,
        other => panic!("{other}"),
    }
}

fn ledger() -> FakeLedger {
    let mut l = FakeLedger::new(1);
    for n in 0..40u8 {
        let small: Vec<Vec<u8>> = (0..n).map(|i| vec![i; 10]).collect();
        l.append(
            &format!("context {n}"),
            &[&small[..], &[vec![n; 6000]]].concat(),
        );
    }
    let big: Vec<Vec<u8>> = (0..6u8)
        .flat_map(|_| 0..200)
        .map(|n| vec![n; 4000])
        .collect();
    l.append("big", &big);
    l.publish();
    l
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_catches_up_over_quic() {
    let l = ledger();
    let server = Server::new(l.clone(), &[key(2).id()], ServeLimits::default());
    let store = Arc::new(FakeMirror::default());
    let report = pull(&key(2), &store, &config(server.address))
        .await
        .unwrap();
    assert_eq!((report.outcome, &report.head), (Outcome::CaughtUp, &l.head));
    let root = l.head.as_ref().unwrap().head().directory_root;
    assert_eq!(store.complete_root(), Some(root));
    store.assert_beginning_of(&l);
    let report = pull(&key(2), &store, &config(server.address))
        .await
        .unwrap();
    assert_eq!(report.outcome, Outcome::Current);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_on_the_list_are_served() {
    for allowed in [vec![], vec![key(3).id(), key(4).id()]] {
        let server = Server::new(ledger(), &allowed, ServeLimits::default());
        let store = Arc::new(FakeMirror::default());
        let error = pull(&key(2), &store, &config(server.address))
            .await
            .unwrap_err();
        assert!(matches!(error, CatchUpError::Connection(_)), "{error}");
        assert_eq!(store.items(), 0);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_with_another_key_is_not_talked_to() {
    let server = Server::new(ledger(), &[key(2).id()], ServeLimits::default());
    let store = Arc::new(FakeMirror::default());
    let mut config = config(server.address);
    config.peer = key(9).id();
    let error = pull(&key(2), &store, &config).await.unwrap_err();
    assert!(matches!(error, CatchUpError::Connection(_)), "{error}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_protocol_is_refused() {
    let server = Server::new(ledger(), &[key(2).id()], ServeLimits::default());
    let endpoint = quic::client(LOCALHOST).unwrap();
    let other = tls::client_config_with_alpn(&key(2), key(1).id(), b"converge-ledger/2").unwrap();
    let connecting = endpoint.connect_with(client_config_from(other), server.address, SERVER_NAME);
    assert!(connecting.unwrap().await.is_err());
    server.stop().await;
}

/// A source that does what it is told with the first request.
fn rogue<F, R>(act: F) -> SocketAddr
where
    F: FnOnce(quinn::SendStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send,
{
    let endpoint = quic::listen(LOCALHOST, &key(1), &only(&key(2))).unwrap();
    let address = endpoint.local_addr().unwrap();
    tokio::spawn(async move {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let (send, _recv) = connection.accept_bi().await.unwrap();
        act(send).await;
        connection.closed().await;
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_drips_or_stalls_is_timed_out() {
    let frame = Reply::Head { notes: vec![] }.encode().unwrap();
    for len in 0..frame.len() {
        let part = frame[..len].to_vec();
        let (keep, kept) = oneshot::channel::<()>();
        let address = rogue(|mut send| async move {
            send.write_all(&part).await.unwrap();
            // The stream stays open until the mirror has gone.
            let _ = kept.await;
        });
        let store = Arc::new(FakeMirror::default());
        let mut config = config(address);
        config.frame_deadline = SHORT;
        let error = pull(&key(2), &store, &config).await.unwrap_err();
        assert!(matches!(error, CatchUpError::TimedOut { .. }), "{error}");
        drop(keep);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_slow_but_brings_something_is_waited_for() {
    // A frame that takes several deadlines; what is in it does not matter.
    let address = rogue(|mut send| async move {
        let body_bytes = 400_000u32;
        send.write_all(&body_bytes.to_le_bytes()).await.unwrap();
        send.write_all(&[0x81]).await.unwrap();
        for _ in 0..10 {
            send.write_all(&vec![0; 40_000]).await.unwrap();
            tokio::time::sleep(SHORT / 2).await;
        }
    });
    let store = Arc::new(FakeMirror::default());
    let mut config = config(address);
    config.frame_deadline = 2 * SHORT;
    let error = pull(&key(2), &store, &config).await.unwrap_err();
    let fault = peer(error);
    assert!(matches!(fault, PeerFault::Malformed(_)), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_ends_at_once_has_told_the_source() {
    let endpoint = quic::listen(LOCALHOST, &key(1), &only(&key(2))).unwrap();
    let address = endpoint.local_addr().unwrap();
    let source = tokio::spawn(async move {
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        let (mut send, _recv) = connection.accept_bi().await.unwrap();
        let nothing = Reply::Head { notes: vec![] }.encode().unwrap();
        send.write_all(&nothing).await.unwrap();
        send.finish().unwrap();
        closed_with(&connection).await
    });
    // A process that exits: its endpoint is not driven any more.
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let store = Arc::new(FakeMirror::default());
        runtime
            .block_on(pull(&key(2), &store, &config(address)))
            .unwrap()
    });
    assert_eq!(source.await.unwrap(), CloseCode::Done as u64);
    assert_eq!(process.join().unwrap().outcome, Outcome::Nothing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_taken_off_the_list_is_cut_off_and_the_others_are_not() {
    let (server, store) = (
        Server::new(
            ledger(),
            &[key(2).id(), key(3).id()],
            ServeLimits::default(),
        ),
        Arc::new(FakeMirror::default()),
    );
    let endpoint = quic::client(LOCALHOST).unwrap();
    let call = |me: &NodeKey| {
        let client = quic::client_config(me, key(1).id()).unwrap();
        endpoint
            .connect_with(client, server.address, SERVER_NAME)
            .unwrap()
    };
    let (gone, stays) = (call(&key(2)).await.unwrap(), call(&key(3)).await.unwrap());
    server.allowed.replace([key(3).id(), key(4).id()]).unwrap();
    assert_eq!(closed_with(&gone).await, CloseCode::NotAllowed as u64);
    assert!(stays.close_reason().is_none());
    pull(&key(2), &store, &config(server.address))
        .await
        .unwrap_err();
    // Who is new comes in, and who comes back.
    for me in [4, 2] {
        server.allowed.replace([key(me).id(), key(3).id()]).unwrap();
        let store = Arc::new(FakeMirror::default());
        let report = pull(&key(me), &store, &config(server.address)).await;
        assert_eq!(report.unwrap().outcome, Outcome::CaughtUp);
    }
    // Too many change nothing.
    let many = (0..=u16::MAX).map(|n| NodeId::from_bytes(seed(n)));
    server.allowed.replace(many).unwrap_err();
    assert!(server.allowed.allows(&key(2).id()) && stays.close_reason().is_none());
    server.stop().await;
}

fn seed(n: u16) -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..2].copy_from_slice(&n.to_le_bytes());
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_reads_does_not_hold_up_another() {
    let limits = ServeLimits {
        answers_per_peer_max: 2,
        answers_max: 4,
        ..ServeLimits::default()
    };
    let server = Server::new(ledger(), &[key(2).id(), key(3).id()], limits);
    let endpoint = quic::client(LOCALHOST).unwrap();
    let mut client = quic::client_config(&key(3), key(1).id()).unwrap();
    let mut transport = quinn::TransportConfig::default();
    // No more than this is ever let through, on all streams together.
    transport.receive_window(8u32.into());
    client.transport_config(Arc::new(transport));
    let head = Request::Head { newest: vec![] }.encode().unwrap();
    let (mut connections, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let connecting = endpoint.connect_with(client.clone(), server.address, SERVER_NAME);
        let hostile = connecting.unwrap().await.unwrap();
        for _ in 0..8 {
            let (mut send, recv) = hostile.open_bi().await.unwrap();
            send.write_all(&head).await.unwrap();
            send.finish().unwrap();
            streams.push(recv);
        }
        connections.push(hostile);
    }
    // The answers are under way when the first byte is here.
    while connections[0].stats().frame_rx.stream == 0 {
        tokio::task::yield_now().await;
    }
    let store = Arc::new(FakeMirror::default());
    let report = pull(&key(2), &store, &config(server.address))
        .await
        .unwrap();
    assert_eq!(report.outcome, Outcome::CaughtUp);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_sync_has_a_deadline_and_leaves_no_thread_behind() {
    let (_held, hold) = oneshot::channel::<()>();
    let address = rogue(|send| async move {
        let _ = hold.await;
        drop(send);
    });
    let store = Arc::new(FakeMirror::default());
    let mut config = config(address);
    config.sync_deadline = Some(SHORT);
    let error = pull(&key(2), &store, &config).await.unwrap_err();
    assert!(
        matches!(
            error,
            CatchUpError::TimedOut {
                what: "the whole sync"
            }
        ),
        "{error}"
    );
    // The runtime waits for its blocking threads: a left one would hang here.
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_off_answers_are_not_taken_for_finished() {
    let frame = Reply::Head { notes: vec![] }.encode().unwrap();
    let cut = frame[..3].to_vec();
    let address = rogue(|mut send| async move {
        send.write_all(&cut).await.unwrap();
        send.finish().unwrap();
    });
    let store = Arc::new(FakeMirror::default());
    let error = pull(&key(2), &store, &config(address)).await.unwrap_err();
    let fault = peer(error);
    assert!(matches!(fault, PeerFault::EndedEarly { .. }), "{fault}");
    let address = rogue(|mut send| async move {
        send.reset(CloseCode::Internal.code()).unwrap();
    });
    let error = pull(&key(2), &store, &config(address)).await.unwrap_err();
    assert!(matches!(error, CatchUpError::Reset { code: 5 }), "{error}");
    // A length beyond the kind's limit.
    let address = rogue(|mut send| async move {
        send.write_all(&[0xff, 0xff, 0xff, 0x7f, 0x81])
            .await
            .unwrap();
    });
    let error = pull(&key(2), &store, &config(address)).await.unwrap_err();
    let fault = peer(error);
    assert!(matches!(fault, PeerFault::Malformed(_)), "{fault}");
}

async fn connect(address: SocketAddr) -> (Endpoint, quinn::Connection) {
    let endpoint = quic::client(LOCALHOST).unwrap();
    let client = quic::client_config(&key(2), key(1).id()).unwrap();
    let connecting = endpoint.connect_with(client, address, SERVER_NAME).unwrap();
    let connection = connecting.await.unwrap();
    (endpoint, connection)
}

/// The code the server closed the connection with.
async fn closed_with(connection: &quinn::Connection) -> u64 {
    match connection.closed().await {
        quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_none_end_the_connection() {
    let server = Server::new(ledger(), &[key(2).id()], ServeLimits::default());
    let head = Request::Head { newest: vec![] }.encode().unwrap();
    let reply = Reply::Head { notes: vec![] }.encode().unwrap();
    let hostile = vec![0xff, 0xff, 0xff, 0xff, 1];
    for bytes in [
        vec![],
        reply,
        [&head[..], &head[..]].concat(),
        head[..3].to_vec(),
        hostile,
    ] {
        let (_endpoint, connection) = connect(server.address).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        send.finish().unwrap();
        assert_eq!(closed_with(&connection).await, CloseCode::Misbehaved as u64);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_never_comes_is_given_up() {
    let limits = ServeLimits {
        request_deadline: SHORT,
        ..ServeLimits::default()
    };
    let server = Server::new(ledger(), &[key(2).id()], limits);
    let (_endpoint, connection) = connect(server.address).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&[1]).await.unwrap();
    let ended = recv.read_to_end(1).await.unwrap_err();
    let code = CloseCode::TimedOut.code();
    let reset = matches!(
        ended,
        quinn::ReadToEndError::Read(quinn::ReadError::Reset(c)) if c == code
    );
    assert!(reset, "{ended}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_ends_the_oldest_of_its_key_and_a_shutdown_the_rest() {
    let limits = ServeLimits {
        connections_per_peer_max: 2,
        ..ServeLimits::default()
    };
    let server = Server::new(ledger(), &[key(2).id()], limits);
    let ask = async |connection: &quinn::Connection| {
        let (mut send, mut recv) = connection.open_bi().await?;
        let head = Request::Head { newest: vec![] }.encode().unwrap();
        send.write_all(&head).await.unwrap();
        send.finish().unwrap();
        recv.read_to_end(1 << 20).await.unwrap();
        Ok::<_, quinn::ConnectionError>(())
    };
    let (_first_endpoint, first) = connect(server.address).await;
    ask(&first).await.unwrap();
    let (_second_endpoint, second) = connect(server.address).await;
    ask(&second).await.unwrap();
    // A killed process leaves its connections behind: they must not lock its
    // key out until they are idle.
    let (_third_endpoint, third) = connect(server.address).await;
    ask(&third).await.unwrap();
    assert_eq!(closed_with(&first).await, CloseCode::Busy as u64);
    server.stop().await;
    assert_eq!(closed_with(&second).await, CloseCode::ShuttingDown as u64);
    assert_eq!(closed_with(&third).await, CloseCode::ShuttingDown as u64);
}

#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now_ns(&self) -> u64 {
        1_700_000_000_000_000_000
    }
}

fn open(role: StoreRole) -> Store {
    let disk = Arc::new(MemoryDisk::new());
    let key = signer(1);
    create(&*disk, role, key.verifier()).unwrap();
    let own = (role == StoreRole::Own).then_some(key);
    let options = StoreOptions::new(Arc::new(Stopped));
    Store::open(disk, options, own).unwrap().store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_mirrored_and_the_mirror_mirrored() {
    let own = open(StoreRole::Own);
    let id = |n: usize| ContextId::new(&format!("context {}", n % 7)).unwrap();
    let mut stores = vec![(own, 1u8)];
    for round in 0..3 {
        let drafts = (0..400).map(|n| {
            let payload = vec![7; if n % 50 == 0 { 5000 + n } else { n }];
            (id(n * n + round), Draft::new("key", payload).unwrap())
        });
        stores[0].0.append(drafts.collect()).unwrap();
        let head = stores[0].0.publish().unwrap();
        if round == 0 {
            stores.push((open(StoreRole::Mirror), 2));
            stores.push((open(StoreRole::Mirror), 2));
        }
        for n in 1..3 {
            let server = Server::new(
                stores[n - 1].0.view().clone(),
                &[key(2).id()],
                ServeLimits::default(),
            );
            let mirror = Arc::new(stores[n].0.clone());
            let report = pull(&key(2), &mirror, &config(server.address))
                .await
                .unwrap();
            assert_eq!((report.outcome, report.entries), (Outcome::CaughtUp, 400));
            assert_eq!(mirror.view().head().as_ref(), Some(&head));
            server.stop().await;
        }
    }
}
