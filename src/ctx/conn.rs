//! What is known of a client connection. Made once, when its protocol is known.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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

    /// Whether no request has come yet.
    pub fn is_new(&self) -> bool {
        self.intake.begun() == 0
    }

    /// For how long the client has had nothing to be answered: since its last request or, where nothing at all has come
    /// over TLS, since it was shaken hands with. `None` where it has, or is about to be refused.
    pub fn quiet(&self) -> Option<Duration> {
        if self.intake.refusal().is_some() || self.activity.misuse().is_some() {
            return None;
        }
        if self.tls && !self.h2 && self.is_new() && self.activity.moved() == 0 {
            return Some(self.activity.age());
        }
        self.activity.idle()
    }
}
