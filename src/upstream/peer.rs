//! One address of an upstream, and what is known of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::standing::Standing;
use crate::config::{PeerAddr, PeerProtocol};

/// How long a peer that refused a connection is passed over while its upstream has others.
const COOL_DOWN: Duration = Duration::from_secs(2);

/// One address of an upstream. Shared by all workers and snapshots; it outlives a reload that keeps its address.
#[derive(Debug)]
pub struct Peer {
    /// Index into each worker's pool; never used twice
    pub(super) id: usize,
    /// Where to connect
    pub addr: PeerAddr,
    /// What to speak
    pub protocol: PeerProtocol,
    /// As written in logs: `127.0.0.1:3000`, `unix:/run/app.sock`
    pub display: String,
    /// Milliseconds since [`Registry`]'s start until which it is passed over
    down_until: AtomicU64,
    /// Who was found to run it
    pub(super) standing: Standing,
    born: Instant,
}

impl Peer {
    /// Whether it has not refused a connection of late.
    pub fn is_available(&self) -> bool {
        let until = self.down_until.load(Ordering::Relaxed);
        until == 0 || self.now() >= until
    }

    pub(super) fn failed(&self) {
        self.down_until
            .store(self.now() + COOL_DOWN.as_millis() as u64, Ordering::Relaxed);
        // Whoever listens there next may be somebody else.
        self.standing.suspect();
    }

    pub(super) fn works(&self) {
        if self.down_until.load(Ordering::Relaxed) != 0 {
            self.down_until.store(0, Ordering::Relaxed);
        }
    }

    /// Milliseconds since it became known
    pub(super) fn now(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }
}

/// All peers that a running snapshot knows, by address. Only touched when a configuration is loaded.
#[derive(Debug, Default)]
pub struct Registry {
    inner: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    next: usize,
    peers: HashMap<Key, Weak<Peer>>,
}

/// The TLS settings belong to the key: a pooled connection must not outlive the authority that vouched for it.
type Key = (PeerAddr, PeerProtocol, Option<std::path::PathBuf>);

impl Registry {
    /// The peer at this address, new or known. `ca` is the file that its certificate is checked against.
    pub fn peer(
        &self,
        addr: &PeerAddr,
        protocol: PeerProtocol,
        ca: Option<&std::path::Path>,
    ) -> Arc<Peer> {
        let mut known = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        known.peers.retain(|_, peer| peer.strong_count() > 0);
        let key = (addr.clone(), protocol, ca.map(Into::into));
        if let Some(peer) = known.peers.get(&key).and_then(Weak::upgrade) {
            return peer;
        }
        let peer = Arc::new(Peer {
            id: known.next,
            addr: addr.clone(),
            protocol,
            display: addr.to_string(),
            down_until: AtomicU64::new(0),
            standing: Standing::default(),
            born: Instant::now(),
        });
        known.next += 1;
        known.peers.insert(key, Arc::downgrade(&peer));
        peer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_peer_as_long_as_it_is_used() {
        let registry = Registry::default();
        let addr = PeerAddr::Ip("127.0.0.1:3000".parse().unwrap());
        let first = registry.peer(&addr, PeerProtocol::Http1, None);
        let again = registry.peer(&addr, PeerProtocol::Http1, None);
        assert!(Arc::ptr_eq(&first, &again));
        let other = registry.peer(&addr, PeerProtocol::H2c, None);
        assert_ne!(first.id, other.id);
        let id = first.id;
        drop((first, again));
        assert_ne!(
            registry.peer(&addr, PeerProtocol::Http1, None).id,
            id,
            "ids are never used twice"
        );
    }

    #[test]
    fn a_peer_that_failed_is_passed_over_until_it_works() {
        let peer =
            Registry::default().peer(&PeerAddr::Name("app".into(), 1), PeerProtocol::Http1, None);
        assert!(peer.is_available());
        peer.failed();
        assert!(!peer.is_available());
        peer.works();
        assert!(peer.is_available());
    }
}
