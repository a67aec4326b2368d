//! Where clients come in: a listening socket, and whoever waits at it.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::admission::{Admission, Full, Permit, Share};
use super::balance::{Balance, Passed};
use super::clients::{Client, Clients};
use super::conn::{self, Newcomer};
use super::introduction;
use crate::config::Config;
use crate::ctx::{self, Endpoints};
use crate::observe::Count;

/// How long accepting rests when descriptors or connections have run out.
const REST: Duration = Duration::from_millis(20);
/// Connections that are ended for others before those have their turn.
pub(super) const BATCH: usize = 16;
/// Clients of one socket that are told at the same time that they have too many connections; others are just cut off.
const TURNING_AWAY: usize = 32;

/// A listening socket and the task that accepts on it. When it drops, whoever is in the kernel's queue is still let in:
/// closing the socket would reset them.
#[derive(Debug)]
pub(super) struct Accepting {
    listener: Rc<TcpListener>,
    door: Rc<Door>,
    entrance: Entrance,
    task: AbortHandle,
}

/// Which of the listening sockets a client has come in through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entrance {
    /// Whether TLS is spoken there
    pub(super) tls: bool,
    /// The port
    pub(super) port: u16,
}

impl Entrance {
    /// How many are let in before those who are here get their turn: the runtime looks at sockets only when nothing
    /// else is left to do, so that a crowd at the door would be served its first bytes, and its handshakes, before
    /// anybody else's request.
    fn most_in_a_row(self) -> usize {
        if self.tls { 1 } else { 4 }
    }
}

impl Accepting {
    pub(super) fn start(door: Door, socket: std::net::TcpListener, tls: bool) -> io::Result<Self> {
        let port = socket.local_addr()?.port();
        let entrance = Entrance { tls, port };
        let (listener, door) = (Rc::new(listening(socket)?), Rc::new(door));
        let accept = accept(Rc::clone(&listener), Rc::clone(&door), entrance);
        Ok(Self {
            listener,
            door,
            entrance,
            task: tokio::task::spawn_local(accept).abort_handle(),
        })
    }
}

/// A socket that hands out connections as they are to be. What each inherits costs it no system call.
fn listening(socket: std::net::TcpListener) -> io::Result<TcpListener> {
    // Without it a response that leaves in two writes waits for the client's delayed acknowledgement.
    SockRef::from(&socket).set_tcp_nodelay(true)?;
    TcpListener::from_std(socket)
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.task.abort();
        self.door.let_in(self.entrance);
        while let Ok((stream, peer)) = queued(&self.listener) {
            self.door.admit(stream, peer, self.entrance);
        }
    }
}

/// Whoever is next in the kernel's queue. The runtime would know only of those that it has been told of, and let in no
/// more than a task may do in one turn.
fn queued(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (socket, peer) = SockRef::from(listener).accept()?;
    socket.set_nonblocking(true)?;
    let peer = peer.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((TcpStream::from_std(socket.into())?, peer))
}

/// Accepts until aborted. Where there is no place, the next one waits at the door, and all others in the kernel's queue.
async fn accept(listener: Rc<TcpListener>, door: Rc<Door>, entrance: Entrance) {
    let admission = &door.admission;
    let mut in_a_row = 0;
    loop {
        if in_a_row == entrance.most_in_a_row() {
            in_a_row = 0;
            tokio::task::yield_now().await;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                in_a_row += 1;
                let scarce = admission.is_scarce(&stream);
                door.waiting.replace(Some((stream, peer)));
                door.find_room().await;
                door.slow_down().await;
                door.let_in(entrance);
                if scarce {
                    door.tell(|| warn!("descriptors run out: accepting rests"));
                    while admission.stays_scarce(&*listener) {
                        door.end_idle();
                        sleep(REST).await;
                    }
                }
            }
            Err(error) if gone(&error) => {}
            Err(error) => {
                door.tell(|| warn!(%error, "cannot accept: accepting rests"));
                door.end_idle();
                sleep(REST).await;
            }
        }
    }
}

