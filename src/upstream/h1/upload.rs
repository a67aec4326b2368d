//! What is on its way to the peer: a head, and a body that comes as the client sends it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, request::Parts};
use http_body::Body;
use tokio::io::AsyncWrite;

use crate::body::RequestBody;
use crate::http1::request::{self, Framing};
use crate::stream::Stream;

/// Pieces up to this many bytes are copied next to what frames them, so that they leave in one segment.
const SMALL: usize = 4 * 1024;
/// More is not gathered before it is written.
const ENOUGH: usize = 16 * 1024;

/// A request that is being written. Its buffer is kept from one request to the next.
#[derive(Debug, Default)]
pub(super) struct Upload {
    out: Vec<u8>,
    written: usize,
    /// Goes after `out`
    data: Bytes,
    /// Goes after `data`
    tail: &'static [u8],
    unflushed: bool,
    /// Whether a byte has left, or the body has given something up
    touched: bool,
    broken: bool,
    body: Option<RequestBody>,
    rest: Rest,
}

/// What the body still has to bring.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Rest {
    #[default]
    Nothing,
    Length(u64),
    Chunks,
}

/// What broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broke {
    /// The peer takes no more
    Stream,
    /// The client's body did not come to its end
    Body,
}

impl Upload {
    pub(super) fn begin(&mut self, head: &Parts, body: RequestBody) {
        let (framing, rest) = match (&body, body.size_hint().exact()) {
            (RequestBody::Empty, _) => (Framing::None, Rest::Nothing),
            (RequestBody::Incoming(_), Some(length)) => {
                (Framing::Length(length), Rest::Length(length))
            }
            (RequestBody::Incoming(_), None) => (Framing::Chunked, Rest::Chunks),
        };
        self.out.clear();
        self.written = 0;
        self.touched = false;
        self.rest = rest;
        request::encode(head, framing, &mut self.out);
        self.body = Some(body);
    }

    /// Whether everything has been written.
    pub(super) fn is_done(&self) -> bool {
        self.rest == Rest::Nothing && !self.has_more() && !self.unflushed && !self.broken
    }

    /// Whether nothing more will be written.
    pub(super) fn has_ended(&self) -> bool {
        self.broken || self.is_done()
    }

    /// The body, if nothing has been written and nobody asked it for anything.
    pub(super) fn take_untouched(&mut self) -> Option<RequestBody> {
        self.body.take().filter(|_| !self.touched)
    }

    /// Writes on until everything is written or there is nothing to write yet.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<Result<(), Broke>> {
        if self.broken {
            return Poll::Ready(Err(Broke::Stream));
        }
        loop {
            let mut waits = false;
            while self.rest != Rest::Nothing && self.data.is_empty() && self.out.len() < ENOUGH {
                if self.poll_body(cx)?.is_pending() {
                    waits = true;
                    break;
                }
            }
            if self.has_more() {
                match ready!(self.poll_write(cx, stream)) {
                    Ok(()) => continue,
                    Err(_) => return self.broke(),
                }
            }
            if self.unflushed {
                if ready!(Pin::new(&mut *stream).poll_flush(cx)).is_err() {
                    return self.broke();
                }
                self.unflushed = false;
            }
            if waits {
                return Poll::Pending;
            }
            if self.rest == Rest::Nothing {
                self.body = self.body.take().filter(|_| !self.touched);
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn broke(&mut self) -> Poll<Result<(), Broke>> {
        self.broken = true;
        Poll::Ready(Err(Broke::Stream))
    }

    fn has_more(&self) -> bool {
        self.written < self.out.len() || !self.data.is_empty() || !self.tail.is_empty()
    }

    /// Takes the next piece of the body, or its end.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Err(Broke::Body));
        };
        let polled = ready!(Pin::new(body).poll_frame(cx));
        // A body that failed has lost what it failed over: it must not be sent again as if that were all.
        self.touched = true;
        let frame = match polled {
            None => return Poll::Ready(self.end(&HeaderMap::new())),
            Some(Err(_)) => return Poll::Ready(Err(Broke::Body)),
            Some(Ok(frame)) => frame,
        };
        Poll::Ready(match frame.into_data() {
            Ok(data) => self.gather(data),
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => self.end(&trailers),
                Err(_) => Ok(()),
            },
        })
    }

    fn gather(&mut self, data: Bytes) -> Result<(), Broke> {
        if data.is_empty() {
            return Ok(());
        }
        let chunked = match &mut self.rest {
            Rest::Length(rest) => {
                *rest = rest.checked_sub(data.len() as u64).ok_or(Broke::Body)?;
                if *rest == 0 {
                    self.rest = Rest::Nothing;
                }
                false
            }
            Rest::Chunks => {
                request::chunk_size(&mut self.out, data.len());
                true
            }
            Rest::Nothing => return Err(Broke::Body),
        };
        let tail: &'static [u8] = if chunked { b"\r\n" } else { b"" };
        if data.len() <= SMALL {
            self.out.extend_from_slice(&data);
            self.out.extend_from_slice(tail);
        } else {
            self.data = data;
            self.tail = tail;
        }
        Ok(())
    }

    fn end(&mut self, trailers: &HeaderMap) -> Result<(), Broke> {
        match self.rest {
            Rest::Nothing => {}
            // Fewer bytes than were promised.
            Rest::Length(1..) => return Err(Broke::Body),
            Rest::Length(0) => {}
            Rest::Chunks => request::last_chunk(&mut self.out, trailers),
        }
        self.rest = Rest::Nothing;
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
        let out = &self.out[self.written..];
        let stream = Pin::new(stream);
        let mut count = if self.data.is_empty() && self.tail.is_empty() {
            ready!(stream.poll_write(cx, out))?
        } else {
            let parts = [
                IoSlice::new(out),
                IoSlice::new(&self.data),
                IoSlice::new(self.tail),
            ];
            ready!(stream.poll_write_vectored(cx, &parts))?
        };
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.touched = true;
        self.unflushed = true;
        let part = count.min(out.len());
        self.written += part;
        count -= part;
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        let part = count.min(self.data.len());
        self.data.advance(part);
        count -= part;
        self.tail = &self.tail[count..];
        Poll::Ready(Ok(()))
    }
}
