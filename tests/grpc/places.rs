//! A server with a store of its own and mirrors: which of them answers, and what
//! a mirror shows.

use converge_ledger::client::{self, ClientOptions, PageQuery};
use converge_ledger::entry::ContextId;
use converge_ledger::ledger::ReadMirror as _;
use converge_ledger::note::OriginName;
use converge_ledger::rpc::Places;
use converge_ledger::rpc::proto::context::{
    GetRequest, GetResponse, LoadRequest, SnapshotRequest, SnapshotResponse, WatchEvent,
    WatchRequest,
};
use converge_ledger::rpc::proto::inspect::ContextsRequest;
use converge_ledger::rpc::proto::inspect::inspect_service_client::InspectServiceClient;
use converge_ledger::store::{Store, StoreRole};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status, Streaming};

use crate::mirrors::{Mirrored, Take, fill, pull};
use crate::support::{Client, Served, Setup, append, place, refused, within};

const OWN: &str = "own.example";
const A: &str = "a.example";
const B: &str = "b.example";

/// A server, its own store if it has one, and mirrors of A and B.
struct Fixture {
    served: Served,
    client: Client,
    own: Option<Store>,
    a: Mirrored,
    b: Mirrored,
}

impl Fixture {
    async fn new(with_own: bool) -> Self {
        let ((place_a, a), (place_b, b)) = (Mirrored::new(A), Mirrored::new(B));
        let mut places = vec![place_b, place_a];
        let own = with_own.then(|| {
            let (place, own, _) = place(StoreRole::Own, OWN);
            places.push(place);
            own
        });
        let served = Setup::default().serve(Places::new(places).unwrap());
        let client = served.client().await;
        Self {
            served,
            client,
            own,
            a,
            b,
        }
    }

    fn own(&self) -> &Store {
        self.own.as_ref().unwrap()
    }

    async fn get(&mut self, context: &str, origin: &str) -> Result<GetResponse, Status> {
        let request = GetRequest {
            context_id: context.into(),
            origin: origin.into(),
            ..GetRequest::default()
        };
        within(self.client.get(request))
            .await
            .map(tonic::Response::into_inner)
    }

    async fn snapshot(&mut self, context: &str, origin: &str) -> Result<SnapshotResponse, Status> {
        let request = SnapshotRequest {
            context_id: context.into(),
            origin: origin.into(),
        };
        within(self.client.snapshot(request))
            .await
            .map(tonic::Response::into_inner)
    }

    async fn watch(&mut self, context: &str, origin: &str) -> Result<Events, Status> {
        let request = WatchRequest {
            context_id: context.into(),
            origin: origin.into(),
            ..WatchRequest::default()
        };
        within(self.client.watch(request))
            .await
            .map(tonic::Response::into_inner)
    }

    /// Get, Snapshot and Watch read this context of that origin.
    async fn reads(&mut self, context: &str, origin: &str, from: &str, payloads: &[&str]) {
        let page = self.get(context, origin).await.unwrap();
        let got: Vec<_> = page.entries.iter().map(|e| e.payload.clone()).collect();
        assert_eq!(
            (page.origin.as_str(), got),
            (
                from,
                payloads.iter().map(|p| (*p).to_owned().into()).collect()
            )
        );
        let made = self.snapshot(context, origin).await.unwrap();
        assert_eq!(
            (made.origin.as_str(), made.sequence),
            (from, payloads.len() as u64)
        );
        let mut events = self.watch(context, origin).await.unwrap();
        for (at, payload) in payloads.iter().enumerate() {
            let event = next(&mut events).await;
            assert_eq!(event.entry.unwrap().payload, payload.as_bytes());
            // It is said once.
            assert_eq!(event.origin, if at == 0 { from } else { "" });
        }
    }

    /// Get and Snapshot are refused.
    async fn refuses(&mut self, context: &str, origin: &str, code: Code, says: &[&str]) {
        for says in says {
            refused(self.get(context, origin).await, code, says);
            refused(self.snapshot(context, origin).await, code, says);
        }
    }

    async fn end(self) {
        self.served.stop().await;
    }
}

type Events = Streaming<WatchEvent>;

async fn next(events: &mut Events) -> WatchEvent {
    within(events.next()).await.unwrap().unwrap()
}

