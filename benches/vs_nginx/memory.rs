//! What a proxy takes up, and how long it takes to be there.

use std::time::{Duration, Instant};

use crate::client::{Client, request};
use crate::cpu::tree;
use crate::processor::on_own_processor;
use crate::proxies::{Setup, Which, launch, start};
use crate::runtime;
use crate::site::{Site, Via};

/// Connections that rest.
const IDLE: usize = 1000;
/// Connections from before, for what a proxy allocates once.
const WARM: usize = 50;
/// How long they rest before memory is looked at.
const REST: Duration = Duration::from_millis(1500);
/// Of the connections that have rested, every so-manieth is asked whether it still works.
const ASKED_AGAIN: usize = 20;

/// KiB for each connection that made one request and is idle since.
pub(crate) fn idle_connection(which: Which, upstream: u16, via: Via) -> Result<f64, String> {
    let proxy = start(which, upstream, Setup::default());
    let pid = proxy.child.id();
    let asked = async |count| {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            let mut client = Client::connect(&proxy.site, via).await?;
            client.ask(&request("/x", ""), |_| ()).await?;
            clients.push(client);
        }
        std::io::Result::Ok(clients)
    };
    let measured = runtime().block_on(async {
        let _warm = asked(WARM).await?;
        tokio::time::sleep(REST).await;
        let before = resident(pid);
        let mut clients = asked(IDLE).await?;
        tokio::time::sleep(REST).await;
        let after = resident(pid);
        for client in clients.iter_mut().step_by(ASKED_AGAIN) {
            client.ask(&request("/x", ""), |_| ()).await?;
        }
        std::io::Result::Ok((after - before) / IDLE as f64)
    });
    measured.map_err(|error| error.to_string())
}

/// Milliseconds from the start of the process until a request is answered, and MiB that it takes up half a second later.
pub(crate) fn start_up(which: Which, upstream: u16) -> Result<(f64, f64), String> {
    let site = Site::new();
    let (proxy, took) = on_own_processor(move || {
        let begin = Instant::now();
        let proxy = launch(which, upstream, Setup::default(), site);
        let asked = runtime().block_on(async {
            let mut client = Client::connect(&proxy.site, Via::Http1).await?;
            client.ask(&request("/x", ""), |_| ()).await
        });
        (proxy, asked.map(|()| begin.elapsed()))
    });
    let took = took.map_err(|error| error.to_string())?;
    std::thread::sleep(Duration::from_millis(500));
    let resident = resident(proxy.child.id());
    Ok((took.as_secs_f64() * 1e3, resident / 1024.0))
}

/// KiB of memory that this process and its descendants have. What they share counts once, where the kernel lets us see.
fn resident(pid: u32) -> f64 {
    let processes = tree(pid).into_iter().map(|pid| {
        let field = |file: &str, name: &str| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let own = field("smaps_rollup", "Pss:").or_else(|| field("status", "VmRSS:"));
        own.unwrap_or_default()
    });
    processes.sum()
}
