//! `[app]`

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::keys;
use super::server::{file, user};
use super::table::Table;
use super::values::Wrong;
use super::{App, Peer, PeerAddr, PeerProtocol, Span, User};

/// The port when none is written.
const PORT: u16 = 3000;

/// `[app]`, as far as it could be read.
pub(super) struct AppTable {
    /// `None` when there is no usable command
    command: Option<Vec<String>>,
    dir: PathBuf,
    user: Option<User>,
    port: u16,
    port_span: Span,
    sandbox: bool,
    /// Where it was written
    pub(super) span: Span,
}

impl AppTable {
    /// `None` when it is not written.
    pub(super) fn read(top: &Table<'_>) -> Option<Self> {
        if !top.has("app") {
            return None;
        }
        let table = top.table("app", &keys::APP);
        let dir = file(&table, "dir");
        let port = table.number("port", 1..=65535);
        Some(Self {
            command: command(&table),
            dir: table.reader.path(dir.map_or(".", |dir| dir.value)),
            user: user(&table),
            port: port.as_ref().map_or(PORT, |port| port.value as u16),
            port_span: port.map(|port| port.span),
            sandbox: table.flag("sandbox").unwrap_or(true),
            span: table.span.clone().or_else(|| top.key("app")),
        })
    }

    /// Where it is reached.
    pub(super) fn peer(&self) -> Peer {
        Peer {
            addr: PeerAddr::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))),
            protocol: PeerProtocol::Http1,
            span: self.port_span.clone().or_else(|| self.span.clone()),
        }
    }

    /// What it means.
    pub(super) fn app(self) -> Option<App> {
        Some(App {
            command: self.command?,
            dir: self.dir,
            user: self.user,
            port: self.port,
            sandbox: self.sandbox,
            span: self.span,
        })
    }
}

fn command(table: &Table<'_>) -> Option<Vec<String>> {
    const EXAMPLE: &str = "write command = [\"node\", \"server.js\"]";
    if !table.has("command") {
        table.missing("command", EXAMPLE);
        return None;
    }
    let list = table.list("command", |text| match text.contains('\0') {
        true => Err(Wrong::new("no argument holds a zero byte", "")),
        false => Ok(text),
    })?;
    let program = list.first().map_or("", |program| program.value);
    let span = table.value("command").unwrap_or_default();
    if program.is_empty() {
        table.wrong("command", span, Wrong::new("there is no program", EXAMPLE));
        return None;
    }
    if list.len() == 1 && program.contains(' ') {
        let words: Vec<&str> = program.split_whitespace().collect();
        let help = format!("write command = [\"{}\"]", words.join("\", \""));
        let why = "no shell reads it: program and arguments are apart";
        table.wrong("command", span, Wrong::new(why, help));
        return None;
    }
    Some(list.iter().map(|word| word.value.to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mistakes, parsed};
    use super::super::{ExpectUser, OnMismatch, Upstream};
    use super::*;

    const ROUTE: &str = "[[route]]\nupstream = \"app\"\n";

    fn peers(upstream: &Upstream) -> Vec<&PeerAddr> {
        upstream.peers.iter().map(|peer| &peer.addr).collect()
    }

    #[test]
    fn an_app_alone_is_served() {
        let config = parsed("[app]\ncommand = \"node\"\n");
        assert_eq!(config.app_upstream(), Some(0));
        let app = config.app.unwrap();
        assert_eq!((app.command, app.port), (vec!["node".to_owned()], 3000));
        assert_eq!(app.dir, std::path::Path::new("/etc/x/."));
        assert!(app.sandbox);
        let addr: SocketAddr = "127.0.0.1:3000".parse().unwrap();
        assert_eq!(peers(&config.upstreams[0]), [&PeerAddr::Ip(addr)]);
        assert_eq!(config.routes.len(), 1);
    }

    #[test]
    fn an_apps_upstream_can_be_written_but_not_its_peers() {
        let app = "[app]\ncommand = [\"node\", \"x.js\"]\nport = 4000\nuser = \"node\"\nsandbox = false\n";
        let text =
            format!("{app}[upstream.b]\npeers = \"b:1\"\n[upstream.app]\nexpect_user = 1000\n");
        let config = parsed(&format!("{text}{ROUTE}"));
        assert_eq!(config.app_upstream(), Some(1));
        assert_eq!(config.upstreams[1].expect_user, ExpectUser::Uid(1000));
        assert!(config.app.is_some_and(|app| !app.sandbox));
        let addr: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        assert_eq!(peers(&config.upstreams[1]), [&PeerAddr::Ip(addr)]);
        let told = mistakes(&format!("{app}[upstream.app]\npeers = \"b:1\"\n{ROUTE}"));
        assert!(told.contains("[app] has no other peers"), "{told}");
        assert!(told.ends_with("1 mistake\n"), "{told}");
    }

    #[test]
    fn without_an_app_there_is_none() {
        let config = parsed(&format!("[upstream.app]\npeers = \"a:1\"\n{ROUTE}"));
        assert_eq!(config.app_upstream(), None);
        assert_eq!(config.upstreams[0].expect_user, ExpectUser::NotRoot);
        assert_eq!(config.upstreams[0].on_mismatch, OnMismatch::Refuse);
    }
}
