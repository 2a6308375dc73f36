//! Layer 4. A client of the API: the five calls of the engine, and the listing
//! of contexts, with the crate's own types.
//!
//! * `options`: where the server is, secrets, deadlines;
//! * `checked`: what the server says of entries is recomputed here;
//! * `pages`: reading on where a page ended;
//! * `watch`: entries as they come, over broken connections;
//! * `backoff`: when to try again;
//! * `error`: why a call did not succeed.
//!
//! Invariants:
//! * an entry that is handed out has the hash of its fields, and entries are
//!   handed out in the order of their sequences, none twice, and, without a
//!   key, none left out. This finds what was damaged on the way; whether the
//!   server tells the truth only a mirror finds, which verifies signed roots;
//! * nothing is sent twice unless that is safe: reads, and appends with a
//!   request id;
//! * no token and no private key is ever formatted.
//!
//! ```
//! use std::sync::Arc;
//!
//! use converge_ledger::client::{Client, ClientOptions, PageQuery};
//! use converge_ledger::entry::{ContextId, Draft};
//! # use converge_ledger::node::clock::SystemClock;
//! # use converge_ledger::note::{OriginName, SignerKey};
//! # use converge_ledger::rpc::{Opening, Places, RpcConfig, Server};
//! # use converge_ledger::store::disk::MemoryDisk;
//! # use converge_ledger::store::{Store, StoreOptions, StoreRole, create};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # // A server of a store in memory.
//! # let server = Server::bind("127.0.0.1:0".parse()?, RpcConfig::default(), None, None)?;
//! # let address = server.local_addr();
//! # let disk = MemoryDisk::new();
//! # let signer = SignerKey::from_seed(OriginName::new("doc.example")?, &[7; 32]);
//! # create(&disk, StoreRole::Own, signer.verifier())?;
//! # let mut options = StoreOptions::new(Arc::new(SystemClock));
//! # options.reserve_bytes = 0;
//! # let place = Opening::new();
//! # options.listener = Some(place.listener());
//! # let store = Store::open(Arc::new(disk), options, Some(signer))?.store;
//! # let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
//! # let places = Places::new(vec![place.with(store.clone())])?;
//! # let serving = tokio::spawn(server.run(places, async move { _ = stopped.await }));
//! let client = Client::connect(ClientOptions::new(format!("http://{address}"))).await?;
//! let context = ContextId::new("job-1")?;
//!
//! // With a request id an append can be repeated: it is stored once.
//! let draft = Draft::new("facts", "it rains")?.with_request_id("r-1")?;
//! let entry = client.append(&context, &draft).await?;
//! assert_eq!(client.append(&context, &draft).await?, entry);
//!
//! let page = client.get(&context, &PageQuery::default()).await?;
//! assert_eq!((page.entries, page.next_after), (vec![entry], None));
//!
//! // What follows is waited for.
//! let mut watch = client.watch(&context, None, 1);
//! let more = Draft::new("facts", "it stopped")?;
//! let (seen, appended) = tokio::join!(watch.next(), client.append(&context, &more));
//! assert_eq!(seen?, appended?);
//!
//! // One archive, which verifies without the server.
//! let snapshot = client.snapshot(&context).await?;
//! let loaded = client.load(&ContextId::new("copy")?, snapshot.archive, true).await?;
//! assert_eq!(loaded.size, snapshot.size);
//! # drop(watch);
//! # _ = stop.send(());
//! # serving.await??;
//! # store.close()?;
//! # Ok(())
//! # }
//! ```

mod backoff;
mod checked;
mod error;
mod options;
mod pages;
mod watch;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

pub use backoff::Retry;
pub use error::ClientError;
pub use options::ClientOptions;
pub use pages::{Contexts, Page, PageQuery, Pages};
pub use tonic::Code;
pub use watch::Watch;

use crate::entry::{ContextId, Draft, Entry};
use crate::hash::Hash;
use crate::note::OriginName;
use crate::rpc::proto::context::context_service_client::ContextServiceClient;
use crate::rpc::proto::inspect::inspect_service_client::InspectServiceClient;
use crate::rpc::proto::{context as proto, inspect};

/// Random bytes of a request id that is made here.
const REQUEST_ID_RANDOM_BYTES: usize = 16;

/// Puts the token on each call.
#[derive(Clone)]
struct Authorize(Option<MetadataValue<Ascii>>);

