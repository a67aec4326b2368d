//! The proxies that are compared, and how each is configured.

use std::path::Path;
use std::process::Command;

use crate::processor::on_own_processor;
use crate::proxy::{self, Proxy};
use crate::site::{Site, write};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// nginx that keeps its connections to the upstream, buffers nothing on disk and writes no access log
    Tuned,
    /// nginx as people paste it: a connection to the upstream for each request, access log on. A reference only
    Pasted,
    /// HAProxy with one thread
    Haproxy,
    /// lowport with its defaults, access log off
    Lowport,
}

impl Which {
    /// All there are, in the order of the tables.
    pub(crate) const ALL: [Self; 4] = [Self::Tuned, Self::Pasted, Self::Haproxy, Self::Lowport];

    /// What it is called in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tuned => "nginx tuned",
            Self::Pasted => "nginx as pasted",
            Self::Haproxy => "haproxy",
            Self::Lowport => "lowport",
        }
    }

    /// What it says of its version; `None` where it is not installed.
    pub(crate) fn version(self) -> Option<String> {
        let (binary, arg) = match self {
            Self::Tuned | Self::Pasted => ("nginx".into(), "-v"),
            Self::Haproxy => ("haproxy".into(), "-v"),
            Self::Lowport => (proxy::lowport(), "--version"),
        };
        let said = Command::new(binary).arg(arg).output().ok()?;
        let said = [said.stdout, said.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().next().unwrap_or_default();
        // HAProxy adds where it is from.
        Some(line.split(" - ").next().unwrap_or_default().to_owned())
    }
}

/// What a row wants of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Setup {
    /// Whether it writes an access log where it would not
    pub(crate) log: bool,
    /// Routes by path besides the one for everything: `/r0/`, `/r1/` and so on
    pub(crate) routes: usize,
}

/// Starts it in front of the upstream at this port.
pub(crate) fn start(which: Which, upstream: u16, setup: Setup) -> Proxy {
    let site = Site::new();
    on_own_processor(move || launch(which, upstream, setup, site))
}

/// Starts it on this thread's processor.
pub(crate) fn launch(which: Which, upstream: u16, setup: Setup, site: Site) -> Proxy {
    match which {
        Which::Tuned | Which::Pasted => nginx(which, upstream, setup, site),
        Which::Haproxy => haproxy(upstream, site),
        Which::Lowport => {
            let config = lowport(upstream, setup, &site);
            Proxy::lowport(&proxy::lowport(), site, &config, &[])
        }
    }
}

fn lowport(upstream: u16, setup: Setup, site: &Site) -> String {
    let log = log_in(site.path());
    let log = if setup.log { log.as_str() } else { "off" };
    let routes = (0..setup.routes)
        .map(|number| format!("[[route]]\npath = \"/r{number}\"\nupstream = \"bench\"\n"))
        .collect::<String>();
    format!(
        "[server]\nhttp = \"127.0.0.1:{}\"\nhttps = \"127.0.0.1:{}\"\nredirect_to_https = false\nworkers = 1\n\
         user = \"65534:65534\"\n[log]\naccess = \"{log}\"\n[[certificate]]\ncert = \"site.pem\"\nkey = \"site.key\"\n\
         [upstream.bench]\npeers = [\"127.0.0.1:{upstream}\"]\nexpect_user = \"any\"\n[[route]]\nupstream = \"bench\"\n\
         {routes}",
        site.http, site.https
    )
}

fn log_in(folder: &Path) -> String {
    folder.join("access.log").display().to_string()
}

fn nginx(which: Which, upstream: u16, setup: Setup, site: Site) -> Proxy {
    let folder = site.path().display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
        .concat();
    let log = log_in(site.path());
    let (target, manner, log) = match which {
        Which::Pasted => (
            format!("http://127.0.0.1:{upstream}"),
            "  proxy_set_header Connection upgrade; proxy_cache_bypass $http_upgrade; client_max_body_size 100m;\n"
                .to_owned(),
            format!("{log} combined"),
        ),
        _ => (
            "http://bench".to_owned(),
            format!(
                "  upstream bench {{
    server 127.0.0.1:{upstream}; keepalive 1000; keepalive_requests 1000000000; keepalive_timeout 300s;
  }}
  map $http_upgrade $upstream_connection {{ default upgrade; '' ''; }}
  proxy_set_header Connection $upstream_connection;
  proxy_request_buffering off; proxy_max_temp_file_size 0; client_max_body_size 0;
  proxy_buffer_size 8k; proxy_buffers 8 32k; proxy_busy_buffers_size 64k;
"
            ),
            if setup.log {
                format!("{log} combined")
            } else {
                "off".to_owned()
            },
        ),
    };
    let routes: String = (0..setup.routes)
        .map(|number| format!("    location /r{number}/ {{ proxy_pass {target}; }}\n"))
        .collect();
    let config = format!(
        "worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log warn;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; multi_accept on; }}
http {{
{temporary}{manner}  access_log {log};
  sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_timeout 300s; keepalive_requests 1000000000;
  ssl_certificate {folder}/site.pem; ssl_certificate_key {folder}/site.key; ssl_protocols TLSv1.3;
  ssl_session_cache shared:bench:10m; ssl_session_tickets on; ssl_session_timeout 1h;
  proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Host $host; proxy_set_header X-Real-IP $remote_addr;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Forwarded-Port $server_port;
  server {{
    listen 127.0.0.1:{} backlog=4096; listen 127.0.0.1:{} ssl http2 backlog=4096;
    location / {{ proxy_pass {target}; }}
{routes}  }}
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

fn haproxy(upstream: u16, site: Site) -> Proxy {
    let read = |name| std::fs::read_to_string(site.path().join(name)).expect("written");
    let both = [read("site.pem"), read("site.key")].concat();
    write(site.path(), "both.pem", &both);
    let config = format!(
        "global
  nbthread 1
  maxconn 4000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  tune.h2.max-concurrent-streams 128
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
  timeout tunnel 1h
  http-reuse always
frontend bench
  bind 127.0.0.1:{} backlog 4096
  bind 127.0.0.1:{} backlog 4096 ssl crt {}/both.pem alpn h2,http/1.1
  option forwardfor
  http-request set-header X-Real-IP %[src]
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port %[dst_port]
  default_backend upstream
backend upstream
  server upstream 127.0.0.1:{upstream} pool-max-conn 1000 pool-purge-delay 300s
",
        site.http,
        site.https,
        site.path().display()
    );
    write(site.path(), "haproxy.cfg", &config);
    let mut command = Command::new("haproxy");
    command
        .args(["-db", "-f"])
        .arg(site.path().join("haproxy.cfg"));
    Proxy::start(command, site)
}