/// The payload of the next entry.
async fn payload(events: &mut Events) -> String {
    let entry = next(events).await.entry.unwrap();
    String::from_utf8(entry.payload.to_vec()).unwrap()
}

#[tokio::test]
async fn a_context_is_read_from_the_own_store_first_and_else_by_its_origin() {
    let mut fixture = Fixture::new(true).await;
    fill(fixture.own(), "everywhere", &["own 1", "own 2"]);
    fill(fixture.own(), "own", &["mine"]);
    fixture.a.append("everywhere", &["a 1"]);
    fixture.a.append("both", &["a 1", "a 2"]);
    fixture.a.append("a", &["only a"]);
    fixture.b.append("both", &["b 1"]);
    fixture.b.append("everywhere", &["b 1"]);

    // Nothing named: own, then the one mirror.
    fixture
        .reads("everywhere", "", OWN, &["own 1", "own 2"])
        .await;
    fixture.reads("own", "", OWN, &["mine"]).await;
    fixture.reads("a", "", A, &["only a"]).await;
    // Several mirrors: both are named, and how to choose.
    let ambiguous = [A, B, "`origin`", "--origin", "\"both\""];
    let code = Code::FailedPrecondition;
    fixture.refuses("both", "", code, &ambiguous).await;
    for says in ambiguous {
        refused(fixture.watch("both", "").await, code, says);
    }
    // Named: that place and no other.
    fixture
        .reads("everywhere", OWN, OWN, &["own 1", "own 2"])
        .await;
    fixture.reads("everywhere", A, A, &["a 1"]).await;
    fixture.reads("everywhere", B, B, &["b 1"]).await;
    fixture.reads("both", A, A, &["a 1", "a 2"]).await;
    fixture.reads("both", B, B, &["b 1"]).await;
    fixture
        .refuses("both", OWN, Code::NotFound, &["\"both\""])
        .await;
    fixture.refuses("a", B, Code::NotFound, &["\"a\""]).await;
    // What nobody has, and whom nobody knows.
    fixture
        .refuses("none", "", Code::NotFound, &["\"none\""])
        .await;
    let stranger = "stranger.example";
    fixture
        .refuses("a", stranger, Code::NotFound, &[stranger])
        .await;
    refused(fixture.watch("a", stranger).await, Code::NotFound, stranger);
    for wrong in ["a b", "a+b", &"a".repeat(256), "\n"] {
        fixture
            .refuses("a", wrong, Code::InvalidArgument, &["origin"])
            .await;
        refused(
            fixture.watch("a", wrong).await,
            Code::InvalidArgument,
            "origin",
        );
    }
    fixture.end().await;
}

#[tokio::test]
async fn without_an_own_store_only_mirrors_are_read() {
    let mut fixture = Fixture::new(false).await;
    fixture.a.append("both", &["a 1"]);
    fixture.a.append("a", &["only a"]);
    fixture.b.append("both", &["b 1"]);
    fixture.reads("a", "", A, &["only a"]).await;
    fixture.reads("both", B, B, &["b 1"]).await;
    fixture
        .refuses("both", "", Code::FailedPrecondition, &[A, B])
        .await;
    fixture
        .refuses("none", "", Code::NotFound, &["\"none\""])
        .await;
    // It could come of either.
    for says in [A, B, "--origin"] {
        refused(
            fixture.watch("none", "").await,
            Code::FailedPrecondition,
            says,
        );
    }
    // Writes name whose history is held.
    let archive = fixture.snapshot("a", "").await.unwrap().snapshot;
    for says in [A, B, "the server that owns the store"] {
        let outcome = append(&mut fixture.client, "c", "k", b"p").await;
        refused(outcome, Code::FailedPrecondition, says);
        let load = LoadRequest {
            context_id: "c".into(),
            snapshot: archive.clone(),
            fail_if_exists: false,
        };
        refused(
            within(fixture.client.load(load)).await,
            Code::FailedPrecondition,
            says,
        );
    }
    fixture.end().await;
}

