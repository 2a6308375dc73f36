//! Layer 4. Audits a source from outside: every entry it shows, or some of
//! them, verified under the origin's key alone, and nothing stored.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::Endpoint;

use super::drive::{Ends, Event, connect, drive, leave};
use super::mirror::{self, CatchUpError, Progress, within};
use super::quic::CloseCode;
use super::tls::{NodeId, NodeKey};
use crate::head::SignedHead;
use crate::note::VerifierKey;
use crate::sync::forgetful::Forgetful;
use crate::sync::{Mirror, MirrorLimits, SampleOutput, SampleReport, Sampler, sample};

/// How much of a source is audited, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct RemoteAuditOptions {
    /// Entries picked at random; without it, every entry of every context.
    pub sample: Option<u64>,
    /// What the picks follow from.
    pub seed: u64,
    /// How large the origin may be, and how much may be received.
    pub limits: MirrorLimits,
    /// The handshake must be over by then.
    pub connect_deadline: Duration,
    /// As for a sync.
    pub frame_deadline: Duration,
    /// The whole audit must be over by then.
    pub audit_deadline: Option<Duration>,
}

impl Default for RemoteAuditOptions {
    fn default() -> Self {
        Self {
            sample: None,
            seed: 0,
            limits: MirrorLimits::default(),
            connect_deadline: Duration::from_secs(10),
            frame_deadline: Duration::from_secs(30),
            audit_deadline: None,
        }
    }
}

/// What an audit found to be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteAudit {
    /// The head it was about; `None` if the source has published nothing.
    pub head: Option<SignedHead>,
    /// Entries verified.
    pub entries: u64,
    /// Contexts they are of; of a sample, counted up to 2^20.
    pub contexts: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
}

/// Verifies what the source at `address` shows of `origin`. `progress` is called
/// on the engine's thread, often; it must be quick.
pub async fn audit_remote(
    endpoint: &Endpoint,
    key: &NodeKey,
    (address, peer): (SocketAddr, NodeId),
    origin: VerifierKey,
    options: RemoteAuditOptions,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<RemoteAudit, CatchUpError> {
    let place = (address, peer);
    let connection = connect(endpoint, key, place, options.connect_deadline).await?;
    let (limits, deadline) = (options.limits, options.frame_deadline);
    let result = if let Some(samples) = options.sample {
        let received = limits.received_bytes_max;
        let engine = move |ends: Ends| {
            run_sampler(
                Sampler::new(origin, samples, options.seed, received),
                ends,
                progress,
            )
        };
        let run = drive(&connection, deadline, sample::REQUESTS_MAX, engine);
        within(options.audit_deadline, run).await
    } else {
        let engine = move |ends: Ends| run_whole(origin, limits, ends, progress);
        let run = drive(
            &connection,
            deadline,
            crate::sync::mirror::REQUESTS_MAX,
            engine,
        );
        within(options.audit_deadline, run).await
    };
    if let Err(error) = &result {
        tracing::warn!(%peer, %error, "audit failed");
    }
    let code = result
        .as_ref()
        .map_or_else(CatchUpError::code, |_| CloseCode::Done);
    leave(&connection, code).await;
    result
}

/// A sync into a store that forgets.
fn run_whole(
    origin: VerifierKey,
    limits: MirrorLimits,
    ends: Ends,
    progress: impl FnMut(Progress),
) -> Result<RemoteAudit, CatchUpError> {
    let store = Arc::new(Forgetful::new(origin.clone()));
    let mut engine = Mirror::new(&*store, origin, limits);
    engine.start();
    let report = mirror::run_engine(engine, &*store, ends, progress)?;
    let (contexts, payload_bytes) = store.counts();
    Ok(RemoteAudit {
        head: report.head,
        entries: report.entries,
        contexts,
        payload_bytes,
        received_bytes: report.received_bytes,
    })
}

fn run_sampler(
    mut sampler: Sampler,
    mut ends: Ends,
    mut progress: impl FnMut(Progress),
) -> Result<RemoteAudit, CatchUpError> {
    sampler.start();
    loop {
        while let Some(output) = sampler.poll_output() {
            match output {
                SampleOutput::Send { request, frame } => ends.send(request, frame)?,
                SampleOutput::Done(report) => return Ok(audited(*report)),
                SampleOutput::Fail(error) => return Err(error.into()),
            }
        }
        match ends.next()? {
            Event::Frame(request, frame, _permit) => sampler.handle_frame(request, &frame),
            Event::End(request) => sampler.handle_end(request),
            Event::Stored(..) => {}
            Event::Lost(error) => return Err(error),
        }
        let (entries, received_bytes) = sampler.progress();
        progress(Progress {
            entries,
            received_bytes,
            target: None,
        });
    }
}

fn audited(report: SampleReport) -> RemoteAudit {
    RemoteAudit {
        head: report.head,
        entries: report.entries,
        contexts: report.contexts,
        payload_bytes: report.payload_bytes,
        received_bytes: report.received_bytes,
    }
}
