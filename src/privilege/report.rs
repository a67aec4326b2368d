//! What became of this process's privileges, for people and for programs.

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};

use super::landlock::{Kept, LandlockState};
use super::mode::Mode;
use super::needs::Needs;
use super::seccomp::SeccompState;
use super::status::{SeccompMode, TaskState, one_state, threads_json};
use super::trial::Tried;
use super::user::Identity;

/// What became of this process's privileges. [`Display`](fmt::Display) is for a terminal.
#[derive(Debug, Clone)]
pub struct PrivilegeReport {
    /// Where the low ports came from
    pub mode: Mode,
    /// Who serves
    pub identity: Identity,
    /// Each thread that serves, read back from the kernel; why not, where it cannot be read
    pub threads: Result<Vec<TaskState>, String>,
    /// What it was left to do
    pub needs: Needs,
    /// What Landlock keeps; why it was left out, where the configuration says so
    pub landlock: Result<LandlockState, String>,
    /// What seccomp keeps; why it was left out
    pub seccomp: Result<SeccompState, String>,
    /// What was tried with the sandbox on; empty when nothing was
    pub tried: Vec<Tried>,
    /// The broker, where there is one
    pub broker: Option<TaskState>,
    /// The app's supervisor, where there is one
    pub supervisor: Option<TaskState>,
    /// What else could not be enforced, a sentence each
    pub degraded: Vec<String>,
}

impl PrivilegeReport {
    /// Everything that is not as tight as it could be, a sentence each; empty when nothing is missing.
    pub fn open(&self) -> Vec<String> {
        let mut open = self.contradictions();
        if let Err(reason) = &self.threads {
            open.push(format!("the threads could not be read back: {reason}"));
        }
        match &self.landlock {
            Err(reason) => open.push(format!("landlock is off: {reason}")),
            Ok(state) => {
                for (what, kept) in parts(state) {
                    if *kept != Kept::Full {
                        open.push(format!("landlock, {what}: {kept}"));
                    }
                }
            }
        }
        if let Err(reason) = &self.seccomp {
            open.push(format!("seccomp is off: {reason}"));
            if self.landlock.is_ok() && !self.needs.connect.is_any() {
                open.push(
                    "without it, Multipath TCP and TCP Fast Open connect to any port".to_owned(),
                );
            }
        }
        for tried in &self.tried {
            if !tried.outcome.is_denied() {
                open.push(format!("{}: {}", tried.action, tried.outcome));
            }
        }
        open.extend(self.degraded.iter().cloned());
        open
    }

