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

    /// Whether the peer may have seen anything of it.
    pub(super) fn has_begun(&self) -> bool {
        self.touched
    }

    /// The body, if it can be sent from its beginning: nobody asked it for anything, or there is nothing to ask for.
    pub(super) fn take_whole(&mut self) -> Option<RequestBody> {
        let whole = |body: &RequestBody| !self.touched || matches!(body, RequestBody::Empty);
        self.body.take().filter(whole)
    }

    /// Writes on until everything is written or there is nothing to write yet.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Broke>> {
        if self.broken {
            return Poll::Ready(Err(Broke::Stream));
        }
        loop {
            let mut waits = false;
            while self.may_gather() {
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
                self.body = self.take_whole();
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn broke(&mut self) -> Poll<Result<(), Broke>> {
        self.broken = true;
        Poll::Ready(Err(Broke::Stream))
    }

    /// Whether the body's next piece may be put to `out`: not while anything waits that goes after that.
    fn may_gather(&self) -> bool {
        let room = self.data.is_empty() && self.tail.is_empty() && self.out.len() < ENOUGH;
        self.rest != Rest::Nothing && room
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

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{pending, poll_fn};
    use std::rc::Rc;
    use std::time::Duration;

    use http::{Request, Response};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncWriteExt, duplex};
    use tokio::sync::mpsc;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;
    use crate::body::{Limited, Progress};
    use crate::http1::{Chunks, Piece};
    use crate::linger::ClientBody;
    use crate::patience::Patience;

    /// A peer that takes all but the last byte of what it is given, and every other time nothing.
    #[derive(Default)]
    struct Narrow {
        taken: Vec<u8>,
        full: bool,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.full = !self.full;
            if self.full {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let all = bufs.iter().flat_map(|buf| buf.iter()).copied();
            let all: Vec<u8> = all.collect();
            let count = all.len().saturating_sub(1).max(1);
            self.taken.extend_from_slice(&all[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A request as hyper takes it off a client.
    async fn received(bytes: &[u8]) -> Request<RequestBody> {
        let (mut client, server) = duplex(bytes.len());
        let (sender, mut requests) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<Incoming>| {
            sender.send(request).unwrap();
            pending::<Result<Response<String>, Infallible>>()
        });
        spawn_local(http1::Builder::new().serve_connection(TokioIo::new(server), service));
        client.write_all(bytes).await.unwrap();
        requests.recv().await.unwrap().map(|incoming| {
            let incoming = ClientBody::new(incoming, false, false);
            let patience = Patience::new(Duration::from_secs(60), None);
            let body = Limited::new(incoming, None, patience, Rc::new(Progress::default()));
            RequestBody::Incoming(Box::new(body))
        })
    }

    #[tokio::test]
    async fn chunks_are_whole_however_little_the_peer_takes_at_once() {
        let mut sent = Vec::new();
        let mut request =
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for size in [SMALL + 1, 10, SMALL + 2, 2 * SMALL, 1, SMALL, 3 * SMALL] {
            let data: Vec<u8> = (0..size).map(|at| b'a' + (at % 23) as u8).collect();
            sent.extend_from_slice(&data);
            request.extend_from_slice(format!("{size:x}\r\n").as_bytes());
            request.extend_from_slice(&[&data[..], b"\r\n"].concat());
        }
        request.extend_from_slice(b"0\r\n\r\n");
        let tasks = LocalSet::new();
        let peer = tasks.run_until(async {
            let (head, body) = received(&request).await.into_parts();
            let (mut upload, mut peer) = (Upload::default(), Narrow::default());
            upload.begin(&head, body);
            let written = poll_fn(|cx| upload.poll(cx, &mut peer)).await;
            assert_eq!(written, Ok(()));
            peer
        });
        let taken = peer.await.taken;
        let head = taken.windows(4).position(|end| end == b"\r\n\r\n");
        let mut rest = &taken[head.expect("a head") + 4..];
        let (mut chunks, mut data) = (Chunks::new(0), Vec::new());
        while !chunks.is_done() {
            let piece = chunks.next(rest).expect("a chunk");
            let (Piece::Data(count) | Piece::Framing(count)) = piece;
            let (bytes, more) = rest.split_at(count);
            if piece == Piece::Data(count) {
                data.extend_from_slice(bytes);
            }
            rest = more;
        }
        assert!(data == sent && rest.is_empty());
    }
}
