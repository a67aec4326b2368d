//! Who is let in: connections in all and of one address, and the descriptors that they take.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tracing::warn;

use crate::observe::Episode;

/// What each runtime takes for itself, and what is opened now and then by the process: a log file, a look at a name.
const EACH_RUNTIME: usize = 4;
const SPARE: usize = 8;
/// Connections that have given up their places and not ended yet, at most.
const LEAVING: usize = 1024;

/// Shared by all workers; touched once a connection.
#[derive(Debug)]
pub(super) struct Admission {
    connections: AtomicUsize,
    /// Connections that have given up their places and have not ended yet
    leaving: AtomicUsize,
    /// Clients that are accepted and wait for a place
    waiting: AtomicUsize,
    /// Told to all workers when a client waits whose own worker has no idle connection
    asking: Notify,
    /// Told to those who wait when one of theirs was ended
    made: Notify,
    /// Only counted when there is a limit
    by_ip: Mutex<HashMap<IpAddr, usize>>,
    /// Clients that can each have a connection to an upstream, by the descriptors that the system allows
    most: usize,
    /// The number of a descriptor that only few can be left beyond: the kernel gives out the lowest that is free
    ceiling: RawFd,
    /// Accepting rests
    pub(super) rests: Episode,
    /// Idle connections are ended for new ones
    makes_room: Episode,
}

/// Why nobody is let in for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// `limits.connections`
    Connections(usize),
    /// Clients take half of the descriptors
    Descriptors(usize),
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connections(limit) => write!(f, "limits.connections ({limit}) reached"),
            Self::Descriptors(limit) => write!(
                f,
                "clients take half of the descriptors that RLIMIT_NOFILE allows ({limit})"
            ),
        }
    }
}

impl Admission {
    /// Nobody is in. `limit` is how many descriptors may be open; those that are count as taken, and what `workers` will
    /// open for themselves and for whoever waits at the doors of their `listeners`.
    pub(super) fn new(limit: u64, workers: usize, listeners: usize) -> Self {
        // The kernel knows no more than this many.
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(1 << 30);
        let open = lowest_free(io::stderr()).map_or(SPARE, |free| free as usize);
        let taken = open + EACH_RUNTIME * (workers + 1) + listeners * workers + SPARE;
        Self {
            connections: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            asking: Notify::new(),
            made: Notify::new(),
            by_ip: Mutex::default(),
            most: (limit.saturating_sub(taken) / 2).max(1),
            ceiling: (limit - limit / 8) as RawFd,
            rests: Episode::default(),
            makes_room: Episode::default(),
        }
    }

    /// Why nobody is let in, if so; `limit` is `limits.connections`.
    pub(super) fn full(&self, limit: Option<usize>) -> Option<Full> {
        self.full_for(1, limit)
    }

    /// Why not all who wait are let in, if so.
    pub(super) fn full_for_all(&self, limit: Option<usize>) -> Option<Full> {
        self.full_for(self.waiting.load(Relaxed), limit)
    }

    fn full_for(&self, more: usize, limit: Option<usize>) -> Option<Full> {
        let all = self.connections.load(Relaxed) + more;
        match limit.filter(|limit| all > *limit) {
            Some(limit) => Some(Full::Connections(limit)),
            None => (all > self.most).then_some(Full::Descriptors(self.most)),
        }
    }

    /// A client is accepted, and waits for a place until this drops.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Relaxed);
        Waiting(self)
    }

    /// Waits until somebody in another worker waits.
    pub(super) fn asked(&self) -> Notified<'_> {
        self.asking.notified()
    }

    /// An idle connection was ended, since `full`.
    pub(super) fn made_room(&self, full: Full) {
        self.made.notify_waiters();
        if self.makes_room.begins() {
            warn!("{full}: connections that were idle longest are closed for new ones");
        }
    }

    /// Connections that may be on their way out besides those that have a place: they need no descriptor for an upstream,
    /// which are counted for.
    fn most_leaving(&self) -> usize {
        (self.most / 16).clamp(SPARE / 2, LEAVING)
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

/// Somebody who waits for a place.
#[derive(Debug)]
pub(super) struct Waiting<'a>(&'a Admission);

