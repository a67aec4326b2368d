//! Clients that want as much as they can get from a proxy, and what that costs it.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use crate::cpu::cpu;
use crate::proxy::Proxy;
use crate::runtime;

/// How long before anything counts: connections are made, and buffers grow.
const WARM_UP: Duration = Duration::from_millis(300);

/// What one client does until it is dropped: it never ends but with what went wrong.
pub(crate) type Client = Pin<Box<dyn Future<Output = std::io::Result<()>>>>;

/// What the clients have got so far.
#[derive(Default)]
pub(crate) struct Tally {
    done: Cell<u64>,
    micros: RefCell<Vec<f64>>,
    wrong: RefCell<Option<String>>,
}

impl Tally {
    /// Counts requests, or bytes.
    pub(crate) fn did(&self, amount: usize) {
        self.done.set(self.done.get() + amount as u64);
    }

    /// Counts one that began then.
    pub(crate) fn took(&self, since: Instant) {
        self.did(1);
        let micros = since.elapsed().as_secs_f64() * 1e6;
        self.micros.borrow_mut().push(micros);
    }

    /// Something that makes the measurement worthless; what comes first is told.
    pub(crate) fn wrong(&self, why: impl Display) {
        self.wrong
            .borrow_mut()
            .get_or_insert_with(|| why.to_string());
    }
}

/// What they got, and at what cost.
pub(crate) struct Got {
    /// Requests, or bytes
    pub(crate) done: f64,
    /// CPU time of the proxy, in seconds
    pub(crate) cpu: f64,
    /// Share of its processor that it used
    pub(crate) busy: f64,
    /// How long each took that was timed, in microseconds, the shortest first
    pub(crate) micros: Vec<f64>,
}

/// Lets these clients loose on the proxy for this long.
pub(crate) fn load(
    proxy: &Proxy,
    seconds: Duration,
    clients: impl FnOnce(&Rc<Tally>) -> Vec<Client>,
) -> Result<Got, String> {
    let tally = Rc::new(Tally::default());
    let got = runtime().block_on(async {
        let all = LocalSet::new();
        for client in clients(&tally) {
            let tally = Rc::clone(&tally);
            all.spawn_local(async move {
                if let Err(error) = client.await {
                    tally.wrong(error);
                }
            });
        }
        let window = async {
            tokio::time::sleep(WARM_UP).await;
            let done = tally.done.get();
            tally.micros.borrow_mut().clear();
            let (cpu_before, start) = (cpu(proxy.child.id()), Instant::now());
            tokio::time::sleep(seconds).await;
            let (cpu, wall) = (cpu(proxy.child.id()) - cpu_before, start.elapsed());
            Got {
                done: (tally.done.get() - done) as f64,
                cpu: cpu.as_secs_f64(),
                busy: cpu.as_secs_f64() / wall.as_secs_f64(),
                micros: tally.micros.take(),
            }
        };
        // The clients are dropped with what they were at.
        all.run_until(window).await
    });
    if let Some(why) = tally.wrong.take() {
        return Err(why);
    }
    if got.done == 0.0 {
        return Err("nothing was done in time".to_owned());
    }
    let mut got = got;
    got.micros.sort_by(f64::total_cmp);
    Ok(got)
}

/// What this share of the sorted times is at most.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> Result<f64, String> {
    let at = (sorted.len() as f64 * share) as usize;
    let time = sorted.get(at.min(sorted.len().saturating_sub(1)));
    time.copied().ok_or_else(|| "nothing was timed".to_owned())
}
