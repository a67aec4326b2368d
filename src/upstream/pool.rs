//! The pool of connections to peers: one a worker, so that nothing is shared or locked.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::task::AbortHandle;

use super::connect::connect;
use super::peer::Peer;
use crate::body::RequestBody;
use crate::config::PeerProtocol;
use crate::error::ProxyError;
use crate::exec::LocalExec;
use crate::http::hop;

/// Without a `Keep-Alive: timeout` of the peer: Node's default is 5 s.
const DEFAULT_IDLE: Duration = Duration::from_secs(4);
/// An idle connection is given up this long before its peer would.
const MARGIN: Duration = Duration::from_secs(1);
/// No idle connection is kept longer, whatever the peer promises.
const MAX_IDLE: Duration = Duration::from_secs(60);
/// Idle connections kept for one peer by one worker.
const MAX_KEPT: usize = 512;

/// Bytes of a response read ahead of a client that is slow to take them: it holds about three times as many in all. Also
/// the longest head of a response. hyper's own default comes to more than a megabyte for each such client.
const READ_AHEAD: usize = 64 * 1024;

/// The same for each stream of an HTTP/2 peer.
const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// The streams together are not bounded: clients that do not read would use that bound up, and all others would wait for
/// them (RFC 9113 section 5.2.2). This is the most that there is.
const H2_CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// A worker's connections, by peer. Cheap to clone: all clones are one pool.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    peers: Rc<RefCell<Vec<Slot>>>,
}

#[derive(Debug, Default)]
struct Slot {
    idle: Vec<Idle>,
    h2: Option<http2::SendRequest<RequestBody>>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<RequestBody>,
    task: AbortHandle,
    until: Instant,
}

/// A request that was not answered.
#[derive(Debug)]
pub struct SendError {
    /// Why
    pub error: hyper::Error,
    /// The request itself, where not a byte of it was written
    pub unsent: Option<Request<RequestBody>>,
}

impl Pool {
    /// A connection to `peer`: the idle one used last, else a new one.
    ///
    /// # Errors
    /// [`ProxyError::Connect`] or [`ProxyError::ConnectTimeout`].
    pub async fn lease(
        &self,
        peer: &Arc<Peer>,
        tls: Option<&Arc<ClientConfig>>,
        limit: Duration,
    ) -> Result<Lease, ProxyError> {
        match self.take(peer) {
            Some(lease) => Ok(lease),
            None => self.open(peer, tls, limit).await,
        }
    }

    /// A new connection, whatever is idle.
    ///
    /// # Errors
    /// As [`lease`](Self::lease).
    pub async fn open(
        &self,
        peer: &Arc<Peer>,
        tls: Option<&Arc<ClientConfig>>,
        limit: Duration,
    ) -> Result<Lease, ProxyError> {
        let io = TokioIo::new(connect(peer, tls, limit).await?);
        let broken = |error: hyper::Error| ProxyError::Connect(std::io::Error::other(error));
        let channel = match peer.protocol {
            PeerProtocol::H2c => {
                let (sender, connection) = http2::Builder::new(LocalExec)
                    .initial_stream_window_size(H2_STREAM_WINDOW)
                    .initial_connection_window_size(H2_CONNECTION_WINDOW)
                    .handshake(io)
                    .await
                    .map_err(broken)?;
                tokio::task::spawn_local(async move {
                    // Each stream that it breaks tells its own request.
                    let _ = connection.await;
                });
                self.slot(peer, |slot| slot.h2 = Some(sender.clone()));
                Channel::H2(sender)
            }
            PeerProtocol::Http1 | PeerProtocol::Https => {
                let (sender, connection) = http1::Builder::new()
                    .max_buf_size(READ_AHEAD)
                    .handshake(io)
                    .await
                    .map_err(broken)?;
                let task = tokio::task::spawn_local(async move {
                    // The request in flight is told by its own channel.
                    let _ = connection.with_upgrades().await;
                });
                Channel::H1(Some((sender, task.abort_handle())))
            }
        };
        Ok(Lease {
            pool: self.clone(),
            peer: Arc::clone(peer),
            channel,
            idle: DEFAULT_IDLE,
            reused: false,
        })
    }