#[tokio::test]
async fn writes_go_to_the_own_store_whatever_mirrors_hold() {
    let mut fixture = Fixture::new(true).await;
    fixture.a.append("c", &["a 1", "a 2"]);
    fixture.reads("c", "", A, &["a 1", "a 2"]).await;
    let archive = fixture.snapshot("c", "").await.unwrap().snapshot;
    let entry = append(&mut fixture.client, "c", "k", b"mine")
        .await
        .unwrap();
    assert_eq!(entry.sequence, 1);
    // From then on it is the own one; the mirror's is where it was.
    fixture.reads("c", "", OWN, &["mine"]).await;
    fixture.reads("c", A, A, &["a 1", "a 2"]).await;
    let load = |context: &str| LoadRequest {
        context_id: context.into(),
        snapshot: archive.clone(),
        fail_if_exists: true,
    };
    // A name that a mirror has is free for the own store.
    fixture.b.append("d", &["b 1"]);
    let loaded = within(fixture.client.load(load("d")))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(loaded.entries_restored, 2);
    fixture.reads("d", "", OWN, &["a 1", "a 2"]).await;
    fixture.reads("d", B, B, &["b 1"]).await;
    let again = within(fixture.client.load(load("d"))).await;
    refused(again, Code::AlreadyExists, "exists");
    fixture.end().await;
}

#[tokio::test]
async fn a_watch_stays_where_it_began() {
    let mut fixture = Fixture::new(true).await;
    // Waits in the own store, and by name in a mirror.
    let mut waiting = fixture.watch("c", "").await.unwrap();
    let mut waiting_a = fixture.watch("c", A).await.unwrap();
    fixture.a.append("c", &["a 1"]);
    assert_eq!(payload(&mut waiting_a).await, "a 1");
    // Begun when only the mirror had it.
    let mut begun = fixture.watch("c", "").await.unwrap();
    assert_eq!(payload(&mut begun).await, "a 1");
    fill(fixture.own(), "c", &["own 1", "own 2"]);
    fixture.b.append("c", &["b 1"]);
    assert_eq!(payload(&mut waiting).await, "own 1");
    assert_eq!(payload(&mut waiting).await, "own 2");
    fixture.a.append("c", &["a 2", "a 3"]);
    for watch in [&mut begun, &mut waiting_a] {
        assert_eq!(payload(watch).await, "a 2");
        assert_eq!(payload(watch).await, "a 3");
    }
    // Watchers of one name in several places do not share what they read.
    let mut all = Vec::new();
    for origin in [OWN, A, B] {
        all.push(fixture.watch("c", origin).await.unwrap());
    }
    for (events, expected) in all.iter_mut().zip(["own 1", "a 1", "b 1"]) {
        assert_eq!(payload(events).await, expected);
    }
    fixture.end().await;
}

#[tokio::test]
async fn what_is_pending_in_a_mirror_is_not_shown() {
    let mut fixture = Fixture::new(true).await;
    fixture.a.append("c", &["1", "2"]);
    fill(&fixture.a.source, "c", &["3", "4"]);
    fill(&fixture.a.source, "new", &["1"]);
    assert!(pull(&fixture.a.source, &fixture.a.mirror, Take::Pending));
    // It is there, and does not count yet.
    let view = fixture.a.mirror.view();
    let held = |context: &str| {
        let held = view.accumulator(&ContextId::new(context).unwrap());
        held.unwrap().size()
    };
    assert_eq!((held("c"), held("new")), (4, 1));
    for origin in ["", A] {
        fixture.reads("c", origin, A, &["1", "2"]).await;
        assert_eq!(fixture.get("c", origin).await.unwrap().latest_sequence, 2);
        fixture
            .refuses("new", origin, Code::NotFound, &["\"new\""])
            .await;
    }
    let mut events = fixture.watch("c", "").await.unwrap();
    assert_eq!(payload(&mut events).await, "1");
    assert_eq!(payload(&mut events).await, "2");
    let mut new = fixture.watch("new", A).await.unwrap();
    let mut listed = InspectServiceClient::new(fixture.served.channel().await);
    let mut list = async || {
        let request = ContextsRequest {
            origin: A.into(),
            ..ContextsRequest::default()
        };
        let reply = within(listed.contexts(request)).await.unwrap().into_inner();
        let sizes = reply
            .contexts
            .iter()
            .map(|c| format!("{} {}", c.id, c.size));
        sizes.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(list().await, "c 2");
    // Neither has anything to say until the head is complete.
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), async {
        tokio::select! {
            _ = events.next() => (),
            _ = new.next() => (),
        }
    });
    assert!(early.await.is_err(), "shown before it was complete");
    assert!(pull(&fixture.a.source, &fixture.a.mirror, Take::All));
    assert_eq!(payload(&mut events).await, "3");
    assert_eq!(payload(&mut events).await, "4");
    assert_eq!(payload(&mut new).await, "1");
    fixture.reads("c", "", A, &["1", "2", "3", "4"]).await;
    fixture.reads("new", "", A, &["1"]).await;
    assert_eq!(list().await, "c 4, new 1");
    fixture.end().await;
}

