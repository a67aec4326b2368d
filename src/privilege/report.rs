//! What became of this process's privileges, for people and for programs.

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};

use super::drop;
use super::landlock::{Kept, LandlockState};
use super::mode::Mode;
use super::needs::Needs;
use super::status::{Capabilities, SeccompMode, TaskState, one_state};
use super::trial::Tried;
use super::user::Identity;
use super::walls::Walls;

/// What became of this process's privileges. [`Display`](fmt::Display) is for a terminal.
#[derive(Debug, Clone)]
pub struct PrivilegeReport {
    /// Where the low ports came from
    pub mode: Mode,
    /// Who serves
    pub identity: Identity,
    /// Each thread that serves, read back from the kernel; why not, where it cannot be read
    pub threads: Result<Vec<TaskState>, String>,
    /// Its sandbox
    pub walls: Walls,
    /// The broker, where there is one, and its sandbox
    pub broker: Option<(Helper, Walls)>,
    /// The app's supervisor, where there is one
    pub supervisor: Option<Helper>,
    /// What else could not be enforced, a sentence each
    pub degraded: Vec<String>,
}

/// A process beside the one that serves, read back from the kernel; why not, where it cannot be read.
pub type Helper = Result<TaskState, String>;

impl PrivilegeReport {
    /// Everything that is not as tight as it could be, a sentence each; empty when nothing is missing.
    pub fn open(&self) -> Vec<String> {
        let mut open = Vec::new();
        match &self.threads {
            Err(reason) => open.push(format!("the threads could not be read back: {reason}")),
            Ok(threads) => match one_state(threads) {
                Err(reason) => open.push(reason),
                Ok(state) => self.check(state, &mut open),
            },
        }
        open_walls("", &self.walls, &mut open);
        if let Some((helper, walls)) = &self.broker {
            let allowed = drop::Kept::DacReadSearch.bit() | drop::Kept::NetBindService.bit();
            self.check_helper("the broker", helper, allowed, &mut open);
            if let Ok(state) = helper
                && walls.seccomp.is_ok()
                && state.seccomp != SeccompMode::Filter
            {
                open.push("the broker: the seccomp filters are not on".to_owned());
            }
            open_walls("the broker: ", walls, &mut open);
        }
        if let Some(helper) = &self.supervisor {
            self.check_helper("the supervisor", helper, 0, &mut open);
        }
        open.extend(self.degraded.iter().cloned());
        open
    }

    /// Compares what was read back with what should have come of it.
    fn check(&self, state: &TaskState, open: &mut Vec<String>) {
        if state.uids != [self.identity.uid; 4] || state.gids != [self.identity.gid; 4] {
            open.push(format!(
                "it runs as {:?} and {:?}, not as {}",
                state.uids, state.gids, self.identity
            ));
        }
        let sets = self.sets(state);
        if !sets.is_none() {
            open.push(format!("capabilities are left: {sets}"));
        }
        if self.mode == Mode::Root && !state.groups.is_empty() {
            open.push(format!("it is still in the groups {:?}", state.groups));
        }
        if !state.no_new_privs {
            open.push("no_new_privs is not set".to_owned());
        }
        if let Ok(seccomp) = &self.walls.seccomp {
            let fewer = state
                .seccomp_filters
                .is_some_and(|on| (on as usize) < seccomp.filters);
            if state.seccomp != SeccompMode::Filter || fewer {
                open.push("the seccomp filters are not on".to_owned());
            }
        }
    }

    fn sets(&self, state: &TaskState) -> Capabilities {
        let mut sets = state.capabilities;
        // Without root there was no CAP_SETPCAP to empty it with, and no_new_privs keeps it from being used.
        if self.mode != Mode::Root && state.no_new_privs {
            sets.bounding = 0;
        }
        sets
    }

