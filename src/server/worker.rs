//! A worker: one thread, one single-threaded runtime, its own listening sockets and its own pool.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, warn};

use super::admission::{Admission, Full, Permit, Share};
use super::conn::{self, Newcomer};
use super::introduction;
use crate::config::Config;
use crate::ctx::{self, Endpoints, Load};
use crate::observe::{Count, Counters, LogBuffer, LogSink};
use crate::privilege::Witness;
use crate::snapshot::Snapshot;

/// How often idle connections to peers are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// How long access records wait for company.
const LOG_DELAY: Duration = Duration::from_millis(50);
/// How often a draining worker looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// How long accepting rests when descriptors or connections have run out.
const REST: Duration = Duration::from_millis(20);
/// Clients of one socket that are told at the same time that they have too many connections; others are just cut off.
const TURNING_AWAY: usize = 32;

/// What all workers share, none of it on the request path.
#[derive(Debug)]
pub struct Shared {
    /// The running configuration
    pub live: Arc<ArcSwap<Snapshot>>,
    /// Where access records go
    pub log: LogSink,
    load: Arc<Load>,
    admission: Arc<Admission>,
}

impl Shared {
    /// Nothing connected yet. `descriptors` is how many may be open.
    pub fn new(live: Arc<ArcSwap<Snapshot>>, log: LogSink, descriptors: u64) -> Self {
        let workers = live.load().config.server.workers;
        Self {
            live,
            log,
            load: Arc::default(),
            admission: Arc::new(Admission::new(descriptors, workers)),
        }
    }
}

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Accept on this socket, too
    Listen {
        /// Its address
        addr: SocketAddr,
        /// Whether TLS is spoken
        tls: bool,
        /// Listening already, non-blocking
        socket: std::net::TcpListener,
    },
    /// Accept on this address no more
    Close(SocketAddr),
    /// Accept no more, finish what is in flight, then end
    Drain,
}

/// A running worker. When its [`Command`] channel is dropped, it ends at once.
#[derive(Debug)]
pub struct WorkerHandle {
    /// Tells it what to do
    pub commands: mpsc::UnboundedSender<Command>,
    /// What it has counted so far: see [`Totals`](crate::observe::Totals)
    pub counters: Arc<Counters>,
    /// Joins when it has ended
    pub thread: JoinHandle<()>,
}

/// Starts the worker with this number. `witness` tells who runs an upstream; it has to be made before the sandbox.
///
/// # Errors
/// Where the thread or its runtime cannot be made.
pub fn start(number: usize, shared: Arc<Shared>, witness: Witness) -> io::Result<WorkerHandle> {
    let (commands, receiver) = mpsc::unbounded_channel();
    let runtime_error = io::Error::other;
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let counters = Arc::new(Counters::default());
    let counting = Arc::clone(&counters);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            match Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
            {
                Ok(runtime) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(run(shared, receiver, counting, witness));
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
    started.recv().map_err(runtime_error)??;
    Ok(WorkerHandle {
        commands,
        counters,
        thread,
    })
}

async fn run(
    shared: Arc<Shared>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    counters: Arc<Counters>,
    witness: Witness,
) {
    let log = Rc::new(LogBuffer::new(shared.log.clone()));
    let worker = Rc::new(ctx::Worker::new(
        Arc::clone(&shared.live),
        Rc::clone(&log),
        counters,
        Arc::clone(&shared.load),
        witness,
    ));
    let clients = Rc::new(Clients::default());
    let mut accepting: HashMap<SocketAddr, Accepting> = HashMap::new();
    let mut sweep = tokio::time::interval(SWEEP);
    let mut drained = tokio::time::interval(DRAIN_LOOK);
    let mut draining = false;
    tokio::task::spawn_local(flush(Rc::clone(&worker)));
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Listen { addr, tls, socket }) => {
                    let door = Door {
                        worker: Rc::clone(&worker),
                        clients: Rc::clone(&clients),
                        admission: Arc::clone(&shared.admission),
                        turning_away: Rc::default(),
                        tls,
                    };
                    match Accepting::start(door, socket) {
                        Ok(started) => drop(accepting.insert(addr, started)),
                        Err(error) => error!(%addr, %error, "cannot listen"),
                    }
                }
                Some(Command::Close(addr)) => drop(accepting.remove(&addr)),
                Some(Command::Drain) => {
                    draining = true;
                    accepting.clear();
                    clients.drain();
                }
                None => break,
            },
            _ = sweep.tick() => worker.pool.sweep(),
            _ = drained.tick(), if draining => {}
        }
        if draining && clients.is_empty() && worker.tunnels() == 0 {
            break;
        }
    }
    log.flush();
}

/// Hands access records on, a moment after the first one came.
async fn flush(worker: Rc<ctx::Worker>) {
    loop {
        worker.unflushed.notified().await;
        sleep(LOG_DELAY).await;
        worker.log.flush();
    }
}

/// A listening socket and the task that accepts on it. When it drops, whoever is in the kernel's queue is still let in:
/// closing the socket would reset them.
#[derive(Debug)]
struct Accepting {
    listener: Rc<TcpListener>,
    door: Rc<Door>,
    task: AbortHandle,
}