#[tokio::test]
async fn a_listing_is_of_one_origin_and_names_all() {
    let fixture = Fixture::new(true).await;
    for name in ["b", "a", "c"] {
        fill(fixture.own(), name, &[""]);
    }
    fixture.a.append("a", &["", ""]);
    fixture.a.append("z", &[""]);
    let mut inspect = InspectServiceClient::new(fixture.served.channel().await);
    let mut list = async |origin: &str, after: &str, limit| {
        let request = ContextsRequest {
            after: after.into(),
            limit,
            origin: origin.into(),
        };
        let reply = within(inspect.contexts(request))
            .await
            .map(tonic::Response::into_inner)?;
        assert_eq!(reply.origins, [OWN, A, B]);
        let ids: Vec<String> = reply.contexts.iter().map(|c| c.id.clone()).collect();
        Ok::<_, Status>((reply.origin, ids.join(""), reply.next_after))
    };
    let is =
        |origin: &str, ids: &str, next: &str| (origin.to_owned(), ids.to_owned(), next.to_owned());
    assert_eq!(list("", "", 0).await.unwrap(), is(OWN, "abc", ""));
    assert_eq!(list("", "", 2).await.unwrap(), is(OWN, "ab", "b"));
    assert_eq!(list(OWN, "b", 2).await.unwrap(), is(OWN, "c", ""));
    assert_eq!(list(A, "", 0).await.unwrap(), is(A, "az", ""));
    assert_eq!(list(A, "a", 1).await.unwrap(), is(A, "z", "z"));
    assert_eq!(list(B, "", 0).await.unwrap(), is(B, "", ""));
    refused(list("none", "", 0).await, Code::NotFound, "none");
    refused(list("no ne", "", 0).await, Code::InvalidArgument, "origin");
    fixture.end().await;
}

/// The Rust client stays with the origin that the first answer was of.
#[tokio::test]
async fn the_client_goes_on_in_the_same_history() {
    let fixture = Fixture::new(true).await;
    fixture.a.append("c", &["a 1", "a 2", "a 3"]);
    let url = format!("http://{}", fixture.served.address);
    let client = client::Client::connect(ClientOptions::new(url))
        .await
        .unwrap();
    let id = ContextId::new("c").unwrap();
    let name = |origin: &str| OriginName::new(origin).unwrap();
    let query = PageQuery {
        limit: 1,
        ..PageQuery::default()
    };
    let mut pages = client.pages(&id, query.clone());
    let first = pages.next().await.unwrap().unwrap();
    assert_eq!(first.origin, Some(name(A)));
    fill(fixture.own(), "c", &["own 1", "own 2"]);
    // The own one would come first now.
    let of = async |client: &client::Client| client.get(&id, &query).await.unwrap().origin;
    assert_eq!(of(&client).await, Some(name(OWN)));
    assert_eq!(
        of(&client.clone().with_origin(name(A))).await,
        Some(name(A))
    );
    for expected in ["a 2", "a 3"] {
        let page = pages.next().await.unwrap().unwrap();
        assert_eq!(page.entries[0].payload, expected.as_bytes());
    }
    assert!(pages.next().await.unwrap().is_none());
    let made = client.snapshot(&id).await.unwrap();
    assert_eq!((made.size, made.origin), (2, Some(name(OWN))));
    let of_a = client.with_origin(name(A));
    let made = of_a.snapshot(&id).await.unwrap();
    assert_eq!((made.size, made.origin), (3, Some(name(A))));
    let mut watch = of_a.watch(&id, None, 1);
    assert_eq!(watch.next().await.unwrap().payload, b"a 2");
    let listed = of_a.contexts(None, 0).await.unwrap();
    assert_eq!(listed.contexts.len(), 1);
    assert_eq!(listed.origins, [name(OWN), name(A), name(B)]);
    drop(watch);
    fixture.end().await;
}