/// A client that left before it was accepted is nobody's trouble.
fn gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// Which of the workers this is, among all.
#[derive(Debug, Clone)]
pub(super) struct Turn {
    pub(super) balance: Arc<Balance>,
    pub(super) number: usize,
}

/// What a connection needs that comes in through one socket.
#[derive(Debug)]
pub(super) struct Door {
    worker: Rc<ctx::Worker>,
    clients: Rc<Clients>,
    admission: Arc<Admission>,
    turn: Turn,
    /// Who is accepted and has no place yet
    waiting: RefCell<Option<(TcpStream, SocketAddr)>>,
    /// Clients that are being told that they have too many connections
    turning_away: Rc<Cell<usize>>,
}

impl Door {
    pub(super) fn new(
        worker: &Rc<ctx::Worker>,
        clients: &Rc<Clients>,
        admission: &Arc<Admission>,
        turn: Turn,
    ) -> Self {
        Self {
            worker: Rc::clone(worker),
            clients: Rc::clone(clients),
            admission: Arc::clone(admission),
            turn,
            waiting: RefCell::default(),
            turning_away: Rc::default(),
        }
    }

    fn full(&self) -> Option<Full> {
        let limit = self.worker.live.load().config.limits.connections;
        self.admission.full(limit)
    }

    /// Returns when there is a place, which may be one that an idle connection gives up: of this worker if it has one, else
    /// of another.
    async fn find_room(&self) {
        let (mut made, mut rests) = (0, false);
        while let Some(full) = self.full() {
            if made < BATCH && self.clients.make_room() {
                made += 1;
                self.admission.made_room(full);
                continue;
            }
            if made == 0 && !rests {
                rests = true;
                self.tell(|| warn!("{full}: accepting rests"));
            }
            made = 0;
            let waiting = self.admission.wait();
            let _ = timeout(REST, waiting.ask()).await;
        }
    }

    /// Takes a moment over each client where there is much too little memory. Not more: who asks whether all is well is one of
    /// them.
    async fn slow_down(&self) {
        if let Some(limit) = self.worker.load.overflows() {
            self.tell(|| warn!("limits.memory ({limit} bytes) passed by an eighth: accepting rests after each client"));
            sleep(REST).await;
        }
    }

    /// Ends a few connections where it is not places that are short.
    fn end_idle(&self) {
        for _ in 0..BATCH {
            if !self.clients.make_room() {
                break;
            }
        }
    }

    /// That accepting rests, unless that is no news.
    fn tell(&self, say: impl FnOnce()) {
        self.worker.counters.add(Count::Rested);
        if self.admission.rests.begins() {
            say();
        }
    }

    /// Whoever waits.
    fn let_in(self: &Rc<Self>, entrance: Entrance) {
        let waiting = self.waiting.take();
        if let Some((stream, peer)) = waiting {
            self.admit(stream, peer, entrance);
        }
    }

    fn admit(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr, entrance: Entrance) {
        let per_ip = per_ip(&self.worker.live.load().config, peer);
        let newcomer = self.newcomer(stream, peer, entrance);
        let Some(permit) = Permit::take(&self.admission, peer.ip(), per_ip) else {
            return self.turn_away(newcomer);
        };
        let Turn { balance, number } = &self.turn;
        match balance.better(*number) {
            Some(better) => self.pass_on(better, newcomer, permit),
            None => self.serve(newcomer, permit),
        }
    }

    /// Gives a client to the worker that has much less to do. It has its place already, so that no limit is passed by those
    /// who are on their way.
    fn pass_on(self: &Rc<Self>, better: usize, newcomer: Newcomer, permit: Permit) {
        let Newcomer {
            stream,
            tls,
            endpoints,
            since,
        } = newcomer;
        // A socket that this runtime cannot let go of is of no use to anybody.
        let Ok(socket) = stream.into_std() else {
            return;
        };
        let client = Passed {
            permit,
            since,
            socket,
            endpoints,
            tls,
        };
        match self.turn.balance.pass(better, client) {
            Ok(()) => self.worker.counters.add(Count::PassedOn),
            Err(back) => self.seat(back),
        }
    }