impl Interceptor for Authorize {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

type Calls = InterceptedService<Channel, Authorize>;

/// A client of one server. Clones share the connection, which comes back by
/// itself after it broke.
#[derive(Clone)]
pub struct Client {
    engine: ContextServiceClient<Calls>,
    inspect: InspectServiceClient<Calls>,
    /// Whose contexts are read, if it was said.
    origin: Option<OriginName>,
    request_timeout: Duration,
    transfer_timeout: Duration,
    retry: Retry,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// A context as one self-verifying archive.
#[derive(Clone)]
pub struct Snapshot {
    /// The archive.
    pub archive: Bytes,
    /// Entries in it: the sequence of the last one.
    pub size: u64,
    /// The root of the context's Merkle tree over these entries.
    pub root: Hash,
    /// The server's clock when it was made, ns since 1970.
    pub created_at_ns: u64,
    /// Version of the archive's format.
    pub version: u32,
    /// Whose context it is, if the server says so. It is not in the archive.
    pub origin: Option<OriginName>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("size", &self.size)
            .field("root", &self.root)
            .field("bytes", &self.archive.len())
            .finish_non_exhaustive()
    }
}

/// What a load did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Entries that were not there before.
    pub restored: u64,
    /// Entries in the context afterwards.
    pub size: u64,
}

/// A line of the listing of contexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextSummary {
    /// Its name.
    pub id: ContextId,
    /// Entries in it.
    pub size: u64,
    /// The root of its Merkle tree.
    pub root: Hash,
}

