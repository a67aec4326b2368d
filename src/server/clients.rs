//! The client connections of one worker, and which of them others can have the places of.

use std::cell::{Cell, OnceCell, RefCell};
use std::cmp::Reverse;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::admission::Permit;
use crate::ctx::{self, Conn};
use crate::observe::{Count, Counters};

/// A client that has not asked anything for so long since it came can be done without: its first packet may have been lost
/// and sent again by then.
const SILENT: Duration = Duration::from_secs(3);
/// Connections that one look goes through: more of them are looked at by turns.
const LOOK: usize = 16 * 1024;
/// Connections that one look finds: the next ones that are needed are known without another look.
const FOUND: usize = 64;
/// How long nobody looks again after a look that found nothing, for each connection that it went through.
const PAUSE: Duration = Duration::from_micros(10);

/// The connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Clients {
    draining: Cell<bool>,
    list: RefCell<Vec<Weak<Client>>>,
    live: Rc<Cell<usize>>,
    spare: RefCell<Spare>,
    /// Told when one comes
    pub(super) came: Notify,
}

/// What the last look found.
#[derive(Debug, Default)]
struct Spare {
    /// The one that can best be done without comes last
    found: Vec<Weak<Client>>,
    /// When that was
    looked: Option<Instant>,
    /// No look before this, where that found nothing
    again: Option<Instant>,
    /// Where the next look begins
    at: usize,
}

impl Clients {
    pub(super) fn add(&self, worker: &ctx::Worker, permit: Permit) -> Rc<Client> {
        let mut list = self.list.borrow_mut();
        if list.len() == list.capacity() {
            list.retain(|client| client.strong_count() > 0);
        }
        self.live.set(self.live.get() + 1);
        let told = if self.draining.get() {
            Told::Drain
        } else {
            Told::Nothing
        };
        let client = Rc::new(Client {
            seat: Arc::new(Seat {
                permit,
                counters: Arc::clone(&worker.counters),
            }),
            since: Instant::now(),
            heard: Cell::new(false),
            conn: OnceCell::new(),
            told: Cell::new(told),
            stayed: Cell::new(false),
            waker: RefCell::new(None),
            live: Rc::clone(&self.live),
        });
        list.push(Rc::downgrade(&client));
        self.came.notify_one();
        client
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.get() == 0
    }

    /// Each may finish what it is at, and then ends.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        for client in self.list.borrow().iter().filter_map(Weak::upgrade) {
            client.tell(Told::Drain);
        }
    }

    /// Ends the connection that has been idle longest and gives its place up at once. Where none is idle, it is one whose
    /// client has been silent since it came. Whether there was one.
    ///
    /// Never one that is within a request, nor one whose first request may still be on its way.
    pub(super) fn make_room(&self) -> bool {
        let mut spare = self.spare.borrow_mut();
        let next = spare.next().or_else(|| {
            spare.look(&self.list.borrow());
            spare.next()
        });
        let Some(client) = next else { return false };
        let made = client.make_room();
        if !made {
            spare.found.push(Rc::downgrade(&client));
        }
        made
    }
}

impl Spare {
    /// Of those that were found, the one that can best be done without and has asked nothing since.
    fn next(&mut self) -> Option<Rc<Client>> {
        let since = self.looked?.elapsed();
        while let Some(client) = self.found.pop() {
            let client = client.upgrade();
            let still = |client: &Rc<Client>| {
                let quiet = client.quiet();
                // Times are told in whole milliseconds.
                quiet.is_some_and(|(_, quiet)| quiet + Duration::from_millis(1) >= since)
            };
            if let Some(client) = client.filter(still) {
                return Some(client);
            }
        }
        None
    }

    /// Goes through connections, unless it has done so a moment ago and found nothing.
    fn look(&mut self, list: &[Weak<Client>]) {
        let now = Instant::now();
        if self.again.is_some_and(|again| now < again) {
            return;
        }
        if self.at >= list.len() {
            self.at = 0;
        }
        let count = list.len().min(LOOK);
        let around = list[self.at..].iter().chain(&list[..self.at]);
        let quiet = around.take(count).filter_map(Weak::upgrade);
        let mut quiet: Vec<_> = quiet
            .filter_map(|client| Some((client.quiet()?, client)))
            .collect();
        // Idle ones before silent ones; of each kind, the longest first.
        quiet.sort_unstable_by_key(|((kind, quiet), _)| (*kind, Reverse(*quiet)));
        let best = quiet.first().map(|((kind, _), _)| *kind);
        let found = quiet
            .iter()
            .take_while(|((kind, _), _)| Some(*kind) == best);
        let found = found.take(FOUND).map(|(_, client)| Rc::downgrade(client));
        self.found = found.collect();
        self.found.reverse();
        self.at += count;
        self.looked = Some(now);
        let pause = PAUSE * u32::try_from(count).unwrap_or(u32::MAX);
        self.again = self.found.is_empty().then(|| now + pause);
    }
}

