//! A tunnel: bytes both ways between two upgraded connections, each direction closed by itself.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::ctx::RequestCtx;
use crate::observe::Count;
use crate::stream::Stream;

/// Bytes read at once.
const CHUNK: usize = 32 * 1024;
/// Chunks moved in one direction before other connections of the worker get their turn.
const TURN: usize = 8;
/// How often a quiet tunnel is looked at before it is ended.
const LOOKS: u32 = 4;
/// What the ends of such a one have to be told.
const GOODBYE: Duration = Duration::from_secs(1);

thread_local! {
    /// What is read lands here, and only what the other side does not take at once is kept by its tunnel: an idle tunnel
    /// owns no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// The two connections of a tunnel.
pub(super) struct Ends {
    /// About to be upgraded
    pub(super) client: OnUpgrade,
    pub(super) upstream: Stream,
    /// What the upstream said right behind its response's head
    pub(super) early: Bytes,
    /// How long it may be quiet
    pub(super) idle: Duration,
}

/// Runs a tunnel by itself. The request that began it is logged when it ends.
pub(super) fn spawn(ends: Ends, mut ctx: RequestCtx) {
    let guard = ctx.worker.tunnel();
    // It may last for days, and is no work for the app most of the time.
    ctx.place = None;
    let mut counted = Counted {
        moved: Moved::default(),
        ctx,
    };
    tokio::task::spawn_local(async move {
        let _guard = guard;
        let client = match ends.client.await {
            Ok(client) => client,
            Err(error) => {
                return counted.broke(format!("upgrade failed: {}", crate::error::chain(&error)));
            }
        };
        let (mut client, mut upstream) = (TokioIo::new(client), ends.upstream);
        let ended = tokio::select! {
            ended = run(&mut client, &mut upstream, ends.early, &counted.moved) => ended,
            () = quiet(&counted.moved, ends.idle) => {
                counted.ctx.worker.counters.add(Count::CutTunnel);
                counted.broke(format!("tunnel quiet for timeouts.tunnel_idle ({:?})", ends.idle));
                let goodbye = async { tokio::join!(client.shutdown(), upstream.shutdown()) };
                let _ = timeout(GOODBYE, goodbye).await;
                return;
            }
        };
        if let Err(error) = ended {
            debug!(id = %counted.ctx.id, %error, "tunnel broken");
            counted.broke(format!("tunnel broken: {error}"));
        }
    });
}

/// Carries what was moved into the access record, also when the tunnel is cut off.
struct Counted {
    moved: Moved,
    ctx: RequestCtx,
}

impl Counted {
    fn broke(&mut self, why: String) {
        self.ctx.reason = Some(why);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.ctx.tunnelled = self.moved.up.get();
        self.ctx.sent = self.moved.down.get();
    }
}

/// Bytes that a tunnel has moved.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// From the client
    pub(super) up: Cell<u64>,
    /// To the client
    pub(super) down: Cell<u64>,
}

/// Waits until nothing has moved for `limit`, or a little longer: it looks a few times in that, and costs what moves nothing.
async fn quiet(moved: &Moved, limit: Duration) {
    let mut quiet = 0;
    while quiet < LOOKS {
        let before = (moved.up.get(), moved.down.get());
        sleep(limit / LOOKS).await;
        quiet = if before == (moved.up.get(), moved.down.get()) {
            quiet + 1
        } else {
            0
        };
    }
}

