//! This machine: who listens, with what privilege, and which node binaries carry privilege in their files.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::capability::FileCapabilities;
use super::command;
use super::finding::{Finding, Place, Severity};
use super::instance::Instance;
use super::process::{Process, Processes};
use super::report::Report;
use super::socket::{self, Address, Listener, Listeners, list};
use crate::privilege::capability::names;

/// A process, and where it listens.
struct Holder<'a> {
    process: &'a Process,
    listeners: Vec<Address>,
    /// Whether it is in the network that this audit is in
    is_here: bool,
    /// `false` where this user may not look at its sockets
    is_seen: bool,
}

/// Tells what the processes and programs of this machine have too much of, and how each lowport is.
pub(super) fn check(report: &mut Report) {
    let processes = Processes::now();
    let mut listeners = Listeners::here();
    let first_unprivileged = socket::first_unprivileged_port();
    // Below 1024 is where the web's own ports are, whatever the kernel allows.
    let is_low = |port: u16| port < 1024 || port < first_unprivileged;
    for instance in Instance::all(&processes, &mut listeners) {
        report.add_instance(instance);
    }
    let (holders, unheld) = holders(&processes.seen, &mut listeners);
    for holder in &holders {
        holder.check(is_low, report);
    }
    unseen(&unheld, is_low, report);
    if processes.hides {
        hidden(report);
    }
    programs(&processes.seen, report);
}

/// Every process with what it holds; and the listeners here that no process was seen to hold.
fn holders<'a>(
    processes: &'a [Process],
    listeners: &mut Listeners,
) -> (Vec<Holder<'a>>, Vec<Listener>) {
    let before = socket::of_network(Path::new("/proc/self"));
    let mut held = HashSet::new();
    let mut holders = Vec::new();
    for process in processes {
        let sockets = listeners.held_by(process);
        let is_seen = sockets.is_ok();
        let sockets = sockets.unwrap_or_default();
        held.extend(sockets.iter().map(|(inode, _)| *inode));
        holders.push(Holder {
            process,
            listeners: socket::addresses(sockets.iter().map(|(_, listener)| listener)),
            is_here: listeners.is_here(process),
            is_seen,
        });
    }
    // Those closed in the meantime belong to nobody.
    let still = socket::of_network(Path::new("/proc/self"));
    let unheld = before
        .into_iter()
        .filter(|(inode, listener)| {
            still.contains_key(inode) && !held.contains(inode) && listener.at.port().is_some()
        })
        .map(|(_, listener)| listener)
        .collect();
    (holders, unheld)
}

impl Holder<'_> {
    fn add(
        &self,
        rule: &'static str,
        severity: Severity,
        what: String,
        fix: Option<&str>,
        report: &mut Report,
    ) {
        report.add(Finding {
            rule,
            severity,
            place: self.process.place(),
            what,
            fix: fix.map(str::to_owned),
        });
    }

    /// Who it is, in a few words.
    fn state(&self) -> String {
        let state = &self.process.state;
        let capabilities = match state.capabilities.usable() {
            0 => "no capability".to_owned(),
            usable => names(usable),
        };
        let no_new_privs = if state.no_new_privs { "" } else { "no " };
        format!(
            "uid {}, {capabilities}, {no_new_privs}no_new_privs, seccomp {}",
            state.uids[1],
            state.filters()
        )
    }

    fn check(&self, is_low: impl Fn(u16) -> bool, report: &mut Report) {
        if self.process.is_lowport() {
            // Its own part tells all.
        } else if self.process.is_node() {
            self.node(report);
        } else {
            self.other(is_low, report);
        }
    }

    fn node(&self, report: &mut Report) {
        let state = &self.process.state;
        let privileged = state.is_root() || state.capabilities.usable() != 0;
        if privileged && (!self.listeners.is_empty() || !self.is_seen) {
            let (severity, where_to) = if self.is_seen {
                (
                    Severity::High,
                    format!("listens on {}", list(&self.listeners)),
                )
            } else {
                (
                    Severity::Medium,
                    "may listen, which this user cannot see".to_owned(),
                )
            };
            let (rule, who) = if state.is_root() {
                ("node-root", "node runs as root")
            } else {
                ("node-capabilities", "node holds capabilities")
            };
            self.add(
                rule,
                severity,
                format!("{who} and {where_to}: {}", self.state()),
                Some("run it as a user of its own on a port from 1024 up, and let lowport hold 80 and 443"),
                report,
            );
        }
        let open: Vec<Address> = self
            .listeners
            .iter()
            .filter(|address| self.is_here && address.is_everywhere())
            .cloned()
            .collect();
        if !open.is_empty() {
            self.add(
                "node-exposed",
                Severity::Low,
                format!("node listens on every address, {}: it can be reached around the proxy", list(&open)),
                Some("listen on 127.0.0.1 or on a Unix socket, as in `server.listen(3000, \"127.0.0.1\")`"),
                report,
            );
        }
    }

    fn other(&self, is_low: impl Fn(u16) -> bool, report: &mut Report) {
        let state = &self.process.state;
        let low: Vec<Address> = self
            .listeners
            .iter()
            .filter(|address| address.port().is_some_and(&is_low))
            .cloned()
            .collect();
        let privileged = state.is_root() || state.capabilities.usable() != 0;
        if low.is_empty() || !privileged {
            return;
        }
        // It keeps sockets for units that it starts when somebody connects, and reads from none.
        if self.process.pid == 1 && self.process.name == "systemd" {
            let what = format!("holds {} for socket activation", list(&low));
            self.add("port-activation", Severity::Note, what, None, report);
            return;
        }
        let web = low
            .iter()
            .any(|address| matches!(address.port(), Some(80 | 443)) && !address.is_local());
        let (severity, fix) = if web {
            (
                Severity::Medium,
                "let lowport hold 80 and 443, and this listen behind it as a user of its own",
            )
        } else {
            (
                Severity::Low,
                "if it speaks HTTP, put it behind lowport; else start it as a user of its own, by socket activation",
            )
        };
        let what = format!(
            "keeps privileges and faces {}: {}",
            list(&low),
            self.state()
        );
        self.add("port-privilege", severity, what, Some(fix), report);
    }
}

