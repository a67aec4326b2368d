//! The sandbox of one process: tried out, put on, and what is on.

use std::io;

use super::drop::Lesser;
use super::fork::OneThread;
use super::landlock::{self, LandlockState};
use super::needs::{Needs, Ports};
use super::seccomp::{self, SeccompState};
use super::trial::{Tried, trial};
use crate::config::{Layer, Sandbox};

/// What is on.
#[derive(Debug, Clone)]
pub struct Walls {
    /// What the process was left to do
    pub needs: Needs,
    /// What Landlock keeps; why it was left out, where the configuration says so
    pub landlock: Result<LandlockState, String>,
    /// What seccomp keeps; why it was left out
    pub seccomp: Result<SeccompState, String>,
    /// What was tried with the sandbox on; empty when nothing was
    pub tried: Vec<Tried>,
}

impl Walls {
    /// No sandbox, because of `why`.
    pub fn none(why: &str) -> Self {
        Self {
            needs: Needs {
                bind: Ports::Any,
                connect: Ports::Any,
                ..Needs::default()
            },
            landlock: Err(why.to_owned()),
            seccomp: Err(why.to_owned()),
            tried: Vec::new(),
        }
    }

    /// Whether there is a sandbox that limits what a reload may bring.
    pub fn stand(&self) -> bool {
        self.seccomp.is_ok() || self.landlock.is_ok()
    }

    /// Tries the sandbox out in throwaway processes that become as little as this one will.
    ///
    /// # Errors
    /// It cannot be tried out, or something worked that must not.
    pub fn try_out(needs: &Needs, lesser: Lesser<'_>, sandbox: &Sandbox) -> io::Result<Vec<Tried>> {
        if !sandbox.allow_degraded.is_empty() {
            // What is left out would show as allowed.
            return Ok(Vec::new());
        }
        let tried = trial(needs, lesser)?;
        let worked: Vec<String> = tried
            .iter()
            .filter(|tried| !tried.outcome.is_denied())
            .map(|tried| format!("{}: {}", tried.action, tried.outcome))
            .collect();
        if worked.is_empty() {
            return Ok(tried);
        }
        Err(io::Error::other(format!(
            "the sandbox does not hold: {}",
            worked.join("; ")
        )))
    }

    /// Puts it on, for good: Landlock first, since seccomp forbids it.
    ///
    /// # Errors
    /// There is more than one thread; or a layer cannot be had, and `sandbox` does not allow that.
    pub fn put_on(needs: Needs, tried: Vec<Tried>, sandbox: &Sandbox) -> io::Result<Self> {
        let alone = OneThread::check()?;
        let landlock = allowed(landlock::restrict(&needs, &alone), Layer::Landlock, sandbox)?;
        let seccomp = allowed(seccomp::confine(&needs, &alone), Layer::Seccomp, sandbox)?;
        Ok(Self {
            needs,
            landlock,
            seccomp,
            tried,
        })
    }
}

/// A layer that may be missing has the reason in its place.
///
/// # Errors
/// It may not.
pub(super) fn allowed<T>(
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
        Err(error) => Err(io::Error::other(format!(
            "{name} cannot be had here ({error}); to serve without it: [sandbox] allow_degraded = [\"{name}\"]"
        ))),
    }
}
