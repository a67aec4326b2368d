//! What becomes of a client's bytes when nobody wants them any more.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How much of what is unwanted is read, in bytes, and for how long.
const MOST: usize = 256 * 1024;
const PATIENCE: Duration = Duration::from_secs(1);

/// A client's body. Where it is dropped before its end, a little more of it is read and thrown away: a client that is still
/// sending would otherwise meet a closed connection or a reset stream, and many lose the response over that. nginx calls
/// it a lingering close.
#[derive(Debug)]
pub struct ClientBody {
    /// Taken when dropped
    incoming: Option<Incoming>,
    expects: bool,
    lingers: bool,
}

impl ClientBody {
    /// The body of a request. `expects` is whether the client waits for `100 Continue`, so that reading would ask for
    /// what nobody wants.
    pub fn new(incoming: Incoming, expects: bool) -> Self {
        Self {
            incoming: Some(incoming),
            expects,
            lingers: !expects,
        }
    }

    /// Whether the client waits for `100 Continue` (RFC 9110 section 10.1.1).
    pub fn expects(&self) -> bool {
        self.expects
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Whoever reads has let the client send.
        self.lingers = true;
        match &mut self.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.incoming {
            Some(incoming) => incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if self.lingers
            && !self.is_end_stream()
            && let Some(incoming) = self.incoming.take()
        {
            tokio::task::spawn_local(tokio::time::timeout(PATIENCE, discard(incoming)));
        }
    }
}

/// Says goodbye, and reads on until the client does too: closing with something unread would reset the connection, and the
/// client might never see what it was answered (RFC 9112 section 9.6).
pub async fn part(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let parting = async {
        stream.shutdown().await?;
        let (mut rest, mut buffer) = (MOST, [0; 4096]);
        while rest > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                count => rest = rest.saturating_sub(count),
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // Whether the client is there to hear it is its own affair.
    let _ = tokio::time::timeout(PATIENCE, parting).await;
}

async fn discard(mut incoming: Incoming) {
    let mut rest = MOST;
    while let Some(Ok(frame)) = incoming.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(left) = rest.checked_sub(length) else {
            return;
        };
        rest = left;
    }
}
