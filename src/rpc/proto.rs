//! Layer 4. The messages, clients and servers that are generated from
//! `spec/proto`, and the descriptors that reflection tells of them.
//! `tests/proto.rs` keeps them fresh.

/// The engine's API.
#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
#[allow(rustdoc::all)]
pub mod context {
    include!("generated/converge.context.v1.rs");
}

/// What an operator may ask.
#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
#[allow(rustdoc::all)]
pub mod inspect {
    include!("generated/converge.ledger.v1.rs");
}

/// An encoded `FileDescriptorSet` of both.
pub const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");