/// Why a connection can be done without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// It is between two requests
    Idle,
    /// It has asked nothing since it came
    Silent,
}

/// What a connection is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// To end, unless it has something to do by now: its place is given up. See [`Client::stay`]
    MakeRoom,
    /// To finish what it is at, and end
    Drain,
}

/// A client connection as its worker knows it, until it ends or becomes a WebSocket.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) seat: Arc<Seat>,
    since: Instant,
    heard: Cell<bool>,
    /// Set once its protocol is known
    conn: OnceCell<Rc<Conn>>,
    told: Cell<Told>,
    stayed: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    live: Rc<Cell<usize>>,
}

/// What a connection takes of the limits, for as long as its stream is open: of one that has become a WebSocket, nothing else
/// is left.
#[derive(Debug)]
pub(super) struct Seat {
    permit: Permit,
    counters: Arc<Counters>,
}

#[cfg(test)]
impl Seat {
    /// One for somebody on this machine.
    pub(super) fn any() -> Arc<Self> {
        let admission = Arc::new(super::admission::Admission::new(4096, 1, 1));
        let permit = Permit::take(&admission, std::net::Ipv4Addr::LOCALHOST.into(), None);
        Arc::new(Self {
            permit: permit.expect("nobody else is there"),
            counters: Arc::default(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.counters.add(Count::Ended);
    }
}

impl Client {
    /// A byte has come.
    pub(super) fn hear(&self) {
        self.heard.set(true);
    }

    /// Its protocol is known.
    pub(super) fn speaks(&self, conn: &Rc<Conn>) {
        let _ = self.conn.set(Rc::clone(conn));
    }

    /// What it is told. The task of `cx` is woken by the next word. Two loads when there is nothing new.
    pub(super) fn told(&self, cx: &Context<'_>) -> Told {
        let told = self.told.get();
        if told != Told::Drain {
            let mut waker = self.waker.borrow_mut();
            if !waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                *waker = Some(cx.waker().clone());
            }
        }
        told
    }

    /// Whether it may look at what has arrived before it goes. Once: it may be nothing, time and again.
    pub(super) fn may_stay(&self) -> bool {
        !self.stayed.replace(true)
    }

    /// Waits until a client that has not sent a byte yet is to make room.
    pub(super) async fn unheard(&self) {
        std::future::poll_fn(|cx| match self.told(cx) {
            Told::MakeRoom if self.heard.get() => {
                self.stay();
                Poll::Pending
            }
            Told::MakeRoom => Poll::Ready(()),
            Told::Nothing | Told::Drain => Poll::Pending,
        })
        .await
    }

    /// It was told to make room and has something to do all the same: it takes a place again.
    pub(super) fn stay(&self) {
        self.seat.permit.take_again();
    }

    /// Whether somebody else has its place.
    pub(super) fn has_made_room(&self) -> bool {
        self.seat.permit.has_given_up()
    }

    /// For how long it has had nothing to be answered; `None` where it has, or may have.
    fn quiet(&self) -> Option<(Kind, Duration)> {
        if self.told.get() != Told::Nothing {
            return None;
        }
        let silent =
            || Some((Kind::Silent, self.since.elapsed())).filter(|(_, age)| *age >= SILENT);
        match self.conn.get() {
            None if self.heard.get() => None,
            None => silent(),
            Some(conn) if conn.is_new() => conn.quiet().and_then(|_| silent()),
            Some(conn) => conn.quiet().map(|quiet| (Kind::Idle, quiet)),
        }
    }

    /// Whether its place is somebody else's now. It is not where as many as may be are still on their way out.
    fn make_room(&self) -> bool {
        if !self.seat.permit.give_up() {
            return false;
        }
        self.seat.counters.add(Count::MadeRoom);
        self.tell(Told::MakeRoom);
        true
    }

    fn tell(&self, word: Told) {
        self.told.set(word);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.live.set(self.live.get() - 1);
    }
}
