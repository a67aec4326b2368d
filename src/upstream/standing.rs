//! What the guard remembers of a peer. Shared by all workers, so that none of them has to find out again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long a peer that the wrong user runs is refused before it is looked at again.
const REFUSED: Duration = Duration::from_secs(1);
/// Time is kept in tenths of a second, so that 32 bits last for 13 years.
const TENTH: u64 = 100;

/// What the guard remembers of a peer.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Whether the last look found nothing to refuse
    trusted: AtomicBool,
    /// Whom the last look found, if that was refused: the uid below, until when above; 0 for nobody
    offender: AtomicU64,
    /// What was last said of it in the log; 0 for nothing
    told: AtomicU64,
    exposure_looked_at: AtomicBool,
}

impl Standing {
    /// Whether the next connection is looked at before anything is sent on it.
    pub(super) fn is_suspect(&self) -> bool {
        !self.trusted.load(Ordering::Relaxed)
    }

    /// The next new connection is looked at in time.
    pub(super) fn suspect(&self) {
        self.trusted.store(false, Ordering::Relaxed);
    }

    /// Nothing to refuse.
    pub(super) fn trust(&self) {
        self.trusted.store(true, Ordering::Relaxed);
        self.offender.store(0, Ordering::Relaxed);
    }

    /// `uid` was refused at `now`, in milliseconds.
    pub(super) fn refuse(&self, uid: u32, now: u64) {
        let until = (now + REFUSED.as_millis() as u64).div_ceil(TENTH);
        self.offender
            .store(until << 32 | u64::from(uid), Ordering::Relaxed);
        self.suspect();
    }

    /// Who was refused less than a second before `now`, in milliseconds.
    pub(super) fn refused(&self, now: u64) -> Option<u32> {
        let packed = self.offender.load(Ordering::Relaxed);
        let until = (packed >> 32) * TENTH;
        (now < until).then_some(packed as u32)
    }

    /// Takes note of what is about to be said, not 0; returns what was said before.
    pub(super) fn tell(&self, what: u64) -> u64 {
        self.told.swap(what, Ordering::Relaxed)
    }

    /// True the first time.
    pub(super) fn look_at_exposure(&self) -> bool {
        !self.exposure_looked_at.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offender_is_refused_for_a_second_and_then_suspect() {
        let standing = Standing::default();
        assert!(standing.is_suspect(), "never looked at");
        assert_eq!(standing.refused(0), None);
        standing.trust();
        assert!(!standing.is_suspect());
        standing.refuse(0, 12_345);
        assert_eq!(standing.refused(12_345), Some(0));
        assert_eq!(standing.refused(13_344), Some(0));
        assert_eq!(standing.refused(13_445), None);
        assert!(standing.is_suspect());
        standing.refuse(u32::MAX - 1, 20_000);
        assert_eq!(standing.refused(20_000), Some(u32::MAX - 1));
        standing.trust();
        assert_eq!(standing.refused(20_000), None);
    }
}
