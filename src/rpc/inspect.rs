//! Layer 4. What an operator may ask: the listing of contexts.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::config::CONTEXTS_PER_REPLY_MAX;
use super::convert;
use super::places::Places;
use super::proto::inspect::inspect_service_server::InspectService;
use super::proto::inspect::{ContextsRequest, ContextsResponse};
use super::reads::Reads;
use super::status::RpcError;

/// See the module.
pub(super) struct Inspect {
    reads: Arc<Reads>,
}

impl Inspect {
    pub(super) fn new(reads: Arc<Reads>) -> Self {
        Self { reads }
    }
}

#[tonic::async_trait]
impl InspectService for Inspect {
    async fn contexts(
        &self,
        request: Request<ContextsRequest>,
    ) -> Result<Response<ContextsResponse>, Status> {
        let request = request.into_inner();
        let after = match request.after.as_str() {
            "" => None,
            after => Some(convert::context_id(after)?),
        };
        let limit = match usize::try_from(request.limit) {
            Ok(limit @ 1..=CONTEXTS_PER_REPLY_MAX) => limit,
            _ => CONTEXTS_PER_REPLY_MAX,
        };
        let read = move |places: &Places| {
            let place = places.to_list(&request.origin)?;
            let found = place.view().contexts(after.as_ref(), limit)?;
            Ok::<_, RpcError>((place.origin().to_string(), found))
        };
        let (origin, found) = self.reads.run(read).await?;
        let next = found.last().filter(|_| found.len() == limit);
        let all = self.reads.places().all().iter();
        Ok(Response::new(ContextsResponse {
            next_after: next.map_or_else(String::new, |last| last.id.as_str().to_owned()),
            contexts: found.iter().map(convert::context).collect(),
            origin,
            origins: all.map(|place| place.origin().to_string()).collect(),
        }))
    }
}
