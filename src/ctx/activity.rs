//! What a client connection is doing, for its one timer.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::config::Timeouts;
use crate::http2::Misuse;

/// Requests of an HTTP/2 connection that may be reset before they are answered, more than were answered. Somebody who
/// leaves a page may well reset a hundred.
const RESETS: u32 = 200;
/// How many of those are forgiven in a second.
const FORGIVEN: u64 = 10;
/// What an answered request pays for, in frames of HTTP/2 that nothing comes of.
const ANSWER: u32 = 8;

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
    /// When the head of HTTP/2 that has arrived in part began to, in milliseconds since `start`
    head_since: AtomicU64,
    /// Counts the turns that the connection's task has had
    turn: AtomicU32,
    /// Whether small pieces are held back until the turn is over, and whether there are some
    gathers: AtomicBool,
    holds: AtomicBool,
    /// Counts what was read and written
    moved: AtomicU32,
    /// Requests that were reset, less those that were answered
    resets: AtomicU32,
    /// When resets were last forgiven, in milliseconds since `start`
    forgiven: AtomicU64,
    /// What HTTP/2's gauge has not been told yet
    earned: AtomicU32,
    misuse: OnceLock<Misuse>,
    /// When a write began to wait for the client, in milliseconds since `start` and one more; 0 for none that waits
    blocked: AtomicU64,
    /// What the kernel held then
    unsent: AtomicU32,
    doubted: AtomicBool,
    given_up: AtomicBool,
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
    /// A write that the client does not take
    Write,
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
            head_since: AtomicU64::new(0),
            turn: AtomicU32::new(0),
            gathers: AtomicBool::new(false),
            holds: AtomicBool::new(false),
            moved: AtomicU32::new(0),
            resets: AtomicU32::new(0),
            forgiven: AtomicU64::new(0),
            earned: AtomicU32::new(0),
            misuse: OnceLock::new(),
            blocked: AtomicU64::new(0),
            unsent: AtomicU32::new(0),
            doubted: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
        }
    }

    /// Bytes came in: between requests, those are the beginning of a head.
    pub fn bytes_arrived(&self) {
        if !self.multiplexed && self.in_flight.load(Relaxed) == 0 && !self.in_head.load(Relaxed) {
            self.in_head.store(true, Relaxed);
            self.since.store(self.now(), Relaxed);
        }
    }

    /// Whether part of a head of HTTP/2 has arrived. Others may be answered meanwhile.
    pub fn set_in_head(&self, in_head: bool) {
        if in_head && !self.in_head() {
            self.head_since.store(self.now(), Relaxed);
        }
        self.in_head.store(in_head, Relaxed);
    }

    /// The connection's task has its turn. Within one, the library may read any number of times.
    pub fn take_turn(&self) {
        self.turn
            .store(self.turn.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Changes with each turn.
    pub fn turn(&self) -> u32 {
        self.turn.load(Relaxed)
    }

    /// From here on, small pieces may be held back that are written over HTTP/2: where several requests are being answered,
    /// others may follow at once. Whoever calls this has [`let_go`](Self::let_go) called, too.
    pub fn gather(&self) {
        let gathers = self.multiplexed && self.in_flight.load(Relaxed) > 1;
        self.gathers.store(gathers, Relaxed);
    }

    /// Whether small pieces may be held back.
    pub fn gathers(&self) -> bool {
        self.gathers.load(Relaxed)
    }

    /// Something is held back that was to leave.
    pub fn hold(&self) {
        self.holds.store(true, Relaxed);
    }

    /// Nothing is held back any more. Whether something was, and is to leave now.
    pub fn let_go(&self) -> bool {
        self.gathers.store(false, Relaxed);
        self.holds.swap(false, Relaxed)
    }

    /// Something was read or written.
    pub fn move_on(&self) {
        self.moved
            .store(self.moved.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Changes with everything that is read or written over HTTP/2.
    pub fn moved(&self) -> u32 {
        self.moved.load(Relaxed)
    }

    /// A request's head is complete.
    pub fn request_began(&self) {
        self.in_flight.fetch_add(1, Relaxed);
        if !self.multiplexed {
            self.in_head.store(false, Relaxed);
        }
    }

    /// A response is complete, or given up. `answered` is whether the client did not cut it short.
    pub fn request_ended(&self, answered: bool) {
        if self.multiplexed {
            self.weigh(answered);
        }
        if self.in_flight.fetch_sub(1, Relaxed) == 1 {
            self.since.store(self.now(), Relaxed);
        }
    }

    /// Whichever side resets a request has had the upstream work for nothing.
    fn weigh(&self, answered: bool) {
        let resets = self.resets.load(Relaxed);
        if answered {
            self.resets.store(resets.saturating_sub(1), Relaxed);
            return self.earn(ANSWER);
        }
        let mut resets = resets + 1;
        if resets > RESETS {
            let now = self.now();
            let forgiven = (now - self.forgiven.load(Relaxed)) * FORGIVEN / 1000;
            if forgiven > 0 {
                self.forgiven.store(now, Relaxed);
                resets = resets.saturating_sub(forgiven.min(u64::from(RESETS)) as u32);
            }
        }
        self.resets.store(resets, Relaxed);
        if resets > RESETS {
            self.cut(Misuse::Resets);
        }
    }

    /// Something came of the frames of HTTP/2 that were read.
    pub fn earn(&self, credit: u32) {
        self.earned
            .store(self.earned.load(Relaxed).saturating_add(credit), Relaxed);
    }

    /// What was earned since this was last asked.
    pub fn take_earned(&self) -> u32 {
        self.earned.swap(0, Relaxed)
    }

    /// The connection is to be cut off.
    pub fn cut(&self, misuse: Misuse) {
        let _ = self.misuse.set(misuse);
    }

    /// Why the connection is to be cut off, if so.
    pub fn misuse(&self) -> Option<Misuse> {
        self.misuse.get().copied()
    }

    /// Whether no request is being answered.
    pub fn is_between(&self) -> bool {
        self.in_flight.load(Relaxed) == 0
    }

    /// Whether part of a head has arrived and the rest is awaited.
    pub fn in_head(&self) -> bool {
        self.in_head.load(Relaxed)
    }

    /// For how long no request has been answered; `None` where one is, where part of a head has arrived, and where something
    /// written has yet to leave.
    pub fn idle(&self) -> Option<Duration> {
        let idle = self.is_between() && !self.in_head() && self.has_written();
        idle.then(|| Duration::from_millis(self.now().saturating_sub(self.since.load(Relaxed))))
    }

    /// How long it has been there.
    pub fn age(&self) -> Duration {
        self.start.elapsed()
    }

    /// Something written waits for the client to read. `unsent` is asked how much the kernel holds, but not each time.
    pub fn write_waits(&self, unsent: impl FnOnce() -> u32) {
        let begins = self.has_written();
        if !begins && !self.doubted.swap(false, Relaxed) {
            return;
        }
        let unsent = unsent();
        if begins || unsent < self.unsent.swap(unsent, Relaxed) {
            self.unsent.store(unsent, Relaxed);
            self.blocked.store(self.now() + 1, Relaxed);
        }
    }

    /// A write that waits is overdue. The client may yet have read: there is room for another write only when it has read
    /// a good part of what the kernel holds, megabytes perhaps. The next attempt to write looks.
    pub fn doubt(&self) {
        self.doubted.store(true, Relaxed);
    }

    /// What was written last has left.
    pub fn wrote(&self) {
        self.blocked.store(0, Relaxed);
    }

    /// Whether everything that was written has left.
    pub fn has_written(&self) -> bool {
        self.blocked.load(Relaxed) == 0
    }

    /// The client has not read for too long: nothing more is written.
    pub fn give_up(&self) {
        self.given_up.store(true, Relaxed);
    }

    /// Whether it has not.
    pub fn has_given_up(&self) -> bool {
        self.given_up.load(Relaxed)
    }

    /// Whether the current phase, or a write, has lasted too long.
    pub fn overdue(&self, timeouts: &Timeouts) -> Overdue {
        let phase = self.overdue_phase(timeouts);
        let (Some(since), Overdue::No { rest }) =
            (self.blocked.load(Relaxed).checked_sub(1), phase)
        else {
            return phase;
        };
        match self.left(since, timeouts.response_write_idle) {
            Some(left) => Overdue::No {
                rest: rest.min(left),
            },
            None => Overdue::Write,
        }
    }

    /// What is left of `limit` that began at `since`, at least a millisecond; `None` when nothing is.
    fn left(&self, since: u64, limit: Duration) -> Option<Duration> {
        let passed = Duration::from_millis(self.now().saturating_sub(since));
        let rest = limit.checked_sub(passed).filter(|rest| !rest.is_zero());
        rest.map(|rest| rest.max(Duration::from_millis(1)))
    }

    fn overdue_phase(&self, timeouts: &Timeouts) -> Overdue {
        if self.multiplexed && self.in_head() {
            let since = self.head_since.load(Relaxed);
            return match self.left(since, timeouts.request_head) {
                Some(rest) => Overdue::No { rest },
                None => Overdue::Head,
            };
        }
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
        match self.left(self.since.load(Relaxed), limit) {
            Some(rest) => Overdue::No { rest },
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
            response_write_idle: other,
            keepalive_idle: Duration::from_millis(idle),
            hibernate: None,
            upstream_connect: other,
            upstream_response: other,
            upstream_idle: other,
            tunnel_idle: other,
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
        activity.request_ended(true);
        assert_eq!(activity.overdue(&timeouts(NEVER, 0)), Overdue::Idle);
        activity.bytes_arrived();
        assert_eq!(activity.overdue(&timeouts(0, NEVER)), Overdue::Head);
    }

    #[test]
    fn it_is_idle_while_nothing_is_asked_and_nothing_waits() {
        let activity = Activity::new(false);
        assert_eq!(activity.idle(), None, "the first head is due");
        activity.request_began();
        assert_eq!(activity.idle(), None);
        activity.request_ended(true);
        assert!(activity.idle().is_some());
        activity.write_waits(|| 1);
        assert_eq!(activity.idle(), None);
        activity.wrote();
        assert!(activity.idle() <= Some(activity.age()));
        activity.bytes_arrived();
        assert_eq!(activity.idle(), None);
        let multiplexed = Activity::new(true);
        assert!(multiplexed.idle().is_some());
        multiplexed.set_in_head(true);
        assert_eq!(multiplexed.idle(), None);
    }

    #[test]
    fn resets_are_weighed_against_answers() {
        let ended = |activity: &Activity, answered| {
            activity.request_began();
            activity.request_ended(answered);
        };
        let activity = Activity::new(true);
        for _ in 0..10_000 {
            ended(&activity, false);
            ended(&activity, true);
        }
        assert_eq!(activity.misuse(), None);
        for _ in 0..RESETS {
            ended(&activity, false);
        }
        assert_eq!(activity.misuse(), None, "so many may be");
        // Time forgives a few meanwhile.
        for _ in 0..RESETS {
            ended(&activity, false);
        }
        assert_eq!(activity.misuse(), Some(Misuse::Resets));
        let old = Activity::new(false);
        for _ in 0..10_000 {
            ended(&old, false);
        }
        assert_eq!(old.misuse(), None, "HTTP/1.1 has a connection for each");
    }

    #[test]
    fn a_head_of_http2_is_due_whatever_else_is_in_flight() {
        let activity = Activity::new(true);
        activity.request_began();
        activity.set_in_head(true);
        activity.set_in_head(true);
        assert_eq!(activity.overdue(&timeouts(0, NEVER)), Overdue::Head);
        assert!(matches!(
            activity.overdue(&timeouts(NEVER, 0)),
            Overdue::No { .. }
        ));
        activity.set_in_head(false);
        assert!(matches!(
            activity.overdue(&timeouts(0, 0)),
            Overdue::No { .. }
        ));
    }

    #[test]
    fn a_write_that_waits_is_overdue_by_itself() {
        let activity = Activity::new(false);
        activity.request_began();
        let now = Timeouts {
            response_write_idle: Duration::ZERO,
            ..timeouts(NEVER, NEVER)
        };
        assert!(activity.has_written());
        activity.write_waits(|| 1000);
        assert!(!activity.has_written());
        assert_eq!(activity.overdue(&now), Overdue::Write);
        let later = Timeouts {
            response_write_idle: Duration::from_secs(5),
            ..timeouts(NEVER, NEVER)
        };
        let Overdue::No { rest } = activity.overdue(&later) else {
            panic!("not yet");
        };
        assert!(rest <= Duration::from_secs(5), "{rest:?}");
        activity.wrote();
        assert!(matches!(activity.overdue(&now), Overdue::No { .. }));
    }

    #[test]
    fn what_leaves_the_kernel_is_read_by_the_client() {
        let activity = Activity::new(false);
        activity.request_began();
        let short = Timeouts {
            response_write_idle: Duration::from_millis(20),
            ..timeouts(NEVER, NEVER)
        };
        let overdue = || while activity.overdue(&short) != Overdue::Write {};
        activity.write_waits(|| 1000);
        activity.write_waits(|| panic!("asked for nothing"));
        overdue();
        activity.doubt();
        activity.write_waits(|| 999);
        assert!(matches!(activity.overdue(&short), Overdue::No { .. }));
        overdue();
        activity.doubt();
        activity.write_waits(|| 999);
        assert_eq!(activity.overdue(&short), Overdue::Write);
    }

    #[test]
    fn control_frames_of_http2_are_no_head() {
        let activity = Activity::new(true);
        activity.bytes_arrived();
        assert_eq!(activity.overdue(&timeouts(NEVER, 0)), Overdue::Idle);
    }
}
