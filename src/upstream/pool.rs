//! The pool of connections to peers: one a worker, so that nothing is shared or locked.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;

use super::body::{Body, Kind};
use super::connect::connect;
use super::far_end::{FarEnd, Owner};
use super::group::Upstream;
use super::guard::Guard;
use super::h1::{self, Left};
use super::peer::Peer;
use crate::body::RequestBody;
use crate::config::PeerProtocol;
use crate::error::ProxyError;
use crate::exec::LocalExec;
use crate::http::hop;
use crate::privilege::Witness;
use crate::stream::Stream;

/// Without a `Keep-Alive: timeout` of the peer: Node's default is 5 s.
const DEFAULT_IDLE: Duration = Duration::from_secs(4);
/// An idle connection is given up this long before its peer would.
const MARGIN: Duration = Duration::from_secs(1);
/// No idle connection is kept longer, whatever the peer promises.
const MAX_IDLE: Duration = Duration::from_secs(60);
/// Idle connections kept for one peer by one worker.
const MAX_KEPT: usize = 512;
/// Between looks at a connection that its app has yet to accept, in milliseconds. An app that takes longer is sent the
/// request all the same.
const LOOKS: [u64; 7] = [1, 1, 2, 4, 8, 16, 20];

/// Bytes of a response read ahead of a client that is slow to take them, for each stream of an HTTP/2 peer.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// The streams together are not bounded: clients that do not read would use that bound up, and all others would wait for
/// them (RFC 9113 section 5.2.2). This is the most that there is.
const H2_CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// A worker's connections, by peer. Cheap to clone: all clones are one pool.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    peers: Rc<RefCell<Vec<Slot>>>,
    /// Asked who holds the other end of a new connection
    witness: Rc<Witness>,
}

#[derive(Debug, Default)]
struct Slot {
    idle: Vec<Idle>,
    h2: Option<(http2::SendRequest<RequestBody>, Rc<Origin>)>,
}

/// Where a connection goes, and who was found there.
#[derive(Debug)]
struct Origin {
    end: FarEnd,
    /// `None` until it has been looked at
    owner: Cell<Option<Owner>>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<h1::Connection>,
    origin: Rc<Origin>,
    until: Instant,
}

/// A request that was not answered.
#[derive(Debug)]
pub struct SendError {
    /// Why
    pub fault: SendFault,
    /// The request itself, as it was, where none of it is lost
    pub request: Option<Request<RequestBody>>,
    /// Whether the peer may have seen some of it
    pub seen: bool,
}

/// Why a request was not answered.
#[derive(Debug, PartialEq, Eq)]
pub enum SendFault {
    /// The peer closed the connection, and had not answered a byte
    Closed,
    /// It closed or broke the connection in the middle of the response's head
    Cut,
    /// The response is not HTTP
    Malformed(String),
    /// The request's own body broke off
    Body,
}

/// What a peer answered with.
#[derive(Debug)]
pub enum Answer {
    /// A response
    Response(Response<Body>),
    /// A response, after which the connection is a tunnel. The bytes came right behind its head
    Switched(Response<()>, Stream, Bytes),
}

impl Pool {
    /// An empty pool.
    pub fn new(witness: Witness) -> Self {
        Self {
            peers: Rc::default(),
            witness: Rc::new(witness),
        }
    }

    /// A connection to `peer` of `upstream`: the idle one used last, else a new one.
    ///
    /// # Errors
    /// [`ProxyError::Connect`], [`ProxyError::ConnectTimeout`], or [`ProxyError::WrongUser`] where the guard knows enough
    /// to refuse it. Nothing has been sent in any case.
    pub async fn lease(
        &self,
        upstream: &Upstream,
        peer: &Arc<Peer>,
        limit: Duration,
    ) -> Result<Lease, ProxyError> {
        upstream.guard.remembers(peer)?;
        match self.take(peer) {
            Some(lease) => lease.known(&upstream.guard).map(|()| lease),
            None => self.open(upstream, peer, limit).await,
        }
    }

