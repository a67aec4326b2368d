//! The body of a response on its way to the client.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::body::IdleTimer;
use crate::ctx::RequestCtx;
use crate::upstream::Lease;

/// A response's body, and the request that it answers: dropping it ends the request.
#[derive(Debug)]
pub struct Reply {
    body: ReplyBody,
    ctx: Option<RequestCtx>,
}

/// Where a response's body comes from.
#[derive(Debug)]
pub(super) enum ReplyBody {
    Empty,
    Full(Bytes),
    Upstream(Streamed),
}

/// A body that streams from a peer.
#[derive(Debug)]
pub(super) struct Streamed {
    incoming: Incoming,
    /// Given back with the last byte; dropped with it missing, it closes the connection
    lease: Option<Lease>,
    idle: IdleTimer,
}

/// Why a response's body broke off. hyper then ends the connection or stream in a way that cannot be taken for its end.
#[derive(Debug)]
pub enum ReplyError {
    /// The upstream broke off
    Upstream(hyper::Error),
    /// The upstream stalled for `timeouts.upstream_idle`
    Idle(Duration),
}

impl std::fmt::Display for ReplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Upstream(error) => {
                write!(f, "upstream broke off in mid-body: {}", super::chain(error))
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
    /// What `incoming` yields, over the connection that `lease` holds. `idle` bounds the time between two reads.
    pub(super) fn upstream(incoming: Incoming, lease: Lease, idle: Option<Duration>) -> Self {
        if incoming.is_end_stream() {
            lease.finish();
            return Self::Empty;
        }
        Self::Upstream(Streamed {
            incoming,
            lease: Some(lease),
            idle: IdleTimer::new(idle),
        })
    }
}

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.stop();
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(ReplyError::Upstream(error)))),
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending => match self.idle.poll_expired(cx) {
                Some(limit) => Poll::Ready(Some(Err(ReplyError::Idle(limit)))),
                None => Poll::Pending,
            },
        }
    }

    fn finish(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.finish();
        }
    }
}

impl Reply {
    /// The body of the response to the request of `ctx`.
    pub(super) fn new(body: ReplyBody, ctx: RequestCtx) -> Self {
        Self {
            body,
            ctx: Some(ctx),
        }
    }

    /// The body of a response that a tunnel follows: the request goes on with that.
    pub(super) fn none() -> Self {
        Self {
            body: ReplyBody::Empty,
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
        let polled = match &mut self.body {
            ReplyBody::Empty => Poll::Ready(None),
            ReplyBody::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.body = ReplyBody::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            ReplyBody::Upstream(streamed) => streamed.poll(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(data), Some(ctx)) = (frame.data_ref(), &mut self.ctx) {
                    ctx.sent += data.len() as u64;
                    if let Some(uptake) = &ctx.uptake {
                        uptake.give();
                    }
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
            Poll::Ready(None) | Poll::Pending => {
                if let Some(uptake) = self.ctx.as_ref().and_then(|ctx| ctx.uptake.as_ref()) {
                    uptake.taken();
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            ReplyBody::Empty => true,
            ReplyBody::Full(bytes) => bytes.is_empty(),
            ReplyBody::Upstream(streamed) => streamed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            ReplyBody::Empty => SizeHint::with_exact(0),
            ReplyBody::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ReplyBody::Upstream(streamed) => streamed.incoming.size_hint(),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let unfinished = match &self.body {
            ReplyBody::Empty => false,
            ReplyBody::Full(bytes) => !bytes.is_empty(),
            ReplyBody::Upstream(streamed) => streamed.lease.is_some(),
        };
        if unfinished && let Some(ctx) = &mut self.ctx {
            ctx.cut_short = true;
            let given_up = ctx
                .uptake
                .as_ref()
                .is_some_and(|uptake| uptake.is_given_up());
            ctx.reason.get_or_insert_with(|| {
                let why = if given_up {
                    "client stopped reading in mid-response"
                } else {
                    "client went away in mid-response"
                };
                why.to_owned()
            });
        }
    }
}
