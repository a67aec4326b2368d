//! systemd: the units of `deploy/systemd`, with the table's own ports, times and files.

use std::net::IpAddr;
use std::path::Path;

use super::compose::write;
use super::{Made, Site, Written};
use crate::config::{AccessLog, Listener, Mistake, PeerAddr};

const FOLDER: &str = "systemd";
const SERVICE: &str = include_str!("../../deploy/systemd/lowport.service");
const ROOT: &str = include_str!("../../deploy/systemd/lowport-root.service");
const HTTP: &str = include_str!("../../deploy/systemd/lowport.socket");
const HTTPS: &str = include_str!("../../deploy/systemd/lowport-https.socket");
const NO_NETWORK: &str = include_str!("../../deploy/systemd/private-network.conf");
const WITH_APP: &str = include_str!("../../deploy/systemd/app.conf");

/// What the units hide from lowport.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];
/// Seconds that a stop may take besides the drain.
const MORE: u64 = 15;

pub(super) fn files(site: &Site) -> Made {
    seen(site);
    let mut files = Vec::new();
    let mut add =
        |name: &str, text: String| files.push(Written::new(&format!("{FOLDER}/{name}"), text));
    let with_app = site.config.app.is_some();
    let started = match with_app {
        true => {
            add("lowport-root.service", service(site, ROOT));
            add("lowport-root.service.d/app.conf", WITH_APP.to_owned());
            "lowport-root.service"
        }
        false => {
            add("lowport.service", service(site, SERVICE));
            let server = &site.config.server;
            if !server.http.is_empty() {
                add("lowport.socket", socket(HTTP, "80", &server.http));
            }
            if !server.https.is_empty() {
                add("lowport-https.socket", socket(HTTPS, "443", &server.https));
            }
            if only_sockets(site) {
                add(
                    "lowport.service.d/private-network.conf",
                    NO_NETWORK.to_owned(),
                );
            }
            match (server.http.is_empty(), server.https.is_empty()) {
                (false, true) => "lowport.socket",
                (true, false) => "lowport-https.socket",
                _ => "lowport.socket lowport-https.socket",
            }
        }
    };
    let app = app(site);
    if let Some(text) = &app {
        add(&format!("{}.service", site.name()), text.clone());
    }
    Made {
        files,
        next: next(site, started, app.is_some()),
    }
}

/// Reports files that the units hide.
fn seen(site: &Site) {
    for mount in site.mounts() {
        let to = Path::new(&mount.to);
        if let Some(hidden) = HIDDEN.iter().find(|hidden| to.starts_with(hidden)) {
            site.mistakes.push(
                Mistake::new(
                    mount.span.clone(),
                    format!("systemd shows lowport nothing of {hidden}"),
                )
                .help("beside the table, below /etc/lowport, such as \"certs/site.pem\""),
            );
        }
    }
}

fn service(site: &Site, unit: &str) -> String {
    let stop = site.config.timeouts.drain.as_secs() + MORE;
    let text = swap(
        unit,
        "TimeoutStopSec=45s",
        &format!("TimeoutStopSec={stop}s"),
    );
    match &site.config.log.access {
        AccessLog::File(path) => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            let may = format!(
                "ProtectSystem=strict\n# The access log.\nReadWritePaths={}",
                folder.display()
            );
            swap(&text, "ProtectSystem=strict", &may)
        }
        _ => text,
    }
}

/// A socket unit that binds what the table listens on.
fn socket(unit: &str, usual: &str, listeners: &[Listener]) -> String {
    let all = |ip: IpAddr, port: u16| {
        let mut found = listeners.iter();
        found.any(|it| it.addr.ip() == ip && it.addr.port() == port)
    };
    let v4 = IpAddr::from([0; 4]);
    let v6 = IpAddr::from([0; 16]);
    // One socket for both, where all of IPv6 comes with all of IPv4.
    let both = listeners
        .iter()
        .filter(|it| it.addr.ip() == v6)
        .all(|it| all(v4, it.addr.port()));
    let streams: Vec<String> = listeners
        .iter()
        .filter(|it| !(both && it.addr.ip() == v4 && all(v6, it.addr.port())))
        .map(|it| format!("ListenStream={}", it.addr))
        .collect();
    let text = swap(
        unit,
        &format!("ListenStream=[::]:{usual}"),
        &streams.join("\n"),
    );
    match both {
        true => text,
        false => swap(&text, "BindIPv6Only=both", "BindIPv6Only=ipv6-only"),
    }
}

