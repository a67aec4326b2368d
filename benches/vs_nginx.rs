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

#[path = "support/command_line.rs"]
mod command_line;
#[path = "support/median.rs"]
mod median;
#[path = "support/processor.rs"]
mod processor;
#[path = "support/rounds.rs"]
mod rounds;
mod support;

use std::process::Command;
use std::time::Duration;

use command_line::numbers;
use median::median;
use processor::{OTHERS, on_own_processor, pin};
use rounds::{Round, round};
use support::proxy::Proxy;
use support::site::{Site, Via, write};
use support::{SETUP, lowport, upstream};

fn main() {
    let Some(mut numbers) = numbers() else {
        return;
    };
    let rounds = numbers.next().unwrap_or(5).max(1);
    let seconds = Duration::from_secs(numbers.next().unwrap_or(1).max(1));
    if Command::new("nginx").arg("-v").output().is_err() {
        eprintln!("\n*** NOT RUN: vs_nginx: nginx is not installed ***\n");
        return;
    }
    pin(OTHERS);
    let upstream = upstream();
    let proxies = [
        on_own_processor(move || nginx(upstream)),
        on_own_processor(move || lowport(upstream, SETUP)),
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
