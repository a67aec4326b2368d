//! `[upstream.NAME]`, and the upstreams that `[app]` and a route's `to` imply.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use super::app::AppTable;
use super::keys::{self, nearest};
use super::reader::Reader;
use super::server::file;
use super::table::{Placed, Table};
use super::values::{self, Wrong};
use super::{
    ExpectUser, Listener, Mistake, OnMismatch, Peer, PeerAddr, PeerProtocol, Server, Span, Upstream,
};

/// The name of the upstream that `[app]` implies.
pub(super) const APP: &str = "app";

/// All upstreams of a configuration.
pub(super) struct Upstreams {
    pub(super) list: Vec<Upstream>,
    /// Which of them is the supervised app's
    pub(super) app: Option<usize>,
}

impl Upstreams {
    /// `[upstream.NAME]`, and that of `app`.
    pub(super) fn read(top: &Table<'_>, app: Option<&AppTable>) -> Self {
        let mut list = Vec::new();
        for (name, table) in top.named("upstream", &keys::UPSTREAM) {
            if let Err(wrong) = values::upstream_name(name.value) {
                table.wrong("upstream", name.span.clone(), wrong);
            }
            let app = app.filter(|_| name.value == APP);
            list.push(upstream(&name, &table, app));
        }
        if let Some(app) = app
            && !list.iter().any(|upstream| upstream.name == APP)
        {
            list.push(implied(APP, app.peer(), app.span.clone()));
        }
        let app = app.and_then(|_| list.iter().position(|upstream| upstream.name == APP));
        Self { list, app }
    }

    /// The supervised app's.
    pub(super) fn apps(&self) -> Option<&Upstream> {
        self.app.map(|index| &self.list[index])
    }

    /// The upstream of this name, or a mistake that suggests one.
    pub(super) fn named(&self, reader: &Reader<'_>, name: &Placed<&str>) -> Option<usize> {
        let found = self
            .list
            .iter()
            .position(|upstream| upstream.name == name.value);
        if found.is_none() {
            let written = || {
                let names = self.list.iter().map(|upstream| upstream.name.as_str());
                names.filter(|name| values::upstream_name(name).is_ok())
            };
            let help = match nearest(name.value, written()) {
                Some(nearest) => format!("did you mean \"{nearest}\"?"),
                None if values::peer(name.value).is_ok() => {
                    format!("write to = \"{}\"", name.value)
                }
                None => match written().collect::<Vec<_>>().join("\", \"") {
                    names if names.is_empty() => {
                        format!("add [upstream.{}] with `peers`", name.value)
                    }
                    names => format!("there are \"{names}\""),
                },
            };
            let message = format!("there is no upstream \"{}\"", name.value);
            reader.absent(Mistake::new(Some(name.span.clone()), message).help(help));
        }
        found
    }

    /// The upstream that `to` implies; one for all that are written alike, and the app's for the app's own address, so
    /// that requests wait for it.
    pub(super) fn to(&mut self, to: Placed<(&str, (PeerAddr, PeerProtocol))>) -> usize {
        let (name, (addr, protocol)) = to.value;
        let apps = |peer: &Peer| (&peer.addr, peer.protocol) == (&addr, protocol);
        if let Some(app) = self.app
            && self.list[app].peers.iter().any(apps)
        {
            return app;
        }
        if let Some(found) = self.list.iter().position(|upstream| upstream.name == name) {
            return found;
        }
        let span = Some(to.span);
        let peer = Peer {
            addr,
            protocol,
            span: span.clone(),
        };
        self.list.push(implied(name, peer, span));
        self.list.len() - 1
    }

    /// Reports peers that are addresses which we listen on ourselves.
    pub(super) fn loops(&self, reader: &Reader<'_>, server: &Server) {
        let listeners = || server.http.iter().chain(&server.https);
        for peer in self.list.iter().flat_map(|upstream| &upstream.peers) {
            let Some(listener) = listeners().find(|listener| reaches(&peer.addr, listener)) else {
                continue;
            };
            let mistake = Mistake::new(peer.span.clone(), "lowport would forward to itself")
                .label(format!("lowport listens on {} itself", listener.addr))
                .help("give the app another port, such as 3000, or change `http` and `https` in [server]");
            reader.push(mistake.other(listener.span.clone(), "here"));
        }
    }
}

