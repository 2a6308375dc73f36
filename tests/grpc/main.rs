//! The gRPC API over real sockets on loopback: clients of the generated code,
//! an old client, and bytes that no client would send.

// Test code outside of #[test] functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod archives;
mod calls;
mod command;
mod guard;
mod health;
mod hostile;
mod lifecycle;
mod mirrors;
mod old;
mod places;
mod support;
mod tls;
mod watch;
