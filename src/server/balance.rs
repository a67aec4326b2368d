//! Which worker has a client: the one at whose socket it came in, unless another has much less to do.
//!
//! The kernel spreads connections over the workers' sockets by a hash of their addresses. That is even for thousands of
//! them; of a few that live long, which is what a load balancer or an HTTP/2 client brings, all may be one worker's.

use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use super::admission::Permit;
use crate::ctx::Endpoints;
use crate::observe::{Count, Counters};

/// Connections that one worker may have more than another, at least. One is what cannot be helped.
const FEW: u64 = 2;
/// It may have a quarter of its own more, too: what comes and goes is uneven all the time, and a client that changes hands
/// costs some microseconds.
const SHARE: u64 = 4;

/// All workers, as each sees the others.
#[derive(Debug)]
pub(super) struct Balance {
    desks: Vec<Desk>,
}

/// A worker, as the others see it.
#[derive(Debug)]
struct Desk {
    counters: Arc<Counters>,
    tray: UnboundedSender<Passed>,
    /// Clients in the tray: one that takes its time over them is not to be given all others as well
    waiting: AtomicU64,
    /// Until the worker starts
    taken: Mutex<Option<UnboundedReceiver<Passed>>>,
}

/// A client that another worker has accepted, with the place that it has.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) permit: Permit,
    /// When it was accepted
    pub(super) since: Instant,
    /// Non-blocking
    pub(super) socket: TcpStream,
    pub(super) endpoints: Endpoints,
    /// Whether TLS is spoken
    pub(super) tls: bool,
}

impl Balance {
    /// So many workers, none of which has anybody.
    pub(super) fn new(workers: usize) -> Self {
        let desk = || {
            let (tray, receiver) = unbounded_channel();
            Desk {
                counters: Arc::default(),
                tray,
                waiting: AtomicU64::new(0),
                taken: Mutex::new(Some(receiver)),
            }
        };
        Self {
            desks: std::iter::repeat_with(desk).take(workers).collect(),
        }
    }

    /// What the worker with this number counts, and where others pass clients on to it. Each is started once.
    pub(super) fn worker(&self, number: usize) -> (Arc<Counters>, UnboundedReceiver<Passed>) {
        let desk = &self.desks[number];
        let mut taken = desk.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = taken.take().expect("each worker is started once");
        (Arc::clone(&desk.counters), receiver)
    }

    /// The worker that is to have the next client of `number`'s; `None` for that one itself.
    pub(super) fn better(&self, number: usize) -> Option<usize> {
        let mine = self.desks[number].clients();
        if mine < FEW {
            return None;
        }
        let others = self.desks.iter().enumerate();
        let (best, least) = others
            .map(|(number, desk)| (number, desk.clients()))
            .min_by_key(|(_, clients)| *clients)?;
        (least + FEW.max(mine / SHARE) <= mine).then_some(best)
    }

    /// Passes a client on to the worker with this number.
    ///
    /// # Errors
    /// The client, where that worker takes nobody any more.
    pub(super) fn pass(&self, number: usize, client: Passed) -> Result<(), Passed> {
        let desk = &self.desks[number];
        // Before it is taken, which may be at once.
        desk.waiting.fetch_add(1, Relaxed);
        desk.tray.send(client).map_err(|back| {
            desk.waiting.fetch_sub(1, Relaxed);
            back.0
        })
    }

    /// The worker with this number has taken one out of its tray.
    pub(super) fn taken(&self, number: usize) {
        self.desks[number].waiting.fetch_sub(1, Relaxed);
    }
}

impl Desk {
    /// Connections that it has, and will have in a moment.
    fn clients(&self) -> u64 {
        // In this order: one that ends in between is not less than nobody.
        let ended = self.counters.get(Count::Ended);
        let has = self.counters.get(Count::Accepted).saturating_sub(ended);
        has + self.waiting.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::admission::Admission;
    use super::*;

    fn balance(clients: &[u64]) -> Balance {
        let balance = Balance::new(clients.len());
        for (desk, clients) in balance.desks.iter().zip(clients) {
            for _ in 0..clients + 3 {
                desk.counters.add(Count::Accepted);
            }
            for _ in 0..3 {
                desk.counters.add(Count::Ended);
            }
        }
        balance
    }

    #[test]
    fn whoever_has_much_less_has_the_next_one() {
        for (clients, better) in [
            (&[0, 0][..], None),
            (&[1, 0], None),
            (&[2, 0], Some(1)),
            (&[3, 2], None),
            (&[3, 1], Some(1)),
            (&[40, 31], None),
            (&[40, 30], Some(1)),
            (&[9, 4, 2, 3], Some(2)),
            (&[2, 9], None),
            (&[500], None),
        ] {
            assert_eq!(balance(clients).better(0), better, "{clients:?}");
        }
    }

    #[test]
    fn a_client_comes_back_from_a_worker_that_takes_nobody() {
        let balance = Balance::new(2);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        let admission = Arc::new(Admission::new(4096, 2, 1));
        let client = || Passed {
            permit: Permit::take(&admission, peer.ip(), None).unwrap(),
            since: Instant::now(),
            socket: TcpStream::connect(peer).unwrap(),
            endpoints: Endpoints {
                peer,
                port: peer.port(),
                introduced: false,
                unnamed: false,
            },
            tls: false,
        };
        let (_, mut receiver) = balance.worker(1);
        assert!(balance.pass(1, client()).is_ok());
        assert_eq!(balance.desks[1].clients(), 1, "it waits there");
        receiver.close();
        assert!(balance.pass(1, client()).is_err());
        assert!(
            receiver.try_recv().is_ok(),
            "what was passed before is there"
        );
        balance.taken(1);
        assert_eq!(balance.desks[1].clients(), 0);
        drop(receiver);
        assert!(balance.pass(1, client()).is_err());
    }
}
