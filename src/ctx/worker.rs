//! What a worker's connections share: nothing of it is shared with other workers but the snapshot.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::Load;
use crate::bypass::Pipes;
use crate::observe::{Counters, IdSource, LogBuffer};
use crate::privilege::Witness;
use crate::snapshot::Snapshot;
use crate::upstream::Pool;

/// What is not urgent is done at multiples of this, for all connections at the same time.
const TICK: Duration = Duration::from_millis(100);

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
    /// For bodies that pass from socket to socket
    pub pipes: Arc<Pipes>,
    /// Told when the first access record comes after a flush
    pub unflushed: Notify,
    began: Instant,
    turn: Cell<usize>,
    tunnels: Rc<Cell<usize>>,
}

impl Worker {
    /// A worker with an empty pool. `witness` tells the guard who runs an upstream.
    pub fn new(
        live: Arc<ArcSwap<Snapshot>>,
        log: Rc<LogBuffer>,
        counters: Arc<Counters>,
        load: Arc<Load>,
        pipes: Arc<Pipes>,
        witness: Witness,
    ) -> Self {
        Self {
            live,
            pool: Pool::new(witness),
            log,
            ids: IdSource::new(),
            counters,
            load,
            pipes,
            unflushed: Notify::new(),
            began: Instant::now(),
            turn: Cell::new(0),
            tunnels: Rc::default(),
        }
    }

    /// The configuration of this moment. A request keeps the one that it began with.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.live.load_full()
    }

    /// `wait`, or up to 100 ms longer, for timers that need not be exact: those of many connections end at the same time, since
    /// to wake up for each costs far more than what is done then.
    pub fn roughly(&self, wait: Duration) -> Duration {
        to_tick(self.began.elapsed(), wait)
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

/// What it takes from `now` to the first tick that is no earlier than `wait` from now.
fn to_tick(now: Duration, wait: Duration) -> Duration {
    let ticks = (now + wait).as_nanos().div_ceil(TICK.as_nanos());
    // They fit for 13 years.
    TICK * u32::try_from(ticks).unwrap_or(u32::MAX) - now
}

/// Counts one tunnel.
#[derive(Debug)]
pub struct TunnelGuard(Rc<Cell<usize>>);

impl Drop for TunnelGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_urgent_waits_for_a_tick() {
        for (now, wait, tick) in [
            (0, 250, 300),
            (70, 250, 330),
            (99, 1, 1),
            (101, 0, 99),
            (100, 0, 0),
        ] {
            let waits = to_tick(Duration::from_millis(now), Duration::from_millis(wait));
            assert_eq!(waits, Duration::from_millis(tick), "{now} {wait}");
        }
    }
}
