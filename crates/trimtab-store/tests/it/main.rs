//! The store against fake package tools and a fake hub on 127.0.0.1; nothing leaves the machine.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

mod fakes;
mod hub;
mod local;
mod naming;
#[cfg(unix)]
mod packages;
mod server;
mod stored;
