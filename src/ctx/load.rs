//! How much all workers together are busy with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use tracing::{debug, warn};

use crate::observe::Episode;

/// What of it has bounds. Requests write to it only where `limits.requests_in_flight` is set.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicUsize,
    /// `limits.memory`, in bytes, from when that is reached until there is an eighth less; else 0
    heavy: AtomicU64,
    /// Whether there is an eighth more
    overflows: AtomicBool,
    /// Memory is short
    heaviness: Episode,
    /// Requests are shed
    pub shedding: Episode,
    /// No descriptor is left for a connection to an upstream
    pub exhausted: Episode,
    /// Trusted proxies do not begin connections with a PROXY header
    pub unintroduced: Episode,
}

impl Load {
    /// A place for one more request, for as long as what is returned lives; none where there are `most` already.
    pub fn enter(self: &Arc<Self>, most: usize) -> Option<Place> {
        if self.in_flight.fetch_add(1, Relaxed) < most {
            return Some(Place(Arc::clone(self)));
        }
        self.in_flight.fetch_sub(1, Relaxed);
        None
    }

    /// This process has so many bytes in memory, and may have `limit`.
    pub fn weigh(&self, resident: u64, limit: Option<u64>) {
        let before = self.heavy.load(Relaxed);
        let limit = limit.unwrap_or(u64::MAX);
        let heavy = match before {
            0 => resident >= limit,
            _ => resident >= limit - limit / 8,
        };
        self.heavy.store(if heavy { limit } else { 0 }, Relaxed);
        let overflows = resident >= limit.saturating_add(limit / 8);
        self.overflows.store(overflows, Relaxed);
        if heavy && self.heaviness.begins() {
            warn!(
                limit,
                resident,
                "limits.memory reached: requests are answered with 503, idle connections are closed"
            );
        }
        if !heavy && before != 0 {
            debug!(resident, "below limits.memory again");
        }
    }

    /// The limit of memory, in bytes, where that is reached.
    pub fn heavy(&self) -> Option<u64> {
        Some(self.heavy.load(Relaxed)).filter(|limit| *limit != 0)
    }

    /// The same where it is passed by an eighth.
    pub fn overflows(&self) -> Option<u64> {
        self.heavy().filter(|_| self.overflows.load(Relaxed))
    }
}

/// One request among those in flight.
#[derive(Debug)]
pub struct Place(Arc<Load>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_are_allowed() {
        let load = Arc::new(Load::default());
        let first = load.enter(2);
        let second = load.enter(2);
        assert!(first.is_some() && second.is_some());
        assert!(load.enter(2).is_none());
        assert!(load.enter(2).is_none(), "who got none takes none");
        drop(first);
        assert!(load.enter(2).is_some());
    }

    #[test]
    fn memory_is_short_until_there_is_a_good_deal_less() {
        let load = Load::default();
        for (resident, heavy, overflows) in [
            (79, false, false),
            (80, true, false),
            (89, true, false),
            (90, true, true),
            (80, true, false),
            (70, true, false),
            (69, false, false),
            (79, false, false),
        ] {
            load.weigh(resident, Some(80));
            assert_eq!(load.heavy(), heavy.then_some(80), "{resident}");
            assert_eq!(load.overflows(), overflows.then_some(80), "{resident}");
        }
        load.weigh(100, Some(80));
        load.weigh(100, None);
        assert_eq!(load.heavy(), None, "a reload has taken the limit away");
    }
}