/// Whether a connection to `peer` arrives at `listener`, as far as addresses of this machine can be known.
fn reaches(peer: &PeerAddr, listener: &Listener) -> bool {
    let to = |ip: IpAddr, port: u16| {
        let on = listener.addr.ip();
        let covers =
            on == ip || (on.is_unspecified() && on.is_ipv4() == ip.is_ipv4() && ip.is_loopback());
        listener.addr.port() == port && covers
    };
    match peer {
        PeerAddr::Ip(addr) => to(addr.ip().to_canonical(), addr.port()),
        PeerAddr::Name(name, port) if name == "localhost" => {
            to(IpAddr::from(Ipv4Addr::LOCALHOST), *port)
                || to(IpAddr::from(std::net::Ipv6Addr::LOCALHOST), *port)
        }
        PeerAddr::Name(..) | PeerAddr::Unix(_) => false,
    }
}

fn implied(name: &str, peer: Peer, span: Span) -> Upstream {
    Upstream {
        name: name.to_owned(),
        peers: vec![peer],
        expect_user: ExpectUser::NotRoot,
        expect_user_span: None,
        on_mismatch: OnMismatch::Refuse,
        ca: None,
        span,
    }
}

fn upstream(name: &Placed<&str>, table: &Table<'_>, app: Option<&AppTable>) -> Upstream {
    let peers = match app {
        Some(app) if table.has("peers") => app_peers(table, app),
        Some(app) => vec![app.peer()],
        None => peers(table),
    };
    let expect = table.scalar("expect_user", "a string or a uid", values::expect_user);
    let mismatch = table.parsed("on_mismatch", |text| match text {
        "refuse" => Ok(OnMismatch::Refuse),
        "warn" => Ok(OnMismatch::Warn),
        _ => Err(Wrong::new(
            "there is no such choice",
            "write \"refuse\" or \"warn\"",
        )),
    });
    let ca: Option<(PathBuf, Span)> =
        file(table, "ca").map(|file| (table.reader.path(file.value), Some(file.span)));
    let https = peers
        .iter()
        .any(|peer| peer.protocol == PeerProtocol::Https);
    if !https && !peers.is_empty() && ca.is_some() {
        table.reader.push(
            Mistake::new(table.key("ca"), "`ca` has no use here")
                .label("no peer of this upstream is https://")
                .help("take it out, or write the peers as \"https://host:port\""),
        );
    }
    Upstream {
        name: name.value.to_owned(),
        peers,
        expect_user_span: expect.as_ref().map(|expect| expect.span.clone()),
        expect_user: expect.map_or(ExpectUser::NotRoot, |expect| expect.value),
        on_mismatch: mismatch.map_or(OnMismatch::Refuse, |mismatch| mismatch.value),
        ca,
        span: Some(name.span.clone()),
    }
}

/// Where the app is reached when its upstream says so: on a Unix socket.
fn app_peers(table: &Table<'_>, app: &AppTable) -> Vec<Peer> {
    let peers = peers(table);
    let mistake = match peers.as_slice() {
        // It is told already what is wrong.
        [] => return peers,
        [one] if matches!(one.addr, PeerAddr::Unix(_)) => match &app.port_span {
            None => return peers,
            port => Mistake::new(
                one.span.clone(),
                "the app cannot listen on a port and on a socket",
            )
            .other(port.clone(), "the port")
            .help("take one of the two out"),
        },
        _ => Mistake::new(table.key("peers"), "[app] has no other peers")
            .label("it is reached at its `port`, or at one Unix socket")
            .other(app.span.clone(), "the app")
            .help("take `peers` out, or give this upstream another name"),
    };
    table.reader.push(mistake);
    vec![app.peer()]
}

