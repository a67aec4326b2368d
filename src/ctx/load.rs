//! How much all workers together are busy with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::observe::Episode;

/// What of it has bounds. Touched by a request only where `limits.requests_in_flight` is set.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicUsize,
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
}