    /// A new connection, whatever is idle.
    ///
    /// # Errors
    /// As [`lease`](Self::lease).
    pub async fn open(
        &self,
        upstream: &Upstream,
        peer: &Arc<Peer>,
        limit: Duration,
    ) -> Result<Lease, ProxyError> {
        let stream = connect(peer, upstream.tls.as_ref(), limit).await?;
        let origin = Rc::new(Origin {
            end: FarEnd::of(&stream),
            owner: Cell::new(None),
        });
        self.look_early(&upstream.guard, peer, &origin).await?;
        let broken = |error: hyper::Error| ProxyError::Connect(std::io::Error::other(error));
        let channel = match peer.protocol {
            PeerProtocol::H2c => {
                let (sender, connection) = http2::Builder::new(LocalExec)
                    .initial_stream_window_size(H2_STREAM_WINDOW)
                    .initial_connection_window_size(H2_CONNECTION_WINDOW)
                    .handshake(TokioIo::new(stream))
                    .await
                    .map_err(broken)?;
                tokio::task::spawn_local(async move {
                    // Each stream that it breaks tells its own request.
                    let _ = connection.await;
                });
                let kept = (sender.clone(), Rc::clone(&origin));
                self.slot(peer, |slot| slot.h2 = Some(kept));
                Channel::H2(sender)
            }
            PeerProtocol::Http1 | PeerProtocol::Https => {
                Channel::H1(Some(Box::new(h1::Connection::new(stream))))
            }
        };
        Ok(Lease {
            pool: self.clone(),
            peer: Arc::clone(peer),
            channel,
            origin,
            idle: DEFAULT_IDLE,
            reused: false,
        })
    }

