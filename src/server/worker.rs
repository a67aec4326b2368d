//! A worker: one thread, one single-threaded runtime, its own listening sockets and its own pool.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::error;

use super::admission::Admission;
use super::balance::{Balance, Passed};
use super::clients::Clients;
use super::door::{Accepting, BATCH, Door, Turn};
use crate::bypass::Pipes;
use crate::config::{Config, Memory};
use crate::ctx::{self, Load};
use crate::observe::{Count, Counters, Footprint, LogBuffer, LogSink};
use crate::privilege::{self, Witness};
use crate::snapshot::Snapshot;

/// How often idle connections to peers are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// Connections whose buffers are given back to the kernel together: it takes the allocator up to some milliseconds to find them.
const CROWD: u64 = 64;
/// How long access records wait for company.
const LOG_DELAY: Duration = Duration::from_millis(50);
/// How often a draining worker looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// How often memory is looked at.
const WEIGHING: Duration = Duration::from_millis(250);
/// One pipe, which is two descriptors, for so many of these.
const PIPES: u64 = 64;
/// More would be small ones (`pipe-user-pages-soft`).
const MOST_PIPES: u64 = 1024;
/// Idle connections that one worker ends at a time where memory is short.
const LIGHTER: usize = 64;

/// What all workers share, none of it on the request path.
#[derive(Debug)]
pub struct Shared {
    /// The running configuration
    pub live: Arc<ArcSwap<Snapshot>>,
    /// Where access records go
    pub log: LogSink,
    load: Arc<Load>,
    admission: Arc<Admission>,
    balance: Arc<Balance>,
    pipes: Arc<Pipes>,
    footprint: Footprint,
}

impl Shared {
    /// Nothing connected yet. `descriptors` is how many may be open.
    pub fn new(
        live: Arc<ArcSwap<Snapshot>>,
        log: LogSink,
        descriptors: u64,
        footprint: Footprint,
    ) -> Self {
        let config = &live.load_full().config;
        let (workers, listeners) = (config.server.workers, config.listeners().count());
        let pipes = pipes(config, descriptors);
        Self {
            live,
            log,
            load: Arc::default(),
            admission: Arc::new(Admission::new(
                descriptors.saturating_sub(2 * pipes),
                workers,
                listeners,
            )),
            balance: Arc::new(Balance::new(workers)),
            pipes: Pipes::new(pipes as usize),
            footprint,
        }
    }

    /// Bytes of memory that there may be.
    fn memory(&self) -> Option<u64> {
        match self.live.load().config.limits.memory {
            Memory::Share(percent) => self.footprint.share(percent),
            Memory::Bytes(limit) => Some(limit),
            Memory::Any => None,
        }
    }

    /// Whether memory is to be looked at, if only since it was short before a reload.
    fn is_weighed(&self) -> bool {
        self.memory().is_some() || self.load.heavy().is_some()
    }
}

/// Pipes for bodies that pass from socket to socket, of so many descriptors. What was not asked for at start is not allowed
/// later either.
fn pipes(config: &Config, descriptors: u64) -> u64 {
    let most = (descriptors / PIPES).min(MOST_PIPES);
    if config.splices() { most } else { 0 }
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
    let (counters, passed) = shared.balance.worker(number);
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
                    let me = Me {
                        number,
                        passed,
                        counters: counting,
                    };
                    runtime.block_on(run(shared, receiver, me, witness));
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

/// What makes a worker this one.
struct Me {
    number: usize,
    /// Clients that others have accepted for it
    passed: mpsc::UnboundedReceiver<Passed>,
    counters: Arc<Counters>,
}

async fn run(
    shared: Arc<Shared>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    mut me: Me,
    witness: Witness,
) {
    let log = Rc::new(LogBuffer::new(shared.log.clone()));
    let worker = Rc::new(ctx::Worker::new(
        Arc::clone(&shared.live),
        Rc::clone(&log),
        me.counters,
        Arc::clone(&shared.load),
        Arc::clone(&shared.pipes),
        witness,
    ));
    let clients = Rc::new(Clients::default());
    let turn = Turn {
        balance: Arc::clone(&shared.balance),
        number: me.number,
    };
    let door = || Door::new(&worker, &clients, &shared.admission, turn.clone());
    // For those whom others have let in, whatever becomes of the listeners.
    let desk = Rc::new(door());
    let take = |passed: Passed| desk.take(passed);
    let mut accepting: HashMap<SocketAddr, Accepting> = HashMap::new();
    let mut sweep = tokio::time::interval(SWEEP);
    let mut drained = tokio::time::interval(DRAIN_LOOK);
    let mut draining = false;
    tokio::task::spawn_local(flush(Rc::clone(&worker)));
    tokio::task::spawn_local(keep_light(
        Arc::clone(&shared),
        Rc::clone(&worker),
        Rc::clone(&clients),
    ));
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Listen { addr, tls, socket }) => {
                    match Accepting::start(door(), socket, tls) {
                        Ok(started) => drop(accepting.insert(addr, started)),
                        Err(error) => error!(%addr, %error, "cannot listen"),
                    }
                }
                Some(Command::Close(addr)) => drop(accepting.remove(&addr)),
                Some(Command::Drain) => {
                    draining = true;
                    me.passed.close();
                    accepting.clear();
                    while let Ok(passed) = me.passed.try_recv() {
                        take(passed);
                    }
                    clients.drain();
                }
                None => break,
            },
            Some(passed) = me.passed.recv(), if !draining => take(passed),
            _ = sweep.tick() => worker.pool.sweep(),
            () = shared.admission.asked() => make_room(&shared, &clients),
            _ = drained.tick(), if draining => {}
        }
        if draining && clients.is_empty() && worker.tunnels() == 0 {
            break;
        }
    }
    log.flush();
}

