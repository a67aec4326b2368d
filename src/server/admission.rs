//! Who is let in: connections in all and of one address, and the descriptors that they take.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::observe::Episode;

/// What each runtime takes for itself, and what is opened now and then by the process: a log file, a look at a name.
const EACH_RUNTIME: usize = 4;
const SPARE: usize = 8;

/// Shared by all workers; touched once a connection.
#[derive(Debug)]
pub(super) struct Admission {
    connections: AtomicUsize,
    /// Only counted when there is a limit
    by_ip: Mutex<HashMap<IpAddr, usize>>,
    /// Clients that can each have a connection to an upstream, by the descriptors that the system allows
    most: usize,
    /// The number of a descriptor that only few can be left beyond: the kernel gives out the lowest that is free
    ceiling: RawFd,
    /// Accepting rests
    pub(super) rests: Episode,
}

/// Why nobody is let in for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// `limits.connections`
    Connections(usize),
    /// Clients take half of the descriptors
    Descriptors(usize),
}

impl Admission {
    /// Nobody is in. `limit` is how many descriptors may be open; those that are count as taken, and what `workers` will
    /// open for themselves.
    pub(super) fn new(limit: u64, workers: usize) -> Self {
        // The kernel knows no more than this many.
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(1 << 30);
        let open = lowest_free(io::stderr()).map_or(SPARE, |free| free as usize);
        let taken = open + EACH_RUNTIME * (workers + 1) + SPARE;
        Self {
            connections: AtomicUsize::new(0),
            by_ip: Mutex::default(),
            most: (limit.saturating_sub(taken) / 2).max(1),
            ceiling: (limit - limit / 8) as RawFd,
            rests: Episode::default(),
        }
    }

    /// Why nobody is let in, if so; `limit` is `limits.connections`.
    pub(super) fn full(&self, limit: Option<usize>) -> Option<Full> {
        let inside = self.connections.load(Ordering::Relaxed);
        match limit.filter(|limit| inside >= *limit) {
            Some(limit) => Some(Full::Connections(limit)),
            None => (inside >= self.most).then_some(Full::Descriptors(self.most)),
        }
    }

    /// Whether a descriptor that was just given out says that few are left: those are for connections to upstreams.
    pub(super) fn is_scarce(&self, descriptor: &impl AsRawFd) -> bool {
        descriptor.as_raw_fd() >= self.ceiling
    }

    /// Whether they still are. Two system calls, so for whoever rests.
    pub(super) fn stays_scarce(&self, any: &impl AsFd) -> bool {
        lowest_free(any).is_none_or(|free| free >= self.ceiling)
    }
}

/// The number of the lowest free descriptor; `None` when there is none. `any` is one that is open.
fn lowest_free(any: impl AsFd) -> Option<RawFd> {
    let copy = any.as_fd().try_clone_to_owned().ok()?;
    Some(copy.as_raw_fd())
}

/// One connection among all, and among those of its client where that is known and has a limit.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    _share: Option<Share>,
}

impl Permit {
    /// For a client at `ip`; `None` where it has `per_ip` already, or those of its network have.
    pub(super) fn take(
        admission: &Arc<Admission>,
        ip: IpAddr,
        per_ip: Option<usize>,
    ) -> Option<Self> {
        let share = match per_ip {
            Some(limit) => Some(Share::take(admission, ip, limit)?),
            None => None,
        };
        admission.connections.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            admission: Arc::clone(admission),
            _share: share,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection among those of its client.
#[derive(Debug)]
pub(super) struct Share {
    admission: Arc<Admission>,
    ip: IpAddr,
}

impl Share {
    /// For a client at `ip`; `None` where it has `limit` already, or those of its network have.
    pub(super) fn take(admission: &Arc<Admission>, ip: IpAddr, limit: usize) -> Option<Self> {
        let ip = network(ip);
        let by_ip = &admission.by_ip;
        let mut by_ip = by_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_ip.entry(ip).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Self {
            admission: Arc::clone(admission),
            ip,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let by_ip = &self.admission.by_ip;
        let mut by_ip = by_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                by_ip.remove(&self.ip);
            }
        }
    }
}

/// What one client has to itself: an address of IPv4, or a /64 of IPv6.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_could_have_an_upstream() {
        let few = Admission::new(1, 2);
        assert_eq!(few.full(None), None);
        let admission = Arc::new(Admission::new(4096, 2));
        assert!((1000..2048).contains(&admission.most), "{admission:?}");
        let ip = "192.0.2.1".parse().unwrap();
        let permits: Vec<_> = (0..admission.most)
            .map(|_| Permit::take(&admission, ip, None))
            .collect();
        assert_eq!(
            admission.full(Some(10_000)),
            Some(Full::Descriptors(admission.most))
        );
        assert_eq!(admission.full(Some(10)), Some(Full::Connections(10)));
        drop(permits);
        assert_eq!(admission.full(Some(10)), None);
    }

    #[test]
    fn a_low_number_says_that_descriptors_are_left() {
        let admission = Admission::new(1 << 20, 1);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(!admission.is_scarce(&file));
        assert!(!admission.stays_scarce(&file));
        let none = Admission {
            ceiling: 0,
            ..admission
        };
        assert!(none.is_scarce(&file));
        assert!(none.stays_scarce(&file));
    }

    #[test]
    fn those_of_one_network_share_its_limit() {
        let admission = Arc::new(Admission::new(4096, 1));
        let take = |text: &str| Permit::take(&admission, text.parse().unwrap(), Some(1));
        let first = take("2001:db8::1");
        assert!(first.is_some());
        assert!(take("2001:db8::2").is_none());
        assert!(take("2001:db8:0:1::1").is_some());
        assert!(take("192.0.2.1").is_some());
        drop(first);
        assert!(take("2001:db8::2").is_some());
        assert!(admission.by_ip.lock().unwrap().is_empty());
    }
}
