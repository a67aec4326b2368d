//! A running lowport: its worker, its helpers, and the app below it.

use std::fmt::Write;
use std::io;

use serde_json::{Value, json};

use super::check::{Check, Verdict, checks};
use super::finding::{Finding, Severity};
use super::member::{Member, Role};
use super::process::{Process, Processes};
use super::socket::Listeners;
use super::text::{Paint, printable, wrapped};
use crate::privilege::process::exists;

/// One lowport, the process that was named or found first.
#[derive(Debug)]
pub(super) struct Instance {
    members: Vec<Member>,
    /// Whether others of its processes may be hidden from this user
    hides: bool,
}

impl Instance {
    /// Looks at the process `pid`, its threads, and everything below it.
    ///
    /// # Errors
    /// When there is no such process.
    pub(super) fn look(pid: u32) -> io::Result<Self> {
        let processes = Processes::now();
        let main = match Process::read(pid) {
            Ok(main) => main,
            Err(error) if exists(pid) => {
                let why = match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                        "hidden from this user".to_owned()
                    }
                    _ => error.to_string(),
                };
                return Ok(Self {
                    members: vec![Member::hidden(pid, &why)],
                    hides: false,
                });
            }
            Err(error) => return Err(error),
        };
        let instance = Self::of(&main, &processes, &mut Listeners::here());
        instance.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Every one that serves, or tries to, here and in the containers of this machine.
    pub(super) fn all(processes: &Processes, listeners: &mut Listeners) -> Vec<Self> {
        let this = std::process::id();
        let mains = processes.seen.iter().filter(|process| {
            let helps = |other: &&Process| other.pid == process.parent && other.is_lowport();
            process.pid != this
                && process.is_lowport()
                && !processes.seen.iter().any(|other| helps(&other))
        });
        let instances = mains.filter_map(|main| Self::of(main, processes, listeners));
        // `lowport check` and this command hold nothing, and have no helpers.
        instances.filter(Self::serves).collect()
    }

    fn serves(&self) -> bool {
        self.members.iter().any(|member| {
            let listens = member.listeners.as_ref().is_ok_and(|held| !held.is_empty());
            listens || matches!(member.role, Role::Broker | Role::Supervisor)
        })
    }

    /// `None` if it ended in the meantime.
    fn of(main: &Process, processes: &Processes, listeners: &mut Listeners) -> Option<Self> {
        let role = Role::of(main);
        let mut members = vec![Member::look(main, role, listeners)?];
        for (process, role) in below(main, &processes.seen) {
            members.extend(Member::look(process, role, listeners));
        }
        Some(Self {
            members,
            hides: processes.hides,
        })
    }

    fn checks(&self) -> impl Iterator<Item = (&Member, Vec<Check>)> {
        self.members.iter().enumerate().map(|(at, member)| {
            let mut checks = checks(member);
            if at == 0 && self.hides {
                checks.push(Check {
                    rule: "instance-hidden",
                    what: "others",
                    is: "unknown: this user is not shown all processes".to_owned(),
                    verdict: Verdict::Noted,
                });
            }
            (member, checks)
        })
    }

    /// What was looked at, process by process.
    pub(super) fn findings(&self) -> Vec<Finding> {
        self.checks()
            .flat_map(|(member, checks)| {
                let findings = checks.iter().filter_map(|check| check.finding(member));
                findings.collect::<Vec<_>>()
            })
            .collect()
    }

    /// For programs: every fact.
    pub(super) fn to_json(&self) -> Value {
        let processes = self.members.iter().map(Member::to_json);
        json!({ "pid": self.members[0].pid, "processes": processes.collect::<Value>() })
    }

    /// For a person: a paragraph a process; those that are alike, such as the processes of a cluster, share one.
    pub(super) fn text(&self, paint: Paint) -> String {
        let mut paragraphs: Vec<(&Member, Vec<u32>, String)> = Vec::new();
        for (member, checks) in self.checks() {
            let facts = checks.iter().map(|check| line(check, paint)).collect();
            let alike = paragraphs.iter_mut().find(|(other, _, text)| {
                (other.role, &other.name, text) == (member.role, &member.name, &facts)
            });
            match alike {
                Some((_, pids, _)) => pids.push(member.pid),
                None => paragraphs.push((member, vec![member.pid], facts)),
            }
        }
        let mut text = String::new();
        for (member, pids, facts) in paragraphs {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            let plural = if pids.len() == 1 { "" } else { "es" };
            let who = format!("process{plural} {} ({})", pids.join(", "), member.name);
            let who = paint.bold(&printable(&who));
            // A String takes everything.
            let _ = writeln!(text, "{who}: the {}\n{facts}", member.role.name());
        }
        text
    }
}

/// How wide what comes before a fact is.
const INDENT: usize = 25;

