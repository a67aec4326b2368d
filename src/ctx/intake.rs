//! What the inspector of a connection's bytes and the request path tell each other.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use crate::http1::Refusal;

/// The inspector runs ahead of the request path: it may see a second request while the first is being answered.
///
/// Atomics only because hyper wants an upgradeable stream to be `Send`; all of it happens on one thread.
#[derive(Debug, Default)]
pub struct Intake {
    /// Requests that the request path has begun
    begun: AtomicU32,
    /// How many requests were seen, while nothing but whole ones was
    whole: AtomicU32,
    /// The request, by its number, whose WebSocket is not decided; 0 for none
    undecided: AtomicU32,
    /// Whether bytes were passed on meanwhile, unseen
    beyond: AtomicBool,
    /// Whether the client has said that the request is its last
    last: AtomicBool,
    refusal: OnceLock<Refusal>,
    /// Who was told to wait after the refusal: the request whose body it breaks may begin only then
    waiting: Mutex<Option<Waker>>,
}

impl Intake {
    /// The request path has begun a request.
    pub fn begin(&self) {
        self.begun
            .store(self.begun.load(Relaxed).wrapping_add(1), Relaxed);
        if self.refusal.get().is_some()
            && let Some(waiting) = self.waiting().take()
        {
            waiting.wake();
        }
    }

    /// Has the reader of a connection that was refused wake when the next request begins.
    pub fn wait_for_next(&self, reader: &Waker) {
        *self.waiting() = Some(reader.clone());
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many that were.
    pub fn begun(&self) -> u32 {
        self.begun.load(Relaxed)
    }

    /// Whether the request with this number, counted from 1, has begun.
    pub fn has_begun(&self, number: u32) -> bool {
        self.begun.load(Relaxed) == number
    }

    /// So many requests were seen by now; `whole` is whether the last one's last byte was the last of all.
    pub fn see(&self, requests: u32, whole: bool) {
        self.whole.store(if whole { requests } else { 0 }, Relaxed);
    }

    /// Whether there were requests, and all that came has been taken up as one.
    pub fn has_taken_all(&self) -> bool {
        let begun = self.begun();
        begun > 0 && begun == self.whole.load(Relaxed)
    }

    /// The client has said that the request which was begun last is its last.
    pub fn hears_the_last(&self) {
        self.last.store(true, Relaxed);
    }

    /// Whether nothing more comes: what was to be the last request is here to its last byte, and nothing behind it.
    pub fn has_heard_all(&self) -> bool {
        self.last.load(Relaxed) && self.has_taken_all()
    }

    /// The request with this number asks for a WebSocket: what follows cannot be judged before it is answered.
    pub fn undecide(&self, number: u32) {
        self.undecided.store(number, Relaxed);
    }

    /// Whether a WebSocket is decided upon, or has come to be.
    pub fn is_undecided(&self) -> bool {
        self.undecided.load(Relaxed) != 0
    }

    /// Bytes were passed on that nobody looked at.
    pub fn pass_unseen(&self) {
        self.beyond.store(true, Relaxed);
    }

    /// The current request is answered, and not with a WebSocket. Whether the connection has to end with it, because what
    /// was taken for the beginning of a WebSocket is now the beginning of a request that nobody has looked at.
    #[must_use]
    pub fn settle(&self) -> bool {
        let undecided = self.undecided.load(Relaxed);
        if undecided == 0 || !self.has_begun(undecided) {
            return false;
        }
        if self.beyond.load(Relaxed) {
            return true;
        }
        self.undecided.store(0, Relaxed);
        false
    }

    /// Nothing more is read from the client.
    pub fn refuse(&self, why: Refusal) {
        let _ = self.refusal.set(why);
    }

    /// Why nothing more is read, if so.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_taken_up_when_the_last_request_seen_has_begun_and_nothing_follows_it() {
        let intake = Intake::default();
        intake.see(0, true);
        assert!(!intake.has_taken_all(), "none came");
        intake.see(2, true);
        intake.begin();
        assert!(!intake.has_taken_all(), "the second is to begin");
        intake.begin();
        assert!(intake.has_taken_all());
        intake.see(2, false);
        assert!(!intake.has_taken_all(), "part of a third is there");
    }

    #[test]
    fn all_is_heard_with_the_last_byte_of_the_last_request() {
        let intake = Intake::default();
        intake.see(1, true);
        intake.begin();
        assert!(!intake.has_heard_all(), "there may be more");
        intake.hears_the_last();
        assert!(intake.has_heard_all());
        intake.see(1, false);
        assert!(!intake.has_heard_all(), "its body is on its way");
    }

    #[test]
    fn a_refused_websocket_ends_the_connection_only_where_bytes_followed_it() {
        let intake = Intake::default();
        intake.undecide(2);
        intake.begin();
        assert!(!intake.settle(), "that was the request before");
        assert!(intake.is_undecided());
        intake.begin();
        assert!(!intake.settle());
        assert!(!intake.is_undecided());
        intake.undecide(3);
        intake.pass_unseen();
        intake.begin();
        assert!(intake.settle());
        assert!(intake.is_undecided());
    }

    #[test]
    fn the_first_refusal_stands() {
        let intake = Intake::default();
        assert_eq!(intake.refusal(), None);
        intake.refuse(Refusal::Fragment);
        intake.refuse(Refusal::Version);
        assert_eq!(intake.refusal(), Some(Refusal::Fragment));
    }
}
