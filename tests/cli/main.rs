//! Black-box tests of the built binary: what scripts rely on.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod append;
mod archive;
mod damage;
mod grpc;
mod guard;
mod index;
mod mirror;
mod mirrors;
mod operator;
mod output;
mod prove;
mod remote_audit;
mod roles;
mod server;
mod support;
mod trust;
mod walk;
