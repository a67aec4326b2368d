//! Rounds of load on several proxies in turn, and what each costs a proxy.

#[path = "cpu.rs"]
mod cpu;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::proxy::Proxy;
use crate::support::site::Via;
use crate::support::{Client, runtime};
use cpu::cpu;

const CONNECTIONS: usize = 64;
/// Requests at the same time on each HTTP/2 connection.
const STREAMS: usize = 10;
const WARM_UP: Duration = Duration::from_millis(300);

/// What one proxy did in one round.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    /// CPU time for each request
    pub(crate) micros: f64,
    /// Share of its processor that it used
    pub(crate) busy: f64,
    /// Requests a second
    pub(crate) rate: f64,
}

/// Asks as fast as it can for this long, over many connections.
pub(crate) fn round(proxy: &Proxy, via: Via, seconds: Duration) -> Round {
    static STOP: AtomicBool = AtomicBool::new(false);
    STOP.store(false, Ordering::Relaxed);
    runtime().block_on(async {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            match Client::connect(&proxy.site, via).await {
                Client::Http2(client) => {
                    clients.extend((0..STREAMS).map(|_| Client::Http2(client.clone())));
                }
                client => clients.push(client),
            }
        }
        let asked = std::rc::Rc::new(std::cell::Cell::new(0u64));
        let all = tokio::task::LocalSet::new();
        for mut client in clients {
            let asked = std::rc::Rc::clone(&asked);
            all.spawn_local(async move {
                while !STOP.load(Ordering::Relaxed) {
                    client.ask().await;
                    asked.set(asked.get() + 1);
                }
            });
        }
        let measured = all.run_until(async {
            tokio::time::sleep(WARM_UP).await;
            let (asked_before, cpu_before, start) =
                (asked.get(), cpu(proxy.child.id()), Instant::now());
            tokio::time::sleep(seconds).await;
            let (asked, cpu, wall) = (
                (asked.get() - asked_before) as f64,
                (cpu(proxy.child.id()) - cpu_before).as_secs_f64(),
                start.elapsed().as_secs_f64(),
            );
            Round {
                micros: cpu * 1e6 / asked,
                busy: cpu / wall,
                rate: asked / wall,
            }
        });
        let measured = measured.await;
        STOP.store(true, Ordering::Relaxed);
        all.await;
        measured
    })
}
