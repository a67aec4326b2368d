//! HTTP/1 connections that have nothing to do: kept without hyper and its buffers until the client speaks again.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::clients::{Client, Told};
use super::conn::{self, GOODBYE};
use super::watched::Watched;
use crate::ctx::{Conn, Overdue, Worker};
use crate::observe::Count;
use crate::snapshot::Snapshot;

/// How often a connection that is at work is looked at for whether it could hibernate.
const LOOK: Duration = Duration::from_secs(5);

/// A connection without a request, and all that it takes to go on with it.
#[derive(Debug)]
pub(super) struct Hibernating {
    pub(super) worker: Rc<Worker>,
    pub(super) client: Rc<Client>,
    pub(super) conn: Rc<Conn>,
    /// Not a byte of a request in it
    pub(super) io: Watched,
}

impl Hibernating {
    /// Waits in a task of its own, so that the larger one of a connection at work can end.
    pub(super) fn start(mut self) {
        // What the inspector kept of a line in pieces is given back.
        self.begin_anew();
        self.worker.counters.add(Count::Hibernated);
        debug!("client connection hibernates");
        // Boxed, because the two kinds of task begin each other.
        tokio::task::spawn_local(Box::pin(self.wait()));
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps room for self twice"
    )]
    fn wait(mut self) -> impl Future<Output = ()> {
        async move {
            let end = self.woken().await;
            if end {
                let _ = timeout(GOODBYE, self.io.shutdown()).await;
            } else {
                tokio::task::spawn_local(self.wake());
            }
        }
    }

    /// Whether the connection is to end, rather than to go on.
    async fn woken(&self) -> bool {
        let mut sleep = pin!(sleep_until(Instant::now()));
        poll_fn(|cx| {
            // A failure is for hyper to find.
            if self.io.poll_read_ready(cx).is_ready() {
                return Poll::Ready(false);
            }
            // What was asked before it was to go is answered.
            if self.client.told(cx) != Told::Nothing && !self.io.has_arrived() {
                return Poll::Ready(true);
            }
            while sleep.as_mut().poll(cx).is_ready() {
                let config = &self.worker.live.load().config;
                match self.conn.activity.overdue(&config.timeouts) {
                    Overdue::No { rest } => sleep.as_mut().reset(Instant::now() + rest),
                    _ => return Poll::Ready(true),
                }
            }
            Poll::Pending
        })
        .await
    }

    async fn wake(mut self) {
        // A reload may have changed them.
        let snapshot = self.begin_anew();
        let limits = &snapshot.config.limits;
        conn::http1(self.worker, self.client, self.conn, self.io, limits).await;
    }

    fn begin_anew(&mut self) -> Arc<Snapshot> {
        let snapshot = self.worker.snapshot();
        self.io.begin_anew(conn::bounds(&snapshot.config.limits));
        snapshot
    }
}

/// For how long a connection over HTTP/1 stays awake at least that hibernates when it was idle for so long.
pub(super) fn awake(conn: &Conn, after: Duration) -> Duration {
    match conn.quiet().filter(|_| conn.intake.has_taken_all()) {
        Some(idle) => after.saturating_sub(idle),
        // At work, perhaps for hours: to look often would cost more than the buffers.
        None => LOOK.max(after),
    }
}
