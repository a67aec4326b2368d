//! The tasks of an HTTP/2 connection's streams.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::body::IdleTimer;
use crate::ctx::{Conn, Uptake};

/// Runs the streams of one connection on its thread, and ends those whose client does not take what is there for it.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    conn: Rc<Conn>,
    patience: Duration,
}

impl Streams {
    /// Those of `conn`. A client may leave a response standing for `patience`.
    pub(super) fn new(conn: Rc<Conn>, patience: Duration) -> Self {
        Self { conn, patience }
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + 'static,
{
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(attend(stream, Rc::clone(&self.conn), self.patience));
    }
}

/// Polls a stream to its end, or until its client has been waited for too long. Dropping it resets it, and frees what it
/// holds of the upstream.
fn attend<F: Future>(stream: F, conn: Rc<Conn>, patience: Duration) -> impl Future<Output = ()> {
    // In a box: a stream is large, and would be moved, and so kept twice, otherwise.
    let mut stream = Box::pin(stream);
    let mut timer = IdleTimer::new(Some(patience));
    let mut uptake: Option<Rc<Uptake>> = None;
    let mut given = None;
    poll_fn(move |cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Put there by the request's context, which only the stream's own first poll can have made.
        if uptake.is_none() {
            uptake = conn.uptake.take();
        }
        let Some(uptake) = &uptake else {
            return Poll::Pending;
        };
        let waits = uptake.waits();
        if waits != given {
            timer.stop();
            given = waits;
        }
        if given.is_some() && timer.poll_expired(cx).is_some() {
            uptake.give_up();
            return Poll::Ready(());
        }
        Poll::Pending
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);

    fn conn() -> Rc<Conn> {
        let local = ([127, 0, 0, 1], 1).into();
        Rc::new(Conn::new(local, local, false, true))
    }

    #[tokio::test]
    async fn a_stream_that_is_left_standing_ends() {
        let conn = conn();
        let uptake = Rc::new(Uptake::default());
        let stream = async {
            conn.uptake.replace(Some(Rc::clone(&uptake)));
            // As long as something is taken, however slowly, it goes on.
            for _ in 0..4 {
                uptake.give();
                tokio::time::sleep(PATIENCE / 2).await;
            }
            pending::<()>().await
        };
        let start = Instant::now();
        attend(stream, Rc::clone(&conn), PATIENCE).await;
        assert!(uptake.is_given_up());
        assert!(start.elapsed() >= PATIENCE * 5 / 2, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn one_that_waits_for_the_upstream_does_not() {
        let conn = conn();
        let uptake = Rc::new(Uptake::default());
        let over = Cell::new(false);
        let stream = async {
            conn.uptake.replace(Some(Rc::clone(&uptake)));
            uptake.give();
            uptake.taken();
            tokio::time::sleep(PATIENCE * 3).await;
            over.set(true);
        };
        attend(stream, Rc::clone(&conn), PATIENCE).await;
        assert!(over.get() && !uptake.is_given_up());
    }
}
