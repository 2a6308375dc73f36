//! Layer 4. The engine's API: stores over gRPC.
//!
//! ```text
//! listen -> transport -> guard -> service, inspect -> places -> stores
//!                                      ^ hubs <------------- listeners
//! ```
//!
//! * `proto`: messages and services, generated from `spec/proto`;
//! * `config`: every bound, and what it is worth in memory;
//! * `places`: the own store and mirrors, and which of them answers;
//! * `server`, `health`: binding, running, health, shutdown;
//! * `listen`, `tls`: connections;
//! * `guard`, `method`, `tokens`, `request`, `reply`: what every call passes;
//! * `service`, `inspect`, `convert`: the calls;
//! * `watch`, `hub`, `pages`: entries as they become durable;
//! * `reads`: blocking reads on bounded threads;
//! * `status`: the one table from errors to codes;
//! * `client`: the calls, as a program in Rust makes them; names nothing of the
//!   server.
//!
//! No policy here: who may connect and what is stored is decided by the caller.
//! Neither payloads nor metadata values nor tokens are ever logged.

mod answers;
pub mod client;
pub mod config;
mod convert;
mod guard;
mod health;
mod hub;
mod inspect;
mod lane;
mod listen;
mod method;
mod pages;
mod places;
mod private;
pub mod proto;
mod reads;
mod reply;
mod request;
mod server;
mod service;
pub mod status;
mod tls;
mod tokens;
mod watch;

pub use config::{ConfigError, RpcConfig};
pub use places::{Opening, Place, Places, PlacesError};
pub use private::FileError;
pub(crate) use private::{read_public, read_secret};
pub use server::{BindError, RunError, Server};
pub use status::RpcError;
pub use tls::{TlsError, TlsFiles};
pub use tokens::{TokenError, Tokens};
