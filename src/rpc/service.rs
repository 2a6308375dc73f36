//! Layer 4. The five calls of the engine's API over the places. Limits of
//! messages, deadlines and tokens are the guard's.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use tracing::Span;

use super::answers::Answers;
use super::config::{
    GET_PAGE_BYTES_MAX, GET_REPLY_BYTES_MAX, HASH_INLINE_BYTES_MAX, LOADS_MAX, READ_TIME_MAX,
    RpcConfig,
};
use super::convert;
use super::places::Places;
use super::proto::context::context_service_server::ContextService;
use super::proto::context::{
    AppendRequest, AppendResponse, GetRequest, GetResponse, LoadRequest, LoadResponse,
    SnapshotMetadata, SnapshotRequest, SnapshotResponse, WatchRequest,
};
use super::reads::{Reads, Threads};
use super::reply::ReplyPermit;
use super::status::RpcError;
use super::watch::Watch;
use crate::archive;
use crate::node::archives::{self, LoadOptions};
use crate::node::clock::now_ns;
use crate::store::{PageLimits, StoreError};

/// What all lanes share.
pub(super) struct Shared {
    reads: Arc<Reads>,
    loads: Threads,
    /// Bytes of replies that are not sent yet.
    replies: Arc<Semaphore>,
    snapshot_bytes_max: usize,
}

impl Shared {
    pub(super) fn new(reads: Arc<Reads>, config: &RpcConfig) -> Self {
        Self {
            reads,
            loads: Threads::new(LOADS_MAX),
            replies: Arc::new(Semaphore::new(config.reply_bytes_max)),
            snapshot_bytes_max: config.snapshot_bytes_max,
        }
    }
}

/// See the module. One for each lane.
pub(super) struct Service {
    shared: Arc<Shared>,
    answers: Answers,
}

impl Service {
    /// Made on the runtime of its lane.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let answers = Answers::start();
        Self { shared, answers }
    }

    /// Waits until there is room for a reply.
    async fn room_for(&self, bytes: usize) -> Result<ReplyPermit, RpcError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.shared.replies)
            .acquire_many_owned(bytes)
            .await;
        room.map(ReplyPermit::new)
            .map_err(|_| RpcError::Mistake("the room for replies is gone"))
    }
}

/// Names the context in the log of the call.
fn names(context_id: &str) {
    Span::current().record("context", tracing::field::debug(context_id));
}

#[tonic::async_trait]
impl ContextService for Service {
    type WatchStream = Watch;

    async fn append(
        &self,
        request: Request<AppendRequest>,
    ) -> Result<Response<AppendResponse>, Status> {
        let request = request.into_inner();
        names(&request.context_id);
        let id = convert::context_id(&request.context_id)?;
        let store = self.shared.reads.places().to_write()?;
        let (request, draft) = if request.payload.len() > HASH_INLINE_BYTES_MAX {
            let drafting = tokio::task::spawn_blocking(move || {
                let draft = convert::draft(&request);
                (request, draft)
            });
            let mistake = |_| RpcError::Mistake("an entry was not made");
            drafting.await.map_err(mistake)?
        } else {
            let draft = convert::draft(&request);
            (request, draft)
        };
        let (done, answer) = self.answers.register();
        store.submit(vec![(id, draft?)], false, done);
        let stored = answer.await.map_err(|_| RpcError::Unanswered)?;
        let stored = stored.map_err(RpcError::Append)?;
        let to = stored
            .first()
            .ok_or(RpcError::Mistake("an append has no place"))?;
        Ok(Response::new(AppendResponse {
            entry: Some(convert::appended(request, to)),
        }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let request = request.into_inner();
        names(&request.context_id);
        let id = convert::context_id(&request.context_id)?;
        let key = convert::wanted_key(request.key)?;
        let after = request.after_sequence;
        let limits = PageLimits {
            entries: usize::try_from(request.limit).unwrap_or(usize::MAX),
            bytes: GET_REPLY_BYTES_MAX,
            until: Some(Instant::now() + READ_TIME_MAX),
        };
        // Set aside before anything is read, so that it bounds what is read.
        let mut room = self.room_for(GET_PAGE_BYTES_MAX).await?;
        let read = move |places: &Places| {
            let found = places.read(&id, &request.origin, |view| {
                let page = view.page(&id, after, &limits, key.as_deref())?;
                Ok::<_, StoreError>((page.size > 0).then_some(page))
            });
            found.map(|(place, page)| (place.origin().to_string(), page))
        };
        let (origin, page) = self.shared.reads.run(read).await?;
        let mut reply = GetResponse {
            entries: Vec::with_capacity(page.entries.len()),
            latest_sequence: page.size,
            next_after_sequence: page.next_after,
            origin,
        };
        let mut bytes = 0usize;
        for entry in page.entries {
            let entry = convert::entry(entry);
            // With its own tag and length.
            bytes += entry.encoded_len() + 6;
            if bytes > GET_REPLY_BYTES_MAX
                && let Some(last) = reply.entries.last()
            {
                reply.next_after_sequence = last.sequence;
                break;
            }
            reply.entries.push(entry);
        }
        room.shrink(bytes);
        let mut reply = Response::new(reply);
        reply.extensions_mut().insert(room);
        Ok(reply)
    }

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<SnapshotResponse>, Status> {
        let request = request.into_inner();
        names(&request.context_id);
        let id = convert::context_id(&request.context_id)?;
        let limit = self.shared.snapshot_bytes_max;
        let mut room = self.room_for(limit).await?;
        let read = move |places: &Places| {
            let found = places.read(&id, &request.origin, |view| {
                archives::snapshot_in_memory(view, &id, limit)
            });
            found.map(|(place, made)| (place.origin().to_string(), made))
        };
        let (origin, (made, snapshot)) = self.shared.reads.run(read).await?;
        room.shrink(snapshot.len());
        let mut reply = Response::new(SnapshotResponse {
            snapshot: snapshot.into(),
            sequence: made.size,
            metadata: Some(SnapshotMetadata {
                created_at_ns: now_ns(),
                entry_count: made.size,
                version: archive::VERSION,
                merkle_root: Bytes::copy_from_slice(made.root.as_bytes()),
            }),
            origin,
        });
        reply.extensions_mut().insert(room);
        Ok(reply)
    }

    async fn load(&self, request: Request<LoadRequest>) -> Result<Response<LoadResponse>, Status> {
        let request = request.into_inner();
        names(&request.context_id);
        let id = convert::context_id(&request.context_id)?;
        let options = LoadOptions {
            fail_if_exists: request.fail_if_exists,
            allow_future: false,
        };
        let store = self.shared.reads.places().to_write()?.clone();
        let archive = Cursor::new(request.snapshot);
        // What has begun goes on to its end, whether the caller waits or not.
        let load = move || archives::load(&store, &id, archive, &options);
        let loaded = self.shared.loads.run(load).await?;
        Ok(Response::new(LoadResponse {
            entries_restored: loaded.restored,
            latest_sequence: loaded.size,
        }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Watch>, Status> {
        let request = request.into_inner();
        names(&request.context_id);
        let id = convert::context_id(&request.context_id)?;
        let key = convert::wanted_key(request.key)?;
        let reads = Arc::clone(&self.shared.reads);
        let place = if let Some(place) = reads.places().certain(&request.origin)? {
            Arc::clone(place)
        } else {
            let (id, origin) = (id.clone(), request.origin);
            let find = move |places: &Places| places.to_watch(&id, &origin).cloned();
            reads.run(find).await?
        };
        let watch = Watch::new(place, id, reads, key, request.from_sequence);
        Ok(Response::new(watch))
    }
}
