//! What a process of a running lowport is, fact by fact, and whether it should be.

use super::finding::{Finding, Severity};
use super::member::{LANDLOCK, Member, Role};
use super::socket::list;
use crate::privilege::Capability;
use crate::privilege::status::{SeccompMode, TaskState, one_state};

/// One thing looked at.
#[derive(Debug)]
pub(super) struct Check {
    /// The rule's lasting name, such as `instance-uid`
    pub(super) rule: &'static str,
    /// What was looked at, for people
    pub(super) what: &'static str,
    /// How it is
    pub(super) is: String,
    pub(super) verdict: Verdict,
}

/// What to make of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be
    Holds,
    /// Nothing: a fact
    Told,
    /// Nothing, and this user should know
    Noted,
    /// Not as it should be
    Wrong {
        severity: Severity,
        why: &'static str,
        fix: &'static str,
    },
}

impl Check {
    fn told(rule: &'static str, what: &'static str, is: impl Into<String>) -> Self {
        Self {
            rule,
            what,
            is: is.into(),
            verdict: Verdict::Told,
        }
    }

    fn noted(self) -> Self {
        Self {
            verdict: Verdict::Noted,
            ..self
        }
    }

    /// Holds, unless there is something wrong.
    fn unless(self, wrong: Option<(Severity, &'static str, &'static str)>) -> Self {
        let verdict = match wrong {
            Some((severity, why, fix)) => Verdict::Wrong { severity, why, fix },
            None => Verdict::Holds,
        };
        Self { verdict, ..self }
    }

    /// What is wrong, in a sentence; `None` if nothing is.
    pub(super) fn wrong(&self) -> Option<String> {
        matches!(self.verdict, Verdict::Wrong { .. })
            .then(|| format!("{}: {}", self.what, self.told_as()))
    }

    /// How it is, and why that is wrong.
    pub(super) fn told_as(&self) -> String {
        match self.verdict {
            Verdict::Wrong { why, .. } => format!("{}: {why}", self.is),
            _ => self.is.clone(),
        }
    }

    /// As an entry about `member`; mere facts are none.
    pub(super) fn finding(&self, member: &Member) -> Option<Finding> {
        let (severity, fix) = match self.verdict {
            Verdict::Told => return None,
            Verdict::Holds => (Severity::Holds, None),
            Verdict::Noted => (Severity::Note, None),
            Verdict::Wrong { severity, fix, .. } => (severity, Some(fix.to_owned())),
        };
        Some(Finding {
            rule: self.rule,
            severity,
            place: member.place(),
            what: format!("{}: {}", self.what, self.told_as()),
            fix,
        })
    }
}

/// Everything about a process, in the order of the report at start.
pub(super) fn checks(member: &Member) -> Vec<Check> {
    let mut checks = Vec::new();
    if !member.is_lowport && member.role == Role::Worker {
        let is = "not lowport's: looked at as if it were";
        checks.push(Check::told("instance-name", "name", is).noted());
    }
    match (&member.threads, member.state()) {
        (Ok(threads), Some(state)) => {
            checks.extend([
                user(member, state),
                groups(member.role, state),
                capabilities(member.role, state),
                no_new_privs(state),
                seccomp(member, state),
                alike(threads),
            ]);
            checks.push(dumpable(member));
        }
        (Ok(_), None) => {}
        (Err(why), _) => {
            checks.push(
                Check::told("instance-unknown", "state", format!("unknown, {why}")).unless(Some((
                    Severity::Unknown,
                    "it may be anything",
                    "run the audit as root, in the host's PID namespace",
                ))),
            );
            return checks;
        }
    }
    checks.push(match &member.listeners {
        Ok(addresses) if addresses.is_empty() => {
            Check::told("instance-listeners", "listens on", "nothing")
        }
        Ok(addresses) => Check::told("instance-listeners", "listens on", list(addresses)),
        Err(why) => Check::told(
            "instance-listeners",
            "listens on",
            format!("unknown: {why}"),
        )
        .noted(),
    });
    if matches!(member.role, Role::Worker | Role::Broker) {
        checks.push(Check::told("instance-landlock", "landlock", LANDLOCK));
    }
    checks
}

fn user(member: &Member, state: &TaskState) -> Check {
    let [real, effective, saved, file_system] = state.uids;
    let is = match member.identity() {
        Some(identity) if state.uids == [effective; 4] => identity.to_string(),
        _ => format!(
            "uid {effective}, and also {real} (real), {saved} (saved), {file_system} (files)"
        ),
    };
    let wrong = match member.role {
        Role::Broker => None,
        Role::Worker => Some((
            "whoever takes it over is root",
            "start it with a `server.user` that is not root, or as a user of its own",
        )),
        Role::Supervisor | Role::App => Some((
            "a hole in the app is a hole in this machine",
            "name an `app.user` that is not root",
        )),
    };
    let wrong = wrong.filter(|_| state.is_root());
    Check::told("instance-uid", "runs as", is)
        .unless(wrong.map(|(why, fix)| (Severity::High, why, fix)))
}

