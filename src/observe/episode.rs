//! Says what goes on for a while once, not each time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What has not happened for so long has ended, and is news when it happens again.
const QUIET: Duration = Duration::from_secs(60);

/// Something that may happen a thousand times a second and is worth one line in the log. Shared by all workers.
#[derive(Debug)]
pub struct Episode {
    start: Instant,
    /// When it happened last, in milliseconds since the start; 0 for never
    last: AtomicU64,
}

impl Default for Episode {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

impl Episode {
    /// It happens: whether that is news.
    pub fn begins(&self) -> bool {
        self.begins_at(self.start.elapsed())
    }

    fn begins_at(&self, now: Duration) -> bool {
        let now = now.as_millis() as u64 + 1;
        let last = self.last.swap(now, Relaxed);
        last == 0 || now.saturating_sub(last) > QUIET.as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_news_again_when_it_has_been_quiet() {
        let episode = Episode::default();
        let at = |seconds| episode.begins_at(Duration::from_secs(seconds));
        assert!(at(0));
        assert!(!at(0));
        assert!(!at(59));
        assert!(!at(118));
        assert!(at(200));
        assert!(!at(201));
    }
}