fn peers(table: &Table<'_>) -> Vec<Peer> {
    const EXAMPLE: &str = "write peers = [\"127.0.0.1:3000\"], with the address of your app";
    let Some(list) = table.list("peers", values::peer) else {
        if !table.has("peers") {
            table.missing("peers", EXAMPLE);
        }
        return Vec::new();
    };
    if table.is_empty_list("peers") {
        let span = table.value("peers");
        table
            .reader
            .push(Mistake::new(span, "an upstream needs a peer").help(EXAMPLE));
    }
    let mut peers: Vec<Peer> = Vec::new();
    for Placed { value, span } in list {
        let (addr, protocol) = value;
        let same = |peer: &&Peer| (&peer.addr, peer.protocol) == (&addr, protocol);
        if let Some(earlier) = peers.iter().find(same) {
            table.reader.push(
                Mistake::new(Some(span), "this peer is there twice")
                    .label("again here")
                    .other(earlier.span.clone(), "first here")
                    .help("take one of the two out"),
            );
            continue;
        }
        peers.push(Peer {
            addr,
            protocol,
            span: Some(span),
        });
    }
    peers
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mistakes, parsed};
    use super::*;

    #[test]
    fn upstreams_keep_the_order_of_the_file_and_equal_tos_are_one() {
        let config = parsed(
            "[upstream.z]\npeers = [\"z:1\", \"https://z:1\"]\nca = \"ca.pem\"\non_mismatch = \"warn\"\n\
             [upstream.a]\npeers = \"a:1\"\n\
             [[route]]\nto = \"http://c:1\"\n[[route]]\npath = \"/c\"\nto = \"http://c:1\"\n\
             [[route]]\npath = \"/d\"\nto = \"c:1\"\n",
        );
        let names: Vec<&str> = config
            .upstreams
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(names, ["z", "a", "http://c:1", "c:1"]);
        let (ca, span) = config.upstreams[0].ca.clone().unwrap();
        assert_eq!(ca, std::path::Path::new("/etc/x/ca.pem"));
        assert!(span.is_some());
        assert_eq!(config.upstreams[0].on_mismatch, OnMismatch::Warn);
    }

    #[test]
    fn mistakes_of_upstreams() {
        let route = "[[route]]\nto = \"other:1\"\n";
        for (text, said) in [
            ("[upstream.App]\npeers = \"a:1\"", "names are made of a-z"),
            ("[upstream.a]", "[upstream.NAME] needs `peers`"),
            ("[upstream.a]\npeers = []", "an upstream needs a peer"),
            (
                "[upstream.a]\npeers = [\"a:1\", \"http://A:1\"]",
                "this peer is there twice",
            ),
            (
                "[upstream.a]\npeers = [\"a:1\", 3000]",
                "must be a list of strings",
            ),
            ("[upstream]\npeers = \"a:1\"", "choose a NAME"),
            (
                "[[upstream]]\npeers = \"a:1\"",
                "must be written as [upstream.NAME]",
            ),
            (
                "[upstream.a]\npeers = \"a:1\"\nca = \"x.pem\"",
                "`ca` has no use here",
            ),
            (
                "[upstream.a]\npeers = \"a:1\"\non_mismatch = \"log\"",
                "\"refuse\" or \"warn\"",
            ),
            ("[app]\nport = 3000", "[app] needs `command`"),
            ("[app]\ncommand = []", "there is no program"),
            (
                "[app]\ncommand = \"node server.js\"",
                "write command = [\"node\", \"server.js\"]",
            ),
            ("[app]\ncommand = \"node\"\nport = 0", "must be 1 to 65535"),
            (
                "[app]\ncommand = \"node\"\nuser = \"root\"",
                "nothing here runs as root",
            ),
            ("[app]\ncommand = \"node\"\nport = 80", "forward to itself"),
        ] {
            let told = mistakes(&format!("{text}\n{route}"));
            assert!(told.contains(said), "{text}: {told}");
            assert!(told.ends_with("1 mistake\n"), "{text}: {told}");
        }
    }

    #[test]
    fn a_loop_is_seen() {
        for (listen, to, loops) in [
            ("0.0.0.0:8080", "127.0.0.1:8080", true),
            ("0.0.0.0:8080", "127.0.0.2:8080", true),
            ("0.0.0.0:8080", "[::1]:8080", false),
            ("[::]:8080", "http://localhost:8080", true),
            ("127.0.0.1:8080", "localhost:8080", true),
            ("127.0.0.1:8080", "127.0.0.2:8080", false),
            ("10.0.0.1:8080", "10.0.0.1:8080", true),
            ("0.0.0.0:8080", "10.0.0.1:8080", false),
            ("0.0.0.0:8080", "127.0.0.1:8081", false),
            ("0.0.0.0:8080", "app:8080", false),
        ] {
            let text = format!("[server]\nhttp = \"{listen}\"\n[[route]]\nto = \"{to}\"\n");
            let told = mistakes(&text);
            assert_eq!(told.contains("forward to itself"), loops, "{text}");
        }
    }
}
