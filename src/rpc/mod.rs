//! Layer 4. The engine's API: the store over gRPC.
//!
//! * `proto`: messages and services, generated from `spec/proto`.

pub mod proto;
