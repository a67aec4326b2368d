//! Bytes that go from one socket to another within the kernel, past this process's memory: `splice(2)`.
//!
//! hyper writes what a body yields. A body that goes this way yields stand-ins, as many bytes without meaning as wait in a
//! pipe. Whoever writes to the client's socket knows them by where they lie, and moves as many out of the pipe instead.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::unistd::pipe2;
use tokio::io::Interest;

use crate::stream::Stream;

/// Bytes that are moved at once at most: as many as fit into a pipe of the usual size.
const MOST: usize = 64 * 1024;

/// What it holds is never looked at.
static STAND_IN: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0; MOST]));

/// How many pipes there may be. Each is two descriptors, and takes of what the kernel allows a user (`pipe-user-pages-soft`,
/// 1,024 pipes by default): beyond that they are small.
#[derive(Debug, Default)]
pub struct Pipes {
    most: usize,
    open: AtomicUsize,
}

impl Pipes {
    /// `most` at the same time; with 0 there are none, and everything is copied.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            open: AtomicUsize::new(0),
        })
    }

    /// A way through them for one client connection, if there are any.
    pub fn bypass(self: &Arc<Self>) -> Option<Arc<Bypass>> {
        let bypass = || Bypass {
            pipes: Arc::clone(self),
            state: Mutex::default(),
        };
        (self.most > 0).then(|| Arc::new(bypass()))
    }

    /// `None` where there are as many as may be, or the system denies one.
    fn take(self: &Arc<Self>) -> Option<Pipe> {
        let more = |open| (open < self.most).then_some(open + 1);
        self.open.fetch_update(Relaxed, Relaxed, more).ok()?;
        let place = Place(Arc::clone(self));
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
        Some(Pipe {
            read,
            write,
            _place: place,
        })
    }
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    _place: Place,
}