fn groups(role: Role, state: &TaskState) -> Check {
    let groups: Vec<String> = state.groups.iter().map(u32::to_string).collect();
    let groups = match groups.is_empty() {
        true => "no others".to_owned(),
        false => format!("others {}", groups.join(" ")),
    };
    let root = state.gids.contains(&0) || state.groups.contains(&0);
    let is = format!("gid {}, {groups}", state.gids[1]);
    Check::told("instance-groups", "groups", is).unless((role != Role::Broker && root).then_some((
        Severity::Medium,
        "it is in root's group",
        "give its user a group of its own",
    )))
}

fn capabilities(role: Role, state: &TaskState) -> Check {
    let sets = &state.capabilities;
    let beyond = |set: u64| set & !role.allowed() != 0;
    // Lowport raises no more than this out of it, and gives that up. What others find in theirs, they have from it.
    let starters = u64::from(Capability::NetBindService.bit());
    let wrong = if beyond(sets.usable()) {
        Some((
            Severity::High,
            "it can use what it does not need",
            "start it with no capability but CAP_NET_BIND_SERVICE, which lowport gives up",
        ))
    } else if beyond(sets.inheritable) || (role == Role::Worker && sets.bounding & !starters != 0) {
        Some((
            Severity::Low,
            "its starter left these to it; no_new_privs keeps it from gaining them",
            "empty the set where it is started, as only root can: `CapabilityBoundingSet=` in a unit, `--cap-drop ALL` for a \
             container, `setpriv --bounding-set=-all` in a shell",
        ))
    } else {
        None
    };
    Check::told("instance-capabilities", "capabilities", sets.to_string()).unless(wrong)
}

fn no_new_privs(state: &TaskState) -> Check {
    let is = if state.no_new_privs { "yes" } else { "NO" };
    Check::told("instance-no-new-privs", "no new privs", is).unless(
        (!state.no_new_privs).then_some((
            Severity::Medium,
            "set-uid programs can still raise it",
            "restart it with a lowport that sets this before it serves",
        )),
    )
}

fn seccomp(member: &Member, state: &TaskState) -> Check {
    let check = |is: String| Check::told("instance-seccomp", "seccomp", is);
    let wrong = match member.role {
        Role::Worker | Role::Broker => (
            Severity::Medium,
            "every system call is open to it",
            "start it without `--no-sandbox` and without \"seccomp\" in `sandbox.allow_degraded`, on a kernel that has it",
        ),
        Role::Supervisor if !member.develops => (
            Severity::Low,
            "nothing keeps the app from namespaces and the kernel's least used parts",
            "start it without `--no-sandbox`, without \"seccomp\" in `sandbox.allow_degraded` and without `sandbox = false` in \
             [app]; only what the app starts may need that, such as a browser",
        ),
        // An app has what its supervisor has, which is told once.
        Role::Supervisor | Role::App if state.seccomp == SeccompMode::Off => {
            return check(format!("{}, left to the app", state.filters()));
        }
        Role::Supervisor | Role::App => return check(state.filters()),
    };
    check(state.filters()).unless((state.seccomp != SeccompMode::Filter).then_some(wrong))
}

/// Credentials, capabilities and filters are each thread's own: one left behind is enough.
fn alike(threads: &[TaskState]) -> Check {
    let count = threads.len();
    let (is, wrong) = match one_state(threads) {
        Ok(_) if count == 1 => ("1".to_owned(), None),
        Ok(_) => (format!("{count}, all alike"), None),
        Err(differences) => (
            format!("{count}, NOT alike, {differences}"),
            Some((
                Severity::High,
                "privileges were not given up by every thread",
                "restart it, and report this as a hole",
            )),
        ),
    };
    Check::told("instance-tasks", "threads", is).unless(wrong)
}

