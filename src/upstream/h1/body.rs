//! The body of a response, and with it the connection that it comes over.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use super::{Connection, HEAD};
use crate::bypass::Bypass;
use crate::http1::response::{self, Framing};
use crate::http1::{Chunks, Piece, Refusal};

/// Of a body that is at least this long, in bytes, it pays to make a pipe for it: at 100 KB it does not, at 1 MiB it does.
const LARGE: u64 = 256 * 1024;

/// A response's body. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub(in crate::upstream) struct Body {
    hold: Hold,
    state: State,
    keep_alive: bool,
    bypass: Option<Arc<Bypass>>,
}

/// Who has the connection.
#[derive(Debug)]
enum Hold {
    Own(Box<Connection>),
    /// The response came while the request was still being sent. That goes on by itself: a client that sends everything
    /// before it reads anything would otherwise wait for ever.
    Shared(Rc<RefCell<Connection>>, Uploading),
}

/// The task that sends the rest of a request; ends when dropped.
#[derive(Debug)]
pub(in crate::upstream) struct Uploading(JoinHandle<()>);

impl Uploading {
    /// Waits until everything has been sent, or cannot be.
    pub(in crate::upstream) async fn ended(&mut self) {
        let _ = (&mut self.0).await;
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
enum State {
    Length(u64),
    Chunked {
        chunks: Box<Chunks>,
        trailers: Vec<u8>,
    },
    Close,
    Done,
}

/// What became of the connection when a response was complete.
#[derive(Debug)]
pub(in crate::upstream) enum Left {
    /// It may be used again
    Idle(Box<Connection>),
    /// It may be, when the request is complete as well
    Uploading(Rc<RefCell<Connection>>, Uploading),
    /// It is of no more use
    Spent,
}

impl Body {
    pub(super) fn new(connection: Box<Connection>, framing: Framing, keep_alive: bool) -> Self {
        let hold = if connection.upload.has_ended() {
            Hold::Own(connection)
        } else {
            let shared = Rc::new(RefCell::new(*connection));
            let uploading = Rc::clone(&shared);
            let task = tokio::task::spawn_local(async move {
                // Whatever breaks it, the response tells.
                let _ = poll_fn(|cx| {
                    let connection = &mut *uploading.borrow_mut();
                    connection.upload.poll(cx, &mut connection.stream)
                })
                .await;
            });
            Hold::Shared(shared, Uploading(task))
        };
        Self {
            hold,
            state: match framing {
                Framing::Length(0) => State::Done,
                Framing::Length(length) => State::Length(length),
                Framing::Chunked => State::Chunked {
                    chunks: Box::new(Chunks::new(HEAD)),
                    trailers: Vec::new(),
                },
                Framing::Close => State::Close,
            },
            keep_alive: keep_alive && framing != Framing::Close,
            bypass: None,
        }
    }

    /// What has not been read yet may go by `bypass`, where that is worth it.
    pub(in crate::upstream) fn pass_by(&mut self, bypass: &Arc<Bypass>) {
        let connection = match &self.hold {
            Hold::Own(connection) => connection.can_pass_by(),
            Hold::Shared(connection, _) => connection.borrow().can_pass_by(),
        };
        if let (State::Length(LARGE..), true) = (&self.state, connection) {
            self.bypass = Some(Arc::clone(bypass));
        }
    }

    /// Whether it yields nothing because the client has not taken what came before.
    pub(in crate::upstream) fn waits_for_client(&self) -> bool {
        self.bypass.as_ref().is_some_and(|bypass| bypass.is_full())
    }

    /// The response is complete: what is left.
    pub(in crate::upstream) fn finish(self) -> Left {
        let usable = self.keep_alive && matches!(self.state, State::Done);
        // Bytes after a response belong to nobody, and never reach another client.
        match self.hold {
            Hold::Own(connection) if usable && connection.is_reusable() => Left::Idle(connection),
            Hold::Shared(connection, task) if usable => Left::Uploading(connection, task),
            Hold::Own(_) | Hold::Shared(..) => Left::Spent,
        }
    }

    /// Whether the response is complete.
    pub(in crate::upstream) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// How long the rest of it is.
    pub(in crate::upstream) fn size_hint(&self) -> SizeHint {
        match self.state {
            State::Length(length) => SizeHint::with_exact(length),
            State::Done => SizeHint::with_exact(0),
            State::Chunked { .. } | State::Close => SizeHint::default(),
        }
    }

    /// The next piece.
    pub(in crate::upstream) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.hold {
            Hold::Own(connection) => self.state.poll(cx, connection, self.bypass.as_deref()),
            Hold::Shared(connection, _) => {
                let connection = &mut connection.borrow_mut();
                self.state.poll(cx, connection, self.bypass.as_deref())
            }
        }
    }
}

impl State {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
        bypass: Option<&Bypass>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if !connection.read.is_empty()
                && let Some(frame) = self.take(&mut connection.read)?
            {
                return Poll::Ready(Some(Ok(frame)));
            }
            if matches!(self, Self::Done) {
                return Poll::Ready(None);
            }
            if let (Some(bypass), Self::Length(rest)) = (bypass, &mut *self)
                && let Some(bytes) =
                    ready!(bypass.fill(cx, &connection.stream, *rest)).map_err(BodyError::Io)?
            {
                if bytes.is_empty() {
                    return Poll::Ready(Some(Err(BodyError::Cut)));
                }
                *rest -= bytes.len() as u64;
                if *rest == 0 {
                    *self = Self::Done;
                }
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match ready!(connection.poll_fill(cx)).map_err(BodyError::Io)? {
                1.. => {}
                0 if matches!(self, Self::Close) => *self = Self::Done,
                0 => return Poll::Ready(Some(Err(BodyError::Cut))),
            }
        }
    }

