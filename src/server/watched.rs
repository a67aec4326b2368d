//! A client's stream as hyper sees it: with what was sniffed put back in front, and with an eye on what arrives and when.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clients::Seat;
use super::farewell::Farewell;
use super::outbox::Outbox;
use crate::bypass::Bypass;
use crate::ctx::{Activity, Intake};
use crate::http1::{Bounds, Inspector, Refused};
use crate::http2::{Gauge, Look};
use crate::stream::Stream;

/// How much of a refused head is kept for the log, in bytes.
const KEPT: usize = 512;

/// Bytes that are written for each that a client's frames may cost without anything coming of them.
const WORTH: u32 = 16;

/// Who looks at what comes.
#[derive(Debug)]
pub(super) enum Eye {
    Http1(Inspector),
    Http2(Gauge),
}

/// A stream that reports its reads, and passes on only what its inspector lets pass.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Stream,
    head: Bytes,
    activity: Arc<Activity>,
    intake: Arc<Intake>,
    _seat: Arc<Seat>,
    eye: Eye,
    /// Where bytes come from that others stand for
    bypass: Option<Arc<Bypass>>,
    withheld: Vec<u8>,
    /// Over HTTP/2 only
    outbox: Outbox,
    /// The connection's turn in which no more is read
    paused: Option<u32>,
    /// Whether hyper was told that the client has ended, by whoever ended it
    ended: Option<Ended>,
    /// The connection's turn as of the last read
    turn: u32,
    farewell: Option<Farewell>,
    /// Whether HTTP/1 has said goodbye: what comes now is only thrown away
    parted: bool,
}

/// Who ended what the client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Client,
    Gauge,
}

impl Watched {
    /// `head` is read before anything else comes from `stream`.
    pub(super) fn new(
        stream: Stream,
        head: Bytes,
        activity: Arc<Activity>,
        intake: Arc<Intake>,
        seat: Arc<Seat>,
        eye: Eye,
        bypass: Option<Arc<Bypass>>,
    ) -> Self {
        Self {
            stream,
            head,
            activity,
            intake,
            _seat: seat,
            eye,
            bypass,
            withheld: Vec::new(),
            outbox: Outbox::default(),
            paused: None,
            ended: None,
            turn: 0,
            farewell: None,
            parted: false,
        }
    }

    /// The stream, and the beginning of what was refused.
    pub(super) fn into_parts(self) -> (Stream, Vec<u8>) {
        (self.stream, self.withheld)
    }

    /// Whether the client has said goodbye.
    pub(super) fn has_ended(&self) -> bool {
        self.ended == Some(Ended::Client)
    }

    /// Gives back what was kept room for between two requests of HTTP/1. The next one is held to `bounds`.
    pub(super) fn begin_anew(&mut self, bounds: Bounds) {
        self.head = Bytes::new();
        if let Eye::Http1(inspector) = &mut self.eye {
            inspector.begin_anew(bounds);
        }
    }

