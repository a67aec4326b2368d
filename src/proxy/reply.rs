//! The body of a response on its way to the client.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::yield_now;

use crate::body::IdleTimer;
use crate::ctx::{Flow, RequestCtx};
use crate::observe::Count;
use crate::upstream::{self, Lease};

/// A response's body, and the request that it answers: dropping it ends the request.
#[derive(Debug)]
pub struct Reply {
    body: ReplyBody,
    /// Over HTTP/2 only
    flow: Option<Rc<Flow>>,
    ctx: Option<RequestCtx>,
}

/// Where a response's body comes from.
#[derive(Debug)]
pub(super) enum ReplyBody {
    Empty,
    Full(Bytes),
    Upstream(Streamed),
}

/// Bytes of a response that its connection is given in one turn: others are served in between, and heard.
const TURN: usize = 256 * 1024;

/// A body that streams from a peer.
#[derive(Debug)]
pub(super) struct Streamed {
    /// Dropped before its end, it closes the connection. `None` after its end
    body: Option<(upstream::Body, Lease)>,
    /// Why it broke off, until that is told
    broke: Option<upstream::BodyError>,
    idle: IdleTimer,
    share: Share,
}

/// What a response was given in its connection's turn.
#[derive(Debug, Default)]
struct Share {
    turn: u32,
    given: usize,
}

impl Share {
    /// Whether it has had what it may have in this turn.
    fn is_had(&mut self, turn: u32) -> bool {
        if self.turn != turn {
            *self = Self { turn, given: 0 };
        }
        self.given >= TURN
    }
}

/// Why a response's body broke off. hyper then ends the connection or stream in a way that cannot be taken for its end.
#[derive(Debug)]
pub enum ReplyError {
    /// The upstream broke off
    Upstream(upstream::BodyError),
    /// The upstream stalled for `timeouts.upstream_idle`
    Idle(Duration),
}

impl std::fmt::Display for ReplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Upstream(error) => {
                write!(f, "upstream broke off in mid-body: {error}")
            }
            Self::Idle(limit) => write!(
                f,
                "upstream sent nothing for timeouts.upstream_idle ({limit:?})"
            ),
        }
    }
}

impl std::error::Error for ReplyError {}

impl ReplyBody {
    /// What `body` yields, over the connection that `lease` is for. `idle` bounds the time between two reads.
    pub(super) fn upstream(body: upstream::Body, lease: Lease, idle: Option<Duration>) -> Self {
        if body.is_end_stream() {
            lease.finish(body);
            return Self::Empty;
        }
        Self::Upstream(Streamed {
            body: Some((body, lease)),
            broke: None,
            idle: IdleTimer::new(idle),
            share: Share::default(),
        })
    }
}

impl Streamed {
    /// The next piece; `turn` is the connection's.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        turn: u32,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        if self.share.is_had(turn) {
            // It goes on when sockets have been looked at: to wake it would only put it behind those that are known to
            // have something to do.
            let _ = pin!(yield_now()).poll(cx);
            return Poll::Pending;
        }
        if let Some(error) = self.broke.take() {
            return Poll::Ready(Some(Err(ReplyError::Upstream(error))));
        }
        let Some((body, _)) = &mut self.body else {
            return Poll::Ready(None);
        };
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.stop();
                self.share.given += frame.data_ref().map_or(0, Bytes::len);
                if body.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                // Resetting a stream throws away what waits to be sent on it: that goes first.
                self.broke = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending if body.waits_for_client() => {
                self.idle.stop();
                Poll::Pending
            }
            Poll::Pending => match self.idle.poll_expired(cx) {
                Some(limit) => Poll::Ready(Some(Err(ReplyError::Idle(limit)))),
                None => Poll::Pending,
            },
        }
    }

    fn finish(&mut self) {
        if let Some((body, lease)) = self.body.take() {
            lease.finish(body);
        }
    }
}

impl Reply {
    /// The body of the response to the request of `ctx`.
    pub(super) fn new(body: ReplyBody, flow: Option<Rc<Flow>>, ctx: RequestCtx) -> Self {
        Self {
            body,
            flow,
            ctx: Some(ctx),
        }
    }

    /// The body of a response that a tunnel follows: the request goes on with that.
    pub(super) fn none() -> Self {
        Self {
            body: ReplyBody::Empty,
            flow: None,
            ctx: None,
        }
    }

    fn note(&mut self, reason: impl FnOnce() -> String) {
        if let Some(ctx) = &mut self.ctx {
            ctx.reason = Some(reason());
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if let Some(flow) = &self.flow {
            flow.ask();
        }
        let this = &mut *self;
        let polled = match &mut this.body {
            ReplyBody::Empty => Poll::Ready(None),
            ReplyBody::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.body = ReplyBody::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            ReplyBody::Upstream(streamed) => {
                let turn = this.ctx.as_ref().map_or(0, |ctx| ctx.conn.activity.turn());
                streamed.poll(cx, turn)
            }
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(flow) = &self.flow {
                    flow.give();
                }
                if let (Some(data), Some(ctx)) = (frame.data_ref(), &mut self.ctx) {
                    ctx.sent += data.len() as u64;
                }
            }
            Poll::Ready(Some(Err(error))) => {
                let reason = error.to_string();
                if let Some(ctx) = &self.ctx {
                    let upstream = ctx
                        .upstream
                        .as_ref()
                        .map_or("", |peer| peer.display.as_str());
                    tracing::warn!(id = %ctx.id, upstream, reason, "response cut off");
                }
                self.note(|| reason);
                self.body = ReplyBody::Empty;
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            ReplyBody::Empty => true,
            ReplyBody::Full(bytes) => bytes.is_empty(),
            ReplyBody::Upstream(streamed) => streamed.body.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            ReplyBody::Empty => SizeHint::with_exact(0),
            ReplyBody::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ReplyBody::Upstream(streamed) => match &streamed.body {
                Some((body, _)) => body.size_hint(),
                None => SizeHint::with_exact(0),
            },
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let unfinished = match &self.body {
            ReplyBody::Empty => false,
            ReplyBody::Full(bytes) => !bytes.is_empty(),
            ReplyBody::Upstream(streamed) => streamed.body.is_some(),
        };
        let stalled = self.flow.as_ref().is_some_and(|flow| flow.has_stalled());
        let Some(ctx) = &mut self.ctx else { return };
        if stalled {
            ctx.worker.counters.add(Count::CutResponse);
        }
        if !stalled && !unfinished {
            return;
        }
        ctx.cut_short = true;
        let why = if stalled || ctx.conn.activity.has_given_up() {
            "client read nothing for timeouts.response_write_idle"
        } else {
            "client went away in mid-response"
        };
        // Where it is an error that was to be told, that stands.
        ctx.reason.get_or_insert_with(|| why.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_has_its_share_and_the_next_one_another() {
        let mut share = Share::default();
        for turn in [1, 2, u32::MAX, 0] {
            assert!(!share.is_had(turn));
            share.given += TURN - 1;
            assert!(!share.is_had(turn));
            share.given += 1;
            assert!(share.is_had(turn) && share.is_had(turn));
        }
    }
}