fn line(check: &Check, paint: Paint) -> String {
    let (label, severity) = match check.verdict {
        Verdict::Holds => ("ok", Severity::Holds),
        Verdict::Told => ("", Severity::Holds),
        Verdict::Noted => (Severity::Note.name(), Severity::Note),
        Verdict::Wrong { severity, .. } => (severity.name(), severity),
    };
    let label = paint.severity(severity, &format!("{label:7}"));
    let mut told = printable(&check.told_as());
    let mut fixed = String::new();
    if let Verdict::Wrong { fix, .. } = check.verdict {
        told.push_str(&format!(" [{}]", check.rule));
        let fix = wrapped(&format!("fix: {fix}"), INDENT);
        fixed = format!("{:INDENT$}{fix}\n", "");
    }
    let told = paint.rule(&wrapped(&told, INDENT), check.rule);
    format!("  {label}  {:<13} {told}\n{fixed}", check.what)
}

/// The processes below `main`, this one aside, each with its role: what a supervisor starts is the app, and so is what that starts.
fn below<'a>(main: &Process, all: &'a [Process]) -> Vec<(&'a Process, Role)> {
    let mut parents = vec![main.pid];
    let mut found: Vec<(&Process, Role)> = Vec::new();
    let mut rest: Vec<&Process> = all
        .iter()
        .filter(|process| ![main.pid, std::process::id()].contains(&process.pid))
        .collect();
    loop {
        let (children, others): (Vec<&Process>, Vec<&Process>) = rest
            .into_iter()
            .partition(|process| parents.contains(&process.parent));
        if children.is_empty() {
            return found;
        }
        parents = children.iter().map(|process| process.pid).collect();
        found.extend(children.into_iter().map(|process| {
            let role = match Role::of(process) {
                Role::Worker => Role::App,
                role => role,
            };
            (process, role)
        }));
        rest = others;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{nobody, process};
    use super::*;

    fn member(pid: u32, role: Role, name: &str) -> Member {
        Member {
            role,
            name: name.to_owned(),
            threads: Ok(vec![nobody()]),
            dumpable: Some(false),
            listeners: Ok(Vec::new()),
            ..Member::hidden(pid, "")
        }
    }

    #[test]
    fn roles_follow_from_names_and_from_what_started_them() {
        let main = process(10, 1, "lowport");
        let all = [
            process(1, 0, "init"),
            main.clone(),
            process(11, 10, "lowport-broker"),
            process(12, 10, "lowport-app"),
            process(9, 12, "node"),
            process(8, 9, "lowport"),
            process(13, 1, "node"),
        ];
        let found: Vec<(u32, Role)> = below(&main, &all)
            .into_iter()
            .map(|(process, role)| (process.pid, role))
            .collect();
        assert_eq!(
            found,
            [
                (11, Role::Broker),
                (12, Role::Supervisor),
                (9, Role::App),
                (8, Role::App)
            ]
        );
    }

    #[test]
    fn a_person_sees_what_is_and_what_to_do_in_80_columns() {
        let mut worker = member(10, Role::Worker, "lowport");
        let mut state = nobody();
        state.uids = [4_000_000_000; 4];
        state.seccomp = crate::privilege::status::SeccompMode::Off;
        worker.threads = Ok(vec![state]);
        worker.listeners = Err("it is undumpable, so only root may look".to_owned());
        let app = |pid| member(pid, Role::App, "node\x1b");
        let instance = Instance {
            members: vec![worker, app(12), app(13)],
            hides: true,
        };
        let text = instance.text(Paint(false));
        assert_eq!(
            text,
            "process 10 (lowport): the worker
  ok       runs as       uid 4000000000
  ok       groups        gid 61998, no others
  ok       capabilities  none in any set
  ok       no new privs  yes
  medium   seccomp       off: every system call is open to it [instance-seccomp]
                         fix: start it without `--no-sandbox` and without
                         \"seccomp\" in `sandbox.allow_degraded`, on a kernel that
                         has it
  ok       threads       1
  ok       dumpable      no
  note     listens on    unknown: it is undumpable, so only root may look
           landlock      not to be seen from outside: `lowport -v run` tells
  note     others        unknown: this user is not shown all processes

processes 12, 13 (node\\u{1b}): the app
  ok       runs as       uid 61998
  ok       groups        gid 61998, no others
  ok       capabilities  none in any set
  ok       no new privs  yes
           seccomp       3 filters, left to the app
  ok       threads       1
  ok       dumpable      no
           listens on    nothing

"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(instance.text(Paint(true)).contains("\x1b[33mmedium "));
    }

    #[test]
    fn only_what_serves_is_an_instance_of_its_own() {
        let alone = |role, name| Instance {
            members: vec![member(10, role, name)],
            hides: false,
        };
        assert!(!alone(Role::Worker, "lowport").serves());
        assert!(alone(Role::Broker, "lowport-broker").serves());
        let mut listening = alone(Role::Worker, "lowport");
        listening.members[0].listeners =
            Ok(vec![super::super::socket::Address::Unix("/x".to_owned())]);
        assert!(listening.serves());
    }
}
