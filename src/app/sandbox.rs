//! The sandbox: what the worker is left with once it serves, and what is told of it.

use std::io;

use tracing::{debug, info, warn};

use crate::config::{Config, Mistake, Mistakes, PeerAddr};
use crate::privilege::report::PrivilegeReport;
use crate::privilege::{Needs, Walls};

/// What serving `config` takes, and nothing else: no file is opened and no port bound once everything is.
pub(super) fn needs(config: &Config) -> Needs {
    let mut needs = Needs {
        // From the broker.
        descriptors: true,
        // For the broker and the app's supervisor.
        wait: true,
        splice: config.splices(),
        ..Needs::default()
    };
    let mut ports = config.sandbox.connect.clone();
    for peer in config.upstreams.iter().flat_map(|upstream| &upstream.peers) {
        match &peer.addr {
            PeerAddr::Ip(addr) => ports.push(addr.port()),
            PeerAddr::Name(_, port) => {
                ports.push(*port);
                needs.resolve = true;
            }
            PeerAddr::Unix(path) => needs.connect_unix.push(path.clone()),
        }
    }
    needs.connect = ports.into_iter().collect();
    needs
}

/// Adds a mistake for each upstream of `next` that the sandbox of a process with `needs` does not reach.
pub(super) fn check(needs: &Needs, next: &Config, mistakes: &Mistakes) {
    for peer in next.upstreams.iter().flat_map(|upstream| &upstream.peers) {
        let reached = match &peer.addr {
            PeerAddr::Ip(addr) => needs.connect.contains(addr.port()),
            PeerAddr::Name(_, port) => needs.resolve && needs.connect.contains(*port),
            PeerAddr::Unix(path) => needs.connect_unix.contains(path),
        };
        if !reached {
            mistakes.push(
                Mistake::new(
                    peer.span.clone(),
                    format!("the sandbox does not reach {}", peer.addr),
                )
                .label("it was made for the upstreams that were there at start")
                .help(
                    "restart lowport; ports that are to come later can be named in sandbox.connect",
                ),
            );
        }
    }
}

/// Says in the log what is on, and all that is open. `report` is the whole, where the processes could be read back.
///
/// # Errors
/// What was read back is not what was put on.
pub(super) fn tell(walls: &Walls, report: Option<&PrivilegeReport>) -> io::Result<()> {
    let calls = walls.seccomp.as_ref().map_or(0, |state| state.calls.len());
    let ports = &walls.needs.connect;
    let tried = walls.tried.len();
    match (&walls.landlock, &walls.seccomp) {
        (Err(why), Err(_)) => warn!(why, "no sandbox"),
        (landlock, seccomp) => {
            if let Err(why) = landlock {
                warn!(why, "no landlock");
            }
            if let Err(why) = seccomp {
                warn!(why, "no seccomp");
            }
            info!(calls, connects_to = %ports, tried, "sandboxed");
        }
    }
    if let Some(report) = report {
        debug!("privileges:\n{report}");
        let contradictions = report.contradictions();
        if !contradictions.is_empty() {
            return Err(io::Error::other(format!(
                "the drop does not hold: {}",
                contradictions.join("; ")
            )));
        }
        if let Some((_, walls)) = report.broker.as_ref().filter(|(_, walls)| walls.stand()) {
            let calls = walls.seccomp.as_ref().map_or(0, |state| state.calls.len());
            let tried = walls.tried.len();
            info!(calls, binds = %walls.needs.bind, tried, "broker sandboxed");
        }
        for open in report.open() {
            info!("privilege: not closed: {open}");
        }
    }
    Ok(())
}
