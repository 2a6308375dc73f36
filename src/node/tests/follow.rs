//! A mirror that follows: every head, through restarts, until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::{LOCALHOST, Server, Stopped, config, key, ledger, open, signer};
use crate::entry::{ContextId, Draft};
use crate::node::{Allowlist, CatchUpError, Hooks, News, ServeLimits, follow, quic, serve};
use crate::store::disk::MemoryDisk;
use crate::store::{Change, Followers, Listener, Store, StoreOptions, StoreRole, create};
use crate::sync::{LocalFault, Outcome, Report, SyncError};

/// A store that publishes heads by itself, and what tells of them.
fn source() -> (Store, News) {
    let disk = Arc::new(MemoryDisk::new());
    create(&*disk, StoreRole::Own, signer(1).verifier()).unwrap();
    let (publish, published) = watch::channel(0);
    let followers = Followers::default();
    let mut options = StoreOptions::new(Arc::new(Stopped));
    options.followers = Some(followers.clone());
    options.listener = Some(Listener(Arc::new(move |change| {
        if matches!(change, Change::Head) {
            publish.send_modify(|heads| *heads += 1);
        }
    })));
    let store = Store::open(disk, options, Some(signer(1))).unwrap().store;
    (
        store,
        News {
            published,
            followers,
        },
    )
}

fn append(store: &Store, n: usize) {
    let id = ContextId::new(&format!("context {}", n % 3)).unwrap();
    let draft = Draft::new("key", vec![1; n]).unwrap();
    store.append(vec![(id, draft)]).unwrap();
}

/// A mirror's process.
struct Follower {
    store: Store,
    reports: mpsc::UnboundedReceiver<Report>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), CatchUpError>>,
}

impl Follower {
    fn of(address: SocketAddr) -> Self {
        let store = open(StoreRole::Mirror);
        let (tell, reports) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let mirror = Arc::new(store.clone());
        let task = tokio::spawn(async move {
            let endpoint = quic::client(LOCALHOST).unwrap();
            let config = config(address);
            let done = |report| _ = tell.send(report);
            let shutdown = async { _ = stopped.await };
            follow(&endpoint, &key(2), mirror, &config, done, shutdown).await
        });
        Self {
            store,
            reports,
            stop: Some(stop),
            task,
        }
    }

    /// Waits until it holds so many entries.
    async fn holds(&mut self, entries: u64) {
        loop {
            let report = self.reports.recv().await.unwrap();
            let head = report.head.unwrap();
            assert_eq!(self.store.view().head().as_ref(), Some(&head));
            if head.head().entries >= entries {
                return;
            }
        }
    }

    async fn stop(mut self) -> Result<(), CatchUpError> {
        drop(self.stop.take());
        self.task.await.unwrap()
    }
}

fn hooks(news: &News) -> Hooks {
    let news = Some(news.clone());
    Hooks { shown: None, news }
}

fn telling(store: &Store, news: &News) -> Server {
    let (view, limits) = (store.view().clone(), ServeLimits::default());
    Server::telling(view, &[key(2).id()], limits, hooks(news))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_hears_of_every_head() {
    let (store, news) = source();
    append(&store, 0);
    store.publish().unwrap();
    let server = telling(&store, &news);
    let mut mirror = Follower::of(server.address);
    mirror.holds(1).await;
    // Nobody publishes but the store itself, because somebody follows.
    for n in 1..30 {
        append(&store, n);
        if n == 1 {
            // The first may have come before it followed.
            store.publish().unwrap();
        }
        mirror.holds(n as u64 + 1).await;
    }
    assert_eq!(news.followers.count(), 1);
    assert_eq!(
        mirror.store.view().contexts(None, 9).unwrap(),
        store.view().contexts(None, 9).unwrap()
    );
    mirror.stop().await.unwrap();
    server.stop().await;
    assert_eq!(news.followers.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_comes_back_when_its_source_does() {
    let (store, news) = source();
    append(&store, 0);
    store.publish().unwrap();
    let server = |address: SocketAddr| {
        let allowed = Allowlist::new([key(2).id()]).unwrap();
        let endpoint = quic::listen(address, &key(1), &allowed).unwrap();
        let address = endpoint.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ledger, hooks) = (Arc::new(store.view().clone()), hooks(&news));
        let serving = serve(
            (endpoint, allowed),
            ledger,
            ServeLimits::default(),
            hooks,
            async { _ = stopped.await },
        );
        (address, stop, tokio::spawn(serving))
    };
    let (address, mut stop, mut task) = server(LOCALHOST);
    let mut mirror = Follower::of(address);
    for n in 1..4 {
        mirror.holds(n).await;
        drop(stop);
        task.await.unwrap();
        append(&store, usize::try_from(n).unwrap());
        store.publish().unwrap();
        (_, stop, task) = server(address);
    }
    mirror.holds(4).await;
    mirror.stop().await.unwrap();
    drop(stop);
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_pass_ends_it_and_what_can_does_not() {
    // A source that tells nobody.
    let server = Server::new(ledger(), &[key(2).id()], ServeLimits::default());
    let mut mirror = Follower::of(server.address);
    let first = mirror.reports.recv().await.unwrap();
    assert_eq!(first.outcome, Outcome::CaughtUp);
    // It asks again, and catches up, each time.
    let again = mirror.reports.recv().await.unwrap();
    assert_eq!(again.outcome, Outcome::Current);
    mirror.stop().await.unwrap();
    server.stop().await;
    // A store that takes nothing any more.
    let (store, news) = source();
    append(&store, 0);
    store.publish().unwrap();
    let server = telling(&store, &news);
    let mut mirror = Follower::of(server.address);
    mirror.holds(1).await;
    mirror.store.close().unwrap();
    append(&store, 1);
    store.publish().unwrap();
    let error = mirror.task.await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            CatchUpError::Sync(SyncError::Local(LocalFault::Store(_)))
        ),
        "{error}"
    );
    server.stop().await;
}
