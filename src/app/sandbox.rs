//! The sandbox: what the worker is left with once it serves, put on, proved, and told.

use std::io;

use tracing::{debug, info, warn};

use crate::config::{Config, Layer, Mistake, Mistakes, PeerAddr, Sandbox};
use crate::privilege::landlock::{self, LandlockState};
use crate::privilege::report::PrivilegeReport;
use crate::privilege::seccomp::{self, SeccompState};
use crate::privilege::trial::{Tried, trial, unavailable};
use crate::privilege::{Identity, Needs, OneThread, Ports};

/// What serving `config` takes, and nothing else: no file is opened and no port bound once everything is.
pub(super) fn needs(config: &Config) -> Needs {
    let mut needs = Needs {
        // From the broker.
        descriptors: true,
        // For the broker and the app's supervisor.
        wait: true,
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

/// What is on.
pub(super) struct Walls {
    pub(super) needs: Needs,
    landlock: Result<LandlockState, String>,
    seccomp: Result<SeccompState, String>,
    tried: Vec<Tried>,
}

impl Walls {
    /// No sandbox, because of `why`.
    pub(super) fn none(why: &str) -> Self {
        Self {
            needs: Needs {
                connect: Ports::Any,
                ..Needs::default()
            },
            landlock: Err(why.to_owned()),
            seccomp: Err(why.to_owned()),
            tried: Vec::new(),
        }
    }

    /// Whether there is a sandbox that limits what a reload may bring.
    pub(super) fn stand(&self) -> bool {
        self.seccomp.is_ok() || self.landlock.is_ok()
    }

    /// Tries the sandbox out in throwaway processes that become `user`. To be called before the drop.
    ///
    /// # Errors
    /// It cannot be tried out, or something worked that must not.
    pub(super) fn try_out(
        needs: &Needs,
        user: &Identity,
        sandbox: &Sandbox,
    ) -> io::Result<Vec<Tried>> {
        if !sandbox.allow_degraded.is_empty() {
            // What is left out would show as allowed.
            return Ok(Vec::new());
        }
        let tried = trial(needs, Some(user))?;
        let held: Vec<String> = tried
            .iter()
            .filter(|tried| !tried.outcome.is_denied())
            .map(|tried| format!("{}: {}", tried.action, tried.outcome))
            .collect();
        if held.is_empty() {
            return Ok(tried);
        }
        Err(io::Error::other(format!(
            "the sandbox does not hold: {}",
            held.join("; ")
        )))
    }

    /// Puts it on, for good: Landlock first, since seccomp forbids it.
    ///
    /// # Errors
    /// A layer cannot be had, and `sandbox` does not allow that.
    pub(super) fn put_on(needs: Needs, tried: Vec<Tried>, sandbox: &Sandbox) -> io::Result<Self> {
        let alone = OneThread::check()?;
        let landlock = landlock::restrict(&needs, &alone).and_then(LandlockState::or_none);
        let landlock = allowed(landlock, Layer::Landlock, sandbox)?;
        let seccomp = allowed(seccomp::confine(&needs, &alone), Layer::Seccomp, sandbox)?;
        Ok(Self {
            needs,
            landlock,
            seccomp,
            tried,
        })
    }

    /// Says in the log what is on, and all that is open. `report` is the whole, where the threads could be read back.
    ///
    /// # Errors
    /// What was read back is not what was put on.
    pub(super) fn tell(&self, report: Option<&PrivilegeReport>) -> io::Result<()> {
        let calls = self.seccomp.as_ref().map_or(0, |state| state.calls.len());
        let ports = &self.needs.connect;
        let tried = self.tried.len();
        match (&self.landlock, &self.seccomp) {
            (Err(why), Err(_)) => warn!(why, "no sandbox"),
            _ => info!(calls, connects_to = %ports, tried, "sandboxed"),
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
            for open in report.open() {
                info!("privilege: not closed: {open}");
            }
        }
        Ok(())
    }

    /// The whole report.
    pub(super) fn report(
        &self,
        mode: crate::privilege::Mode,
        identity: Identity,
        threads: Result<Vec<crate::privilege::status::TaskState>, String>,
    ) -> PrivilegeReport {
        PrivilegeReport {
            mode,
            identity,
            threads,
            needs: self.needs.clone(),
            landlock: self.landlock.clone(),
            seccomp: self.seccomp.clone(),
            tried: self.tried.clone(),
            broker: None,
            supervisor: None,
            degraded: Vec::new(),
        }
    }
}

fn allowed<T>(
    state: io::Result<T>,
    layer: Layer,
    sandbox: &Sandbox,
) -> io::Result<Result<T, String>> {
    let name = match layer {
        Layer::Landlock => "landlock",
        Layer::Seccomp => "seccomp",
    };
    match state {
        Ok(state) => Ok(Ok(state)),
        Err(error) if sandbox.allow_degraded.contains(&layer) => Ok(Err(error.to_string())),
        Err(error) => Err(unavailable(name, &error)),
    }
}
