//! Layer 4. The engine's API: the store over gRPC.
//!
//! * `proto`: messages and services, generated from `spec/proto`;
//! * `client`: the calls, as a program in Rust makes them.

pub mod client;
pub mod proto;
