//! `lowport check`

use std::fmt::{Display, Write};
use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::sync::Arc;

use super::table::Table;
use super::{ConfigArg, Loaded, tell};
use crate::app::{self, EXIT_CONFIG, stderr_colors};
use crate::config::{Action, Config, Listener, Mistakes, PeerAddr, PeerProtocol, Route, Source};
use crate::console;
use crate::privilege::{bind, holder, is_root};
use crate::route::columns;
use crate::snapshot::{Lasting, Snapshot};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Leave out whether the ports can be had, for a file that another machine will run
    #[arg(long)]
    no_ports: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, ExitCode> {
    let Loaded { source, note } = args.config.load()?;
    match check(&source, args.no_ports, note) {
        Ok(report) => {
            tell(report)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(mistakes) => {
            console::err(mistakes.render(stderr_colors()));
            Err(ExitCode::from(EXIT_CONFIG))
        }
    }
}

fn check(source: &Arc<Source>, no_ports: bool, note: Option<String>) -> Result<String, Mistakes> {
    let snapshot = Snapshot::load(source, &Lasting::new(false))?;
    let config = &snapshot.config;
    let mistakes = Mistakes::new(Arc::clone(source));
    let mut notes = Vec::from_iter(note);
    app::check_surroundings(source, config, &mistakes);
    if !no_ports {
        ports(config, &mistakes, &mut notes);
    }
    names(config, &mut notes);
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    Ok(report(source, &snapshot, &notes))
}

/// Binds every listener for a moment. One that a running lowport holds is no mistake: checking before a reload is what
/// this command is for.
fn ports(config: &Config, mistakes: &Mistakes, notes: &mut Vec<String>) {
    for (listener, tls) in config.listeners() {
        let found = Mistakes::new(mistakes.shared_source());
        if bind(listener, tls, 1, holder, &found).is_some() {
            continue;
        }
        match holder(listener.addr.port()) {
            Some(holder) if holder.starts_with("lowport ") => {
                notes.push(format!("{} is held by {holder} already", listener.addr));
            }
            _ => mistakes.take(found),
        }
    }
}

fn names(config: &Config, notes: &mut Vec<String>) {
    for upstream in &config.upstreams {
        for peer in &upstream.peers {
            if let PeerAddr::Name(name, port) = &peer.addr
                && let Err(error) = (name.as_str(), *port).to_socket_addrs()
            {
                notes.push(format!(
                    "{name} (upstream {}) does not resolve now: {error}\n      It is looked up anew for each connection.",
                    upstream.name
                ));
            }
        }
    }
}

fn report(source: &Source, snapshot: &Snapshot, notes: &[String]) -> String {
    let mut text = format!("{}: no mistakes\n", source.name);
    let mut section = |title: &str, table: &dyn Display, empty: bool| {
        if !empty {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{title}\n{table}");
        }
    };
    let (listeners, certificates) = (listeners(snapshot), certificates(snapshot));
    let (upstreams, routes) = (upstreams(&snapshot.config), routes(snapshot));
    section("listens on", &listeners, listeners.is_empty());
    section("certificates", &certificates, certificates.is_empty());
    section("upstreams", &upstreams, upstreams.is_empty());
    let app = supervised(source, &snapshot.config);
    section("app", &app, app.is_empty());
    section("routes, as they are matched", &routes, routes.is_empty());
    if !notes.is_empty() {
        text.push('\n');
        for note in notes {
            let _ = writeln!(text, "note: {note}");
        }
    }
    text
}

fn listeners(snapshot: &Snapshot) -> Table<1> {
    let mut table = Table::new();
    let server = &snapshot.config.server;
    for (name, listeners) in [("http", &server.http), ("https", &server.https)] {
        let mut list: Vec<String> = listeners
            .iter()
            .map(|Listener { addr, .. }| addr.to_string())
            .collect();
        if list.is_empty() {
            continue;
        }
        if name == "http" && snapshot.https_port.is_some() {
            list.push("all redirected to https".to_owned());
        }
        if server.proxy_protocol {
            list.push("behind a PROXY header from trusted_proxies".to_owned());
        }
        table.row([name], list);
    }
    table
}

fn certificates(snapshot: &Snapshot) -> Table<2> {
    let mut table = Table::new();
    for certificate in snapshot.keys.store.certificates() {
        let soon = if certificate.expires_soon() {
            " (soon)"
        } else {
            ""
        };
        let until = format!("until {}{soon}", certificate.not_after.date());
        let file = certificate.file.display().to_string();
        table.row([file, until], certificate.names.clone());
    }
    table
}

/// Those with a name. What a route's `to` implies is told with the route.
fn upstreams(config: &Config) -> Table<1> {
    let mut table = Table::new();
    for upstream in &config.upstreams {
        let peers: Vec<String> = upstream.peers.iter().map(peer).collect();
        if peers != [upstream.name.as_str()] {
            table.row([upstream.name.as_str()], peers);
        }
    }
    table
}

/// What is started, where, and by whom.
fn supervised(source: &Source, config: &Config) -> Table<1> {
    let mut table = Table::new();
    if let Some(app) = &config.app {
        let mut list = vec![format!("in {}", app.dir.display())];
        if let Some(user) = app.user.as_ref().filter(|_| is_root()) {
            list.push(format!("as {}", user.name));
        }
        if source.app.is_some() {
            list.push("its command from the command line".to_owned());
        }
        table.row([app.command.join(" ")], list);
    }
    table
}

fn routes(snapshot: &Snapshot) -> Table<3> {
    let mut table = Table::new();
    for index in snapshot.table.ordered() {
        let route = &snapshot.config.routes[index];
        table.row(columns(route), vec![outcome(&snapshot.config, route)]);
    }
    table
}

/// What comes of a route: `-> app, strips /api`.
pub(super) fn outcome(config: &Config, route: &Route) -> String {
    let action = match &route.action {
        Action::Proxy(upstream) => config.upstreams[*upstream].name.clone(),
        Action::Redirect { location, status } => format!("{} to {location}", status.as_u16()),
        Action::Respond { status, body, .. } => {
            let plural = if body.len() == 1 { "" } else { "s" };
            format!("{} with {} byte{plural}", status.as_u16(), body.len())
        }
    };
    let strips = route.strip_prefix.as_ref();
    let strips = strips.map(|prefix| format!(", strips {prefix}"));
    format!("-> {action}{}", strips.unwrap_or_default())
}

fn peer(peer: &crate::config::Peer) -> String {
    let scheme = match (&peer.addr, peer.protocol) {
        (PeerAddr::Unix(_), _) => "",
        (_, PeerProtocol::Http1) => "http://",
        (_, PeerProtocol::Https) => "https://",
        (_, PeerProtocol::H2c) => "h2c://",
    };
    format!("{scheme}{}", peer.addr)
}
