//! Black-box tests of the built binary: what scripts rely on.

mod append;
mod damage;
mod mirror;
mod output;
mod roles;
mod support;
mod walk;