/// What is not seen is said.
fn unseen(unheld: &[Listener], is_low: impl Fn(u16) -> bool, report: &mut Report) {
    let count = unheld.len();
    if count == 0 {
        return;
    }
    let low: BTreeSet<u16> = unheld
        .iter()
        .filter_map(|listener| listener.at.port())
        .filter(|port| is_low(*port))
        .collect();
    let of_root = unheld
        .iter()
        .filter(|listener| listener.uid == Some(0))
        .count();
    let low = match low.iter().map(u16::to_string).collect::<Vec<_>>() {
        ports if ports.is_empty() => String::new(),
        ports => format!("low ports {}; ", ports.join(", ")),
    };
    let fix = if nix::unistd::geteuid().is_root() {
        "run the audit in the PID namespace of the host"
    } else {
        "run the audit as root"
    };
    report.add(Finding {
        rule: "host-unseen",
        severity: Severity::Note,
        place: Place::Host,
        what: format!(
            "{count} listening sockets belong to processes that this user may not look at ({low}made by root: {of_root})"
        ),
        fix: Some(fix.into()),
    });
}

/// With `hidepid` even their number is unknown.
fn hidden(report: &mut Report) {
    report.add(Finding {
        rule: "host-hidden",
        severity: Severity::Note,
        place: Place::Host,
        what: "there are processes that this user is not shown (hidepid): nothing is known of them"
            .into(),
        fix: Some("run the audit as root".into()),
    });
}

