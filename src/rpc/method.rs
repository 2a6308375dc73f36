//! Layer 4. The calls that the guard knows by their paths: what each needs and
//! how large its messages may be.

use super::config::{APPEND_BYTES_MAX, MESSAGE_BYTES_MAX, RpcConfig};
use super::tokens::Access;

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Append,
    Get,
    Snapshot,
    Load,
    Watch,
    Contexts,
    HealthCheck,
    HealthWatch,
    Reflection,
    /// No such call; the router says so.
    Unknown,
}

/// Which bound a call counts towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    Requests,
    Watches,
    Health,
    HealthWatches,
    Reflection,
}

impl Method {
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/converge.context.v1.ContextService/Append" => Self::Append,
            "/converge.context.v1.ContextService/Get" => Self::Get,
            "/converge.context.v1.ContextService/Snapshot" => Self::Snapshot,
            "/converge.context.v1.ContextService/Load" => Self::Load,
            "/converge.context.v1.ContextService/Watch" => Self::Watch,
            "/converge.ledger.v1.InspectService/Contexts" => Self::Contexts,
            "/grpc.health.v1.Health/Check" => Self::HealthCheck,
            "/grpc.health.v1.Health/Watch" => Self::HealthWatch,
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Self::Reflection,
            _ => Self::Unknown,
        }
    }

    /// Its name in the log. What a client made up is not logged.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Append => "Append",
            Self::Get => "Get",
            Self::Snapshot => "Snapshot",
            Self::Load => "Load",
            Self::Watch => "Watch",
            Self::Contexts => "Contexts",
            Self::HealthCheck => "Health/Check",
            Self::HealthWatch => "Health/Watch",
            Self::Reflection => "Reflection",
            Self::Unknown => "unknown",
        }
    }

    pub(super) const fn needs(self) -> Access {
        match self {
            Self::Append | Self::Load => Access::Write,
            Self::Get
            | Self::Snapshot
            | Self::Watch
            | Self::Contexts
            | Self::Reflection
            | Self::Unknown => Access::Read,
            Self::HealthCheck | Self::HealthWatch => Access::Open,
        }
    }

    /// Whether it changes the store: its outcome is unknown when time is up.
    pub(super) const fn writes(self) -> bool {
        matches!(self, Self::Append | Self::Load)
    }

    /// Whether a client sends several messages.
    pub(super) const fn streams_requests(self) -> bool {
        matches!(self, Self::Reflection)
    }

    /// Streams that know of no end: the guard ends them at shutdown. A watch
    /// ends itself.
    pub(super) const fn ends_at_shutdown(self) -> bool {
        matches!(self, Self::HealthWatch | Self::Reflection)
    }

    pub(super) const fn pool(self) -> Pool {
        match self {
            Self::Append
            | Self::Get
            | Self::Snapshot
            | Self::Load
            | Self::Contexts
            | Self::Unknown => Pool::Requests,
            Self::Watch => Pool::Watches,
            Self::HealthCheck => Pool::Health,
            Self::HealthWatch => Pool::HealthWatches,
            Self::Reflection => Pool::Reflection,
        }
    }

    /// Bytes of one of its messages.
    pub(super) const fn message_bytes_max(self, config: &RpcConfig) -> usize {
        match self {
            Self::Append => APPEND_BYTES_MAX,
            Self::Load => config.load_bytes_max(),
            _ => MESSAGE_BYTES_MAX,
        }
    }
}
