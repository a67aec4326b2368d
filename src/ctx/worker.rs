//! What a worker's connections share: nothing of it is shared with other workers but the snapshot.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::Load;
use crate::observe::{Counters, IdSource, LogBuffer};
use crate::privilege::SockDiag;
use crate::snapshot::Snapshot;
use crate::upstream::Pool;

/// One worker.
#[derive(Debug)]
pub struct Worker {
    /// The running configuration, swapped whole by a reload
    pub live: Arc<ArcSwap<Snapshot>>,
    /// Connections to peers
    pub pool: Pool,
    /// Access records on their way to the writer
    pub log: Rc<LogBuffer>,
    /// Request ids
    pub ids: IdSource,
    /// What happens here, counted
    pub counters: Arc<Counters>,
    /// What all workers are busy with
    pub load: Arc<Load>,
    /// Told when the first access record comes after a flush
    pub unflushed: Notify,
    turn: Cell<usize>,
    tunnels: Rc<Cell<usize>>,
}

impl Worker {
    /// A worker with an empty pool. `sockets` tells the guard who runs an upstream; `None` where nobody can.
    pub fn new(
        live: Arc<ArcSwap<Snapshot>>,
        log: Rc<LogBuffer>,
        counters: Arc<Counters>,
        load: Arc<Load>,
        sockets: Option<SockDiag>,
    ) -> Self {
        Self {
            live,
            pool: Pool::new(sockets),
            log,
            ids: IdSource::new(),
            counters,
            load,
            unflushed: Notify::new(),
            turn: Cell::new(0),
            tunnels: Rc::default(),
        }
    }

    /// The configuration of this moment. A request keeps the one that it began with.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.live.load_full()
    }

    /// The next turn of the round robin.
    pub fn turn(&self) -> usize {
        self.turn.replace(self.turn.get().wrapping_add(1))
    }

    /// Counts a tunnel for as long as what it returns lives.
    pub fn tunnel(&self) -> TunnelGuard {
        self.tunnels.set(self.tunnels.get() + 1);
        TunnelGuard(Rc::clone(&self.tunnels))
    }

    /// Open tunnels.
    pub fn tunnels(&self) -> usize {
        self.tunnels.get()
    }
}

/// Counts one tunnel.
#[derive(Debug)]
pub struct TunnelGuard(Rc<Cell<usize>>);

impl Drop for TunnelGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