    fn check_helper(&self, who: &str, helper: &Helper, allowed: u64, open: &mut Vec<String>) {
        let state = match helper {
            Ok(state) => state,
            Err(reason) => return open.push(format!("{who} could not be read back: {reason}")),
        };
        let mut sets = self.sets(state);
        (sets.effective, sets.permitted) = (sets.effective & !allowed, sets.permitted & !allowed);
        if !sets.is_none() {
            open.push(format!("{who}: capabilities are left: {sets}"));
        }
        if !state.no_new_privs {
            open.push(format!("{who}: no_new_privs is not set"));
        }
    }

    /// For programs: every fact, and `open` with what could not be enforced.
    pub fn to_json(&self) -> Value {
        let report = json!({
            "mode": self.mode.to_string(),
            "user": self.identity.name,
            "uid": self.identity.uid,
            "gid": self.identity.gid,
            "threads": self.threads.as_ref().map_or_else(
                |reason| json!({ "unknown": reason }),
                |threads| threads.iter().map(task_json).collect(),
            ),
            "broker": self.broker.as_ref().map(|(helper, walls)| {
                with(helper_json(helper), json!({ "sandbox": walls_json(walls) }))
            }),
            "supervisor": self.supervisor.as_ref().map(helper_json),
            "open": self.open(),
        });
        with(report, walls_json(&self.walls))
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
        let walls = &self.walls;
        rows.push(("landlock", landlock(walls)));
        rows.push(("seccomp", seccomp(walls)));
        rows.push(("may connect", may_connect(&walls.needs)));
        rows.push(("may bind", walls.needs.bind.to_string()));
        rows.push(("may read", may_read(&walls.needs)));
        rows.push(("may write", list(&walls.needs.write)));
        if let Some((helper, walls)) = &self.broker {
            rows.push(("broker", helper_row(helper)));
            rows.push(("  landlock", landlock(walls)));
            rows.push(("  seccomp", seccomp(walls)));
            if walls.stand() {
                rows.push(("  may connect", may_connect(&walls.needs)));
                rows.push(("  may bind", walls.needs.bind.to_string()));
                rows.push(("  may read", may_read(&walls.needs)));
                rows.push(("  may write", list(&walls.needs.write)));
                rows.push(("  tried", tried_row(&walls.tried)));
            }
        }
        if let Some(helper) = &self.supervisor {
            rows.push(("supervisor", helper_row(helper)));
        }
        rows
    }
}

