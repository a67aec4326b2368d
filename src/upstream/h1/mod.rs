//! A connection to a peer that speaks HTTP/1.1. It has no task of its own: whoever waits for the response drives it.

mod body;
mod upload;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use tokio::io::AsyncReadExt;
use tokio::task::unconstrained;

use crate::body::RequestBody;
use crate::http1::response;
use crate::stream::Stream;

pub(super) use body::{Body, Left};
use upload::{Broke, Upload};

/// Bytes read at once, at first and at most.
const CHUNK: usize = 8 * 1024;
const LARGE_CHUNK: usize = 64 * 1024;
/// Bytes of a response's head at most.
const HEAD: usize = 64 * 1024;
/// Responses of the 1xx kind before a final one at most.
const INTERIM: usize = 16;

/// A connection, between two exchanges or in one.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    read: BytesMut,
    chunk: usize,
    upload: Upload,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection ended before a byte of a response
    Closed,
    /// It ended in the middle of the head
    Cut,
    /// The head is not one
    Malformed(&'static str),
    /// The client's body broke
    Body,
}

/// A request without a response.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) fault: Fault,
    /// As it was, where none of its body is lost
    pub(super) request: Option<Request<RequestBody>>,
    /// Whether the peer may have seen some of it
    pub(super) seen: bool,
}

/// A final response.
#[derive(Debug)]
pub(super) enum Answer {
    /// With a body, of no bytes perhaps
    Response(Response<Body>),
    /// The connection is a tunnel now
    Switched(Response<()>, Stream, Bytes),
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
            chunk: CHUNK,
            upload: Upload::default(),
        }
    }

    /// Whether nothing came in meanwhile: neither the end nor bytes that nobody asked for. Takes no system call unless the
    /// runtime has seen that there is something.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        // Where the task has spent its budget, everything would look quiet.
        let read = pin!(unconstrained(self.stream.read(&mut byte)));
        read.poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    }

    /// Sends a request and waits for the head of the final response. `interim` is told of those before it.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub(super) async fn send(
        mut self: Box<Self>,
        request: Request<RequestBody>,
        mut interim: impl FnMut(StatusCode),
    ) -> Result<Answer, Unanswered> {
        let (head, body) = request.into_parts();
        self.upload.begin(&head, body);
        let mut seen = 0;
        let answered = loop {
            let method = &head.method;
            let next = poll_fn(|cx| {
                match self.upload.poll(cx, &mut self.stream) {
                    Poll::Ready(Err(Broke::Body)) => return Poll::Ready(Err(Fault::Body)),
                    // The peer may have answered, and then closed because it did not want the rest.
                    Poll::Ready(Err(Broke::Stream) | Ok(())) | Poll::Pending => {}
                }
                self.poll_head(cx, method)
            });
            match next.await {
                Ok(found) if found.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    break Ok(found);
                }
                Ok(found) if found.response.status().is_informational() => {
                    seen += 1;
                    if seen > INTERIM {
                        break Err(Fault::Malformed("more than 16 interim responses"));
                    }
                    interim(found.response.status());
                }
                other => break other,
            }
        };
        match answered {
            Ok(found) if found.response.status() == StatusCode::SWITCHING_PROTOCOLS => Ok(
                Answer::Switched(found.response, self.stream, self.read.freeze()),
            ),
            Ok(found) => {
                let body = Body::new(self, found.framing, found.keep_alive);
                Ok(Answer::Response(found.response.map(|()| body)))
            }
            Err(fault) => {
                let seen = self.upload.has_begun();
                let body = self.upload.take_whole();
                Err(Unanswered {
                    fault,
                    request: body.map(|body| Request::from_parts(head, body)),
                    seen,
                })
            }
        }
    }

    /// Whether another request may follow the one that was answered. Bytes after a response belong to nobody, and never
    /// reach another client.
    pub(super) fn is_reusable(&self) -> bool {
        self.read.is_empty() && self.upload.is_done()
    }

    /// Whether what comes over it can be moved without being read.
    fn can_pass_by(&self) -> bool {
        !self.stream.is_tls()
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &http::Method,
    ) -> Poll<Result<response::Head, Fault>> {
        // An interim response may have come with what follows it.
        let mut look = !self.read.is_empty();
        loop {
            if look
                && let Some(head) =
                    response::parse(&mut self.read, method).map_err(Fault::Malformed)?
            {
                return Poll::Ready(Ok(head));
            }
            if self.read.len() >= HEAD {
                return Poll::Ready(Err(Fault::Malformed("a head of more than 64 KiB")));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(1..) => look = true,
                Ok(0) | Err(_) if self.read.is_empty() => return Poll::Ready(Err(Fault::Closed)),
                Ok(0) | Err(_) => return Poll::Ready(Err(Fault::Cut)),
            }
        }
    }

    /// Reads on. 0 is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(self.chunk);
        let room = self.read.capacity() - self.read.len();
        let count = ready!(pin!(self.stream.read_buf(&mut self.read)).poll(cx))?;
        // What comes in bulk is read in bulk.
        self.chunk = if count == room {
            (self.chunk * 2).min(LARGE_CHUNK)
        } else if count < self.chunk / 4 {
            (self.chunk / 2).max(CHUNK)
        } else {
            self.chunk
        };
        Poll::Ready(Ok(count))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn what_came_in_is_seen_however_much_the_task_has_done() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[0; 1000]).await.unwrap();
        ours.readable().await.unwrap();
        let mut connection = Connection::new(Stream::Unix(ours));
        for read in 0..1000 {
            assert!(!connection.is_quiet(), "{read}");
        }
        assert!(connection.is_quiet());
    }
}
