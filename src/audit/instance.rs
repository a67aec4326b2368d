//! `--pid`: what a running lowport, its helpers and the app below it are and may do, task by task.

use std::io;

use super::capability::{self, DAC_READ_SEARCH, NET_BIND_SERVICE};
use super::finding::{Finding, Place, Report, Severity};
use super::process::{Process, State};

/// What a process of an instance is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Serves: nobody, with nothing
    Worker,
    /// Reads keys and binds ports for the worker: root, with two capabilities and nothing else
    Broker,
    /// Starts the app, or is the app: another user, with nothing
    App,
}

impl Role {
    pub(super) fn of(process: &Process) -> Self {
        match process.name.as_str() {
            "lowport-broker" => Self::Broker,
            "lowport-app" => Self::App,
            _ => Self::Worker,
        }
    }

    /// What it may hold in any of its sets.
    fn allowed(self) -> u64 {
        match self {
            Self::Broker => NET_BIND_SERVICE | DAC_READ_SEARCH,
            Self::Worker | Self::App => 0,
        }
    }
}

/// One thing looked at: how it is, and what to do where that is not as it should be.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) rule: &'static str,
    pub(super) is: String,
    pub(super) wrong: Option<(Severity, &'static str)>,
}

/// Checks the process `pid`, its tasks, and everything below it.
///
/// # Errors
/// When there is no such process.
pub(super) fn check(pid: u32, report: &mut Report) -> io::Result<()> {
    let main = Process::read(pid)?;
    if !main.is_lowport() {
        report.add(Finding {
            rule: "instance-name",
            severity: Severity::Note,
            place: place(&main),
            what: "is not lowport by its name: looked at as if it were".into(),
            fix: None,
        });
    }
    let role = Role::of(&main);
    one(&main, role, report)?;
    for (process, role) in below(&main, role, Process::all()) {
        // One that ended since is no part of the instance.
        let _ = one(&process, role, report);
    }
    Ok(())
}

/// The processes below `main`, this one aside, each with its role: what a supervisor starts is the app, and so is what that starts.
fn below(main: &Process, role: Role, all: Vec<Process>) -> Vec<(Process, Role)> {
    let mut known = vec![(main.pid, role)];
    let mut found: Vec<(Process, Role)> = Vec::new();
    let mut rest = all;
    loop {
        let of = |process: &Process| {
            known
                .iter()
                .find(|(pid, _)| *pid == process.parent)
                .copied()
        };
        let (children, others): (Vec<Process>, Vec<Process>) = rest
            .into_iter()
            .filter(|process| ![main.pid, std::process::id()].contains(&process.pid))
            .partition(|process| of(process).is_some());
        if children.is_empty() {
            return found;
        }
        let next: Vec<(Process, Role)> = children
            .into_iter()
            .map(|process| {
                let role = match Role::of(&process) {
                    Role::Broker => Role::Broker,
                    _ => Role::App,
                };
                (process, role)
            })
            .collect();
        known = next
            .iter()
            .map(|(process, role)| (process.pid, *role))
            .collect();
        found.extend(next);
        rest = others;
    }
}

fn one(process: &Process, role: Role, report: &mut Report) -> io::Result<()> {
    let tasks = process.tasks()?;
    for check in checks(role, &process.state)
        .into_iter()
        .chain([alike(&tasks)])
    {
        let (severity, fix) = match check.wrong {
            Some((severity, fix)) => (severity, Some(fix.to_owned())),
            None => (Severity::Holds, None),
        };
        report.add(Finding {
            rule: check.rule,
            severity,
            place: place(process),
            what: check.is,
            fix,
        });
    }
    Ok(())
}

pub(super) fn place(process: &Process) -> Place {
    Place::Process {
        pid: process.pid,
        name: process.name.clone(),
    }
}

/// What holds and what does not for a state in its role.
pub(super) fn checks(role: Role, state: &State) -> Vec<Check> {
    let mut checks = vec![user(role, state), groups(role, state), sets(role, state)];
    checks.push(Check {
        rule: "instance-no-new-privs",
        is: format!("NoNewPrivs {}", u32::from(state.no_new_privs)),
        wrong: (!state.no_new_privs).then_some((
            Severity::Medium,
            "set-uid programs can still raise it: run a lowport that sets no_new_privs",
        )),
    });
    let filters = state
        .filters
        .map(|filters| format!(", filters {filters}"))
        .unwrap_or_default();
    // The app has a filter unless it is being developed or its configuration says that it needs none.
    let must_filter = role != Role::App;
    let left_open = if must_filter || state.seccomp == 2 {
        ""
    } else {
        ", which is left to the app"
    };
    checks.push(Check {
        rule: "instance-seccomp",
        is: format!("Seccomp mode {}{filters}{left_open}", state.seccomp),
        wrong: (must_filter && state.seccomp != 2).then_some((
            Severity::Medium,
            "every system call is open to it: run a lowport, on a kernel, with seccomp filters",
        )),
    });
    checks
}

fn user(role: Role, state: &State) -> Check {
    let [real, effective, saved, file_system] = state.uids;
    let is = format!("Uid {real} {effective} {saved} {file_system}");
    let wrong = match role {
        Role::Broker => false,
        Role::Worker | Role::App => state.is_root(),
    };
    Check {
        rule: "instance-uid",
        is,
        wrong: wrong.then_some((
            Severity::High,
            "name a user that is not root: `server.user` for lowport, `app.user` for the app",
        )),
    }
}