impl Waiting<'_> {
    /// Has all workers look for an idle connection; ends when one was found.
    pub(super) fn ask(&self) -> Notified<'_> {
        // Told from now on, not only once it is polled.
        let made = self.0.made.notified();
        self.0.asking.notify_waiters();
        made
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// One connection among all, and among those of its client where that is known and has a limit.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    _share: Option<Share>,
    /// Somebody else has the place, and this one is on its way out
    given_up: AtomicBool,
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
        admission.connections.fetch_add(1, Relaxed);
        Some(Self {
            admission: Arc::clone(admission),
            _share: share,
            given_up: AtomicBool::new(false),
        })
    }

    /// Gives the place to somebody else, though the connection has yet to end: among its client's it counts until then. Not
    /// where too many are at that already.
    pub(super) fn give_up(&self) -> bool {
        let leaving = &self.admission.leaving;
        if leaving.fetch_add(1, Relaxed) >= self.admission.most_leaving() {
            leaving.fetch_sub(1, Relaxed);
            return false;
        }
        self.given_up.store(true, Relaxed);
        self.admission.connections.fetch_sub(1, Relaxed);
        true
    }

    /// Whether it has.
    pub(super) fn has_given_up(&self) -> bool {
        self.given_up.load(Relaxed)
    }

    /// The connection does not end after all: it has a place again, past the limits perhaps.
    pub(super) fn take_again(&self) {
        if !self.given_up.swap(false, Relaxed) {
            return;
        }
        self.admission.leaving.fetch_sub(1, Relaxed);
        self.admission.connections.fetch_add(1, Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let count = match self.has_given_up() {
            true => &self.admission.leaving,
            false => &self.admission.connections,
        };
        count.fetch_sub(1, Relaxed);
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
        let few = Admission::new(1, 2, 2);
        assert_eq!(few.full(None), None);
        let admission = Arc::new(Admission::new(4096, 2, 2));
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
        let admission = Admission::new(1 << 20, 1, 2);
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
    fn a_place_that_is_given_up_is_somebody_elses_at_once() {
        let admission = Arc::new(Admission::new(4096, 1, 2));
        let ip = "192.0.2.1".parse().unwrap();
        let take = |per_ip| Permit::take(&admission, ip, Some(per_ip));
        let first = take(2).unwrap();
        assert!(admission.full(Some(1)).is_some());
        assert!(first.give_up());
        assert_eq!(admission.full(Some(1)), None);
        assert!(take(1).is_none(), "its client's it is until it ends");
        let second = take(2).unwrap();
        // It goes on after all.
        first.take_again();
        first.take_again();
        assert_eq!(admission.connections.load(Relaxed), 2);
        assert!(first.give_up());
        drop(first);
        assert_eq!(admission.leaving.load(Relaxed), 0);
        assert!(take(1).is_none(), "the second one's is not free");
        drop(second);
        assert_eq!(admission.connections.load(Relaxed), 0);
        assert!(admission.by_ip.lock().unwrap().is_empty());
    }

    #[test]
    fn only_so_many_are_on_their_way_out() {
        let admission = Arc::new(Admission::new(1024, 1, 2));
        let ip = "192.0.2.1".parse().unwrap();
        let permits: Vec<_> = (0..=admission.most_leaving())
            .map(|_| Permit::take(&admission, ip, None).unwrap())
            .collect();
        let (last, others) = permits.split_last().unwrap();
        assert!(others.iter().all(Permit::give_up));
        assert!(!last.give_up() && !last.has_given_up());
        others[0].take_again();
        assert!(last.give_up());
    }

    #[test]
    fn those_of_one_network_share_its_limit() {
        let admission = Arc::new(Admission::new(4096, 1, 2));
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
