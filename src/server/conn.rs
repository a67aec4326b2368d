//! One client connection: sniff, handshake, serve, time out.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tracing::debug;

use super::clients::{Client, Told};
use super::hibernation::{self, Hibernating};
use super::streams::Streams;
use super::watched::{Eye, Watched};
use crate::config::Limits;
use crate::ctx::{Conn, Endpoints, Overdue, Worker};
use crate::error::chain;
use crate::http1::{Bounds, Inspector, Refusal};
use crate::http2::{Gauge, Misuse};
use crate::linger;
use crate::observe::Count;
use crate::proxy;
use crate::snapshot::Snapshot;
use crate::stream::Stream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a connection that is to end has for a last word: an HTTP/2 one after GOAWAY, a silent one when draining.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);
/// What a draining connection of HTTP/2 has without a byte moving: its client may have vanished, and would never answer.
const STILL: Duration = Duration::from_secs(3);
/// Bytes of each response that wait for the client behind the one chunk that is being sent.
const BEHIND: usize = 16 * 1024;
/// How long a client may take to read a refusal.
const REFUSAL: Duration = Duration::from_secs(1);
const PLAINTEXT_ON_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\
    content-length: 55\r\n\r\nThis port speaks TLS: use https:// instead of http://.\n";

/// A connection of which nothing that is the client's has been read.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) stream: TcpStream,
    /// Whether TLS is to be spoken
    pub(super) tls: bool,
    pub(super) endpoints: Endpoints,
    /// When it was accepted: the time for whatever it begins with counts from here
    pub(super) since: Instant,
}

/// Serves one client until it is done.
pub(super) async fn serve(worker: Rc<Worker>, client: Rc<Client>, newcomer: Newcomer) {
    let snapshot = worker.snapshot();
    if !newcomer.tls {
        return sniffed(worker, client, newcomer, &snapshot).await;
    }
    let endpoints = newcomer.endpoints;
    let opened = tokio::select! {
        biased;
        opened = open(&client, newcomer, &snapshot) => opened,
        () = client.unheard() => None,
    };
    let Some((stream, h2)) = opened else {
        return;
    };
    let conn = Rc::new(Conn::new(endpoints, true, h2));
    speak(worker, client, conn, stream, Bytes::new(), &snapshot).await;
}

/// The handshake, and whether it chose HTTP/2.
async fn open(client: &Client, newcomer: Newcomer, snapshot: &Snapshot) -> Option<(Stream, bool)> {
    let mut stream = newcomer.stream;
    let Some(terms) = &snapshot.keys.tls else {
        let _ = stream.shutdown().await;
        return None;
    };
    let limit = snapshot.config.timeouts.tls_handshake;
    let handshake = async {
        // Before rustls looks: it would send an alert, which nobody could read as the beginning of an answer.
        let mut first = [0];
        let heard = stream.peek(&mut first).await?;
        client.hear();
        if heard == 1 && first[0].is_ascii_graphic() {
            refuse_plaintext(&mut stream).await;
            return Ok(None);
        }
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let terms = terms.for_client(&hello.client_hello());
        hello.into_stream(terms).await.map(Some)
    };
    match timeout_at(newcomer.since + limit, handshake).await {
        Ok(Ok(Some(stream))) => {
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Some((Stream::TlsServer(Box::new(stream)), h2))
        }
        Ok(Ok(None)) => None,
        Ok(Err(error)) => {
            debug!(%error, "TLS handshake failed");
            None
        }
        Err(_) => {
            debug!(
                ?limit,
                "TLS handshake took longer than timeouts.tls_handshake"
            );
            None
        }
    }
}

/// Whoever asks for http:// on a port of https:// is told so. No record of TLS begins with a letter.
async fn refuse_plaintext(stream: &mut TcpStream) {
    // Closing with something unread would reset the connection, and the answer could be lost.
    let _ = stream.read(&mut vec![0; 4096]).await;
    let _ = stream.write_all(PLAINTEXT_ON_TLS).await;
    let _ = stream.shutdown().await;
}