    /// Serves whom another worker has passed on.
    pub(super) fn take(self: &Rc<Self>, passed: Passed) {
        self.turn.balance.taken(self.turn.number);
        self.seat(passed);
    }

    fn seat(self: &Rc<Self>, passed: Passed) {
        let Passed {
            permit,
            since,
            socket,
            endpoints,
            tls,
        } = passed;
        if let Ok(stream) = TcpStream::from_std(socket) {
            let newcomer = Newcomer {
                stream,
                tls,
                endpoints,
                since,
            };
            self.serve(newcomer, permit);
        }
    }

    fn newcomer(&self, stream: TcpStream, peer: SocketAddr, entrance: Entrance) -> Newcomer {
        let introduced = self.worker.live.load().config.server.introduces(peer.ip());
        Newcomer {
            stream,
            tls: entrance.tls,
            endpoints: Endpoints {
                peer,
                port: entrance.port,
                introduced,
                unnamed: false,
            },
            since: Instant::now(),
        }
    }

    fn serve(self: &Rc<Self>, newcomer: Newcomer, permit: Permit) {
        self.worker.counters.add(Count::Accepted);
        let client = self.clients.add(&self.worker, permit);
        if newcomer.endpoints.introduced {
            tokio::task::spawn_local(Rc::clone(self).introduce(client, newcomer));
        } else {
            tokio::task::spawn_local(conn::serve(Rc::clone(&self.worker), client, newcomer));
        }
    }

    /// Serves whoever a trusted proxy says that the connection is from.
    async fn introduce(self: Rc<Self>, client: Rc<Client>, mut newcomer: Newcomer) {
        let heard = introduction::hear(&self.worker, &client, &mut newcomer).await;
        let Some(header) = heard else { return };
        let mut share = None;
        if let Some(peer) = header.client {
            newcomer.endpoints.peer = peer;
            let per_ip = per_ip(&self.worker.live.load().config, peer);
            if let Some(limit) = per_ip {
                share = Share::take(&self.admission, peer.ip(), limit);
                if share.is_none() {
                    return self.turn_away(newcomer);
                }
            }
        } else {
            newcomer.endpoints.unnamed = true;
        }
        conn::serve(Rc::clone(&self.worker), client, newcomer).await;
        drop(share);
    }

    /// A few are told why; those of TLS would have to be shaken hands with first.
    fn turn_away(&self, newcomer: Newcomer) {
        let peer = newcomer.endpoints.peer;
        debug!(%peer, "connection refused: limits.connections_per_ip reached");
        if newcomer.tls || self.turning_away.get() >= TURNING_AWAY {
            return self.worker.counters.add(Count::RefusedConnection);
        }
        let (worker, turning_away) = (Rc::clone(&self.worker), Rc::clone(&self.turning_away));
        turning_away.set(turning_away.get() + 1);
        tokio::task::spawn_local(async move {
            conn::turn_away(worker, newcomer).await;
            turning_away.set(turning_away.get() - 1);
        });
    }
}

/// How many connections `peer` may have; `None` for no limit. A proxy in front of this one brings everybody's.
fn per_ip(config: &Config, peer: SocketAddr) -> Option<usize> {
    let limit = config.limits.connections_per_ip;
    limit.filter(|_| !config.server.trusts(peer.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_client_is_sent_waits_for_nothing() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = listening(socket).unwrap();
        let connect = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connect, listener.accept());
        assert!(!client.unwrap().nodelay().unwrap());
        assert!(accepted.unwrap().0.nodelay().unwrap());
    }

    #[tokio::test]
    async fn all_of_the_kernels_queue_is_let_in() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        // More than a task may do in one turn, and no turn between them.
        for _ in 0..10 {
            let connect = |_| std::net::TcpStream::connect(addr).unwrap();
            let clients: Vec<_> = (0..20).map(connect).collect();
            for client in &clients {
                let (_, peer) = queued(&listener).unwrap();
                assert_eq!(peer, client.local_addr().unwrap());
            }
        }
        let none = queued(&listener).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
    }
}