/// What of those that hibernate has been given back.
struct GivenBack {
    /// Connections that had begun to hibernate by then
    of: u64,
    at: Instant,
    /// The same as of the last look
    seen: u64,
}

impl GivenBack {
    /// Whether a crowd's is still to be given back.
    fn owes(&self, worker: &ctx::Worker) -> bool {
        worker.counters.get(Count::Hibernated) - self.of >= CROWD
    }

    /// Gives back what a crowd had, when no more of them come, and every few seconds where more always do.
    fn look(&mut self, worker: &ctx::Worker) {
        let now = worker.counters.get(Count::Hibernated);
        let settled = std::mem::replace(&mut self.seen, now) == now;
        if self.owes(worker) && (settled || self.at.elapsed() >= SWEEP) {
            (self.of, self.at) = (now, Instant::now());
            privilege::give_memory_back();
        }
    }
}

/// Looks at memory every now and then, as long as anybody is there.
async fn keep_light(shared: Arc<Shared>, worker: Rc<ctx::Worker>, clients: Rc<Clients>) {
    let mut given_back = GivenBack {
        of: 0,
        at: Instant::now(),
        seen: 0,
    };
    loop {
        given_back.look(&worker);
        let nobody = clients.is_empty() && worker.tunnels() == 0;
        if nobody && shared.load.heavy().is_none() && !given_back.owes(&worker) {
            clients.came.notified().await;
        }
        if shared.is_weighed() {
            sleep(WEIGHING).await;
            weigh(&shared, &clients);
        } else {
            // A reload may set a limit.
            sleep(SWEEP).await;
        }
    }
}

/// Looks at how much memory there is, and where it is too much ends idle connections and gives back what they had.
fn weigh(shared: &Shared, clients: &Clients) {
    let limit = shared.memory();
    // What is not known is no reason to turn anybody away.
    let resident = || shared.footprint.resident().ok();
    let mut now = resident();
    let much = shared.load.heavy().is_some() || limit.is_some() && now >= limit;
    if much {
        privilege::give_memory_back();
        now = resident();
    }
    shared.load.weigh(now.unwrap_or(0), limit);
    if shared.load.heavy().is_none() {
        return;
    }
    for _ in 0..LIGHTER {
        if !clients.make_room() {
            break;
        }
    }
}

/// Ends idle connections for clients that wait at other workers' doors.
fn make_room(shared: &Shared, clients: &Clients) {
    let limit = shared.live.load().config.limits.connections;
    for _ in 0..BATCH {
        match shared.admission.full_for_all(limit) {
            Some(full) if clients.make_room() => shared.admission.made_room(full),
            _ => break,
        }
    }
}

/// Hands access records on, a moment after the first one came.
async fn flush(worker: Rc<ctx::Worker>) {
    loop {
        worker.unflushed.notified().await;
        sleep(LOG_DELAY).await;
        worker.log.flush();
    }
}