/// Answers a client that has too many connections already, and ends this one.
pub(super) async fn turn_away(worker: Rc<Worker>, newcomer: Newcomer) {
    let mut stream = Stream::Tcp(newcomer.stream);
    let mut head = BytesMut::with_capacity(1024);
    let asked = timeout(linger::PATIENCE, stream.read_buf(&mut head)).await;
    if asked.is_ok_and(|read| read.is_ok_and(|count| count > 0)) {
        let conn = Conn::new(newcomer.endpoints, false, false);
        refuse(
            &worker,
            &conn,
            &mut stream,
            &head,
            Refusal::TooManyConnections,
        )
        .await;
    }
}

/// Plaintext: HTTP/2 with prior knowledge is told by its preface (RFC 9113 section 3.4).
async fn sniffed(worker: Rc<Worker>, client: Rc<Client>, newcomer: Newcomer, snapshot: &Snapshot) {
    let (endpoints, mut stream) = (newcomer.endpoints, Stream::Tcp(newcomer.stream));
    let mut head = BytesMut::with_capacity(1024);
    let sniff = async {
        while head.len() < PREFACE.len() && PREFACE.starts_with(&head) {
            if stream.read_buf(&mut head).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            client.hear();
        }
        Ok::<_, io::Error>(())
    };
    let limit = snapshot.config.timeouts.request_head;
    let sniffed = tokio::select! {
        biased;
        sniffed = timeout_at(newcomer.since + limit, sniff) => sniffed,
        () = drained(&client) => return,
        () = client.unheard() => return,
    };
    match sniffed {
        Ok(Ok(())) => {
            let h2 = head.starts_with(PREFACE);
            let conn = Rc::new(Conn::new(endpoints, false, h2).passing(&worker.pipes));
            speak(worker, client, conn, stream, head.freeze(), snapshot).await;
        }
        Ok(Err(_)) => {}
        Err(_) => {
            let conn = Conn::new(endpoints, false, false);
            time_out(&worker, &conn, &mut stream, &head).await;
        }
    }
}

/// Returns when a connection that has not begun to speak has had its time in a worker that drains.
pub(super) async fn drained(client: &Client) {
    poll_fn(|cx| match client.told(cx) {
        Told::Drain => Poll::Ready(()),
        Told::Nothing | Told::MakeRoom => Poll::Pending,
    })
    .await;
    tokio::time::sleep(GOODBYE).await;
}

/// Ends a connection whose request did not arrive in time. One that never began is told nothing: browsers connect on
/// the chance that they will need it, and would show the answer to whatever they ask next.
async fn time_out(worker: &Worker, conn: &Conn, stream: &mut Stream, head: &[u8]) {
    if head.is_empty() {
        let _ = stream.shutdown().await;
    } else {
        refuse(worker, conn, stream, head, Refusal::HeadTimeout).await;
    }
}

/// Answers what is no request, and ends the connection.
async fn refuse(worker: &Worker, conn: &Conn, stream: &mut Stream, head: &[u8], refusal: Refusal) {
    let answer = proxy::refuse(worker, conn, head, refusal);
    let written = timeout(REFUSAL, stream.write_all(&answer)).await;
    if matches!(written, Ok(Ok(()))) {
        linger::part(stream).await;
    }
}

async fn speak(
    worker: Rc<Worker>,
    client: Rc<Client>,
    conn: Rc<Conn>,
    stream: Stream,
    head: Bytes,
    snapshot: &Snapshot,
) {
    client.speaks(&conn);
    let limits = &snapshot.config.limits;
    let eye = if conn.h2 {
        Eye::Http2(Gauge::new())
    } else {
        Eye::Http1(Inspector::new(bounds(limits)))
    };
    let io = Watched::new(
        stream,
        head,
        Arc::clone(&conn.activity),
        Arc::clone(&conn.intake),
        Arc::clone(&client.seat),
        eye,
        conn.bypass.clone(),
    );
    if conn.h2 {
        http2(worker, client, conn, io, snapshot).await;
    } else {
        http1(worker, client, conn, io, limits).await;
    }
}

/// What the inspector holds the heads of a connection to.
pub(super) fn bounds(limits: &Limits) -> Bounds {
    Bounds {
        head: limits.request_head,
        target: limits.request_target,
        fields: limits.request_headers,
    }
}