fn groups(role: Role, state: &State) -> Check {
    let groups: Vec<String> = state.groups.iter().map(u32::to_string).collect();
    let groups = if groups.is_empty() {
        "no others".to_owned()
    } else {
        groups.join(" ")
    };
    let root = state.gids.contains(&0) || state.groups.contains(&0);
    Check {
        rule: "instance-groups",
        is: format!("Gid {}, groups {groups}", state.gids[1]),
        wrong: (role != Role::Broker && root).then_some((
            Severity::Medium,
            "it is in root's group: give its user a group of its own",
        )),
    }
}

fn sets(role: Role, state: &State) -> Check {
    let held: Vec<String> = state
        .capabilities
        .sets()
        .iter()
        .filter(|(_, set)| *set != 0)
        .map(|(name, set)| format!("{name} {}", capability::names(*set)))
        .collect();
    let is = if held.is_empty() {
        "CapInh, CapPrm, CapEff, CapBnd and CapAmb are empty".to_owned()
    } else {
        held.join("; ")
    };
    let beyond = |set: u64| set & !role.allowed() != 0;
    let capabilities = &state.capabilities;
    let wrong = if beyond(capabilities.usable()) {
        Some((
            Severity::High,
            "it holds what it does not need: start it with no capability but CAP_NET_BIND_SERVICE, which lowport gives up",
        ))
    } else if beyond(capabilities.inheritable | capabilities.bounding) {
        Some((
            Severity::Low,
            "only root can empty the bounding set: `CapabilityBoundingSet=` in a unit, `--cap-drop ALL` for a container",
        ))
    } else {
        None
    };
    Check {
        rule: "instance-capabilities",
        is,
        wrong,
    }
}

/// Credentials, capabilities and filters are each task's own: one thread left behind is enough.
fn alike(tasks: &[State]) -> Check {
    let different = tasks
        .iter()
        .filter(|task| Some(*task) != tasks.first())
        .count();
    let (count, plural) = (tasks.len(), if tasks.len() == 1 { "" } else { "s" });
    let is = if different == 0 {
        format!("{count} task{plural}, one state")
    } else {
        format!("{different} of {count} tasks differ from the first")
    };
    Check {
        rule: "instance-tasks",
        is,
        wrong: (different > 0).then_some((
            Severity::High,
            "a thread was left behind when privileges were dropped: report it, and restart",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::process::tests::nobody;
    use super::*;

    fn failed(role: Role, state: &State) -> Vec<&'static str> {
        checks(role, state)
            .into_iter()
            .filter(|check| check.wrong.is_some())
            .map(|check| check.rule)
            .collect()
    }

    #[test]
    fn nobody_with_nothing_passes_in_every_role() {
        for role in [Role::Worker, Role::Broker, Role::App] {
            assert_eq!(failed(role, &nobody()), [] as [&str; 0], "{role:?}");
        }
    }

    #[test]
    fn each_thing_too_much_fails() {
        type Change = fn(&mut State);
        let changes: [(Change, &str); 10] = [
            (|state| state.uids[2] = 0, "instance-uid"),
            (|state| state.gids[0] = 0, "instance-groups"),
            (|state| state.groups.push(0), "instance-groups"),
            (
                |state| state.capabilities.inheritable = 1,
                "instance-capabilities",
            ),
            (
                |state| state.capabilities.permitted = 1,
                "instance-capabilities",
            ),
            (
                |state| state.capabilities.effective = 1,
                "instance-capabilities",
            ),
            (
                |state| state.capabilities.bounding = 1,
                "instance-capabilities",
            ),
            (
                |state| state.capabilities.ambient = 1,
                "instance-capabilities",
            ),
            (|state| state.no_new_privs = false, "instance-no-new-privs"),
            (|state| state.seccomp = 0, "instance-seccomp"),
        ];
        for (at, (change, rule)) in changes.iter().enumerate() {
            let mut state = nobody();
            change(&mut state);
            assert_eq!(failed(Role::Worker, &state), [*rule], "{at}");
            let same = alike(&[nobody(), nobody()]);
            assert!(same.wrong.is_none() && same.is == "2 tasks, one state");
            assert!(alike(&[nobody(), nobody(), state]).wrong.is_some(), "{at}");
        }
    }

    #[test]
    fn the_broker_is_root_with_two_capabilities_and_the_app_has_no_filter() {
        let mut state = nobody();
        state.uids = [0; 4];
        state.capabilities.permitted = NET_BIND_SERVICE | DAC_READ_SEARCH;
        assert_eq!(failed(Role::Broker, &state), [] as [&str; 0]);
        assert_eq!(
            failed(Role::Worker, &state),
            ["instance-uid", "instance-capabilities"]
        );
        state.capabilities.permitted |= 1;
        assert_eq!(failed(Role::Broker, &state), ["instance-capabilities"]);
        let mut state = nobody();
        state.seccomp = 0;
        assert_eq!(failed(Role::App, &state), [] as [&str; 0]);
        assert_eq!(failed(Role::Broker, &state), ["instance-seccomp"]);
    }

    #[test]
    fn roles_follow_from_names_and_from_what_started_them() {
        let process = |pid, parent, name: &str| Process {
            pid,
            parent,
            name: name.into(),
            state: nobody(),
            exe: None,
            program: String::new(),
        };
        let main = process(10, 1, "lowport");
        let all = vec![
            process(1, 0, "init"),
            main.clone(),
            process(11, 10, "lowport-broker"),
            process(12, 10, "lowport-app"),
            process(9, 12, "node"),
            process(8, 9, "lowport"),
            process(13, 1, "node"),
        ];
        let found: Vec<(u32, Role)> = below(&main, Role::Worker, all)
            .into_iter()
            .map(|(process, role)| (process.pid, role))
            .collect();
        assert_eq!(
            found,
            [
                (11, Role::Broker),
                (12, Role::App),
                (9, Role::App),
                (8, Role::App)
            ]
        );
    }
}
