//! A client's stream as hyper sees it: with what was sniffed put back in front, and with an eye on what arrives and when.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::ctx::{Activity, Intake};
use crate::http1::{Inspector, Refused};
use crate::stream::Stream;

/// How much of a refused head is kept for the log, in bytes.
const KEPT: usize = 512;

/// A stream that reports its reads, and passes on only what its inspector lets pass.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Stream,
    head: Bytes,
    activity: Arc<Activity>,
    intake: Arc<Intake>,
    /// `None` where hyper speaks HTTP/2
    inspector: Option<Inspector>,
    withheld: Vec<u8>,
    /// Whether the client has said goodbye
    ended: bool,
    /// Whether we have: what comes now is only thrown away
    parted: bool,
}

impl Watched {
    /// `head` is read before anything else comes from `stream`.
    pub(super) fn new(
        stream: Stream,
        head: Bytes,
        activity: Arc<Activity>,
        intake: Arc<Intake>,
        inspector: Option<Inspector>,
    ) -> Self {
        Self {
            stream,
            head,
            activity,
            intake,
            inspector,
            withheld: Vec::new(),
            ended: false,
            parted: false,
        }
    }

    /// The stream, and the beginning of what was refused.
    pub(super) fn into_parts(self) -> (Stream, Vec<u8>) {
        (self.stream, self.withheld)
    }

    /// Whether the client has said goodbye.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// What arrived since `buf` had `before` bytes: whether hyper gets to see any of it.
    fn inspect(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        before: usize,
    ) -> Poll<io::Result<()>> {
        let Some(inspector) = &mut self.inspector else {
            return Poll::Ready(Ok(()));
        };
        let bytes = &buf.filled()[before..];
        if inspector.is_opaque() {
            if self.intake.is_undecided() {
                if !bytes.is_empty() {
                    self.intake.pass_unseen();
                }
                return Poll::Ready(Ok(()));
            }
            inspector.resume();
        }
        let looked = inspector.look(bytes);
        if inspector.is_opaque() {
            self.intake.undecide(inspector.heads());
            if inspector.has_seen_beyond() {
                self.intake.pass_unseen();
            }
        }
        let Err(Refused { after, why }) = looked else {
            return Poll::Ready(Ok(()));
        };
        let withheld = &bytes[after..];
        self.withheld = withheld[..withheld.len().min(KEPT)].to_vec();
        self.intake.refuse(why);
        if after == 0 {
            return self.stop(cx);
        }
        buf.set_filled(before + after);
        Poll::Ready(Ok(()))
    }

    /// What reading comes to after a refusal. A broken body breaks its request. A broken head is nobody's yet: requests
    /// before it are still answered, and then the connection's own task answers it.
    fn stop(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (Some(why), Some(inspector)) = (self.intake.refusal(), &self.inspector) else {
            return Poll::Pending;
        };
        if why.in_body() && self.intake.has_begun(inspector.heads()) {
            Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why.why())))
        } else {
            self.intake.wait_for_next(cx.waker());
            Poll::Pending
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.parted {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        if self.intake.refusal().is_some() {
            return self.stop(cx);
        }
        let before = buf.filled().len();
        if self.head.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            if buf.filled().len() > before {
                self.activity.bytes_arrived();
            } else {
                self.ended = true;
            }
        } else {
            let count = self.head.len().min(buf.remaining());
            buf.put_slice(&self.head[..count]);
            self.head.advance(count);
        }
        self.inspect(cx, buf, before)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.intake.set_blocked(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.intake.set_blocked(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_pending() {
            self.intake.set_blocked(true);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.parted = true;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