async fn http2(
    worker: Rc<Worker>,
    client: Rc<Client>,
    conn: Rc<Conn>,
    io: Watched,
    snapshot: &Snapshot,
) {
    let (at, of) = (Rc::clone(&worker), Rc::clone(&conn));
    let limits = &snapshot.config.limits;
    let idle = snapshot.config.timeouts.response_write_idle;
    let streams = Streams::new(idle, &conn.activity);
    let mut builder = http2::Builder::new(streams.clone());
    let service = service_fn(move |request| {
        let flow = Some(streams.begin());
        proxy::handle(Rc::clone(&at), Rc::clone(&of), flow, request)
    });
    let head = u32::try_from(limits.request_head).unwrap_or(u32::MAX);
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams)
        // The gauge counts resets, and forgives some: this would end whoever changes their mind at once.
        .max_pending_accept_reset_streams(limits.streams as usize)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_send_buf_size(BEHIND)
        // The request path has the last word on the size of a head. What is past this bound gets a bare 431, and what
        // is past four times this bound is not read to its end.
        .max_header_list_size(head.saturating_mul(2).max(32 * 1024));
    let mut serving = pin!(builder.serve_connection(TokioIo::new(io), service));
    let end = drive(&worker, &client, &conn, |cx, say| {
        if say == Say::GoAway {
            serving.as_mut().graceful_shutdown();
        }
        serving.as_mut().poll(cx)
    });
    let end = end.await;
    match &end {
        End::Misused(misuse) => proxy::cut_off(&worker, &conn, *misuse),
        End::Malformed(why) => proxy::refused(&worker, &conn, why),
        _ => {}
    }
    report(&worker, end);
}

/// Serves HTTP/1 from the first byte of a request on, until it hibernates. `io` has the bounds of these `limits`.
pub(super) async fn http1(
    worker: Rc<Worker>,
    client: Rc<Client>,
    conn: Rc<Conn>,
    io: Watched,
    limits: &Limits,
) {
    let (at, of) = (Rc::clone(&worker), Rc::clone(&conn));
    let mut builder = http1::Builder::new();
    let service =
        service_fn(move |request| proxy::handle(Rc::clone(&at), Rc::clone(&of), None, request));
    // Not `pipeline_flush`: it takes the bound off what is buffered for a client that does not read.
    builder
        .header_read_timeout(None)
        .max_headers(limits.request_headers)
        // The inspector has the last word on the size of a head: hyper's bound lies beyond it.
        .max_buf_size(limits.request_head.max(60 * 1024) + 4096);
    let mut serving = builder
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let end = drive(&worker, &client, &conn, |cx, say| {
        let mut serving = Pin::new(&mut serving);
        if say == Say::GoAway {
            serving.as_mut().graceful_shutdown();
        }
        serving.poll(cx)
    });
    let end = end.await;
    match end {
        End::HeadTimeout | End::Refused(_) => {
            if let Some(parts) = serving.into_parts() {
                let (mut stream, withheld) = parts.io.into_inner().into_parts();
                let head = [&parts.read_buf[..], &withheld].concat();
                match end {
                    End::Refused(why) => refuse(&worker, &conn, &mut stream, &head, why).await,
                    _ => time_out(&worker, &conn, &mut stream, &head).await,
                }
            }
        }
        End::Hibernates | End::Quiet => {
            if let Some(parts) = serving.into_parts() {
                debug_assert!(
                    end == End::Quiet || parts.read_buf.is_empty(),
                    "hyper has taken up all that came"
                );
                let mut io = parts.io.into_inner();
                let asks = end == End::Quiet && io.has_arrived();
                let stays = end == End::Hibernates || asks && client.may_stay();
                if stays && parts.read_buf.is_empty() {
                    return Hibernating {
                        worker,
                        client,
                        conn,
                        io,
                    }
                    .start();
                }
                if asks {
                    linger::part(&mut io.into_parts().0).await;
                } else {
                    // Nothing was said that could be lost.
                    let _ = timeout(GOODBYE, io.shutdown()).await;
                }
            }
        }
        _ => {
            if let End::Malformed(why) = &end {
                proxy::refused(&worker, &conn, why);
            }
            // hyper has said its last word, if it is not the one that broke off, or the client does not read.
            let said = match end {
                End::Broken(_) => conn.intake.refusal().is_some(),
                _ => end != End::WriteTimeout,
            };
            if said
                && let Some(parts) = serving.into_parts()
                && !parts.io.inner().has_ended()
            {
                let (mut stream, _) = parts.io.into_inner().into_parts();
                linger::part(&mut stream).await;
            }
        }
    }
    report(&worker, end);
}

