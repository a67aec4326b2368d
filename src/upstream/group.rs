//! An upstream: a group of peers that serve the same thing.

use std::sync::Arc;

use rustls::ClientConfig;

use super::guard::Guard;
use super::peer::Peer;

/// A group of peers.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the configuration
    pub name: String,
    /// At least one
    pub peers: Vec<Arc<Peer>>,
    /// For `https://` peers
    pub tls: Option<Arc<ClientConfig>>,
    /// Who may run it
    pub guard: Guard,
}

impl Upstream {
    /// The peers in the order in which to try them, beginning at `turn` (round robin): those that are available, then the
    /// others, since a peer that failed is better than none.
    pub fn order(&self, turn: usize) -> impl Iterator<Item = &Arc<Peer>> {
        let count = self.peers.len();
        let rotated = move || (0..count).map(move |step| &self.peers[(turn + step) % count]);
        let alone = count == 1;
        let up = rotated().filter(move |peer| alone || peer.is_available());
        let down = rotated().filter(move |peer| !alone && !peer.is_available());
        up.chain(down)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Expect, Registry};
    use super::*;
    use crate::config::{OnMismatch, PeerAddr, PeerProtocol};

    #[test]
    fn peers_take_turns_and_failed_ones_come_last() {
        let registry = Registry::default();
        let peer = |port| {
            registry.peer(
                &PeerAddr::Name("app".into(), port),
                PeerProtocol::Http1,
                None,
            )
        };
        let upstream = Upstream {
            name: "app".into(),
            peers: vec![peer(1), peer(2), peer(3)],
            tls: None,
            guard: Guard {
                expect: Expect::Any,
                on_mismatch: OnMismatch::Refuse,
            },
        };
        let order = |turn| {
            upstream
                .order(turn)
                .map(|peer| peer.display.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(order(1), ["app:2", "app:3", "app:1"]);
        upstream.peers[1].failed();
        assert_eq!(order(1), ["app:3", "app:1", "app:2"]);
    }
}
