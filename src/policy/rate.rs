//! How often a client may ask.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::config::Rate;

/// Tables that are locked one by one: workers seldom meet, and nobody holds one for longer than a look-up.
const SHARDS: usize = 32;
/// Clients that one of them remembers, at 40 bytes or so each: 2.5 MiB and 65,536 clients in all.
const CLIENTS: usize = 2048;

/// Who has asked how often, for all workers together. A client is remembered for as long as it has less than its whole
/// burst left; when there are too many, those that have most of it left are forgotten first.
#[derive(Debug)]
pub struct Rates {
    start: Instant,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

/// When a client has its whole burst again, in nanoseconds since the start: the theoretical arrival time of the generic
/// cell rate algorithm, which is a leaky bucket in one number.
type Shard = HashMap<Key, u64, RandomState>;

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// A route that counts by itself
    route: Option<u32>,
    client: u64,
}

impl Default for Rates {
    fn default() -> Self {
        Self::new()
    }
}

impl Rates {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        let hasher = RandomState::default();
        Self {
            start: Instant::now(),
            shards: std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))),
            hasher,
        }
    }

    /// Counts a request of `client` for the route with this index.
    ///
    /// # Errors
    /// How long the client should wait, where it has asked too often. Such a request is not counted.
    pub fn take(&self, rate: &Rate, route: usize, client: IpAddr) -> Result<(), Duration> {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.take_at(now, rate, route, client)
    }

    fn take_at(&self, now: u64, rate: &Rate, route: usize, client: IpAddr) -> Result<(), Duration> {
        let key = Key {
            route: rate.own.then_some(route as u32),
            client: network(client),
        };
        let hash = self.hasher.hash_one(key);
        // The upper bits: the table itself takes the lower ones.
        let shard = &self.shards[(hash >> 32) as usize % SHARDS];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= CLIENTS && !shard.contains_key(&key) {
            forget(&mut shard, now);
        }
        // At least a nanosecond: no rate is that high.
        let each = (rate.per.as_nanos() as u64 / u64::from(rate.requests)).max(1);
        let most = each * u64::from(rate.burst - 1);
        let mut entry = match shard.entry(key) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) => {
                entry.insert(now + each);
                return Ok(());
            }
        };
        let whole = (*entry.get()).max(now);
        match (whole - now).checked_sub(most).filter(|wait| *wait > 0) {
            None => {
                entry.insert(whole + each);
                Ok(())
            }
            Some(wait) => Err(Duration::from_nanos(wait)),
        }
    }
}

/// Makes room: those who have their whole burst are as good as unknown, and if that is not enough, so is the half that
/// comes nearest to it.
fn forget(shard: &mut Shard, now: u64) {
    shard.retain(|_, whole| *whole > now);
    if shard.len() > CLIENTS / 2 {
        let mut all: Vec<u64> = shard.values().copied().collect();
        let (_, median, _) = all.select_nth_unstable(CLIENTS / 2);
        let median = *median;
        shard.retain(|_, whole| *whole > median);
    }
}

/// What one client has to itself: an IPv4 address, or 64 bits of IPv6 (RFC 6177). No IPv4 address is taken for an IPv6
/// network: those in use do not begin with 32 zeros.
fn network(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(client) => u64::from(client.to_bits()),
        IpAddr::V6(client) => (client.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(requests: u32, burst: u32) -> Rate {
        Rate {
            requests,
            per: Duration::from_secs(1),
            burst,
            own: false,
        }
    }

    fn client(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rates = Rates::new();
        let rate = rate(10, 3);
        let take = |now| rates.take_at(now, &rate, 0, client(1));
        for _ in 0..3 {
            assert_eq!(take(0), Ok(()));
        }
        assert_eq!(take(0), Err(Duration::from_millis(100)));
        assert_eq!(take(SECOND / 20), Err(Duration::from_millis(50)));
        // What was refused does not count.
        assert_eq!(take(SECOND / 10), Ok(()));
        assert!(take(SECOND / 10).is_err());
        // Whoever waits has the whole burst again, and no more.
        for _ in 0..3 {
            assert_eq!(take(60 * SECOND), Ok(()));
        }
        assert!(take(60 * SECOND).is_err());
        // Others are others.
        assert_eq!(rates.take_at(0, &rate, 0, client(2)), Ok(()));
    }

    #[test]
    fn a_route_with_a_rate_of_its_own_counts_by_itself() {
        let rates = Rates::new();
        let (all, own) = (
            rate(1, 1),
            Rate {
                own: true,
                ..rate(1, 1)
            },
        );
        assert!(rates.take_at(0, &all, 0, client(1)).is_ok());
        assert!(rates.take_at(0, &all, 1, client(1)).is_err());
        assert!(rates.take_at(0, &own, 2, client(1)).is_ok());
        assert!(rates.take_at(0, &own, 2, client(1)).is_err());
        assert!(rates.take_at(0, &own, 3, client(1)).is_ok());
    }

    #[test]
    fn all_addresses_of_one_network_of_ipv6_are_one_client() {
        let rates = Rates::new();
        let rate = rate(1, 1);
        let take = |text: &str| rates.take_at(0, &rate, 0, text.parse().unwrap());
        assert!(take("2001:db8::1").is_ok());
        assert!(take("2001:db8::ffff:1").is_err());
        assert!(take("2001:db8:0:1::1").is_ok());
        assert!(take("::ffff:192.0.2.1").is_ok());
        assert!(take("192.0.2.1").is_err());
    }

    #[test]
    fn whoever_floods_with_addresses_is_not_remembered_for_ever_and_frees_nobody() {
        let rates = Rates::new();
        let one = rate(1, 1);
        let heavy = rate(1, 100);
        for _ in 0..100 {
            assert!(rates.take_at(0, &heavy, 0, client(1)).is_ok());
        }
        for number in 0..200_000_u128 {
            let address = IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) | (number << 64)));
            let _ = rates.take_at(number as u64, &one, 0, address);
        }
        let remembered: usize = rates
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap().len())
            .sum();
        assert!(remembered <= SHARDS * CLIENTS, "{remembered}");
        assert!(rates.take_at(SECOND / 2, &heavy, 0, client(1)).is_err());
    }
}
