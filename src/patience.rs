//! How long a client may keep its request's body waiting.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Time that a client has to be late, in a bucket: waiting takes of it, bytes fill it up again at the rate that they
/// should come at. A client that stops is out after all of it, one that drips not much later. What the upstream makes the
/// client wait is not the client's fault and does not count: the clock runs only while a read waits.
#[derive(Debug)]
pub struct Patience {
    /// The whole of it
    most: Duration,
    /// What is left, as of the last read
    left: Duration,
    /// Bytes a second; without, every byte fills it up
    rate: Option<u64>,
    waiting: Option<Instant>,
    /// Made when a read has to wait, and moved, not made anew, after that
    sleep: Option<Pin<Box<Sleep>>>,
}

/// How patience ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Nothing came for all of it
    Idle(Duration),
    /// Too little came, by this rate in bytes a second
    Slow(u64),
}

impl Patience {
    /// Waits for `most` where nothing comes, and for `rate` bytes a second where something does.
    pub fn new(most: Duration, rate: Option<u64>) -> Self {
        Self {
            most,
            left: most,
            rate,
            waiting: None,
            sleep: None,
        }
    }

    /// Bytes came.
    pub fn arrived(&mut self, bytes: usize, now: Instant) {
        let waited = self.waiting.take().map(|since| now - since);
        let Some(rate) = self.rate else {
            return;
        };
        self.left = self.left.saturating_sub(waited.unwrap_or_default());
        let earned = (bytes as u64).saturating_mul(1_000_000) / rate;
        let left = self.left.saturating_add(Duration::from_micros(earned));
        self.left = left.min(self.most);
    }

    /// To be called when a read has to wait: what is wrong, once patience is at its end.
    pub fn poll_late(&mut self, cx: &mut Context<'_>) -> Option<Late> {
        let left = self.left;
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
        if self.waiting.is_none() {
            let now = Instant::now();
            self.waiting = Some(now);
            sleep.as_mut().reset(now + left);
        }
        match (sleep.as_mut().poll(cx), self.rate) {
            (Poll::Pending, _) => None,
            (Poll::Ready(()), Some(rate)) if left < self.most => Some(Late::Slow(rate)),
            (Poll::Ready(()), _) => Some(Late::Idle(self.most)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const MOST: Duration = Duration::from_secs(30);

    /// Bytes that come after a pause, again and again; how it ends, and after how many seconds.
    async fn drip(
        rate: Option<u64>,
        pause: u64,
        bytes: usize,
        times: usize,
    ) -> Option<(Late, u64)> {
        let mut patience = Patience::new(MOST, rate);
        let start = Instant::now();
        for _ in 0..times {
            let late = poll_fn(|cx| match patience.poll_late(cx) {
                Some(late) => Poll::Ready(late),
                None => Poll::Pending,
            });
            if let Ok(late) = tokio::time::timeout(Duration::from_secs(pause), late).await {
                return Some((late, start.elapsed().as_secs()));
            }
            patience.arrived(bytes, Instant::now());
        }
        None
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.unwrap().block_on(test)
    }

    #[test]
    fn silence_ends_it_whatever_the_rate() {
        for rate in [None, Some(500)] {
            let ended = run(drip(rate, 60, 1, 1));
            assert_eq!(ended, Some((Late::Idle(MOST), 30)), "{rate:?}");
        }
    }

    #[test]
    fn drops_do_not_keep_it_up_where_there_is_a_rate() {
        assert_eq!(run(drip(None, 10, 1, 50)), None);
        let ended = run(drip(Some(500), 10, 1, 50));
        assert_eq!(ended, Some((Late::Slow(500), 30)));
        // A second before its time each time, and yet too slow.
        let ended = run(drip(Some(500), 2, 900, 1000));
        assert!(
            matches!(ended, Some((Late::Slow(500), 250..=310))),
            "{ended:?}"
        );
    }

    #[test]
    fn whoever_keeps_the_rate_may_go_on_for_ever() {
        assert_eq!(run(drip(Some(500), 20, 10_000, 1000)), None);
        assert_eq!(run(drip(Some(500), 1, 600, 1000)), None);
    }

    #[test]
    fn a_fast_beginning_is_no_credit_for_later() {
        let mut patience = Patience::new(MOST, Some(500));
        run(async {
            patience.arrived(100 << 20, Instant::now());
        });
        assert_eq!(patience.left, MOST);
    }
}