/// Copies both ways until both directions have ended. The end of one is passed on and leaves the other open, as TCP and
/// TLS allow. `early` was read from the upstream already. `moved` counts along, so that a tunnel that is cut off is
/// counted too.
///
/// # Errors
/// The first error of either side, after which neither is of use.
pub(super) async fn run<A, B>(
    client: &mut A,
    upstream: &mut B,
    early: Bytes,
    moved: &Moved,
) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    moved.down.set(moved.down.get() + early.len() as u64);
    let mut up = Direction::default();
    let mut down = Direction {
        unflushed: !early.is_empty(),
        pending: early.into(),
        ..Direction::default()
    };
    poll_fn(|cx| {
        let up_ended = up.poll(cx, client, upstream, &moved.up)?;
        let down_ended = down.poll(cx, upstream, client, &moved.down)?;
        if up_ended.is_ready() && down_ended.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}

#[derive(Debug, Default)]
struct Direction {
    pending: Vec<u8>,
    written: usize,
    unflushed: bool,
    phase: Phase,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Copying,
    Closing,
    Ended,
}

impl Direction {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        moved: &Cell<u64>,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..TURN {
            match self.phase {
                Phase::Copying => ready!(self.poll_copy(cx, from, to, moved))?,
                Phase::Closing => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.phase = Phase::Ended;
                }
                Phase::Ended => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One chunk, or the end.
    fn poll_copy<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        moved: &Cell<u64>,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while self.written < self.pending.len() {
            self.written += ready!(write(cx, to, &self.pending[self.written..]))?;
        }
        if !self.pending.is_empty() {
            // Memory goes back: most tunnels are idle most of the time.
            self.pending = Vec::new();
            self.written = 0;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            match Pin::new(from).poll_read(cx, &mut buf)? {
                Poll::Pending => {
                    if self.unflushed {
                        ready!(Pin::new(to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
                Poll::Ready(()) => {}
            }
            let mut rest = buf.filled();
            if rest.is_empty() {
                self.phase = Phase::Closing;
                return Poll::Ready(Ok(()));
            }
            moved.set(moved.get() + rest.len() as u64);
            self.unflushed = true;
            while !rest.is_empty() {
                match write(cx, to, rest)? {
                    Poll::Ready(count) => rest = &rest[count..],
                    Poll::Pending => {
                        self.pending.extend_from_slice(rest);
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }
}

fn write<W: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    to: &mut W,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        count => Poll::Ready(Ok(count)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn each_direction_ends_by_itself() {
        let (mut client, mut near) = duplex(1000);
        let (mut far, mut app) = duplex(1000);
        let tunnel = async {
            let moved = Moved::default();
            run(&mut near, &mut far, Bytes::new(), &moved)
                .await
                .unwrap();
            moved
        };
        let talk = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut asked = String::new();
            app.read_to_string(&mut asked).await.unwrap();
            // The app answers although the client has closed its side.
            app.write_all(b"answer").await.unwrap();
            app.shutdown().await.unwrap();
            let mut answered = String::new();
            client.read_to_string(&mut answered).await.unwrap();
            (asked, answered)
        };
        let (moved, (asked, answered)) = tokio::join!(tunnel, talk);
        assert_eq!((asked.as_str(), answered.as_str()), ("question", "answer"));
        assert_eq!((moved.up.get(), moved.down.get()), (8, 6));
    }

    #[tokio::test]
    async fn a_slow_reader_holds_the_writer_back_and_loses_nothing() {
        let (mut client, mut near) = duplex(64);
        let (mut far, mut app) = duplex(64);
        let sent: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let tunnel = async {
            let moved = Moved::default();
            run(&mut near, &mut far, Bytes::new(), &moved)
                .await
                .unwrap();
        };
        let send = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let receive = async {
            let mut got = Vec::new();
            let mut chunk = [0; 7];
            loop {
                match app.read(&mut chunk).await.unwrap() {
                    0 => break,
                    count => got.extend_from_slice(&chunk[..count]),
                }
            }
            app.shutdown().await.unwrap();
            got
        };
        let ((), (), got) = tokio::join!(tunnel, send, receive);
        assert_eq!(got, sent);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_is_quiet_when_nothing_has_moved_for_long() {
        let moved = Moved::default();
        let start = tokio::time::Instant::now();
        let talk = async {
            for _ in 0..10 {
                sleep(Duration::from_secs(59)).await;
                moved.down.set(moved.down.get() + 1);
            }
        };
        tokio::join!(quiet(&moved, Duration::from_secs(60)), talk);
        let seconds = start.elapsed().as_secs();
        assert!((590 + 60..=590 + 76).contains(&seconds), "{seconds}");
    }

    #[tokio::test]
    async fn a_side_that_breaks_ends_the_tunnel() {
        let (client, mut near) = duplex(64);
        let (mut far, app) = duplex(64);
        drop(app);
        let moved = Moved::default();
        let mut client = client;
        client.write_all(b"x").await.unwrap();
        assert!(
            run(&mut near, &mut far, Bytes::new(), &moved)
                .await
                .is_err()
        );
    }
}
