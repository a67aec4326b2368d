//! CPU time that a request costs lowport, and nginx in its place.
//!
//! ```sh
//! cargo bench --bench vs_nginx                  # 5 rounds of 1 second
//! cargo bench --bench vs_nginx -- 10 3          # 10 rounds of 3 seconds
//! ```
//!
//! Both have one worker on one processor of its own; the clients and the upstream share another. nginx is tuned:
//! connections to the upstream are kept, no access log. They take turns, so that whatever else the machine does hurts
//! both. Compare ratios, not figures of different machines; and where `busy` is low, a proxy sleeps and wakes for each
//! request, which is dear.

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use support::{Client, Proxy, Site, Via, runtime, upstream, write};

const CONNECTIONS: usize = 64;
/// Requests at the same time on each HTTP/2 connection.
const STREAMS: usize = 10;
const WARM_UP: Duration = Duration::from_millis(300);
/// Which processor is the proxy's, and which everybody else's.
const PROXY: usize = 0;
const OTHERS: usize = 1;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if !args.iter().any(|arg| arg == "--bench") {
        // `cargo test` runs benches, too.
        return;
    }
    let mut numbers = args.iter().filter_map(|arg| arg.parse::<u32>().ok());
    let rounds = numbers.next().unwrap_or(5).max(1);
    let seconds = Duration::from_secs(numbers.next().unwrap_or(1).max(1).into());
    if Command::new("nginx").arg("-v").output().is_err() {
        eprintln!("\n*** NOT RUN: vs_nginx: nginx is not installed ***\n");
        return;
    }
    pin(OTHERS);
    let upstream = upstream();
    let proxies = [
        on_own_processor(move || nginx(upstream)),
        on_own_processor(move || Proxy::lowport(upstream)),
    ];
    println!("{rounds} rounds of {seconds:?}; medians, and the least and the greatest ratio\n");
    println!("       nginx us/request  busy  req/s   lowport us/request  busy  req/s   ratio");
    for via in Via::ALL {
        let rounds: Vec<[Round; 2]> = (0..rounds)
            .map(|_| [0, 1].map(|which| round(&proxies[which], via, seconds)))
            .collect();
        print(via, &rounds);
    }
}

/// What one proxy did in one round.
#[derive(Clone, Copy)]
struct Round {
    /// CPU time for each request
    micros: f64,
    /// Share of its processor that it used
    busy: f64,
    /// Requests a second
    rate: f64,
}

fn print(via: Via, rounds: &[[Round; 2]]) {
    let of = |which: usize, what: fn(&Round) -> f64| {
        median(rounds.iter().map(|round| what(&round[which])).collect())
    };
    let mut ratios: Vec<f64> = rounds
        .iter()
        .map(|[nginx, lowport]| lowport.micros / nginx.micros)
        .collect();
    ratios.sort_by(f64::total_cmp);
    let [nginx, lowport] = [0, 1].map(|which| {
        (
            of(which, |round| round.micros),
            of(which, |round| round.busy),
            of(which, |round| round.rate),
        )
    });
    println!(
        "{:<6} {:>16.2}  {:>4.2}  {:>6.0}  {:>18.2}  {:>4.2}  {:>6.0}   {:.2} ({:.2} to {:.2})",
        via.name(),
        nginx.0,
        nginx.1,
        nginx.2,
        lowport.0,
        lowport.1,
        lowport.2,
        median(ratios.clone()),
        ratios[0],
        ratios[ratios.len() - 1],
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Asks as fast as it can for this long, over many connections.
fn round(proxy: &Proxy, via: Via, seconds: Duration) -> Round {
    static STOP: AtomicBool = AtomicBool::new(false);
    STOP.store(false, Ordering::Relaxed);
    runtime().block_on(async {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            match proxy.site.connect(via).await {
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

/// CPU time that this process and its descendants have used, to the nanosecond, their living threads only.
fn cpu(pid: u32) -> Duration {
    let mut sum = Duration::ZERO;
    let mut pids = vec![pid];
    while let Some(pid) = pids.pop() {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let nanos = read("schedstat");
            let nanos = nanos.split_whitespace().next().and_then(|n| n.parse().ok());
            sum += Duration::from_nanos(nanos.unwrap_or_default());
            let children = read("children");
            pids.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    sum
}

fn nginx(upstream: u16) -> Proxy {
    let site = Site::new();
    let folder = site.path().display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
        .concat();
    let config = format!(
        "worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log warn;
worker_rlimit_nofile 4096;
events {{ worker_connections 2000; multi_accept on; }}
http {{
  access_log off; {temporary}
  keepalive_timeout 300s; keepalive_requests 1000000000; tcp_nodelay on;
  ssl_certificate {folder}/site.pem; ssl_certificate_key {folder}/site.key; ssl_protocols TLSv1.3;
  upstream bench {{ server 127.0.0.1:{upstream}; keepalive 1000; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{}; listen 127.0.0.1:{} ssl http2;
    location / {{
      proxy_pass http://bench; proxy_http_version 1.1; proxy_set_header Connection '';
      proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Forwarded-Port $server_port;
    }}
  }}
}}
",
        site.http, site.https
    );
    write(site.path(), "nginx.conf", &config);
    let mut command = Command::new("nginx");
    command.arg("-e").arg(site.path().join("error.log"));
    command.arg("-p").arg(site.path());
    command.arg("-c").arg(site.path().join("nginx.conf"));
    Proxy::start(command, site)
}

/// Starts a process from a thread that is pinned: what it starts inherits that.
fn on_own_processor(start: impl FnOnce() -> Proxy + Send + 'static) -> Proxy {
    let started = std::thread::spawn(move || {
        pin(PROXY);
        start()
    });
    started.join().expect("it started")
}

/// Keeps this thread on one processor; where there is only one, all share it.
fn pin(processor: usize) {
    let mut set = CpuSet::new();
    if set.set(processor).is_ok() && sched_setaffinity(Pid::from_raw(0), &set).is_err() {
        eprintln!("processor {processor} is not to be had: not pinned");
    }
}