    /// What was read back of the threads and is not what should have come of it, a sentence each: who finds that must not
    /// serve.
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Ok(threads) = &self.threads {
            match one_state(threads) {
                Err(reason) => found.push(reason),
                Ok(state) => self.check(state, &mut found),
            }
        }
        found
    }

    /// Compares what was read back with what should have come of it.
    fn check(&self, state: &TaskState, open: &mut Vec<String>) {
        if state.uids != [self.identity.uid; 4] || state.gids != [self.identity.gid; 4] {
            open.push(format!(
                "it runs as {:?} and {:?}, not as {}",
                state.uids, state.gids, self.identity
            ));
        }
        let mut sets = state.capabilities;
        // Without root there was no CAP_SETPCAP to empty it with, and no_new_privs keeps it from being used.
        if self.mode != Mode::Root && state.no_new_privs {
            sets.bounding = 0;
        }
        if !sets.is_none() {
            open.push(format!("capabilities are left: {sets}"));
        }
        if self.mode == Mode::Root && !state.groups.is_empty() {
            open.push(format!("it is still in the groups {:?}", state.groups));
        }
        if !state.no_new_privs {
            open.push("no_new_privs is not set".to_owned());
        }
        if let Ok(seccomp) = &self.seccomp {
            let fewer = state
                .seccomp_filters
                .is_some_and(|on| (on as usize) < seccomp.filters);
            if state.seccomp != SeccompMode::Filter || fewer {
                open.push("the seccomp filters are not on".to_owned());
            }
        }
    }

    /// For programs: every fact, and `open` with what could not be enforced.
    pub fn to_json(&self) -> Value {
        let landlock = self.landlock.as_ref().map_or_else(
            |reason| json!({ "off": reason }),
            |state| {
                let kept: serde_json::Map<_, _> = parts(state)
                    .map(|(what, kept)| (what.to_owned(), kept_json(kept)))
                    .into_iter()
                    .collect();
                json!({ "abi": state.abi, "kept": kept })
            },
        );
        let seccomp = self.seccomp.as_ref().map_or_else(
            |reason| json!({ "off": reason }),
            |state| json!({ "filters": state.filters, "calls": state.calls }),
        );
        let tried: Vec<Value> = self
            .tried
            .iter()
            .map(|tried| {
                json!({
                    "action": tried.action,
                    "denied": tried.outcome.is_denied(),
                    "how": tried.outcome.to_string(),
                })
            })
            .collect();
        json!({
            "mode": self.mode.to_string(),
            "user": self.identity.name,
            "uid": self.identity.uid,
            "gid": self.identity.gid,
            "threads": threads_json(&self.threads),
            "needs": {
                "read": paths(&self.needs.read),
                "write": paths(&self.needs.write),
                "bind": self.needs.bind.to_string(),
                "connect": self.needs.connect.to_string(),
                "connect_unix": paths(&self.needs.connect_unix),
                "resolve": self.needs.resolve,
            },
            "landlock": landlock,
            "seccomp": seccomp,
            "tried": tried,
            "broker": self.broker.as_ref().map(TaskState::to_json),
            "supervisor": self.supervisor.as_ref().map(TaskState::to_json),
            "open": self.open(),
        })
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("ports from", self.mode.to_string()),
            (
                "runs as",
                format!("{}, gid {}", self.identity, self.identity.gid),
            ),
        ];
        if let Ok(threads) = &self.threads
            && let Ok(state) = one_state(threads)
        {
            rows.push(("capabilities", state.capabilities.to_string()));
            rows.push(("no new privs", yes(state.no_new_privs)));
            rows.push(("threads", format!("{}, all alike", threads.len())));
        }
        rows.push(match &self.landlock {
            Ok(state) if state.is_none() => ("landlock", "none".to_owned()),
            Ok(state) => {
                let kept: Vec<String> = parts(state)
                    .iter()
                    .map(|(what, kept)| format!("{what} {}", word(kept)))
                    .collect();
                (
                    "landlock",
                    format!("ABI {}: {}", state.abi, kept.join(", ")),
                )
            }
            Err(_) => ("landlock", "off".to_owned()),
        });
        rows.push((
            "seccomp",
            match &self.seccomp {
                Ok(state) => format!(
                    "{} filters, {} system calls left",
                    state.filters,
                    state.calls.len()
                ),
                Err(_) => "off".to_owned(),
            },
        ));
        rows.push(("may connect", self.may_connect()));
        rows.push(("may bind", self.needs.bind.to_string()));
        rows.push(("may read", self.may_read()));
        rows.push(("may write", list(&self.needs.write)));
        for (name, task) in [("broker", &self.broker), ("supervisor", &self.supervisor)] {
            if let Some(task) = task {
                rows.push((
                    name,
                    format!(
                        "uid {}, capabilities: {}, no new privs: {}, seccomp: {}",
                        task.uids[1],
                        task.capabilities,
                        yes(task.no_new_privs),
                        task.filters()
                    ),
                ));
            }
        }
        rows
    }

    fn may_connect(&self) -> String {
        let mut to = match self.needs.connect.to_string() {
            ports if self.needs.connect.is_none() => ports,
            ports => format!("TCP {ports}"),
        };
        for socket in &self.needs.connect_unix {
            to.push_str(&format!(", unix:{}", socket.display()));
        }
        if self.needs.resolve {
            to.push_str(", name servers");
        }
        to
    }

    fn may_read(&self) -> String {
        match (self.needs.read.is_empty(), self.needs.resolve) {
            (_, false) => list(&self.needs.read),
            (true, true) => "the resolver's files".to_owned(),
            (false, true) => format!("{}, the resolver's files", list(&self.needs.read)),
        }
    }
}

impl fmt::Display for PrivilegeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.rows() {
            writeln!(f, "  {name:<13} {value}")?;
        }
        if !self.tried.is_empty() {
            let width = self
                .tried
                .iter()
                .map(|tried| tried.action.len())
                .max()
                .unwrap_or(0);
            writeln!(f, "\ntried in throwaway processes:\n")?;
            for tried in &self.tried {
                writeln!(f, "  {:<width$}  {}", tried.action, tried.outcome)?;
            }
        }
        let open = self.open();
        if open.is_empty() {
            return writeln!(f, "\neverything is enforced");
        }
        writeln!(f, "\nNOT enforced:\n")?;
        for sentence in open {
            writeln!(f, "  {sentence}")?;
        }
        Ok(())
    }
}

fn parts(state: &LandlockState) -> [(&'static str, &Kept); 3] {
    [
        ("files", &state.files),
        ("network", &state.network),
        ("scopes", &state.scopes),
    ]
}

fn word(kept: &Kept) -> &'static str {
    match kept {
        Kept::Full => "full",
        Kept::Partial(_) => "PARTIAL",
        Kept::None(_) => "NONE",
    }
}

fn kept_json(kept: &Kept) -> Value {
    match kept {
        Kept::Full => json!({ "level": "full" }),
        Kept::Partial(open) => json!({ "level": "partial", "open": open }),
        Kept::None(reason) => json!({ "level": "none", "reason": reason }),
    }
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "NO" }.to_owned()
}

fn list<P: AsRef<Path>>(paths: &[P]) -> String {
    if paths.is_empty() {
        return "nothing".to_owned();
    }
    let shown: Vec<String> = paths
        .iter()
        .map(|path| path.as_ref().display().to_string())
        .collect();
    shown.join(", ")
}

fn paths<P: AsRef<Path>>(paths: &[P]) -> Vec<String> {
    paths
        .iter()
        .map(|path| path.as_ref().display().to_string())
        .collect()
}

#[cfg(test)]
mod tests;
