//! What is known of a client connection. Made once, when its protocol is known.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Activity, Intake};
use crate::http::forwarded::Client;

/// A client connection.
#[derive(Debug)]
pub struct Conn {
    /// The client, as the app is told
    pub client: Client,
    /// The address that the client came from
    pub peer: SocketAddr,
    /// Whether TLS is spoken
    pub tls: bool,
    /// Whether HTTP/2 is spoken
    pub h2: bool,
    /// What it is doing
    pub activity: Arc<Activity>,
    /// What its bytes are found to be
    pub intake: Arc<Intake>,
}

impl Conn {
    /// A connection from `peer` to our address `local`.
    pub fn new(peer: SocketAddr, local: SocketAddr, tls: bool, h2: bool) -> Self {
        Self {
            client: Client::new(peer.ip(), tls, local.port()),
            peer,
            tls,
            h2,
            activity: Arc::new(Activity::new(h2)),
            intake: Arc::default(),
        }
    }
}
