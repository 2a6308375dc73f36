//! Mirrors over bad networks: real QUIC between real stores, with a relay in
//! between that loses, delays, repeats, spoils and cuts, and processes that are
//! killed.
//!
//! Every fault is drawn from a seed. The tests wait for what is counted (bytes
//! that went through, heads that are complete), never for time to pass, but
//! where time is what is tested.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// What every network came to, for whoever runs them with --nocapture.
#![allow(clippy::print_stderr)]

mod appends;
mod chain;
mod churn;
mod kills;
mod loss;
mod node;
mod path;
mod relay;
// What runs the binary is shared with its own tests.
#[path = "../cli/support.rs"]
#[allow(dead_code)] // made for those
mod support;