    fn take(&self, peer: &Arc<Peer>) -> Option<Lease> {
        let channel = self.slot(peer, |slot| {
            if let Some(sender) = &slot.h2 {
                if !sender.is_closed() {
                    return Some(Channel::H2(sender.clone()));
                }
                slot.h2 = None;
            }
            let now = Instant::now();
            while let Some(idle) = slot.idle.pop() {
                if idle.until > now && idle.sender.is_ready() {
                    return Some(Channel::H1(Some((idle.sender, idle.task))));
                }
                idle.task.abort();
            }
            None
        })?;
        Some(Lease {
            pool: self.clone(),
            peer: Arc::clone(peer),
            channel,
            idle: DEFAULT_IDLE,
            reused: true,
        })
    }

    fn put(
        &self,
        peer: &Peer,
        sender: http1::SendRequest<RequestBody>,
        task: AbortHandle,
        idle: Duration,
    ) {
        self.slot(peer, |slot| {
            if slot.idle.len() < MAX_KEPT {
                slot.idle.push(Idle {
                    sender,
                    task,
                    until: Instant::now() + idle,
                });
            } else {
                task.abort();
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
            slot.idle.retain(|idle| {
                let keep = idle.until > now && !idle.sender.is_closed();
                if !keep {
                    idle.task.abort();
                }
                keep
            });
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

/// A connection in use. Dropped before [`finish`](Lease::finish), it closes the connection at once, so that the app
/// learns that nobody listens any more.
#[derive(Debug)]
pub struct Lease {
    pool: Pool,
    peer: Arc<Peer>,
    channel: Channel,
    idle: Duration,
    reused: bool,
}

#[derive(Debug)]
enum Channel {
    /// Its task is the connection; `None` once given back
    H1(Option<(http1::SendRequest<RequestBody>, AbortHandle)>),
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

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// With the request itself where not a byte of it was written.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        let result = match &mut self.channel {
            Channel::H1(Some((sender, _))) => sender.try_send_request(request).await,
            Channel::H2(sender) => sender.try_send_request(request).await,
            Channel::H1(None) => unreachable!("a lease that was given back is gone"),
        };
        match result {
            Ok(response) => {
                if let Some(seconds) = hop::keep_alive_timeout(response.headers()) {
                    self.idle = Duration::from_secs(seconds)
                        .saturating_sub(MARGIN)
                        .min(MAX_IDLE);
                }
                Ok(response)
            }
            Err(mut error) => Err(SendError {
                unsent: error.take_message(),
                error: error.into_error(),
            }),
        }
    }

    /// The response is complete: the connection may be used again.
    pub fn finish(mut self) {
        let Channel::H1(channel) = &mut self.channel else {
            return;
        };
        let Some((mut sender, task)) = channel.take() else {
            return;
        };
        let (pool, peer, idle) = (self.pool.clone(), Arc::clone(&self.peer), self.idle);
        if sender.is_closed() || idle.is_zero() {
            task.abort();
        } else if sender.is_ready() {
            pool.put(&peer, sender, task, idle);
        } else {
            // An early response: the request's body may still be on its way.
            tokio::task::spawn_local(async move {
                match tokio::time::timeout(idle, sender.ready()).await {
                    Ok(Ok(())) => pool.put(&peer, sender, task, idle),
                    _ => task.abort(),
                }
            });
        }
    }

    /// The connection has become a tunnel: it lives on by itself.
    pub fn detach(mut self) {
        if let Channel::H1(channel) = &mut self.channel {
            channel.take();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Channel::H1(Some((_, task))) = &self.channel {
            task.abort();
        }
    }
}
