//! The store against fake package tools and a fake hub on 127.0.0.1; nothing leaves the machine.

mod fakes;
mod hub;
mod local;
mod naming;
#[cfg(unix)]
mod packages;
mod server;
mod stored;
