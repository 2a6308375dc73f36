//! The gRPC part of `serve`: its arguments, and the server they describe.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::error::CliError;
use crate::rpc::config::{GET_PAGE_BYTES_MAX, LOAD_HEADROOM_BYTES};
use crate::rpc::{BindError, RpcConfig, Server, TlsFiles, TokenError, Tokens};

/// The port if nothing else is said.
const PORT: u16 = 50051;
/// Environment variable that replaces it.
const PORT_ENV: &str = "GRPC_PORT";

#[derive(Debug, Args)]
#[command(next_help_heading = "gRPC")]
pub(super) struct GrpcArguments {
    /// Address and TCP port of the gRPC API, by default 127.0.0.1:50051, or the
    /// port in the environment variable `GRPC_PORT`; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    grpc: Option<SocketAddr>,
    /// Do not serve the gRPC API
    #[arg(long, conflicts_with = "grpc")]
    pub(super) no_grpc: bool,
    /// Certificate chain in PEM: serve the gRPC API with TLS
    #[arg(long, value_name = "FILE", requires = "grpc_key")]
    grpc_cert: Option<PathBuf>,
    /// Key of the certificate in PEM; only its owner may read it (mode 600)
    #[arg(long, value_name = "FILE", requires = "grpc_cert")]
    grpc_key: Option<PathBuf>,
    /// Authorities in PEM: clients need a certificate of one of them
    #[arg(long, value_name = "FILE", requires = "grpc_cert")]
    grpc_client_ca: Option<PathBuf>,
    /// File of lines `read TOKEN` and `write TOKEN` (mode 600): clients need one
    #[arg(long, value_name = "FILE")]
    grpc_tokens: Option<PathBuf>,
    /// Serve the gRPC API to other machines without TLS
    #[arg(long)]
    insecure: bool,
    /// Bytes of a snapshot in one message
    #[arg(long, value_name = "BYTES", default_value_t = RpcConfig::default().snapshot_bytes_max)]
    snapshot_bytes_max: usize,
    /// Watches at a time
    #[arg(long, value_name = "COUNT", default_value_t = RpcConfig::default().watches_max)]
    watches_max: usize,
    /// TCP connections at a time
    #[arg(long, value_name = "COUNT", default_value_t = RpcConfig::default().connections_max)]
    connections_max: usize,
    /// Bytes of all requests that are worked on at a time
    #[arg(long, value_name = "BYTES")]
    request_bytes_max: Option<usize>,
}

impl GrpcArguments {
    fn address(&self) -> Result<SocketAddr, CliError> {
        if let Some(address) = self.grpc {
            return Ok(address);
        }
        let port = match std::env::var_os(PORT_ENV) {
            None => PORT,
            Some(text) => text
                .to_str()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| {
                    CliError::usage(format_args!(
                        "the environment variable {PORT_ENV} is not a port: {}",
                        text.display()
                    ))
                    .hint("Set it to 0 to 65535, unset it, or give --grpc ADDR:PORT.")
                })?,
        };
        Ok((Ipv4Addr::LOCALHOST, port).into())
    }

    fn config(&self) -> RpcConfig {
        let defaults = RpcConfig::default();
        // What one call may need is always there.
        let request = self.snapshot_bytes_max.saturating_add(LOAD_HEADROOM_BYTES);
        let reply = self.snapshot_bytes_max.max(GET_PAGE_BYTES_MAX);
        RpcConfig {
            snapshot_bytes_max: self.snapshot_bytes_max,
            watches_max: self.watches_max,
            connections_max: self.connections_max,
            request_bytes_max: self
                .request_bytes_max
                .unwrap_or_else(|| defaults.request_bytes_max.max(request)),
            reply_bytes_max: defaults.reply_bytes_max.max(reply),
            insecure: self.insecure,
            ..defaults
        }
    }

    /// Takes the address, unless there is to be no gRPC.
    pub(super) fn bind(&self) -> Result<Option<Server>, CliError> {
        if self.no_grpc {
            return Ok(None);
        }
        let tls = match (&self.grpc_cert, &self.grpc_key) {
            (Some(cert), Some(key)) => Some(TlsFiles {
                cert: cert.clone(),
                key: key.clone(),
                client_ca: self.grpc_client_ca.clone(),
            }),
            _ => None,
        };
        let tokens = self.grpc_tokens.as_ref().map(|path| {
            Tokens::read(path).map_err(|error| match error {
                // Names the file itself.
                TokenError::File(error) => CliError::could_not(error),
                error => CliError::could_not(error).context(path.display()),
            })
        });
        let tokens = tokens.transpose()?;
        let guarded = tokens.is_some() || self.grpc_client_ca.is_some();
        let address = self.address()?;
        let server = Server::bind(address, self.config(), tls.as_ref(), tokens)?;
        let address = server.local_addr();
        if !guarded && !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "whoever can reach this address may read and write (--grpc-tokens, --grpc-client-ca)"
            );
        }
        Ok(Some(server))
    }
}

impl From<BindError> for CliError {
    fn from(error: BindError) -> Self {
        match &error {
            BindError::Insecure { .. } | BindError::Config(_) => Self::usage(error),
            BindError::Address { .. } | BindError::Tls(_) => Self::could_not(error),
        }
    }
}
