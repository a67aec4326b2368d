//! `[app]`, and an app on the command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::keys;
use super::server::{file, user};
use super::table::Table;
use super::values::Wrong;
use super::{App, AppAddr, AppArgs, Peer, PeerAddr, PeerProtocol, Span, Upstream, User};

/// The port when none is written.
const PORT: u16 = 3000;

/// `[app]`, as far as it could be read.
pub(super) struct AppTable {
    /// `None` when there is no usable command
    command: Option<Vec<String>>,
    dir: PathBuf,
    user: Option<User>,
    port: u16,
    pub(super) port_span: Span,
    /// Where it was written; `None` when it is only on the command line
    pub(super) span: Span,
}

impl AppTable {
    /// `None` when it is neither written nor in `args`, whose command has the last word.
    pub(super) fn read(top: &Table<'_>, args: Option<&AppArgs>) -> Option<Self> {
        if !top.has("app") && args.is_none() {
            return None;
        }
        let table = top.table("app", &keys::APP);
        let written = (table.has("command") || args.is_none())
            .then(|| command(&table))
            .flatten();
        let dir = match (file(&table, "dir"), args) {
            (Some(dir), _) => table.reader.path(dir.value),
            (None, Some(args)) => args.dir.clone(),
            (None, None) => table.reader.path("."),
        };
        let user = user(&table).or_else(|| {
            let name = args?.user.clone()?;
            Some(User { name, span: None })
        });
        let port = table.number("port", 1..=65535);
        Some(Self {
            command: args.map(|args| args.command.clone()).or(written),
            dir,
            user,
            port: port.as_ref().map_or(PORT, |port| port.value as u16),
            port_span: port.map(|port| port.span),
            span: table.span.or_else(|| top.key("app")),
        })
    }

