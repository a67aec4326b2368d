//! What is known of a client connection. Made once, when its protocol is known.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::{Activity, Intake};
use crate::bypass::{Bypass, Pipes};
use crate::config::Server;
use crate::http::forwarded::Client;

/// Where a connection comes from, and where it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// The client: the address that it came from, or that a trusted proxy told with the PROXY protocol
    pub peer: SocketAddr,
    /// Our port
    pub port: u16,
    /// Whether a trusted proxy has brought it, and told whose it is if it knows
    pub introduced: bool,
    /// Whether a proxy should have told who the client is and did not: then `peer` is the proxy, and what it forwards may
    /// be anybody's
    pub unnamed: bool,
}

/// A client connection.
#[derive(Debug)]
pub struct Conn {
    /// The client, as the app is told
    pub client: Client,
    /// Where it comes from
    pub endpoints: Endpoints,
    /// Whether TLS is spoken
    pub tls: bool,
    /// Whether HTTP/2 is spoken
    pub h2: bool,
    /// What it is doing
    pub activity: Arc<Activity>,
    /// What its bytes are found to be
    pub intake: Arc<Intake>,
    /// Where large bodies pass by: HTTP/1 in plaintext only
    pub bypass: Option<Arc<Bypass>>,
}

impl Conn {
    /// A connection between these.
    pub fn new(endpoints: Endpoints, tls: bool, h2: bool) -> Self {
        Self {
            client: Client::new(endpoints.peer.ip(), tls, endpoints.port),
            endpoints,
            tls,
            h2,
            activity: Arc::new(Activity::new(h2)),
            intake: Arc::default(),
            bypass: None,
        }
    }

    /// The same, with bodies that may pass through `pipes`.
    pub fn passing(mut self, pipes: &Arc<Pipes>) -> Self {
        if !self.tls && !self.h2 {
            self.bypass = pipes.bypass();
        }
        self
    }

    /// Whether what `ip` says in forwarded fields is believed on this connection. Where it is unnamed nobody is: a proxy
    /// that passes bytes on passes its clients' claims on, too.
    pub fn trusts(&self, server: &Server, ip: IpAddr) -> bool {
        !self.endpoints.unnamed && server.trusts(ip)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mistakes, Source, parse};

    #[test]
    fn nobody_is_believed_on_a_connection_of_nobody() {
        let text = "[server]\ntrusted_proxies = \"10.0.0.0/8\"\n[[route]]\nrespond = \"\"\n";
        let source = Source::of_text("lowport.toml", text);
        let mistakes = Mistakes::new(Arc::clone(&source));
        let server = parse(&source, &mistakes).server;
        for (peer, unnamed, trusted) in [
            ("10.0.0.1:1", false, true),
            ("[::ffff:10.0.0.1]:1", false, true),
            ("10.0.0.1:1", true, false),
            ("192.0.2.7:1", false, false),
        ] {
            let endpoints = Endpoints {
                peer: peer.parse().unwrap(),
                port: 443,
                introduced: unnamed,
                unnamed,
            };
            let conn = Conn::new(endpoints, true, false);
            assert_eq!(conn.trusts(&server, endpoints.peer.ip()), trusted, "{peer}");
        }
    }
}