    /// Looks at a connection to a peer that nobody vouches for yet before anything is sent on it: as soon as the app has
    /// accepted it, which most do at once.
    async fn look_early(
        &self,
        guard: &Guard,
        peer: &Peer,
        origin: &Origin,
    ) -> Result<(), ProxyError> {
        if !guard.asks() || !peer.standing.is_suspect() {
            return Ok(());
        }
        for pause in LOOKS {
            if let Some(owner) = origin.end.accepted_by(self.witness.sockets.as_ref()) {
                // What is unknown may be known when it has answered.
                return match owner {
                    Owner::Uid(..) => self.settle(guard, peer, origin, owner),
                    Owner::Unknown(_) => Ok(()),
                };
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        Ok(())
    }

    fn settle(
        &self,
        guard: &Guard,
        peer: &Peer,
        origin: &Origin,
        owner: Owner,
    ) -> Result<(), ProxyError> {
        origin.owner.set(Some(owner));
        guard.settle(peer, &origin.end, owner, &self.witness)
    }

    fn take(&self, peer: &Arc<Peer>) -> Option<Lease> {
        let (channel, origin) = self.slot(peer, |slot| {
            if let Some((sender, origin)) = &slot.h2 {
                if !sender.is_closed() {
                    return Some((Channel::H2(sender.clone()), Rc::clone(origin)));
                }
                slot.h2 = None;
            }
            let now = Instant::now();
            while let Some(mut idle) = slot.idle.pop() {
                if idle.until > now && idle.connection.is_quiet() {
                    return Some((Channel::H1(Some(idle.connection)), idle.origin));
                }
            }
            None
        })?;
        Some(Lease {
            pool: self.clone(),
            peer: Arc::clone(peer),
            channel,
            origin,
            idle: DEFAULT_IDLE,
            reused: true,
        })
    }

    fn put(
        &self,
        peer: &Peer,
        connection: Box<h1::Connection>,
        origin: Rc<Origin>,
        idle: Duration,
    ) {
        self.slot(peer, |slot| {
            if slot.idle.len() < MAX_KEPT {
                slot.idle.push(Idle {
                    connection,
                    origin,
                    until: Instant::now() + idle,
                });
            }
        });
    }

    fn slot<T>(&self, peer: &Peer, with: impl FnOnce(&mut Slot) -> T) -> T {
        let mut peers = self.peers.borrow_mut();
        if peers.len() <= peer.id {
            peers.resize_with(peer.id + 1, Slot::default);
        }
        with(&mut peers[peer.id])
    }

    /// Closes connections that have been idle for too long. To be called now and then.
    pub fn sweep(&self) {
        let now = Instant::now();
        for slot in self.peers.borrow_mut().iter_mut() {
            slot.idle
                .retain_mut(|idle| idle.until > now && idle.connection.is_quiet());
            if slot.idle.is_empty() {
                slot.idle.shrink_to_fit();
            }
        }
    }

    /// How many connections are idle.
    pub fn idle(&self) -> usize {
        self.peers.borrow().iter().map(|slot| slot.idle.len()).sum()
    }
}

/// A connection in use. Where it, or the response that came over it, is dropped before [`finish`](Lease::finish), the
/// connection is closed at once, so that the app learns that nobody listens any more.
#[derive(Debug)]
pub struct Lease {
    pool: Pool,
    peer: Arc<Peer>,
    channel: Channel,
    origin: Rc<Origin>,
    idle: Duration,
    reused: bool,
}

#[derive(Debug)]
enum Channel {
    /// `None` once a request was sent: the response has it
    H1(Option<Box<h1::Connection>>),
    /// Shared with other requests; dropping a response's body resets its stream
    H2(http2::SendRequest<RequestBody>),
}

impl Lease {
    /// Whether an earlier request went over this connection, so that the peer may be closing it this moment.
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// Whether the connection speaks HTTP/2.
    pub fn is_h2(&self) -> bool {
        matches!(self.channel, Channel::H2(_))
    }

    /// Sends a request and waits for the head of its response. `interim` is told of responses before that.
    ///
    /// # Errors
    /// With the request itself where none of it is lost: over HTTP/1.1 that is also one without a body.
    pub async fn send(
        &mut self,
        mut request: Request<RequestBody>,
        interim: impl Fn(StatusCode) + Send + Sync + 'static,
    ) -> Result<Answer, SendError> {
        let answer = match &mut self.channel {
            Channel::H1(connection) => {
                let Some(connection) = connection.take() else {
                    unreachable!("a connection has one request at a time")
                };
                match connection.send(request, interim).await {
                    Ok(h1::Answer::Response(response)) => {
                        Answer::Response(response.map(|body| Body(Kind::H1(body))))
                    }
                    Ok(h1::Answer::Switched(response, stream, rest)) => {
                        Answer::Switched(response, stream, rest)
                    }
                    Err(unanswered) => {
                        let fault = match unanswered.fault {
                            h1::Fault::Closed => SendFault::Closed,
                            h1::Fault::Cut => SendFault::Cut,
                            h1::Fault::Malformed(why) => SendFault::Malformed(why.to_owned()),
                            h1::Fault::Body => SendFault::Body,
                        };
                        return Err(SendError {
                            fault,
                            request: unanswered.request,
                            seen: unanswered.seen,
                        });
                    }
                }
            }
            Channel::H2(sender) => {
                hyper::ext::on_informational(&mut request, move |response| {
                    interim(response.status());
                });
                match sender.try_send_request(request).await {
                    Ok(response) => Answer::Response(response.map(|body| Body(Kind::H2(body)))),
                    Err(mut error) => {
                        let request = error.take_message();
                        let fault = fault(&error.into_error());
                        return Err(SendError {
                            fault,
                            seen: request.is_none(),
                            request,
                        });
                    }
                }
            }
        };
        if let Answer::Response(response) = &answer
            && let Some(seconds) = hop::keep_alive_timeout(response.headers())
        {
            self.idle = Duration::from_secs(seconds)
                .saturating_sub(MARGIN)
                .min(MAX_IDLE);
        }
        Ok(answer)
    }

    /// Whether its other end belongs to somebody who may run the upstream. To be called when the head of a response is
    /// there, before it is passed on: looks at a new connection, and costs a comparison for others.
    ///
    /// # Errors
    /// [`ProxyError::WrongUser`].
    pub fn vouch(&self, guard: &Guard) -> Result<(), ProxyError> {
        if !guard.asks() {
            return Ok(());
        }
        let vouched = match self.origin.owner.get() {
            Some(owner) => guard.allows(owner),
            None => {
                let owner = self.origin.end.owner(self.pool.witness.sockets.as_ref());
                self.pool.settle(guard, &self.peer, &self.origin, owner)
            }
        };
        vouched.inspect_err(|_| self.disown())
    }

    /// As [`vouch`](Self::vouch), but before anything is sent: looks at nothing.
    fn known(&self, guard: &Guard) -> Result<(), ProxyError> {
        match self.origin.owner.get() {
            Some(owner) => guard.allows(owner).inspect_err(|_| self.disown()),
            None => Ok(()),
        }
    }

    /// An HTTP/2 connection is kept by the pool while it is in use: no more.
    fn disown(&self) {
        self.pool.slot(&self.peer, |slot| {
            if slot
                .h2
                .as_ref()
                .is_some_and(|(_, origin)| Rc::ptr_eq(origin, &self.origin))
            {
                slot.h2 = None;
            }
        });
    }

    /// The response is complete: its connection may be used again.
    pub fn finish(self, body: Body) {
        let Kind::H1(body) = body.0 else { return };
        let Self {
            pool,
            peer,
            origin,
            idle,
            ..
        } = self;
        if idle.is_zero() {
            return;
        }
        match body.finish() {
            Left::Idle(connection) => pool.put(&peer, connection, origin, idle),
            // An early response: the request's body may still be on its way.
            Left::Uploading(connection, mut upload) => {
                tokio::task::spawn_local(async move {
                    if tokio::time::timeout(idle, upload.ended()).await.is_err() {
                        return;
                    }
                    drop(upload);
                    if let Some(connection) = Rc::into_inner(connection)
                        && connection.borrow().is_reusable()
                    {
                        pool.put(&peer, Box::new(connection.into_inner()), origin, idle);
                    }
                });
            }
            Left::Spent => {}
        }
    }
}

fn fault(error: &hyper::Error) -> SendFault {
    use std::error::Error;
    let broken = error
        .source()
        .is_some_and(|cause| cause.is::<std::io::Error>());
    if error.is_parse() {
        SendFault::Malformed(crate::error::chain(error))
    } else if broken || error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        SendFault::Closed
    } else {
        SendFault::Cut
    }
}