    /// Ready when something has arrived, with nothing of it read.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(cx)
    }

    /// Whether something has arrived that nobody may have heard of yet.
    pub(super) fn has_arrived(&self) -> bool {
        self.stream.has_arrived()
    }

    /// Whether closing loses nothing that the client may still say: it has said all, and the runtime knows of nothing that
    /// came behind that. nginx, too, closes without another look then.
    fn may_close(&self, cx: &mut Context<'_>) -> bool {
        self.intake.has_heard_all() && self.stream.poll_read_ready(cx).is_pending()
    }

    /// What arrived since `buf` had `before` bytes: whether hyper gets to see any of it.
    fn inspect(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        before: usize,
    ) -> Poll<io::Result<()>> {
        let inspector = match &mut self.eye {
            Eye::Http1(inspector) => inspector,
            Eye::Http2(_) => {
                self.weigh(buf, before);
                return Poll::Ready(Ok(()));
            }
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
        self.intake.see(inspector.heads(), inspector.is_between());
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

    /// What frames arrived since `buf` had `before` bytes: how many of them hyper gets to see now.
    fn weigh(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let Eye::Http2(gauge) = &mut self.eye else {
            return;
        };
        gauge.earn(self.activity.take_earned());
        if let Some(misuse) = self.activity.misuse() {
            gauge.cut(misuse);
        }
        let bytes = &buf.filled()[before..];
        let look = gauge.look(bytes);
        self.activity.set_in_head(gauge.in_head());
        match look {
            Look::Pass => {}
            Look::Pause(after) => {
                self.head = [&bytes[after..], &self.head].concat().into();
                self.paused = Some(self.activity.turn());
                buf.set_filled(before + after);
            }
            // hyper ends what it is told has ended, and the client is told why.
            Look::Cut(after, misuse) => {
                self.activity.cut(misuse);
                self.ended = Some(Ended::Gauge);
                buf.set_filled(before + after);
            }
        }
    }

    /// Writes the first of these, which are those of one kind.
    fn poll_write_some(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut bufs = bufs;
        if let Some(bypass) = &self.bypass
            && let Some(at) = bufs.iter().position(|buf| Bypass::is_stand_in(buf))
        {
            if at == 0 {
                return bypass.drain(cx, &self.stream, &bufs[0]);
            }
            bufs = &bufs[..at];
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    /// Writes these, or takes them in where others may follow.
    fn poll_write_or_hold(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.may_write()?;
        if matches!(self.eye, Eye::Http2(_)) {
            if self.activity.gathers() && self.outbox.wants(bufs) {
                let count = self.outbox.take(bufs);
                if count > 0 {
                    return Poll::Ready(Ok(count));
                }
            }
            ready!(self.poll_send_held(cx))?;
        }
        let written = self.poll_write_some(cx, bufs);
        self.note(&written);
        self.earn(&written);
        written
    }

    /// Writes what was taken in.
    fn poll_send_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            self.may_write()?;
            let written = self.outbox.poll_send(cx, &mut self.stream);
            self.note(&written);
            self.earn(&written);
            ready!(written)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Fails where the client has not read for too long.
    fn may_write(&self) -> io::Result<()> {
        if self.activity.has_given_up() {
            self.stream.reset_on_close();
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn note<T>(&self, written: &Poll<io::Result<T>>) {
        if written.is_pending() {
            let unsent = || self.stream.unsent().unwrap_or_default();
            self.activity.write_waits(unsent);
        } else {
            self.activity.wrote();
        }
    }

    /// What was written pays for what was read.
    fn earn(&self, written: &Poll<io::Result<usize>>) {
        if let (Poll::Ready(Ok(count)), Eye::Http2(_)) = (written, &self.eye) {
            self.activity.earn(*count as u32 / WORTH);
            self.activity.move_on();
        }
    }

    /// What reading comes to after a refusal. A broken body breaks its request. A broken head is nobody's yet: requests
    /// before it are still answered, and then the connection's own task answers it.
    fn stop(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (Some(why), Eye::Http1(inspector)) = (self.intake.refusal(), &self.eye) else {
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
        if self.activity.misuse().is_some() {
            self.weigh(buf, before);
        }
        if self.ended.is_some() {
            return Poll::Ready(Ok(()));
        }
        if let Some(turn) = self.paused {
            if turn == self.activity.turn() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.paused = None;
        }
        if self.turn != self.activity.turn() {
            self.turn = self.activity.turn();
            if let Eye::Http2(gauge) = &mut self.eye {
                gauge.turn();
            }
        }
        if self.head.is_empty() {
            let room = buf.remaining() > 0;
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            if buf.filled().len() > before {
                self.activity.bytes_arrived();
                self.activity.move_on();
            } else if room {
                self.ended = Some(Ended::Client);
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
        self.poll_write_or_hold(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_or_hold(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.may_write()?;
        if !self.outbox.is_empty() && self.activity.gathers() {
            // Whoever has it gathered flushes again.
            self.activity.hold();
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_send_held(cx))?;
        if self.activity.is_between() {
            self.outbox.shrink();
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(&flushed);
        flushed
    }

    /// hyper ends an HTTP/1 connection with a response, and whoever waits for what the client may still say is who drops it.
    /// One of HTTP/2 it ends with its last word written, and whatever the client is still saying unread.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let watched = self.get_mut();
        // That the client takes it is its own affair, as with the last word.
        let _ = ready!(watched.poll_send_held(cx));
        let Eye::Http2(gauge) = &watched.eye else {
            watched.parted = true;
            if watched.may_close(cx) {
                watched.ended = Some(Ended::Client);
                if !watched.stream.is_tls() {
                    // Closing the socket, which comes next, says it as well.
                    return Poll::Ready(Ok(()));
                }
            }
            return Pin::new(&mut watched.stream).poll_shutdown(cx);
        };
        let farewell = watched.farewell.get_or_insert_with(|| {
            let misuse = watched.activity.misuse();
            Farewell::new(misuse.map_or_else(Vec::new, |misuse| misuse.goaway(gauge.last())))
        });
        let ended = watched.ended == Some(Ended::Client);
        farewell.poll(cx, &mut watched.stream, ended).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Read;
    use std::task::Waker;

    use socket2::SockRef;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::*;

    /// A connection of HTTP/2 on which so many requests are being answered, and its client.
    fn multiplexed(requests: usize) -> (Watched, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let activity = Arc::new(Activity::new(true));
        (0..requests).for_each(|_| activity.request_began());
        let watched = Watched::new(
            Stream::Unix(ours),
            Bytes::new(),
            activity,
            Arc::default(),
            Seat::any(),
            Eye::Http2(Gauge::new()),
            None,
        );
        (watched, theirs)
    }

    /// Writes these and flushes each, as the library does.
    async fn write(watched: &mut Watched, pieces: &[&[u8]]) {
        for mut rest in pieces.iter().copied() {
            while !rest.is_empty() {
                let count = poll_fn(|cx| Pin::new(&mut *watched).poll_write(cx, rest)).await;
                rest = &rest[count.unwrap()..];
            }
            flush(watched).await;
        }
    }

    async fn flush(watched: &mut Watched) {
        let flushed = poll_fn(|cx| Pin::new(&mut *watched).poll_flush(cx)).await;
        flushed.unwrap();
    }

    /// What has come, of not more than a kilobyte.
    fn heard(client: &UnixStream) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        let count = (&*SockRef::from(client)).read(&mut bytes).unwrap_or(0);
        bytes.truncate(count);
        bytes
    }

    #[tokio::test]
    async fn small_pieces_of_several_answers_leave_together_when_the_turn_is_over() {
        let (mut watched, client) = multiplexed(2);
        watched.activity.gather();
        write(&mut watched, &[b"one ", b"two"]).await;
        assert!(heard(&client).is_empty());
        assert!(watched.activity.let_go());
        flush(&mut watched).await;
        assert_eq!(heard(&client), b"one two");
        assert!(!watched.activity.let_go(), "nothing is held back any more");
    }

    #[tokio::test]
    async fn a_large_piece_leaves_with_all_that_goes_before_it() {
        let (mut watched, mut client) = multiplexed(2);
        watched.activity.gather();
        let large = vec![b'x'; 100_000];
        let all = [&b"before "[..], &large, b" after"].concat();
        let (told, mut whole) = (watched.activity.clone(), vec![0; all.len()]);
        let write = async {
            write(&mut watched, &[b"before ", &large, b" after"]).await;
            told.let_go();
            flush(&mut watched).await;
        };
        let (_, read) = tokio::join!(write, client.read_exact(&mut whole));
        read.unwrap();
        assert!(whole == all);
    }

    #[tokio::test]
    async fn the_only_answer_waits_for_no_other_and_the_last_word_for_none() {
        let (mut watched, client) = multiplexed(1);
        watched.activity.gather();
        write(&mut watched, &[b"one"]).await;
        assert_eq!(heard(&client), b"one");
        watched.activity.request_began();
        watched.activity.gather();
        write(&mut watched, &[b"two"]).await;
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut watched).poll_shutdown(&mut cx);
        assert_eq!(heard(&client), b"two");
    }
}
