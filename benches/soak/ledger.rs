//! How every request of the soak ended.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many of what was lost are told one by one.
const TOLD: usize = 20;
/// How long after a peer is gone lowport may still find out by what it sends there.
const AFTERMATH: Duration = Duration::from_millis(300);

/// What a request, or a connection that is no request, was meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request over HTTP/1.1 in plaintext
    Http1,
    /// The same over TLS
    Tls,
    /// The same over HTTP/2
    Http2,
    /// A stream of server-sent events
    Events,
    /// A WebSocket, from its handshake to its close
    WebSocket,
    /// A request whose client goes away
    Abort,
    /// A client that sends or reads slowly
    Slow,
    /// Bytes that must be refused
    Hostile,
}

impl Kind {
    /// All there are, as they are told.
    pub(crate) const ALL: [Self; 8] = [
        Self::Http1,
        Self::Tls,
        Self::Http2,
        Self::Events,
        Self::WebSocket,
        Self::Abort,
        Self::Slow,
        Self::Hostile,
    ];
}

/// What a client made of an exchange that did not end as it would have without trouble.
#[derive(Debug)]
pub(crate) enum Fault {
    /// lowport said that it has no answer
    Refused(u16),
    /// It broke off, so that the client sees it
    Cut(String),
    /// Another answer than the right one, or none in time: never excused
    Wrong(String),
}

impl Fault {
    /// What a library calls broken off.
    pub(crate) fn cut(error: impl fmt::Display) -> Self {
        Self::Cut(error.to_string())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Refused(status) => format!("refused with {status}"),
            Self::Cut(how) => format!("cut off: {how}"),
            Self::Wrong(what) => format!("wrong: {what}"),
        };
        // So that a longest length holds.
        f.pad(&text)
    }
}

/// Counts of all, and what was lost.
#[derive(Default)]
pub(crate) struct Ledger {
    counts: [[AtomicU64; 3]; Kind::ALL.len()],
    lost: Mutex<Vec<String>>,
    /// For each peer that was killed until when what is sent there may still fail; none while it is being killed
    kills: Mutex<Vec<Option<Instant>>>,
}

const ANSWERED: usize = 0;
const REFUSED: usize = 1;
const LOST: usize = 2;

impl Ledger {
    /// Kills a peer: what is under way there may fail from now until `kill` has returned and lowport knows.
    pub(crate) fn while_killing(&self, kill: impl FnOnce()) {
        self.kills.lock().expect("unpoisoned").push(None);
        kill();
        let mut kills = self.kills.lock().expect("unpoisoned");
        *kills.last_mut().expect("one killer") = Some(Instant::now() + AFTERMATH);
    }

    /// Whether a peer was killed while something that began at `from` was under way.
    fn killed_since(&self, from: Instant) -> bool {
        let kills = self.kills.lock().expect("unpoisoned");
        let last = kills.last();
        last.is_some_and(|until| until.is_none_or(|until| from <= until))
    }

    /// Enters how `what`, begun at `from`, ended; `excused` where its peers are ones that are killed.
    pub(crate) fn enter(
        &self,
        kind: Kind,
        what: &str,
        from: Instant,
        excused: bool,
        ended: &Result<(), Fault>,
    ) {
        let column = match ended {
            Ok(()) => ANSWERED,
            Err(Fault::Refused(502..=504) | Fault::Cut(_))
                if excused && self.killed_since(from) =>
            {
                REFUSED
            }
            Err(fault) => {
                let mut lost = self.lost.lock().expect("unpoisoned");
                if lost.len() < TOLD {
                    let after = from.elapsed().as_millis();
                    lost.push(format!(
                        "{kind:?}: {what:.300}: {fault:.300} after {after} ms"
                    ));
                }
                LOST
            }
        };
        self.counts[kind as usize][column].fetch_add(1, Ordering::Relaxed);
    }

    /// Enters something that has no client to tell of it.
    pub(crate) fn lose(&self, kind: Kind, what: &str) {
        let fault = Err(Fault::Wrong("it failed".to_owned()));
        self.enter(kind, what, Instant::now(), false, &fault);
    }

    /// How many ended so far: rightly answered, refused or cut off for a reason, and lost.
    pub(crate) fn sums(&self) -> [u64; 3] {
        [ANSWERED, REFUSED, LOST].map(|column| {
            let of = |row: &[AtomicU64; 3]| row[column].load(Ordering::Relaxed);
            self.counts.iter().map(of).sum()
        })
    }

    /// How often a peer was killed.
    pub(crate) fn kills(&self) -> usize {
        self.kills.lock().expect("unpoisoned").len()
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "             answered   refused or cut      lost")?;
        for kind in Kind::ALL {
            let count = |column: usize| self.counts[kind as usize][column].load(Ordering::Relaxed);
            writeln!(
                f,
                "{:<10} {:>10}       {:>10} {:>9}",
                format!("{kind:?}"),
                count(ANSWERED),
                count(REFUSED),
                count(LOST),
            )?;
        }
        for lost in self.lost.lock().expect("unpoisoned").iter() {
            writeln!(f, "LOST: {lost}")?;
        }
        Ok(())
    }
}