/// Whether lowport connects to nothing but Unix sockets.
fn only_sockets(site: &Site) -> bool {
    let mut peers = site.peers().peekable();
    peers.peek().is_some() && peers.all(|(addr, _)| matches!(addr, PeerAddr::Unix(_)))
}

/// A unit for the app, where it is on this machine, nobody else starts it, and its folder tells how it is started.
fn app(site: &Site) -> Option<String> {
    if site.config.app.is_some() || site.local_peers().is_empty() {
        return None;
    }
    let words = site
        .package
        .command
        .as_ref()?
        .iter()
        .map(|word| word_of(word));
    let folder = std::env::current_dir().ok()?;
    let values = [
        ("name", site.name().to_owned()),
        ("command", words.collect::<Vec<_>>().join(" ")),
        ("folder", folder.display().to_string()),
        ("app_port", site.app_port().to_string()),
    ];
    Some(write(include_str!("templates/app.service"), &values))
}

/// A word of a command as systemd reads it.
fn word_of(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=@,+".contains(&byte);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.to_owned(),
        false => {
            let escaped = word.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{}\"", escaped.replace('$', "$$").replace('%', "%%"))
        }
    }
}

fn next(site: &Site, started: &str, app: bool) -> Vec<String> {
    let mut next = vec![
        "deploy/debian/build of lowport makes a package that has lowport, the user `lowport` and these units; without it:"
            .to_owned(),
        "sudo useradd --system --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin lowport".to_owned(),
        "sudo install lowport /usr/bin/lowport".to_owned(),
        format!(
            "sudo install -D --mode 644 {} /etc/lowport/lowport.toml",
            site.table_path()
        ),
    ];
    for mount in site.mounts() {
        if !mount.to.starts_with("/etc/lowport/") {
            continue;
        }
        let who = if mount.secret {
            "--mode 640 --group lowport"
        } else {
            "--mode 644"
        };
        next.push(format!(
            "sudo install -D {who} {} {}",
            site.path(&mount.from),
            mount.to
        ));
    }
    next.push(format!(
        "sudo cp --recursive {FOLDER}/. /etc/systemd/system/"
    ));
    next.push("sudo systemctl daemon-reload".to_owned());
    let app = if app {
        format!(" {}.service", site.name())
    } else {
        String::new()
    };
    next.push(format!("sudo systemctl enable --now {started}{app}"));
    next
}

/// One line of a unit for another.
fn swap(unit: &str, from: &str, to: &str) -> String {
    debug_assert!(unit.contains(&format!("{from}\n")), "{from} is in no line");
    unit.replacen(&format!("{from}\n"), &format!("{to}\n"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(addrs: &[&str]) -> String {
        let listeners: Vec<Listener> = addrs
            .iter()
            .map(|addr| Listener {
                addr: addr.parse().unwrap(),
                span: None,
            })
            .collect();
        let text = socket(HTTP, "80", &listeners);
        let lines = text
            .lines()
            .filter(|line| line.starts_with("ListenStream=") || line.starts_with("Bind"));
        lines.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn all_of_ipv6_takes_all_of_ipv4_with_it_only_where_both_are_meant() {
        assert_eq!(
            streams(&["0.0.0.0:80", "[::]:80"]),
            "ListenStream=[::]:80 BindIPv6Only=both"
        );
        assert_eq!(
            streams(&["0.0.0.0:81"]),
            "ListenStream=0.0.0.0:81 BindIPv6Only=both"
        );
        assert_eq!(
            streams(&["[::]:81"]),
            "ListenStream=[::]:81 BindIPv6Only=ipv6-only"
        );
        assert_eq!(
            streams(&["10.0.0.1:80", "[::]:81", "0.0.0.0:81"]),
            "ListenStream=10.0.0.1:80 ListenStream=[::]:81 BindIPv6Only=both"
        );
    }

    #[test]
    fn words_are_what_systemd_takes_for_them() {
        assert_eq!(word_of("--port=1"), "--port=1");
        assert_eq!(word_of("a $B 5% \"c\""), "\"a $$B 5%% \\\"c\\\"\"");
        assert_eq!(word_of(""), "\"\"");
    }
}
