//! The broker: a second process that keeps what a reload needs, so that the one that faces the network need not.
//!
//! It is forked before the drop. The worker cannot open a file or bind a port; it can only ask for a reload. The broker then
//! reads the same configuration file again, and hands over what that names: the text, the contents of certificates and
//! keys, listening sockets, the access log. No path ever comes from the worker, and no address but those that need no
//! socket any more, so whoever breaks into that gains nothing that the file's owner has not granted.
//!
//! It has a sandbox of its own, made for what was named at start: a reload that names more is refused.

mod link;
mod process;
mod reach;
#[cfg(test)]
mod tests;
mod wire;

pub use link::{Broker, Link};

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use super::Capability;
use crate::config::{Config, Source};

impl Broker {
    /// What one that is root stays root for.
    pub const KEPT: &[Capability] = &[Capability::NetBindService, Capability::DacReadSearch];
}

/// What a reload brought.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration's text and the files that it names
    pub source: Arc<Source>,
    /// The listeners that were not bound before: address, whether TLS is spoken, a socket for each worker
    pub sockets: Vec<(SocketAddr, bool, Vec<TcpListener>)>,
    /// The users that it names, as far as they were found, with their numbers
    pub users: Vec<(String, u32)>,
}

/// The files that a configuration names and the worker has to read, in an order that both processes agree on.
fn named(config: &Config) -> Vec<PathBuf> {
    let certificates = config
        .certificates
        .iter()
        .flat_map(|files| [&files.cert, &files.key]);
    let authorities = config
        .upstreams
        .iter()
        .filter_map(|upstream| upstream.ca.as_ref().map(|(path, _)| path));
    let mut paths: Vec<PathBuf> = certificates.chain(authorities).cloned().collect();
    paths.sort();
    paths.dedup();
    paths
}