/// What a connection is told before it is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Say {
    Nothing,
    /// Finish what is in flight, take no more
    GoAway,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done,
    Broken(String),
    /// hyper found something that is no request
    Malformed(String),
    /// The inspector did
    Refused(Refusal),
    /// It was cut off
    Misused(Misuse),
    HeadTimeout,
    IdleTimeout,
    WriteTimeout,
    /// Over HTTP/1, with nothing to do: its place is wanted, or the worker drains
    Quiet,
    /// Over HTTP/1: it goes on without hyper
    Hibernates,
}

impl End {
    fn of(conn: &Conn, result: hyper::Result<()>) -> Self {
        match result {
            _ if let Some(misuse) = conn.activity.misuse() => Self::Misused(misuse),
            Ok(()) => Self::Done,
            Err(error) if error.is_parse() || is_breach(&error) => Self::Malformed(chain(&error)),
            Err(error) => Self::Broken(chain(&error)),
        }
    }
}

/// Whether hyper's library ended an HTTP/2 connection over what its client did.
fn is_breach(error: &hyper::Error) -> bool {
    use std::error::Error;
    let cause = error.source().and_then(|cause| cause.downcast_ref());
    cause.is_some_and(|cause: &h2::Error| cause.is_library() && cause.is_go_away())
}

fn report(worker: &Worker, end: End) {
    if end == End::WriteTimeout {
        worker.counters.add(Count::CutResponse);
    }
    match end {
        End::Done => {}
        End::Broken(error) => debug!(error, "client connection ended"),
        End::Malformed(reason) => debug!(reason, "request refused"),
        End::Misused(misuse) => debug!(reason = misuse.why(), "client connection cut off"),
        End::Refused(refusal) => debug!(reason = refusal.why(), "request refused"),
        End::Quiet => debug!("client connection closed: its place is wanted, or the worker drains"),
        End::Hibernates => {}
        End::HeadTimeout => debug!("request head took longer than timeouts.request_head"),
        End::IdleTimeout => debug!("client connection idle for timeouts.keepalive_idle"),
        End::WriteTimeout => debug!("client read nothing for timeouts.response_write_idle"),
    }
}