impl fmt::Display for PrivilegeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.rows() {
            writeln!(f, "  {name:<13} {value}")?;
        }
        let tried = &self.walls.tried;
        if !tried.is_empty() {
            let width = tried
                .iter()
                .map(|tried| tried.action.len())
                .max()
                .unwrap_or(0);
            writeln!(f, "\ntried in throwaway processes:\n")?;
            for tried in tried {
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

/// What `walls` leave open, after `whose`.
fn open_walls(whose: &str, walls: &Walls, open: &mut Vec<String>) {
    match &walls.landlock {
        Err(reason) => open.push(format!("{whose}landlock is off: {reason}")),
        Ok(state) => {
            for (what, kept) in parts(state) {
                if *kept != Kept::Full {
                    open.push(format!("{whose}landlock, {what}: {kept}"));
                }
            }
        }
    }
    if let Err(reason) = &walls.seccomp {
        open.push(format!("{whose}seccomp is off: {reason}"));
        if walls.landlock.is_ok() && !walls.needs.connect.is_any() {
            open.push(format!(
                "{whose}without it, Multipath TCP and TCP Fast Open connect to any port"
            ));
        }
    }
    for tried in &walls.tried {
        if !tried.outcome.is_denied() {
            open.push(format!("{whose}{}: {}", tried.action, tried.outcome));
        }
    }
}

fn landlock(walls: &Walls) -> String {
    match &walls.landlock {
        Ok(state) if state.is_none() => "none".to_owned(),
        Ok(state) => {
            let kept: Vec<String> = parts(state)
                .iter()
                .map(|(what, kept)| format!("{what} {}", word(kept)))
                .collect();
            format!("ABI {}: {}", state.abi, kept.join(", "))
        }
        Err(_) => "off".to_owned(),
    }
}

fn seccomp(walls: &Walls) -> String {
    match &walls.seccomp {
        Ok(state) => format!(
            "{} filters, {} system calls left",
            state.filters,
            state.calls.len()
        ),
        Err(_) => "off".to_owned(),
    }
}

fn tried_row(tried: &[Tried]) -> String {
    let denied = tried
        .iter()
        .filter(|tried| tried.outcome.is_denied())
        .count();
    match tried.len() {
        0 => "nothing".to_owned(),
        all if all == denied => format!("{all}, all denied"),
        all => format!("{all}, {} NOT denied", all - denied),
    }
}

fn helper_row(helper: &Helper) -> String {
    match helper {
        Ok(task) => format!(
            "uid {}, capabilities: {}, no new privs: {}, seccomp filters: {}",
            task.uids[1],
            task.capabilities,
            yes(task.no_new_privs),
            task.seccomp_filters.unwrap_or(0)
        ),
        Err(reason) => format!("UNKNOWN: {reason}"),
    }
}

fn may_connect(needs: &Needs) -> String {
    let mut to = match needs.connect.to_string() {
        ports if needs.connect.is_none() => ports,
        ports => format!("TCP {ports}"),
    };
    for socket in &needs.connect_unix {
        to.push_str(&format!(", unix:{}", socket.display()));
    }
    if needs.resolve {
        to.push_str(", name servers");
    }
    to
}

fn may_read(needs: &Needs) -> String {
    match (needs.read.is_empty(), needs.resolve) {
        (_, false) => list(&needs.read),
        (true, true) => "the resolver's files".to_owned(),
        (false, true) => format!("{}, the resolver's files", list(&needs.read)),
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

fn walls_json(walls: &Walls) -> Value {
    let landlock = walls.landlock.as_ref().map_or_else(
        |reason| json!({ "off": reason }),
        |state| {
            let kept: serde_json::Map<_, _> = parts(state)
                .map(|(what, kept)| (what.to_owned(), kept_json(kept)))
                .into_iter()
                .collect();
            json!({ "abi": state.abi, "kept": kept })
        },
    );
    let seccomp = walls.seccomp.as_ref().map_or_else(
        |reason| json!({ "off": reason }),
        |state| json!({ "filters": state.filters, "calls": state.calls }),
    );
    let tried = |tried: &Tried| {
        json!({
            "action": tried.action,
            "denied": tried.outcome.is_denied(),
            "how": tried.outcome.to_string(),
        })
    };
    json!({
        "needs": {
            "read": paths(&walls.needs.read),
            "write": paths(&walls.needs.write),
            "bind": walls.needs.bind.to_string(),
            "connect": walls.needs.connect.to_string(),
            "connect_unix": paths(&walls.needs.connect_unix),
            "resolve": walls.needs.resolve,
        },
        "landlock": landlock,
        "seccomp": seccomp,
        "tried": walls.tried.iter().map(tried).collect::<Vec<Value>>(),
    })
}

/// `object` with the entries of `more` in it.
fn with(mut object: Value, more: Value) -> Value {
    if let (Value::Object(entries), Value::Object(more)) = (&mut object, more) {
        entries.extend(more);
    }
    object
}

fn helper_json(helper: &Helper) -> Value {
    helper
        .as_ref()
        .map_or_else(|reason| json!({ "unknown": reason }), task_json)
}

fn task_json(task: &TaskState) -> Value {
    let set = |bits: u64| format!("{bits:016x}");
    json!({
        "tid": task.tid,
        "uids": task.uids,
        "gids": task.gids,
        "groups": task.groups,
        "capabilities": {
            "inheritable": set(task.capabilities.inheritable),
            "permitted": set(task.capabilities.permitted),
            "effective": set(task.capabilities.effective),
            "bounding": set(task.capabilities.bounding),
            "ambient": set(task.capabilities.ambient),
        },
        "no_new_privs": task.no_new_privs,
        "seccomp": match task.seccomp {
            SeccompMode::Off => "off",
            SeccompMode::Strict => "strict",
            SeccompMode::Filter => "filter",
        },
        "seccomp_filters": task.seccomp_filters,
    })
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