impl Client {
    /// Connects to a server. Options that cannot be used are refused before
    /// anything is sent.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let endpoint = options.endpoint()?;
        let authorize = Authorize(options.authorization()?);
        // Includes the handshake of TLS, which the endpoint's own limit does not.
        let connecting = tokio::time::timeout(options.connect_timeout, endpoint.connect());
        let channel = connecting
            .await
            .map_err(|_| ClientError::Connect {
                reason: format!("no connection within {:?}", options.connect_timeout),
            })?
            .map_err(|error| ClientError::connect(&error))?;
        let calls = InterceptedService::new(channel, authorize);
        let bytes_max = options.message_bytes_max;
        Ok(Self {
            engine: ContextServiceClient::new(calls.clone()).max_decoding_message_size(bytes_max),
            inspect: InspectServiceClient::new(calls).max_decoding_message_size(bytes_max),
            origin: None,
            request_timeout: options.request_timeout,
            transfer_timeout: options.transfer_timeout,
            retry: options.retry,
        })
    }

    /// The same client, which reads the contexts of one origin: of a server that
    /// mirrors several. Without an origin the server's own contexts come first,
    /// then those that only one of its mirrors has. What is written goes to the
    /// server's own store all the same.
    #[must_use]
    pub fn with_origin(mut self, origin: OriginName) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Whose contexts are read, if it was said.
    #[must_use]
    pub const fn origin(&self) -> Option<&OriginName> {
        self.origin.as_ref()
    }

    /// As the field of a request.
    fn origin_field(&self) -> String {
        let origin = self.origin.as_ref();
        origin.map_or_else(String::new, ToString::to_string)
    }

    /// Stores one entry at the end of a context and returns it as it is stored,
    /// durable. Never repeated by itself: if the error [`is_undecided`] the
    /// entry may be stored, and a draft with a request id can be appended again.
    ///
    /// [`is_undecided`]: ClientError::is_undecided
    pub async fn append(&self, context: &ContextId, draft: &Draft) -> Result<Entry, ClientError> {
        let message = proto::AppendRequest {
            context_id: context.as_str().to_owned(),
            key: draft.key().to_owned(),
            payload: Bytes::copy_from_slice(draft.payload()),
            metadata: draft
                .metadata()
                .iter()
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            request_id: draft.request_id().unwrap_or_default().to_owned(),
            observed_lamport: draft.observed_lamport(),
        };
        let mut engine = self.engine.clone();
        let within = self.request_timeout;
        let reply = answer(within, engine.append(request(message, within))).await?;
        checked::appended(draft, reply.entry.unwrap_or_default())
    }

    /// The same, tried again as [`Retry`] says while that may help: the entry
    /// is stored once. A draft without a request id gets a random one, which is
    /// stored with it.
    pub async fn append_with_retry(
        &self,
        context: &ContextId,
        draft: Draft,
    ) -> Result<Entry, ClientError> {
        let draft = match draft.request_id() {
            Some(_) => draft,
            None => with_random_request_id(draft)?,
        };
        let mut failures = 0;
        loop {
            let error = match self.append(context, &draft).await {
                Ok(entry) => return Ok(entry),
                Err(error) => error,
            };
            // A draft is within the limits: it can only be too much at once.
            if !error.is_retryable() && !error.is_overload() {
                return Err(error);
            }
            failures += 1;
            let Some(wait) = self.retry.wait(failures, backoff::chance()) else {
                return Err(error);
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// One page of a context's entries: as many as fit a reply, oldest first.
    pub async fn get(&self, context: &ContextId, query: &PageQuery) -> Result<Page, ClientError> {
        let message = proto::GetRequest {
            context_id: context.as_str().to_owned(),
            key: query.key.clone(),
            after_sequence: query.after,
            limit: query.limit,
            origin: self.origin_field(),
        };
        let mut engine = self.engine.clone();
        let within = self.request_timeout;
        let reply = answer(within, engine.get(request(message, within))).await?;
        Page::checked(query, self.origin.as_ref(), reply)
    }

    /// All pages, from the one that `query` asks for.
    #[must_use]
    pub fn pages(&self, context: &ContextId, query: PageQuery) -> Pages {
        Pages::new(self.clone(), context.clone(), query)
    }

    /// A context as one archive, verified: its entries fold into `root`.
    pub async fn snapshot(&self, context: &ContextId) -> Result<Snapshot, ClientError> {
        let message = proto::SnapshotRequest {
            context_id: context.as_str().to_owned(),
            origin: self.origin_field(),
        };
        let mut engine = self.engine.clone();
        let within = self.transfer_timeout;
        let reply = answer(within, engine.snapshot(request(message, within))).await?;
        // Hashing many MiB is no work for a thread that others wait for.
        let (context, asked) = (context.clone(), self.origin.clone());
        let check = move || checked::snapshot(&context, asked.as_ref(), reply);
        let checking = tokio::task::spawn_blocking(check);
        checking.await.unwrap_or(Err(ClientError::Unverified {
            sequence: 0,
            what: "the archive could not be read",
        }))
    }

    /// Restores a context from an archive. Safe to repeat: what is there
    /// already and the same is kept.
    pub async fn load(
        &self,
        context: &ContextId,
        archive: Bytes,
        fail_if_exists: bool,
    ) -> Result<Loaded, ClientError> {
        let message = proto::LoadRequest {
            context_id: context.as_str().to_owned(),
            snapshot: archive,
            fail_if_exists,
        };
        let mut engine = self.engine.clone();
        let within = self.transfer_timeout;
        let reply = answer(within, engine.load(request(message, within))).await?;
        Ok(Loaded {
            restored: reply.entries_restored,
            size: reply.latest_sequence,
        })
    }

    /// Every entry of a context behind `from`, as it becomes durable; with a
    /// key, only those that have it. The first [`Watch::next`] asks the server.
    #[must_use]
    pub fn watch(&self, context: &ContextId, key: Option<&str>, from: u64) -> Watch {
        Watch::new(self.clone(), context.clone(), key, from)
    }

    /// The contexts of one origin in the order of their names, behind `after`; at
    /// most `limit`, or as many as fit a reply for 0. Without an origin
    /// ([`Client::with_origin`]) they are those of the first one that the server
    /// holds: its own, if it has a store of its own.
    pub async fn contexts(
        &self,
        after: Option<&ContextId>,
        limit: u32,
    ) -> Result<Contexts, ClientError> {
        let message = inspect::ContextsRequest {
            after: after.map_or_else(String::new, |id| id.as_str().to_owned()),
            limit,
            origin: self.origin_field(),
        };
        let mut inspect = self.inspect.clone();
        let within = self.request_timeout;
        let reply = answer(within, inspect.contexts(request(message, within))).await?;
        Contexts::checked(after, self.origin.as_ref(), reply)
    }
}

/// A call that the server knows the deadline of.
fn request<T>(message: T, within: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(within);
    request
}

/// Waits for the whole answer to a call, and no longer than `within`.
async fn answer<T>(
    within: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ClientError> {
    match tokio::time::timeout(within, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(ClientError::of_call(&status, within)),
        Err(_) => Err(ClientError::Timeout { after: within }),
    }
}

fn with_random_request_id(draft: Draft) -> Result<Draft, ClientError> {
    let mut random = [0u8; REQUEST_ID_RANDOM_BYTES];
    let no_id = ClientError::Options {
        what: "this system gives no random numbers: give the draft a request id",
    };
    if getrandom::fill(&mut random).is_err() {
        return Err(no_id);
    }
    let id = format!("{:032x}", u128::from_be_bytes(random));
    draft.with_request_id(id).map_err(|_| no_id)
}

#[cfg(test)]
mod tests;