    /// Where it is reached, unless its upstream says otherwise.
    pub(super) fn peer(&self) -> Peer {
        Peer {
            addr: PeerAddr::Ip(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))),
            protocol: PeerProtocol::Http1,
            span: self.port_span.clone().or_else(|| self.span.clone()),
        }
    }

    /// What it means; `upstream` is the one that it implies.
    pub(super) fn app(self, upstream: Option<&Upstream>) -> Option<App> {
        let socket = upstream
            .and_then(|upstream| upstream.peers.first())
            .and_then(|peer| match &peer.addr {
                PeerAddr::Unix(path) => Some(AppAddr::Socket(path.clone())),
                PeerAddr::Ip(_) | PeerAddr::Name(..) => None,
            });
        Some(App {
            command: self.command?,
            dir: self.dir,
            user: self.user,
            listens: socket.unwrap_or(AppAddr::Port(self.port)),
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
    use super::super::tests::{mistakes, parsed, parsed_with};
    use super::super::{ExpectUser, OnMismatch};
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
        assert_eq!(app.command, ["node"]);
        assert_eq!(app.listens, AppAddr::Port(3000));
        assert_eq!(app.dir, std::path::Path::new("/etc/x/."));
        let addr: SocketAddr = "127.0.0.1:3000".parse().unwrap();
        assert_eq!(peers(&config.upstreams[0]), [&PeerAddr::Ip(addr)]);
        assert_eq!(config.routes.len(), 1);
    }

    #[test]
    fn an_apps_upstream_can_be_written_but_not_its_peers() {
        let app = "[app]\ncommand = [\"node\", \"x.js\"]\nport = 4000\nuser = \"node\"\n";
        let text =
            format!("{app}[upstream.b]\npeers = \"b:1\"\n[upstream.app]\nexpect_user = 1000\n");
        let config = parsed(&format!("{text}{ROUTE}"));
        assert_eq!(config.app_upstream(), Some(1));
        assert_eq!(config.upstreams[1].expect_user, ExpectUser::Uid(1000));
        let addr: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        assert_eq!(peers(&config.upstreams[1]), [&PeerAddr::Ip(addr)]);
        let unix = "\"unix:/run/app.sock\"";
        for (peers, said) in [
            ("\"b:1\"", "[app] has no other peers"),
            (&format!("[{unix}, \"b:1\"]"), "[app] has no other peers"),
            (unix, "the app cannot listen on a port and on a socket"),
            ("[]", "an upstream needs a peer"),
        ] {
            let told = mistakes(&format!("{app}[upstream.app]\npeers = {peers}\n{ROUTE}"));
            assert!(told.contains(said), "{told}");
            assert!(told.ends_with("1 mistake\n"), "{told}");
        }
    }

    #[test]
    fn an_app_may_listen_on_a_socket() {
        let config =
            parsed("[app]\ncommand = \"node\"\n[upstream.app]\npeers = \"unix:/run/app.sock\"\n");
        let socket = AppAddr::Socket("/run/app.sock".into());
        assert_eq!(socket.to_string(), "unix:/run/app.sock");
        assert_eq!(config.app.unwrap().listens, socket);
        let addr = PeerAddr::Unix("/run/app.sock".into());
        assert_eq!(peers(&config.upstreams[0]), [&addr]);
        assert_eq!(config.routes.len(), 1);
    }

    #[test]
    fn an_app_on_the_command_line_takes_the_rest_from_the_file() {
        let args = AppArgs {
            command: vec!["node".to_owned(), "x.js".to_owned()],
            dir: "/here".into(),
            user: Some("ada".to_owned()),
        };
        let with = |text: &str| parsed_with(text, Some(args.clone()));
        let config = with("");
        let app = config.app.as_ref().unwrap();
        assert_eq!((&app.command, &app.dir), (&args.command, &args.dir));
        assert_eq!(app.user.as_ref().unwrap().name, "ada");
        assert_eq!(app.listens, AppAddr::Port(3000));
        assert_eq!((config.routes.len(), config.app_upstream()), (1, Some(0)));

        let config = with(
            "[app]\ncommand = \"other\"\ndir = \"app\"\nuser = \"node\"\nport = 4000\n\
             [[route]]\npath = \"/app\"\nupstream = \"app\"\n",
        );
        let app = config.app.as_ref().unwrap();
        assert_eq!(app.command, args.command);
        assert_eq!(app.dir, std::path::Path::new("/etc/x/app"));
        assert_eq!(app.user.as_ref().unwrap().name, "node");
        assert_eq!(app.listens, AppAddr::Port(4000));
        assert_eq!(config.routes.len(), 1);
    }

    #[test]
    fn a_route_to_the_apps_own_address_is_a_route_to_the_app() {
        let app = "[app]\ncommand = \"node\"\n";
        let to = |addr: &str| format!("[[route]]\nto = \"{addr}\"\n");
        let config = parsed(&format!("{app}{}", to("http://127.0.0.1:3000")));
        assert_eq!(config.upstreams.len(), 1);
        for other in ["http://127.0.0.1:3001", "h2c://127.0.0.1:3000"] {
            let config = parsed(&format!("{app}{}", to(other)));
            assert_eq!(config.upstreams.len(), 2, "{other}");
        }
        // Without an app it is an upstream like any other.
        let named = "[upstream.app]\npeers = \"127.0.0.1:3000\"\nexpect_user = \"any\"\n";
        let config = parsed(&format!("{named}{}", to("http://127.0.0.1:3000")));
        assert_eq!(config.upstreams.len(), 2);
    }

    #[test]
    fn without_an_app_there_is_none() {
        let config = parsed(&format!("[upstream.app]\npeers = \"a:1\"\n{ROUTE}"));
        assert_eq!(config.app_upstream(), None);
        assert_eq!(config.upstreams[0].expect_user, ExpectUser::NotRoot);
        assert_eq!(config.upstreams[0].on_mismatch, OnMismatch::Refuse);
    }
}
