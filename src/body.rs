//! The body of a request on its way to the upstream.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use crate::error::ProxyError;
use crate::http::trailers;
use crate::linger::ClientBody;
use crate::patience::{Late, Patience};

/// A body that streams from the client, or none.
#[derive(Debug)]
pub enum RequestBody {
    /// No body: nothing is allocated for it
    Empty,
    /// What the client sends, under its limits
    Incoming(Box<Limited>),
}

/// What became of a request's body; shared with the request's context, since hyper takes the body itself.
#[derive(Debug, Default)]
pub struct Progress {
    received: Cell<u64>,
    last: Cell<Option<Instant>>,
    fault: Cell<Option<BodyFault>>,
}

impl Progress {
    /// Bytes of the body received so far.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// When its last frame was received.
    pub fn last(&self) -> Option<Instant> {
        self.last.get()
    }

    /// What ended the body before its time, if anything did.
    pub fn fault(&self) -> Option<BodyFault> {
        self.fault.get()
    }
}

/// What ended a request's body before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// More than this many bytes
    TooLarge(u64),
    /// Nothing came for this long
    Idle(Duration),
    /// Too little came, by this rate in bytes a second
    Slow(u64),
    /// The client broke off
    Aborted,
}

impl From<BodyFault> for ProxyError {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::TooLarge(limit) => Self::BodyTooLarge(limit),
            BodyFault::Idle(limit) => Self::BodyTimeout(limit),
            BodyFault::Slow(rate) => Self::BodySlow(rate),
            BodyFault::Aborted => Self::BodyAborted,
        }
    }
}

/// Held until the upstream says `100 Continue`: polling the client's body would have hyper say it to the client.
#[derive(Debug)]
enum Gate {
    Open,
    Waiting(oneshot::Receiver<()>),
    /// The final response came first. Failing the body would cut that response off, so it just never comes.
    Shut,
}

/// A client's body with a bound on its size and on the time that it may take.
#[derive(Debug)]
pub struct Limited {
    incoming: ClientBody,
    limit: Option<u64>,
    patience: Patience,
    gate: Gate,
    progress: Rc<Progress>,
}

impl Limited {
    /// Bounds `incoming` to `limit` bytes and the wait for them to `patience`.
    pub fn new(
        incoming: ClientBody,
        limit: Option<u64>,
        patience: Patience,
        progress: Rc<Progress>,
    ) -> Self {
        Self {
            incoming,
            limit,
            patience,
            gate: Gate::Open,
            progress,
        }
    }

    /// Reads nothing before `gate` is sent to; if it is dropped, never.
    #[must_use]
    pub fn gated(mut self, gate: oneshot::Receiver<()>) -> Self {
        self.gate = Gate::Waiting(gate);
        self
    }

    fn fail(&self, fault: BodyFault) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        self.progress.fault.set(Some(fault));
        Poll::Ready(Some(Err(fault)))
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        // What failed once never ends well: it would look complete.
        if let Some(fault) = self.progress.fault() {
            return Poll::Ready(Some(Err(fault)));
        }
        match &mut self.gate {
            Gate::Open => {}
            Gate::Shut => return Poll::Pending,
            Gate::Waiting(gate) => match Pin::new(gate).poll(cx) {
                Poll::Ready(Ok(())) => self.gate = Gate::Open,
                Poll::Ready(Err(_)) => {
                    self.gate = Gate::Shut;
                    return Poll::Pending;
                }
                Poll::Pending => return Poll::Pending,
            },
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let now = Instant::now();
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.patience.arrived(length, now);
                self.progress.last.set(Some(now));
                if let Some(data) = frame.data_ref() {
                    let received = self.progress.received.get() + data.len() as u64;
                    self.progress.received.set(received);
                    if let Some(limit) = self.limit.filter(|limit| received > *limit) {
                        return self.fail(BodyFault::TooLarge(limit));
                    }
                }
                // Trailers are the last frame: without them, there is none.
                Poll::Ready(trailers::of_request(frame).map(Ok))
            }
            Poll::Ready(Some(Err(_))) => self.fail(BodyFault::Aborted),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match self.patience.poll_late(cx) {
                Some(Late::Idle(limit)) => self.fail(BodyFault::Idle(limit)),
                Some(Late::Slow(rate)) => self.fail(BodyFault::Slow(rate)),
                None => Poll::Pending,
            },
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Incoming(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Incoming(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Incoming(body) => body.incoming.size_hint(),
        }
    }
}

impl std::fmt::Display for BodyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", ProxyError::from(*self))
    }
}

impl std::error::Error for BodyFault {}

/// Bounds the time between two reads. Its timer is made only when a read has to wait, and moved, not made anew, after
/// that; a body that is there already costs nothing.
#[derive(Debug)]
pub struct IdleTimer {
    limit: Option<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl IdleTimer {
    /// A timer of `limit`; `None` never expires.
    pub fn new(limit: Option<Duration>) -> Self {
        Self {
            limit,
            sleep: None,
            running: false,
        }
    }

    /// Something was read.
    pub fn stop(&mut self) {
        self.running = false;
    }

    /// To be called when a read has to wait: the limit, once it has passed since the last [`stop`](Self::stop).
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Option<Duration> {
        let limit = self.limit?;
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !self.running {
            self.running = true;
            sleep.as_mut().reset(Instant::now() + limit);
        }
        sleep.as_mut().poll(cx).is_ready().then_some(limit)
    }
}
