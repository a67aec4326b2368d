//! `lowport check`

use std::fmt::Write;
use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::sync::Arc;

use super::ConfigArg;
use crate::app::{self, EXIT_CONFIG, stderr_colors};
use crate::config::{Action, Config, Listener, Mistakes, PeerAddr, PeerProtocol, Source};
use crate::privilege::{bind, holder};
use crate::route::matcher;
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
    let source = args.config.load()?;
    match check(&source, args.no_ports) {
        Ok(report) => {
            print!("{report}");
            Ok(ExitCode::SUCCESS)
        }
        Err(mistakes) => {
            eprint!("{}", mistakes.render(stderr_colors()));
            Err(ExitCode::from(EXIT_CONFIG))
        }
    }
}

fn check(source: &Arc<Source>, no_ports: bool) -> Result<String, Mistakes> {
    let snapshot = Snapshot::load(source, &Lasting::new(false))?;
    let config = &snapshot.config;
    let mistakes = Mistakes::new(Arc::clone(source));
    let mut notes = Vec::new();
    app::check_users(config, &mistakes);
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
        if bind(listener, tls, 1, &found).is_some() {
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
                    "{name} of upstream {} does not resolve now ({error}): it is looked up anew for each connection",
                    upstream.name
                ));
            }
        }
    }
}

fn report(source: &Source, snapshot: &Snapshot, notes: &[String]) -> String {
    let config = &snapshot.config;
    let mut table = Table::default();
    let redirects = snapshot.https_port.is_some();
    for (name, listeners, note) in [
        (
            "http",
            &config.server.http,
            if redirects { "redirects to https" } else { "" },
        ),
        ("https", &config.server.https, ""),
    ] {
        let list: Vec<String> = listeners
            .iter()
            .map(|Listener { addr, .. }| addr.to_string())
            .collect();
        if !list.is_empty() {
            table.row([name.to_owned(), list.join(", "), note.to_owned()]);
        }
    }
    for certificate in snapshot.store.certificates() {
        let soon = if certificate.expires_soon() {
            ", which is soon"
        } else {
            ""
        };
        let until = format!(
            "until {}{soon} ({})",
            certificate.not_after.date(),
            certificate.file.display()
        );
        table.row([
            "certificate".to_owned(),
            certificate.names.join(", "),
            until,
        ]);
    }
    for upstream in &config.upstreams {
        let peers: Vec<String> = upstream.peers.iter().map(peer).collect();
        table.row([
            format!("upstream {}", upstream.name),
            peers.join(", "),
            String::new(),
        ]);
    }
    let mut text = format!(
        "{}: no mistakes\n\n{table}\nroutes, as they are matched:\n\n",
        source.name
    );
    let mut routes = Table::default();
    for index in snapshot.table.ordered() {
        let route = &config.routes[index];
        let strips = route
            .strip_prefix
            .as_ref()
            .map(|prefix| format!(", strips {prefix}"))
            .unwrap_or_default();
        let action = format!("-> {}{strips}", action(config, &route.action));
        routes.row([matcher(route), action]);
    }
    let _ = write!(text, "{routes}");
    if !notes.is_empty() {
        text.push('\n');
        for note in notes {
            let _ = writeln!(text, "note: {note}");
        }
    }
    text
}

fn action(config: &Config, action: &Action) -> String {
    match action {
        Action::Proxy(upstream) => config.upstreams[*upstream].name.clone(),
        Action::Redirect { location, status } => format!("{} to {location}", status.as_u16()),
        Action::Respond { status, body, .. } => {
            format!("{} with {} bytes", status.as_u16(), body.len())
        }
    }
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

/// Columns as wide as their widest cell.
#[derive(Debug)]
struct Table<const N: usize>(Vec<[String; N]>);

impl<const N: usize> Default for Table<N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<const N: usize> Table<N> {
    fn row(&mut self, cells: [String; N]) {
        self.0.push(cells);
    }
}

impl<const N: usize> std::fmt::Display for Table<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |column: usize| {
            self.0
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: [usize; N] = std::array::from_fn(width);
        for row in &self.0 {
            let mut line = String::from("  ");
            for (cell, width) in row.iter().zip(widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