    /// A frame out of what was read; `None` when that takes more, or all is over.
    fn take(&mut self, read: &mut BytesMut) -> Result<Option<Frame<Bytes>>, BodyError> {
        match self {
            Self::Done => Ok(None),
            Self::Close => Ok(Some(Frame::data(read.split().freeze()))),
            Self::Length(rest) => {
                let count = usize::try_from(*rest).unwrap_or(usize::MAX).min(read.len());
                *rest -= count as u64;
                if *rest == 0 {
                    *self = Self::Done;
                }
                Ok(Some(Frame::data(read.split_to(count).freeze())))
            }
            Self::Chunked { chunks, trailers } => {
                while !read.is_empty() {
                    let in_trailers = chunks.in_trailers();
                    match chunks
                        .next(read)
                        .map_err(|(_, why)| BodyError::Chunks(why))?
                    {
                        Piece::Data(count) => {
                            return Ok(Some(Frame::data(read.split_to(count).freeze())));
                        }
                        Piece::Framing(count) => {
                            if in_trailers {
                                trailers.extend_from_slice(&read[..count]);
                            }
                            read.advance(count);
                        }
                    }
                    if chunks.is_done() {
                        let fields = response::trailers(trailers).map_err(BodyError::Trailers)?;
                        *self = Self::Done;
                        return Ok(Some(Frame::trailers(fields)));
                    }
                }
                Ok(None)
            }
        }
    }
}

/// Why a response's body broke off.
#[derive(Debug)]
pub(in crate::upstream) enum BodyError {
    /// The connection ended first
    Cut,
    /// The connection broke
    Io(io::Error),
    /// A chunk is malformed
    Chunks(Refusal),
    /// A trailer is
    Trailers(&'static str),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => f.write_str("the connection ended before the body"),
            Self::Io(error) => write!(f, "{error}"),
            Self::Chunks(refusal) => f.write_str(refusal.why()),
            Self::Trailers(why) => f.write_str(why),
        }
    }
}
