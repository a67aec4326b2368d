//! What became of this process's privileges, and of its helpers'.

use std::fmt;
use std::path::Path;

use super::broker::Broker;
use super::capability::Capability;
use super::landlock::{Kept, LandlockState};
use super::mode::Mode;
use super::needs::Needs;
use super::status::{Capabilities, SeccompMode, TaskState, one_state};
use super::trial::Tried;
use super::user::Identity;
use super::walls::Walls;

/// What became of this process's privileges. [`Display`](fmt::Display) is for a person.
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
    /// The processes that look after the app, where there is one
    pub app: Option<AppReport>,
    /// What else could not be enforced, a sentence each
    pub degraded: Vec<String>,
}

/// A process beside the one that serves, read back from the kernel; why not, where it cannot be read.
pub type Helper = Result<TaskState, String>;

/// The processes that look after the app, which is left what they are left.
#[derive(Debug, Clone)]
pub struct AppReport {
    /// The upper one, which ends what the other leaves
    pub guardian: Helper,
    /// The one below, which starts the app
    pub supervisor: Helper,
    /// How many filters keep system calls from the app; why none have to
    pub filters: Result<usize, String>,
}

impl AppReport {
    fn helpers(&self) -> [(&'static str, &Helper); 2] {
        [
            ("the guardian", &self.guardian),
            ("the supervisor", &self.supervisor),
        ]
    }
}

impl PrivilegeReport {
    /// Everything that is not as tight as it could be, a sentence each; empty when nothing is missing.
    pub fn open(&self) -> Vec<String> {
        let mut open = self.contradictions();
        if let Err(reason) = &self.threads {
            open.push(format!("the threads could not be read back: {reason}"));
        }
        for (who, helper) in self.helpers() {
            if let Err(reason) = helper {
                open.push(format!("{who} could not be read back: {reason}"));
            }
        }
        open_walls("", &self.walls, &mut open);
        if let Some((_, walls)) = &self.broker {
            open_walls("the broker: ", walls, &mut open);
        }
        if let Some(Err(reason)) = self.app.as_ref().map(|app| &app.filters) {
            open.push(format!("the app: seccomp is off: {reason}"));
        }
        open.extend(self.degraded.iter().cloned());
        open
    }

    /// What was read back of the processes and is not what should have come of it, a sentence each: who finds that must
    /// not serve.
    pub fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Ok(threads) = &self.threads {
            match one_state(threads) {
                Err(reason) => found.push(reason),
                Ok(state) => self.check(state, &mut found),
            }
        }
        if let Some((Ok(state), walls)) = &self.broker {
            let filters = walls.seccomp.as_ref().map_or(0, |seccomp| seccomp.filters);
            self.check_helper("the broker", state, Broker::KEPT, filters, &mut found);
        }
        if let Some(app) = &self.app {
            let filters = *app.filters.as_ref().unwrap_or(&0);
            for (who, helper) in app.helpers() {
                let Ok(state) = helper else { continue };
                if state.is_root() {
                    found.push(format!("{who} runs as {:?}", state.uids));
                }
                self.check_helper(who, state, &[], filters, &mut found);
            }
        }
        found
    }

    /// Whoever is beside the process that serves.
    fn helpers(&self) -> impl Iterator<Item = (&'static str, &Helper)> {
        let broker = self.broker.iter().map(|(helper, _)| ("the broker", helper));
        broker.chain(self.app.iter().flat_map(AppReport::helpers))
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
        let filters = &self.walls.seccomp;
        if !has_filters(state, filters.as_ref().map_or(0, |seccomp| seccomp.filters)) {
            open.push("the seccomp filters are not on".to_owned());
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

    fn check_helper(
        &self,
        who: &str,
        state: &TaskState,
        kept: &[Capability],
        filters: usize,
        found: &mut Vec<String>,
    ) {
        let kept = u64::from(Capability::set(kept));
        let mut sets = self.sets(state);
        (sets.effective, sets.permitted) = (sets.effective & !kept, sets.permitted & !kept);
        if !sets.is_none() {
            found.push(format!("{who}: capabilities are left: {sets}"));
        }
        if !state.no_new_privs {
            found.push(format!("{who}: no_new_privs is not set"));
        }
        if !has_filters(state, filters) {
            found.push(format!("{who}: the seccomp filters are not on"));
        }
    }

    /// What is told of the process that serves.
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
        rows.extend(walls_rows(&self.walls));
        rows
    }
}

impl fmt::Display for PrivilegeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_rows(f, "", &self.rows())?;
        if let Some((helper, walls)) = &self.broker {
            write_rows(f, "", &[("broker", helper_row(helper))])?;
            let mut rows = walls_rows(walls);
            if walls.stand() {
                rows.push(("tried", tried_row(&walls.tried)));
            }
            write_rows(f, "  ", &rows)?;
        }
        if let Some(app) = &self.app {
            let rows = [
                ("guardian", helper_row(&app.guardian)),
                ("supervisor", helper_row(&app.supervisor)),
            ];
            write_rows(f, "", &rows)?;
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

/// Whether at least so many are on, or none has to be. It may have been born with others.
fn has_filters(state: &TaskState, filters: usize) -> bool {
    let fewer = state
        .seccomp_filters
        .is_some_and(|on| (on as usize) < filters);
    filters == 0 || (state.seccomp == SeccompMode::Filter && !fewer)
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

fn write_rows(f: &mut fmt::Formatter<'_>, indent: &str, rows: &[(&str, String)]) -> fmt::Result {
    rows.iter().try_for_each(|(name, value)| {
        let name = format!("{indent}{name}");
        writeln!(f, "  {name:<13} {value}")
    })
}

fn walls_rows(walls: &Walls) -> Vec<(&'static str, String)> {
    let mut rows = vec![("landlock", landlock(walls)), ("seccomp", seccomp(walls))];
    // Without any, it may do what its user may.
    if walls.stand() {
        let needs = &walls.needs;
        rows.push(("may connect", may_connect(needs)));
        rows.push(("may bind", needs.bind.to_string()));
        rows.push(("may read", may_read(needs)));
        rows.push(("may write", list(&needs.write)));
    }
    rows
}

fn landlock(walls: &Walls) -> String {
    match &walls.landlock {
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
            "uid {}, capabilities: {}, no new privs: {}, seccomp: {}",
            task.uids[1],
            task.capabilities,
            yes(task.no_new_privs),
            task.filters()
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

#[cfg(test)]
mod tests;
