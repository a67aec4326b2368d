//! What a client connection is doing, for its one timer.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::config::Timeouts;

/// Looked at when the connection's timer fires, and written along the way: no timer is moved on the request path.
///
/// Atomics only because hyper wants an upgradeable stream to be `Send`; all of it happens on one thread.
#[derive(Debug)]
pub struct Activity {
    start: Instant,
    multiplexed: bool,
    in_flight: AtomicU32,
    /// Whether part of a head has arrived
    in_head: AtomicBool,
    /// When the phase began, in milliseconds since `start`
    since: AtomicU64,
}

/// Whether a phase has lasted too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// No; look again after `rest`
    No {
        /// At least a millisecond
        rest: Duration,
    },
    /// The head of a request
    Head,
    /// The wait for a request
    Idle,
}

impl Activity {
    /// A connection that was just accepted. The first head of HTTP/1 is due from now on.
    pub fn new(multiplexed: bool) -> Self {
        Self {
            start: Instant::now(),
            multiplexed,
            in_flight: AtomicU32::new(0),
            in_head: AtomicBool::new(!multiplexed),
            since: AtomicU64::new(0),
        }
    }

    /// Bytes came in: between requests, those are the beginning of a head.
    pub fn bytes_arrived(&self) {
        if !self.multiplexed && self.in_flight.load(Relaxed) == 0 && !self.in_head.load(Relaxed) {
            self.in_head.store(true, Relaxed);
            self.since.store(self.now(), Relaxed);
        }
    }

    /// A request's head is complete.
    pub fn request_began(&self) {
        self.in_flight.fetch_add(1, Relaxed);
        self.in_head.store(false, Relaxed);
    }

    /// A response is complete, or given up.
    pub fn request_ended(&self) {
        if self.in_flight.fetch_sub(1, Relaxed) == 1 {
            self.since.store(self.now(), Relaxed);
        }
    }

    /// Whether no request is being answered.
    pub fn is_between(&self) -> bool {
        self.in_flight.load(Relaxed) == 0
    }

    /// Whether part of a head has arrived and the rest is awaited.
    pub fn in_head(&self) -> bool {
        self.in_head.load(Relaxed)
    }

    /// Whether the current phase has lasted too long.
    pub fn overdue(&self, timeouts: &Timeouts) -> Overdue {
        if self.in_flight.load(Relaxed) > 0 {
            // Bodies have timers of their own; the idle phase that follows can end no earlier than this.
            return Overdue::No {
                rest: timeouts.keepalive_idle,
            };
        }
        let in_head = self.in_head();
        let limit = if in_head {
            timeouts.request_head
        } else {
            timeouts.keepalive_idle
        };
        let passed = Duration::from_millis(self.now().saturating_sub(self.since.load(Relaxed)));
        match limit.checked_sub(passed).filter(|rest| !rest.is_zero()) {
            Some(rest) => Overdue::No {
                rest: rest.max(Duration::from_millis(1)),
            },
            None if in_head => Overdue::Head,
            None => Overdue::Idle,
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts(head: u64, idle: u64) -> Timeouts {
        let other = Duration::from_secs(60);
        Timeouts {
            tls_handshake: other,
            request_head: Duration::from_millis(head),
            request_body_idle: other,
            keepalive_idle: Duration::from_millis(idle),
            upstream_connect: other,
            upstream_response: other,
            upstream_idle: other,
            drain: other,
        }
    }

    const NEVER: u64 = 1_000_000;

    #[test]
    fn the_first_head_is_due_from_accept() {
        let activity = Activity::new(false);
        assert_eq!(activity.overdue(&timeouts(0, NEVER)), Overdue::Head);
        assert!(matches!(
            activity.overdue(&timeouts(NEVER, 0)),
            Overdue::No { .. }
        ));
    }

    #[test]
    fn a_request_in_flight_is_never_overdue() {
        let activity = Activity::new(false);
        activity.request_began();
        activity.bytes_arrived();
        assert!(matches!(
            activity.overdue(&timeouts(0, 0)),
            Overdue::No { .. }
        ));
    }

    #[test]
    fn between_requests_a_connection_is_idle_until_bytes_come() {
        let activity = Activity::new(false);
        activity.request_began();
        activity.request_ended();
        assert_eq!(activity.overdue(&timeouts(NEVER, 0)), Overdue::Idle);
        activity.bytes_arrived();
        assert_eq!(activity.overdue(&timeouts(0, NEVER)), Overdue::Head);
    }

    #[test]
    fn control_frames_of_http2_are_no_head() {
        let activity = Activity::new(true);
        activity.bytes_arrived();
        assert_eq!(activity.overdue(&timeouts(NEVER, 0)), Overdue::Idle);
    }
}
