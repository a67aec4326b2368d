//! The end of a connection, in an order that lets the client hear of it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::linger;

/// A last word, the end of our side, and the wait for that of the other.
#[derive(Debug)]
pub(super) struct Farewell {
    word: Vec<u8>,
    said: usize,
    /// Bytes that may still come, and until when; `None` until our side has ended
    linger: Option<(usize, Pin<Box<Sleep>>)>,
}

impl Farewell {
    /// Nothing may be written after `word`, or read but by this.
    pub(super) fn new(word: Vec<u8>) -> Self {
        Self {
            word,
            said: 0,
            linger: None,
        }
    }

    /// Goes through with it. `ended` is whether the other side has ended already. That the client is there to hear it is
    /// its own affair: an error only ends it sooner.
    pub(super) fn poll<S>(&mut self, cx: &mut Context<'_>, stream: &mut S, ended: bool) -> Poll<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        while self.said < self.word.len() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &self.word[self.said..])) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(count) => self.said += count,
            }
        }
        if self.linger.is_none() && ready!(Pin::new(&mut *stream).poll_shutdown(cx)).is_err() {
            return Poll::Ready(());
        }
        let (rest, sleep) = self
            .linger
            .get_or_insert_with(|| (linger::MOST, Box::pin(tokio::time::sleep(linger::PATIENCE))));
        let mut scratch = [0; 4096];
        while !ended && *rest > 0 {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    *rest = rest.saturating_sub(buf.filled().len());
                }
                Poll::Ready(_) => break,
                Poll::Pending => {
                    ready!(sleep.as_mut().poll(cx));
                    break;
                }
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn the_last_word_is_heard_by_one_who_is_still_talking() {
        let (mut ours, mut theirs) = duplex(16);
        let talk = async {
            let (mut read, mut write) = tokio::io::split(&mut theirs);
            let mut heard = String::new();
            tokio::join!(
                async { write.write_all(&[0; 5000]).await.unwrap() },
                async { read.read_to_string(&mut heard).await.unwrap() },
            );
            write.shutdown().await.unwrap();
            heard
        };
        let mut farewell = Farewell::new(b"so long, and thanks".to_vec());
        let part = poll_fn(|cx| farewell.poll(cx, &mut ours, false));
        let (heard, ()) = tokio::join!(talk, part);
        assert_eq!(heard, "so long, and thanks");
    }

    #[tokio::test]
    async fn nobody_waits_for_one_who_has_ended() {
        let (mut ours, _theirs) = duplex(16);
        let mut farewell = Farewell::new(Vec::new());
        let part = poll_fn(|cx| Poll::Ready(farewell.poll(cx, &mut ours, true).is_ready()));
        assert!(part.await);
    }
}
