//! What hyper, set up as lowport sets it up, reads out of a client's bytes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};

use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;

/// A request that hyper handed over.
#[derive(Debug, Default)]
pub struct Served {
    /// The method
    pub method: Vec<u8>,
    /// Path and query, or `*`; empty where the target is of another form
    pub path: Vec<u8>,
    /// As much of its body as came
    pub body: Vec<u8>,
    /// Whether that is all of it
    pub complete: bool,
}

/// Has hyper read `pieces` and then wait for more. Every request is answered with an empty response.
pub fn serve(pieces: &[&[u8]], head: usize, fields: usize) -> Vec<Served> {
    let served = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request| answer(Rc::clone(&served), request));
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_headers(fields)
        .max_buf_size(head.max(60 * 1024) + 4096);
    let wire = Wire(pieces.iter().map(|piece| piece.to_vec()).collect());
    let mut serving = pin!(builder.serve_connection(wire, service));
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    while woken.0.swap(false, Relaxed) && serving.as_mut().poll(&mut cx).is_pending() {}
    served.take()
}

async fn answer(
    served: Rc<RefCell<Vec<Served>>>,
    request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path_and_query().map(|path| path.as_str());
    let index = served.borrow().len();
    served.borrow_mut().push(Served {
        method: head.method.as_str().into(),
        path: path.unwrap_or_default().into(),
        ..Served::default()
    });
    loop {
        let frame = body.frame().await;
        let this = &mut served.borrow_mut()[index];
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.body.extend_from_slice(data);
                }
            }
            Some(Err(_)) => break,
            None => {
                this.complete = true;
                break;
            }
        }
    }
    Ok(Response::new(Empty::new()))
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// Delivers pieces, then nothing for ever; what is written is gone.
struct Wire(VecDeque<Vec<u8>>);

impl Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(mut piece) = self.0.pop_front() else {
            return Poll::Pending;
        };
        let rest = piece.split_off(piece.len().min(buf.remaining()));
        buf.put_slice(&piece);
        if !rest.is_empty() {
            self.0.push_front(rest);
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