#[derive(Debug)]
struct Place(Arc<Pipes>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// The way past memory of one client connection. Its pipe is there for as long as a body goes through it.
#[derive(Debug)]
pub struct Bypass {
    pipes: Arc<Pipes>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pipe: Option<Pipe>,
    /// Bytes in the pipe
    inside: usize,
    /// Whether those are a body's last
    last: bool,
    /// Waits for the pipe to be empty
    waiting: Option<Waker>,
}

impl Bypass {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is the client that is waited for.
    pub fn is_full(&self) -> bool {
        self.state().inside > 0
    }

    /// Moves bytes that have arrived out of `from`, `rest` at most, which is what is left of the body. Stands for them; empty
    /// when `from` has ended, and `None` where they have to be read for lack of a pipe. Waits until those before are gone.
    ///
    /// # Errors
    /// The socket's. `Unsupported` over TLS.
    pub fn fill(
        &self,
        cx: &mut Context<'_>,
        from: &Stream,
        rest: u64,
    ) -> Poll<io::Result<Option<Bytes>>> {
        let mut state = self.state();
        if state.inside > 0 {
            state.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if state.pipe.is_none() {
            state.pipe = self.pipes.take();
        }
        let Some(pipe) = &state.pipe else {
            return Poll::Ready(Ok(None));
        };
        let most = usize::try_from(rest).unwrap_or(MOST).min(MOST);
        // The pipe is empty: when there is nothing to be moved, nothing has arrived.
        let moved = ready!(from.poll_io(cx, Interest::READABLE, |from| {
            move_on(from, &pipe.write, most)
        }))?;
        state.inside = moved;
        state.last = moved as u64 == rest;
        Poll::Ready(Ok(Some(STAND_IN.slice(..moved))))
    }

    /// Writes as many of the bytes inside as `stand_in` stands for, or the first few of them.
    ///
    /// # Errors
    /// The socket's.
    pub fn drain(
        &self,
        cx: &mut Context<'_>,
        to: &Stream,
        stand_in: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        let Some(pipe) = &state.pipe else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let most = stand_in.len().min(state.inside);
        let moved = ready!(to.poll_io(cx, Interest::WRITABLE, |to| move_on(&pipe.read, to, most)))?;
        state.inside -= moved;
        if state.inside == 0 {
            if state.last {
                state.pipe = None;
            }
            if let Some(waiting) = state.waiting.take() {
                waiting.wake();
            }
        }
        Poll::Ready(Ok(moved))
    }

    /// Whether these bytes stand for others.
    pub fn is_stand_in(bytes: &[u8]) -> bool {
        STAND_IN.as_ptr_range().contains(&bytes.as_ptr())
    }
}

fn move_on(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    Ok(splice(from, None, to, None, most, flags)?)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    struct Way {
        bypass: Arc<Bypass>,
        from: Stream,
        to: Stream,
        upstream: UnixStream,
        client: UnixStream,
    }

    fn way(pipes: usize) -> Way {
        let (upstream, from) = UnixStream::pair().unwrap();
        let (to, client) = UnixStream::pair().unwrap();
        Way {
            bypass: Pipes::new(pipes).bypass().unwrap(),
            from: Stream::Unix(from),
            to: Stream::Unix(to),
            upstream,
            client,
        }
    }

    impl Way {
        async fn fill(&self, rest: u64) -> io::Result<Option<Bytes>> {
            poll_fn(|cx| self.bypass.fill(cx, &self.from, rest)).await
        }

        async fn drain(&self, stand_in: &[u8]) -> usize {
            let drained = poll_fn(|cx| self.bypass.drain(cx, &self.to, stand_in));
            drained.await.unwrap()
        }
    }

    #[tokio::test]
    async fn what_went_in_comes_out_and_no_more_than_the_body() {
        let mut way = way(1);
        way.upstream.write_all(b"hello, world").await.unwrap();
        let first = way.fill(5).await.unwrap().unwrap();
        assert_eq!(first.len(), 5);
        assert!(Bypass::is_stand_in(&first) && !Bypass::is_stand_in(b"hello"));
        assert!(way.bypass.is_full());
        assert_eq!(way.drain(&first[..2]).await, 2);
        assert!(Bypass::is_stand_in(&first[2..]));
        assert_eq!(way.drain(&first[2..]).await, 3);
        assert!(!way.bypass.is_full());
        let mut out = [0; 5];
        way.client.read_exact(&mut out).await.unwrap();
        assert_eq!(&out, b"hello");
        let Stream::Unix(from) = &mut way.from else {
            unreachable!()
        };
        let mut rest = [0; 7];
        from.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b", world");
    }

    #[tokio::test]
    async fn it_waits_for_what_is_inside_and_is_woken_when_that_is_gone() {
        let mut way = way(1);
        way.upstream.write_all(b"ab").await.unwrap();
        let first = way.fill(1).await.unwrap().unwrap();
        let waiting = way.fill(1);
        tokio::pin!(waiting);
        assert!(
            poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx)))
                .await
                .is_pending()
        );
        assert_eq!(way.drain(&first).await, 1);
        assert_eq!(waiting.await.unwrap().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_pipe_is_given_back_with_the_last_byte_and_without_one_nothing_is_taken() {
        let mut way = way(1);
        let other = way.bypass.pipes.bypass().unwrap();
        way.upstream.write_all(b"abc").await.unwrap();
        let first = way.fill(3).await.unwrap().unwrap();
        let refused = poll_fn(|cx| other.fill(cx, &way.from, 3)).await;
        assert_eq!(refused.unwrap(), None);
        way.drain(&first).await;
        way.upstream.write_all(b"d").await.unwrap();
        let second = poll_fn(|cx| other.fill(cx, &way.from, 9)).await;
        assert_eq!(second.unwrap().unwrap().len(), 1);
        drop(other);
        assert_eq!(way.bypass.pipes.open.load(Relaxed), 0);
    }

    #[test]
    fn where_there_are_no_pipes_there_is_no_way() {
        assert!(Pipes::new(0).bypass().is_none());
    }

    #[tokio::test]
    async fn an_end_is_an_end() {
        let mut way = way(1);
        way.upstream.shutdown().await.unwrap();
        assert_eq!(way.fill(3).await.unwrap().unwrap().len(), 0);
    }
}
