//! What an HTTP/2 connection holds back for a moment, so that what is ready at the same time leaves together.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

/// Bytes that are held back at most: two records of TLS.
const MOST: usize = 16 * 1024;
/// Pieces of so many bytes leave by themselves: to copy them would cost more than another write.
const LARGE: usize = 4 * 1024;

/// Small pieces on their way to the client. The HTTP/2 library writes and flushes each frame of data by itself: a record of
/// TLS and a system call for every response.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    held: BytesMut,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether `bufs` are to be taken in here, if there is room.
    pub(super) fn wants(&self, bufs: &[IoSlice<'_>]) -> bool {
        !self.is_empty() || bufs.iter().map(|buf| buf.len()).sum::<usize>() < LARGE
    }

    /// Takes in as much of `bufs` as there is room for, and returns how much that was: 0 only where there is none.
    pub(super) fn take(&mut self, bufs: &[IoSlice<'_>]) -> usize {
        let before = self.held.len();
        for buf in bufs {
            let room = MOST.saturating_sub(self.held.len());
            self.held.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        self.held.len() - before
    }

    /// Writes some of it; 0 where there is nothing.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<usize>> {
        if self.held.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let count = ready!(Pin::new(stream).poll_write(cx, &self.held))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.held.advance(count);
        Poll::Ready(Ok(count))
    }

    /// Gives back the room, where there is nothing.
    pub(super) fn shrink(&mut self) {
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_taken_in_leaves_in_order_however_little_the_client_takes() {
        let (mut ours, mut theirs) = duplex(100);
        let mut outbox = Outbox::default();
        let bytes: Vec<u8> = (0..3 * MOST).map(|at| (at % 251) as u8).collect();
        let send = async {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let piece = rest.len().min(1000);
                let (one, other) = rest[..piece].split_at(piece / 3);
                let count = outbox.take(&[IoSlice::new(one), IoSlice::new(other)]);
                assert!(outbox.held.len() <= MOST);
                rest = &rest[count..];
                if count < piece {
                    while poll_fn(|cx| outbox.poll_send(cx, &mut ours)).await.unwrap() > 0 {}
                }
            }
            while poll_fn(|cx| outbox.poll_send(cx, &mut ours)).await.unwrap() > 0 {}
            outbox.shrink();
            assert!(outbox.is_empty() && outbox.held.capacity() == 0);
            drop(ours);
        };
        let mut heard = Vec::new();
        let (_, count) = tokio::join!(send, theirs.read_to_end(&mut heard));
        assert_eq!(count.unwrap(), bytes.len());
        assert!(heard == bytes);
    }

    #[test]
    fn large_pieces_leave_by_themselves_unless_something_goes_before_them() {
        let mut outbox = Outbox::default();
        let large = [0; LARGE];
        assert!(!outbox.wants(&[IoSlice::new(&large[1..]), IoSlice::new(&large[..1])]));
        assert!(outbox.wants(&[IoSlice::new(&large[1..])]));
        outbox.take(&[IoSlice::new(b"x")]);
        assert!(outbox.wants(&[IoSlice::new(&large)]));
    }
}
