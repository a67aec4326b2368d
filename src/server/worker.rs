//! A worker: one thread, one single-threaded runtime, its own listening sockets and its own pool.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{debug, error, warn};

use super::conn;
use crate::ctx;
use crate::observe::{IdSource, LogBuffer, LogSink};
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

/// What all workers share, none of it on the request path.
#[derive(Debug)]
pub struct Shared {
    /// The running configuration
    pub live: Arc<ArcSwap<Snapshot>>,
    /// Where access records go
    pub log: LogSink,
    /// Client connections in all
    connections: AtomicUsize,
    /// Client connections by address; only counted when there is a limit
    by_ip: Mutex<HashMap<IpAddr, usize>>,
}

impl Shared {
    /// Nothing connected yet.
    pub fn new(live: Arc<ArcSwap<Snapshot>>, log: LogSink) -> Self {
        Self {
            live,
            log,
            connections: AtomicUsize::new(0),
            by_ip: Mutex::default(),
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
    let thread = std::thread::Builder::new()
        .name(format!("worker-{number}"))
        .spawn(move || {
            match Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
            {
                Ok(runtime) => {
                    let _ = ready.send(Ok(()));
                    runtime.block_on(run(shared, receiver, witness));
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
    started.recv().map_err(runtime_error)??;
    Ok(WorkerHandle { commands, thread })
}

async fn run(
    shared: Arc<Shared>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    witness: Witness,
) {
    let log = Rc::new(LogBuffer::new(shared.log.clone()));
    let worker = Rc::new(ctx::Worker::new(
        Arc::clone(&shared.live),
        Rc::clone(&log),
        IdSource::new(),
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
                    let door = Door { worker: Rc::clone(&worker), clients: Rc::clone(&clients), shared: Arc::clone(&shared), tls };
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
        tokio::time::sleep(LOG_DELAY).await;
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
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok((stream, peer))) = self.listener.poll_accept(&mut cx) {
            self.door.admit(stream, peer, None);
        }
    }
}

/// Accepts until aborted.
async fn accept(listener: Rc<TcpListener>, door: Rc<Door>) {
    let shared = &door.shared;
    loop {
        let (limit, per_ip) = {
            let limits = &shared.live.load().config.limits;
            (limits.connections, limits.connections_per_ip)
        };
        if limit.is_some_and(|limit| shared.connections.load(Ordering::Relaxed) >= limit) {
            warn!(limit, "limits.connections reached: accepting rests");
            while limit.is_some_and(|limit| shared.connections.load(Ordering::Relaxed) >= limit) {
                tokio::time::sleep(REST).await;
            }
        }
        match listener.accept().await {
            Ok((stream, peer)) => door.admit(stream, peer, per_ip),
            Err(error) if gone(&error) => {}
            Err(error) => {
                warn!(%error, "cannot accept: accepting rests");
                tokio::time::sleep(REST).await;
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
    shared: Arc<Shared>,
    tls: bool,
}

impl Door {
    fn admit(&self, stream: TcpStream, peer: SocketAddr, per_ip: Option<usize>) {
        let Some(permit) = Permit::take(&self.shared, peer.ip().to_canonical(), per_ip) else {
            debug!(%peer, "connection refused: limits.connections_per_ip reached");
            return;
        };
        let Ok(local) = stream.local_addr() else {
            return;
        };
        // Without it a response that leaves in two writes waits for the client's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        let client = self.clients.add(peer, local, permit);
        tokio::task::spawn_local(conn::serve(
            Rc::clone(&self.worker),
            client,
            stream,
            self.tls,
        ));
    }
}

/// One connection's share of the limits.
#[derive(Debug)]
struct Permit {
    shared: Arc<Shared>,
    ip: Option<IpAddr>,
}

impl Permit {
    fn take(shared: &Arc<Shared>, ip: IpAddr, per_ip: Option<usize>) -> Option<Self> {
        if let Some(limit) = per_ip {
            let mut by_ip = shared.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
            let count = by_ip.entry(ip).or_default();
            if *count >= limit {
                return None;
            }
            *count += 1;
        }
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            shared: Arc::clone(shared),
            ip: per_ip.map(|_| ip),
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(ip) = self.ip {
            let mut by_ip = self
                .shared
                .by_ip
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = by_ip.get_mut(&ip) {
                *count -= 1;
                if *count == 0 {
                    by_ip.remove(&ip);
                }
            }
        }
    }
}

/// The connections of one worker.
#[derive(Debug, Default)]
struct Clients {
    draining: Rc<Cell<bool>>,
    list: RefCell<Vec<Weak<Client>>>,
    live: Rc<Cell<usize>>,
}

impl Clients {
    fn add(&self, peer: SocketAddr, local: SocketAddr, permit: Permit) -> Rc<Client> {
        let mut list = self.list.borrow_mut();
        if list.len() == list.capacity() {
            list.retain(|client| client.strong_count() > 0);
        }
        self.live.set(self.live.get() + 1);
        let client = Rc::new(Client {
            peer,
            local,
            draining: Rc::clone(&self.draining),
            waker: RefCell::new(None),
            live: Rc::clone(&self.live),
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
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    draining: Rc<Cell<bool>>,
    waker: RefCell<Option<Waker>>,
    live: Rc<Cell<usize>>,
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
    }
}