impl Accepting {
    fn start(door: Door, socket: std::net::TcpListener) -> io::Result<Self> {
        let listener = Rc::new(TcpListener::from_std(socket)?);
        let door = Rc::new(door);
        let task =
            tokio::task::spawn_local(accept(Rc::clone(&listener), Rc::clone(&door))).abort_handle();
        Ok(Self {
            listener,
            door,
            task,
        })
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.task.abort();
        while let Ok((stream, peer)) = queued(&self.listener) {
            self.door.admit(stream, peer);
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

/// Accepts until aborted. Whoever is not let in waits in the kernel's queue.
async fn accept(listener: Rc<TcpListener>, door: Rc<Door>) {
    let admission = &door.admission;
    loop {
        if let Some(full) = door.full() {
            door.tell(|| match full {
                Full::Connections(limit) => {
                    warn!(limit, "limits.connections reached: accepting rests");
                }
                Full::Descriptors(limit) => warn!(
                    limit,
                    "clients take half of the descriptors that RLIMIT_NOFILE allows: accepting rests"
                ),
            });
            while door.full().is_some() {
                sleep(REST).await;
            }
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                let scarce = admission.is_scarce(&stream);
                door.admit(stream, peer);
                if scarce {
                    door.tell(|| warn!("descriptors run out: accepting rests"));
                    while admission.stays_scarce(&*listener) {
                        sleep(REST).await;
                    }
                }
            }
            Err(error) if gone(&error) => {}
            Err(error) => {
                door.tell(|| warn!(%error, "cannot accept: accepting rests"));
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

/// What a connection needs that comes in through one socket.
#[derive(Debug)]
struct Door {
    worker: Rc<ctx::Worker>,
    clients: Rc<Clients>,
    admission: Arc<Admission>,
    /// Clients that are being told that they have too many connections
    turning_away: Rc<Cell<usize>>,
    tls: bool,
}

impl Door {
    fn full(&self) -> Option<Full> {
        let limit = self.worker.live.load().config.limits.connections;
        self.admission.full(limit)
    }

    /// That accepting rests, unless that is no news.
    fn tell(&self, say: impl FnOnce()) {
        self.worker.counters.add(Count::Rested);
        if self.admission.rests.begins() {
            say();
        }
    }

    fn admit(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Ok(local) = stream.local_addr() else {
            return;
        };
        let (introduced, per_ip) = {
            let config = &self.worker.live.load().config;
            let introduced = config.server.introduces(peer.ip());
            (introduced, per_ip(config, peer))
        };
        let newcomer = Newcomer {
            stream,
            tls: self.tls,
            endpoints: Endpoints {
                peer,
                local,
                unnamed: false,
            },
            since: Instant::now(),
        };
        let Some(permit) = Permit::take(&self.admission, peer.ip(), per_ip) else {
            return self.turn_away(newcomer);
        };
        // Without it a response that leaves in two writes waits for the client's delayed acknowledgement.
        let _ = newcomer.stream.set_nodelay(true);
        self.worker.counters.add(Count::Accepted);
        let client = self.clients.add(&self.worker, permit);
        if introduced {
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
        if self.tls || self.turning_away.get() >= TURNING_AWAY {
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

/// The connections of one worker.
#[derive(Debug, Default)]
struct Clients {
    draining: Rc<Cell<bool>>,
    list: RefCell<Vec<Weak<Client>>>,
    live: Rc<Cell<usize>>,
}

impl Clients {
    fn add(&self, worker: &ctx::Worker, permit: Permit) -> Rc<Client> {
        let mut list = self.list.borrow_mut();
        if list.len() == list.capacity() {
            list.retain(|client| client.strong_count() > 0);
        }
        self.live.set(self.live.get() + 1);
        let client = Rc::new(Client {
            draining: Rc::clone(&self.draining),
            waker: RefCell::new(None),
            live: Rc::clone(&self.live),
            counters: Arc::clone(&worker.counters),
            _permit: permit,
        });
        list.push(Rc::downgrade(&client));
        client
    }

    fn is_empty(&self) -> bool {
        self.live.get() == 0
    }

    fn drain(&self) {
        self.draining.set(true);
        for client in self.list.borrow().iter().filter_map(Weak::upgrade) {
            if let Some(waker) = client.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}

/// A client connection as its worker knows it; it counts for as long as this lives.
#[derive(Debug)]
pub(super) struct Client {
    draining: Rc<Cell<bool>>,
    waker: RefCell<Option<Waker>>,
    live: Rc<Cell<usize>>,
    counters: Arc<Counters>,
    _permit: Permit,
}

impl Client {
    /// Whether the worker drains; if not, the task of `cx` is woken when it begins to. Two loads when nothing changed.
    pub(super) fn draining(&self, cx: &Context<'_>) -> bool {
        if self.draining.get() {
            return true;
        }
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        false
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.live.set(self.live.get() - 1);
        self.counters.add(Count::Ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