/// Polls a connection to its end, minding its timers and the worker's drain. One timer serves all phases: it is not
/// moved when a phase begins, but looks, when it fires, whether the phase of that moment is overdue.
async fn drive(
    worker: &Worker,
    client: &Client,
    conn: &Conn,
    mut poll: impl FnMut(&mut Context<'_>, Say) -> Poll<hyper::Result<()>>,
) -> End {
    let (mut leaving, mut cut) = (false, false);
    // What had moved when the timer of an HTTP/2 connection that is to end was last set.
    let mut still = None;
    let snapshot = worker.snapshot();
    let (head_limit, idle_limit, write_limit, hibernates) = {
        let timeouts = &snapshot.config.timeouts;
        (
            timeouts.request_head,
            timeouts.keepalive_idle,
            timeouts.response_write_idle,
            timeouts.hibernate.filter(|_| !conn.h2),
        )
    };
    // HTTP/1.1 is told with the last response.
    let most = snapshot.config.limits.requests_per_connection;
    let most = most.filter(|_| conn.h2).unwrap_or(u32::MAX);
    drop(snapshot);
    // It never sleeps for longer than the shortest phase that may begin meanwhile.
    let first = hibernates.map_or(Duration::MAX, |after| worker.roughly(after));
    let mut sleep = pin!(tokio::time::sleep(head_limit.min(idle_limit).min(first)));
    poll_fn(|cx| {
        conn.activity.take_turn();
        conn.activity.gather();
        let mut polled = poll(cx, Say::Nothing);
        if conn.activity.let_go() && polled.is_pending() {
            // What was held back leaves.
            polled = poll(cx, Say::Nothing);
        }
        if let Poll::Ready(result) = polled {
            return Poll::Ready(End::of(conn, result));
        }
        // What was asked before it is answered first, to the last byte.
        if let Some(refusal) = conn.intake.refusal()
            && !refusal.in_body()
            && conn.activity.is_between()
            && conn.activity.has_written()
        {
            return Poll::Ready(End::Refused(refusal));
        }
        // Only now: a connection that had not read its first request yet would end without it.
        let told = client.told(cx);
        // hyper would end it without a look at what has arrived since.
        if told != Told::Nothing && !conn.h2 && conn.quiet().is_some() {
            return Poll::Ready(End::Quiet);
        }
        if (told != Told::Nothing || conn.intake.begun() >= most) && !leaving {
            leaving = true;
            if let Poll::Ready(result) = poll(cx, Say::GoAway) {
                return Poll::Ready(End::of(conn, result));
            }
            if conn.h2 {
                still = Some(conn.activity.moved());
                sleep.as_mut().reset(Instant::now() + STILL);
            }
        }
        if leaving && client.has_made_room() && conn.quiet().is_none() {
            client.stay();
        }
        if conn.activity.misuse().is_some() && !cut {
            cut = true;
            sleep
                .as_mut()
                .reset(Instant::now() + GOODBYE + linger::PATIENCE);
        }
        // Nearly always a head arrives whole, and the client takes what is written. Only when not is the timer moved.
        for (waits, limit) in [
            (conn.activity.in_head(), head_limit),
            (!conn.activity.has_written(), write_limit),
        ] {
            if waits && sleep.deadline() > Instant::now() + limit {
                sleep.as_mut().reset(Instant::now() + limit);
            }
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if let Some(misuse) = conn.activity.misuse() {
                return Poll::Ready(End::Misused(misuse));
            }
            let rest = match conn.activity.overdue(&worker.snapshot().config.timeouts) {
                Overdue::No { rest } if leaving && conn.h2 => {
                    let before = still.replace(conn.activity.moved());
                    if conn.activity.is_between() && before == still {
                        return Poll::Ready(End::IdleTimeout);
                    }
                    rest.min(STILL)
                }
                Overdue::No { rest } => {
                    let rest = rest.min(idle_limit);
                    match hibernates.filter(|_| !leaving) {
                        None => rest,
                        Some(after) => match hibernation::awake(conn, after) {
                            Duration::ZERO => return Poll::Ready(End::Hibernates),
                            awake => rest.min(worker.roughly(awake)),
                        },
                    }
                }
                Overdue::Head if conn.h2 => {
                    (leaving, cut) = (true, true);
                    conn.activity.cut(Misuse::SlowHead);
                    if let Poll::Ready(result) = poll(cx, Say::GoAway) {
                        return Poll::Ready(End::of(conn, result));
                    }
                    GOODBYE
                }
                Overdue::Head => return Poll::Ready(End::HeadTimeout),
                Overdue::Write => {
                    conn.activity.doubt();
                    if let Poll::Ready(result) = poll(cx, Say::Nothing) {
                        return Poll::Ready(End::of(conn, result));
                    }
                    if conn.activity.overdue(&worker.snapshot().config.timeouts) != Overdue::Write {
                        sleep.as_mut().reset(Instant::now());
                        continue;
                    }
                    conn.activity.give_up();
                    // It fails at once, and throws away what waits.
                    let _ = poll(cx, Say::Nothing);
                    return Poll::Ready(End::WriteTimeout);
                }
                Overdue::Idle if leaving => return Poll::Ready(End::IdleTimeout),
                Overdue::Idle => {
                    // HTTP/1.1 ends at once; HTTP/2 says goodbye and has a moment for it.
                    leaving = true;
                    if let Poll::Ready(result) = poll(cx, Say::GoAway) {
                        return Poll::Ready(End::of(conn, result));
                    }
                    GOODBYE
                }
            };
            sleep.as_mut().reset(Instant::now() + rest);
        }
        Poll::Pending
    })
    .await
}