/// Looks at the files of every node binary: those that PATH leads to, and those that run.
fn programs(processes: &[Process], report: &mut Report) {
    // What is looked at, and as what it is told.
    let mut files: HashMap<(u64, u64), (PathBuf, PathBuf)> = HashMap::new();
    let mut take = |look: PathBuf, tell: PathBuf| {
        if let Ok(found) = std::fs::metadata(&look) {
            files
                .entry((found.dev(), found.ino()))
                .or_insert((look, tell));
        }
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    for folder in std::env::split_paths(&path) {
        for name in ["node", "nodejs"] {
            if let Ok(file) = folder.join(name).canonicalize()
                && file.is_file()
            {
                take(file.clone(), file);
            }
        }
    }
    for process in processes.iter().filter(|process| process.is_node()) {
        if let Some(exe) = &process.exe {
            // By way of /proc, which leads into containers too.
            let look = Path::new("/proc").join(process.pid.to_string()).join("exe");
            take(look, exe.clone());
        }
    }
    let mut files: Vec<(PathBuf, PathBuf)> = files.into_values().collect();
    files.sort_by(|(_, one), (_, other)| one.cmp(other));
    for (look, tell) in files {
        program(&look, &tell, report);
    }
}

fn program(look: &Path, tell: &Path, report: &mut Report) {
    let name = command::base_name(&tell.to_string_lossy()).to_owned();
    let mut out = report.file(tell);
    match FileCapabilities::of(look) {
        Ok(None) => {}
        Ok(Some(capabilities)) => out.found(
            "program-capabilities",
            Severity::High,
            None,
            format!(
                "{name} has {}: whatever any user runs with it holds that",
                capabilities.written()
            ),
            format!(
                "`setcap -r {}`, and let lowport hold 80 and 443",
                tell.display()
            ),
        ),
        Err(error) => out.note(
            "program-unreadable",
            None,
            format!("not looked at: {error}"),
        ),
    }
    const SET_UID: u32 = 0o4000;
    if let Ok(found) = std::fs::metadata(look)
        && found.permissions().mode() & SET_UID != 0
    {
        let (severity, owner) = match found.uid() {
            0 => (Severity::High, "root".to_owned()),
            uid => (Severity::Medium, format!("uid {uid}")),
        };
        out.found(
            "program-set-uid",
            severity,
            None,
            format!("{name} is set-uid: whatever any user runs with it is {owner}"),
            format!("`chmod u-s {}`", tell.display()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    fn told(name: &str, addresses: &[&str], change: impl Fn(&mut Process)) -> Vec<String> {
        let mut process = testing::process(7, 1, name);
        change(&mut process);
        let holder = Holder {
            process: &process,
            listeners: addresses
                .iter()
                .map(|address| Address::Tcp(address.parse().unwrap()))
                .collect(),
            is_here: true,
            is_seen: true,
        };
        let mut report = Report::default();
        holder.check(|port| port < 1024, &mut report);
        testing::told(&report)
    }

    fn root(process: &mut Process) {
        process.state.uids = [0; 4];
    }

    fn capable(process: &mut Process) {
        process.state.capabilities.effective = 1 << 10;
    }

    #[test]
    fn node_is_judged_by_who_it_is_and_where_it_listens() {
        let nothing: [&str; 0] = [];
        assert_eq!(told("node", &["127.0.0.1:3000"], |_| {}), nothing);
        assert_eq!(told("node", &["127.0.0.1:3000"], root), ["high node-root"]);
        assert_eq!(
            told("node", &["[::1]:3000"], capable),
            ["high node-capabilities"]
        );
        assert_eq!(
            told("node", &["0.0.0.0:3000"], |_| {}),
            ["low node-exposed"]
        );
        assert_eq!(
            told("node", &["[::]:80"], root),
            ["high node-root", "low node-exposed"]
        );
        assert_eq!(told("node", &["192.0.2.1:3000"], |_| {}), nothing);
        assert_eq!(told("node", &[], root), nothing);
    }

    #[test]
    fn others_are_judged_where_they_face_a_low_port() {
        let nothing: [&str; 0] = [];
        assert_eq!(
            told("nginx", &["0.0.0.0:80"], root),
            ["medium port-privilege"]
        );
        assert_eq!(
            told("caddy", &["[::]:443"], capable),
            ["medium port-privilege"]
        );
        assert_eq!(told("sshd", &["0.0.0.0:22"], root), ["low port-privilege"]);
        assert_eq!(told("x", &["127.0.0.1:80"], root), ["low port-privilege"]);
        assert_eq!(told("nginx", &["0.0.0.0:80"], |_| {}), nothing);
        assert_eq!(told("x", &["0.0.0.0:8080"], root), nothing);
        let init = |process: &mut Process| {
            root(process);
            process.pid = 1;
        };
        assert_eq!(
            told("systemd", &["[::]:80"], init),
            ["note port-activation"]
        );
    }

    #[test]
    fn what_is_not_seen_is_counted() {
        let listener = |address: &str, uid| Listener {
            at: Address::Tcp(address.parse().unwrap()),
            uid: Some(uid),
        };
        let mut report = Report::default();
        let unheld = [listener("0.0.0.0:80", 0), listener("0.0.0.0:3000", 5)];
        unseen(&unheld, |port| port < 1024, &mut report);
        assert_eq!(
            report.entries()[0].what,
            "2 listening sockets belong to processes that this user may not look at (low ports 80; made by root: 1)"
        );
        assert!(!report.has_findings());
    }

    #[test]
    fn a_set_uid_node_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().join("node");
        std::fs::write(&node, "").unwrap();
        let rules = |mode| {
            std::fs::set_permissions(&node, PermissionsExt::from_mode(mode)).unwrap();
            let mut report = Report::default();
            program(&node, &node, &mut report);
            report
                .entries()
                .iter()
                .map(|entry| entry.rule)
                .collect::<Vec<_>>()
        };
        assert_eq!(rules(0o755), [] as [&str; 0]);
        assert_eq!(rules(0o4755), ["program-set-uid"]);
    }
}
