//! What becomes of a client's bytes when nobody wants them any more.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How much is read and thrown away behind the last word on a connection, in bytes: closing with something unread would
/// reset it, and the client might never see what it was told (RFC 9112 section 9.6).
pub const MOST: usize = 256 * 1024;
/// For how long.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How much of an unwanted body is read, in bytes, and for how long.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    most: usize,
    patience: Duration,
}

/// A client that sends nothing for so long has stopped sending.
const IDLE: Duration = Duration::from_secs(1);

/// Closing the connection is the only way to stop the client, and may cost it the answer: browsers read that when they have
/// sent everything. Reading costs less than the upload would have that the client was going to be allowed.
const HTTP1: Bounds = Bounds {
    most: 64 * 1024 * 1024,
    patience: Duration::from_secs(10),
};

/// The stream is reset without an error, which stops the client and leaves it the answer (RFC 9113 section 8.1).
const HTTP2: Bounds = Bounds {
    most: MOST,
    patience: PATIENCE,
};

/// A client's body. Where it is dropped before its end, a little more of it is read and thrown away: a client that is still
/// sending would otherwise meet a closed connection or a reset stream, and many lose the response over that. nginx calls
/// it a lingering close.
#[derive(Debug)]
pub struct ClientBody {
    /// Taken when dropped
    incoming: Option<Incoming>,
    expects: bool,
    lingers: bool,
    bounds: Bounds,
}

impl ClientBody {
    /// The body of a request. `expects` is whether the client waits for `100 Continue`, so that reading would ask for
    /// what nobody wants; `h2` is whether it comes over HTTP/2.
    pub fn new(incoming: Incoming, expects: bool, h2: bool) -> Self {
        Self {
            incoming: Some(incoming),
            expects,
            lingers: !expects,
            bounds: if h2 { HTTP2 } else { HTTP1 },
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
            let Bounds { most, patience } = self.bounds;
            tokio::task::spawn_local(timeout(patience, discard(incoming, most)));
        }
    }
}

/// Says goodbye, and reads on until the client does too, or for as long as is worth it.
pub async fn part(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let parting = async {
        stream.shutdown().await?;
        // Not in the future, which every connection has room for.
        let (mut rest, mut buffer) = (MOST, vec![0; 4096]);
        while rest > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                count => rest = rest.saturating_sub(count),
            }
        }
        Ok::<_, std::io::Error>(())
    };
    // Whether the client is there to hear it is its own affair.
    let _ = timeout(PATIENCE, parting).await;
}

async fn discard(mut incoming: Incoming, most: usize) {
    let mut rest = most;
    while let Ok(Some(Ok(frame))) = timeout(IDLE, incoming.frame()).await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(left) = rest.checked_sub(length) else {
            return;
        };
        rest = left;
    }
}
