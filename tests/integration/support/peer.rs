//! An upstream in this process, of either protocol: `GET` downloads without end, `POST` is never read, but for
//! `/trailers`, which says what trailers it was sent, and sends some.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::{client, until};

/// A running peer, on a thread of its own. Gone when dropped.
pub(crate) struct Peer {
    pub(crate) port: u16,
    /// Bytes of all downloads that lowport has taken off it
    pub(crate) given: Counter,
    runtime: Option<Runtime>,
}

impl Peer {
    /// Speaks HTTP/2 with prior knowledge where `h2`, HTTP/1.1 otherwise.
    pub(crate) fn start(h2: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bound");
        listener.set_nonblocking(true).expect("non-blocking");
        let port = listener.local_addr().expect("an address").port();
        let given = Counter::default();
        runtime.spawn(accept(listener, h2, given.clone()));
        Self {
            port,
            given,
            runtime: Some(runtime),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: std::net::TcpListener, h2: bool, given: Counter) {
    let listener = TcpListener::from_std(listener).expect("listening");
    while let Ok((stream, _)) = listener.accept().await {
        let given = given.clone();
        let service = service_fn(move |request| answer(request, given.clone()));
        let io = TokioIo::new(stream);
        tokio::spawn(async move {
            // How it ends is the test's business.
            if h2 {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(io, service).await;
            } else {
                let builder = hyper::server::conn::http1::Builder::new();
                let _ = builder.serve_connection(io, service).await;
            }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    given: Counter,
) -> Result<Response<client::Body>, Infallible> {
    if request.uri().path() == "/trailers" {
        return Ok(trailers(request).await);
    }
    if request.method() == Method::POST {
        // Keeps the request, and so its body, without reading it.
        std::future::pending::<()>().await;
    }
    let body = match request.uri().path() {
        "/small" => client::full("small"),
        _ => Endless::counted(&given),
    };
    Ok(Response::new(body))
}

async fn trailers(request: Request<Incoming>) -> Response<client::Body> {
    let whole = request.into_body().collect().await.expect("a whole body");
    let seen = format!("{:?}", whole.trailers());
    let own = ["x-sum", "content-length", "set-cookie"].map(|name| {
        let name = http::HeaderName::from_static(name);
        (name, http::HeaderValue::from_static("9"))
    });
    let own = async move { Some(Ok(own.into_iter().collect())) };
    let body = client::full(seen).with_trailers(own).boxed_unsync();
    Response::new(body)
}

/// Counts bytes.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicU64>);

impl Counter {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits until it has moved from zero and then stands still.
    pub(crate) fn wait_until_still(&self) -> u64 {
        let (mut last, mut since) = (0, Instant::now());
        until("the sender to be held back", || {
            let now = self.get();
            if now != last || now == 0 {
                (last, since) = (now, Instant::now());
            }
            (since.elapsed() > Duration::from_millis(300)).then_some(now)
        })
    }
}

/// A body that is always ready, so only back-pressure stops it; it gives up at a size that no buffer may reach.
pub(crate) struct Endless {
    chunk: Bytes,
    left: u64,
    taken: Counter,
}

impl Endless {
    /// Bytes after which it ends.
    pub(crate) const LIMIT: u64 = 100 << 20;

    pub(crate) fn counted(taken: &Counter) -> client::Body {
        Self {
            chunk: Bytes::from(vec![b'x'; 16 * 1024]),
            left: Self::LIMIT,
            taken: taken.clone(),
        }
        .map_err(|never| match never {})
        .boxed_unsync()
    }
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let size = self.chunk.len() as u64;
        if self.left < size {
            return Poll::Ready(None);
        }
        self.left -= size;
        self.taken.0.fetch_add(size, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.chunk.clone()))))
    }
}
