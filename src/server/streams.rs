//! The tasks of an HTTP/2 connection: one a stream, each with an eye on whether its client takes the response.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::spawn_local;

use crate::body::IdleTimer;
use crate::ctx::{Activity, Flow};

/// Runs them on the worker's thread. One that waits for its client longer than `limit` is dropped, which resets the stream:
/// a window that stays shut would hold its response, and the upstream's connection behind that, for as long as the client
/// likes. Clones are of one connection.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    limit: Duration,
    activity: Arc<Activity>,
    /// Of the request that hyper has just handed over and is about to make a task of
    next: Rc<RefCell<Option<Rc<Flow>>>>,
}

impl Streams {
    /// For one connection.
    pub(super) fn new(limit: Duration, activity: &Arc<Activity>) -> Self {
        Self {
            limit,
            activity: Arc::clone(activity),
            next: Rc::default(),
        }
    }

    /// A request is about to have a task: what its body tells that.
    pub(super) fn begin(&self) -> Rc<Flow> {
        let flow = Rc::new(Flow::default());
        self.next.replace(Some(Rc::clone(&flow)));
        flow
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        match self.next.take() {
            Some(flow) => {
                let activity = Arc::clone(&self.activity);
                drop(spawn_local(guard(future, flow, activity, self.limit)));
            }
            // What moves the bytes of a tunnel.
            None => drop(spawn_local(future)),
        }
    }
}

/// A timer is made only for a stream that has to wait for its client.
fn guard(
    stream: impl Future<Output = ()>,
    flow: Rc<Flow>,
    activity: Arc<Activity>,
    limit: Duration,
) -> impl Future<Output = ()> {
    // In a box: a stream is large, and would be moved, and so kept twice, otherwise.
    let mut stream = Box::pin(stream);
    let mut idle = IdleTimer::new(Some(limit));
    let mut turn = 0;
    poll_fn(move |cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(now) = flow.waits() else {
            idle.stop();
            return Poll::Pending;
        };
        if now != turn {
            turn = now;
            idle.stop();
        }
        match idle.poll_expired(cx) {
            Some(_) if activity.has_written() => {
                flow.stall();
                Poll::Ready(())
            }
            // All streams wait for the connection then, which has a timer of its own.
            Some(_) => {
                idle.stop();
                let _ = idle.poll_expired(cx);
                Poll::Pending
            }
            None => Poll::Pending,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;
    use std::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn a_stream_that_is_left_standing_ends() {
        let flow = Rc::new(Flow::default());
        let body = Rc::clone(&flow);
        let stream = async move {
            // As long as something is taken, however slowly, it goes on.
            for _ in 0..4 {
                body.ask();
                body.give();
                tokio::time::sleep(LIMIT / 2).await;
            }
            pending::<()>().await
        };
        let start = Instant::now();
        let activity = Arc::new(Activity::new(true));
        guard(stream, Rc::clone(&flow), activity, LIMIT).await;
        assert!(flow.has_stalled());
        assert!(start.elapsed() >= LIMIT * 5 / 2, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn one_that_waits_for_the_upstream_does_not() {
        let (flow, over) = (Rc::new(Flow::default()), Rc::new(Cell::new(false)));
        let (body, done) = (Rc::clone(&flow), Rc::clone(&over));
        let stream = async move {
            body.ask();
            body.give();
            body.ask();
            tokio::time::sleep(LIMIT * 3).await;
            done.set(true);
        };
        let activity = Arc::new(Activity::new(true));
        guard(stream, Rc::clone(&flow), activity, LIMIT).await;
        assert!(over.get() && !flow.has_stalled());
    }
}