fn dumpable(member: &Member) -> Check {
    let check = |is: &str| Check::told("instance-dumpable", "dumpable", is);
    match (member.role, member.dumpable) {
        (Role::App, Some(true)) => check("yes, left to the app"),
        (_, Some(false)) => check("no").unless(None),
        (_, Some(true)) => check("yes").unless(Some((
            Severity::Medium,
            "other processes of its user can read its memory, with keys and cookies in it",
            "restart it with a lowport that gives this up before it serves",
        ))),
        (_, None) => check("not to be seen of a process of root's"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::nobody;
    use super::*;

    fn member(role: Role, threads: &[TaskState]) -> Member {
        Member {
            threads: Ok(threads.to_vec()),
            dumpable: Some(false),
            listeners: Ok(Vec::new()),
            role,
            ..Member::hidden(7, "")
        }
    }

    fn wrong(member: &Member) -> Vec<String> {
        let findings = checks(member)
            .into_iter()
            .filter_map(|check| check.finding(member));
        findings
            .filter(|finding| finding.severity.is_finding())
            .map(|finding| {
                assert!(finding.fix.is_some(), "{finding:?}");
                format!("{} {}", finding.severity.name(), finding.rule)
            })
            .collect()
    }

    fn failed(role: Role, state: &TaskState) -> Vec<String> {
        wrong(&member(role, std::slice::from_ref(state)))
    }

    const ROLES: [Role; 4] = [Role::Worker, Role::Broker, Role::Supervisor, Role::App];

    #[test]
    fn nobody_with_nothing_passes_in_every_role() {
        for role in ROLES {
            assert_eq!(failed(role, &nobody()), [] as [&str; 0], "{role:?}");
        }
    }

    #[test]
    fn each_thing_too_much_fails() {
        type Change = fn(&mut TaskState);
        let changes: [(Change, &str); 12] = [
            (|state| state.uids[2] = 0, "high instance-uid"),
            (|state| state.gids[0] = 0, "medium instance-groups"),
            (|state| state.groups.push(0), "medium instance-groups"),
            (
                |state| state.capabilities.inheritable = 1,
                "low instance-capabilities",
            ),
            (
                |state| state.capabilities.permitted = 1,
                "high instance-capabilities",
            ),
            (
                |state| state.capabilities.effective = 0x400,
                "high instance-capabilities",
            ),
            (
                |state| state.capabilities.ambient = 1,
                "high instance-capabilities",
            ),
            (
                |state| state.capabilities.bounding = 0x401,
                "low instance-capabilities",
            ),
            (
                |state| state.capabilities.bounding = 0x800,
                "low instance-capabilities",
            ),
            (
                |state| state.no_new_privs = false,
                "medium instance-no-new-privs",
            ),
            (
                |state| state.seccomp = SeccompMode::Off,
                "medium instance-seccomp",
            ),
            (
                |state| state.seccomp = SeccompMode::Strict,
                "medium instance-seccomp",
            ),
        ];
        for (at, (change, expected)) in changes.iter().enumerate() {
            let mut state = nobody();
            change(&mut state);
            assert_eq!(failed(Role::Worker, &state), [*expected], "{at}");
            let threads = [nobody(), nobody(), state];
            assert_eq!(
                wrong(&member(Role::Worker, &threads)),
                ["high instance-tasks"],
                "{at}"
            );
        }
        let mut dumpable = member(Role::Worker, &[nobody()]);
        dumpable.dumpable = Some(true);
        assert_eq!(wrong(&dumpable), ["medium instance-dumpable"]);
    }

    #[test]
    fn what_the_bounding_set_may_hold_is_what_binds_ports() {
        let mut state = nobody();
        state.capabilities.bounding = 0x400;
        assert_eq!(failed(Role::Worker, &state), [] as [&str; 0]);
        state.capabilities.bounding = u64::MAX;
        assert_eq!(failed(Role::Worker, &state), ["low instance-capabilities"]);
        // Theirs is the worker's, which is told once.
        assert_eq!(failed(Role::App, &state), [] as [&str; 0]);
    }

    #[test]
    fn the_broker_is_root_with_two_capabilities_and_each_has_filters() {
        let mut state = nobody();
        state.uids = [0; 4];
        state.gids = [0; 4];
        state.capabilities.permitted = Role::Broker.allowed();
        assert_eq!(state.capabilities.permitted, 0x404);
        assert_eq!(failed(Role::Broker, &state), [] as [&str; 0]);
        assert_eq!(
            failed(Role::Worker, &state),
            [
                "high instance-uid",
                "medium instance-groups",
                "high instance-capabilities"
            ]
        );
        state.capabilities.permitted |= 1;
        assert_eq!(failed(Role::Broker, &state), ["high instance-capabilities"]);
        let mut state = nobody();
        state.seccomp = SeccompMode::Off;
        assert_eq!(failed(Role::Broker, &state), ["medium instance-seccomp"]);
        assert_eq!(failed(Role::Supervisor, &state), ["low instance-seccomp"]);
        // It has what the supervisor has.
        assert_eq!(failed(Role::App, &state), [] as [&str; 0]);
        let developed = Member {
            develops: true,
            ..member(Role::Supervisor, &[state])
        };
        assert_eq!(wrong(&developed), [] as [&str; 0]);
    }

    #[test]
    fn what_is_not_seen_is_unknown_and_never_fine() {
        let hidden = Member::hidden(7, "not shown");
        assert_eq!(wrong(&hidden), ["unknown instance-unknown"]);
        let mut member = member(Role::Worker, &[nobody()]);
        member.listeners = Err("only root may".to_owned());
        let told: Vec<String> = checks(&member)
            .iter()
            .filter_map(|check| check.finding(&member))
            .filter(|finding| finding.severity == Severity::Note)
            .map(|finding| finding.what)
            .collect();
        assert_eq!(told, ["listens on: unknown: only root may"]);
    }
}
