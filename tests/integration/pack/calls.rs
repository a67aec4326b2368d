//! Whether the units in `deploy/systemd` let lowport make the system calls that it makes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::{both, is_there, repository};
use crate::support::lowport::USER;
use crate::support::mode::{self, Mode, as_somebody};
use crate::support::{Lowport, Node, is_root, raw, skipped, strace};

/// The calls of a group, by `systemd-analyze syscall-filter`.
fn group(name: &str) -> BTreeSet<String> {
    let output = Command::new("systemd-analyze")
        .args(["syscall-filter", name])
        .output()
        .expect("it runs");
    let mut calls = BTreeSet::new();
    for word in both(&output).lines().skip(1).map(str::trim) {
        match word.chars().next() {
            Some('@') => calls.extend(group(word)),
            Some('#') | None => {}
            Some(_) => drop(calls.insert(word.to_owned())),
        }
    }
    assert!(!calls.is_empty(), "{name}");
    calls
}

/// What the lines `SystemCallFilter=` of a unit allow, see systemd.exec(5).
fn allowed(unit: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(repository("deploy/systemd").join(unit))
        .expect("the unit is there");
    let mut allowed = group("@default");
    for line in text.lines() {
        let Some(list) = line.strip_prefix("SystemCallFilter=") else {
            continue;
        };
        let denied = list.starts_with('~');
        for word in list.trim_start_matches('~').split_whitespace() {
            let calls = match word.starts_with('@') {
                true => group(word),
                false => BTreeSet::from([word.to_owned()]),
            };
            for call in calls {
                if denied {
                    allowed.remove(&call);
                } else {
                    allowed.insert(call);
                }
            }
        }
    }
    allowed
}

/// The calls in what strace wrote that were not refused. Those that are, or that end a process, lowport makes to see just that.
fn made(trace: &str) -> BTreeSet<&str> {
    let mut calls = BTreeSet::new();
    // By process: what ends it is told in its next line.
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for line in trace.lines() {
        let Some((process, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        if call.starts_with("+++ killed by SIGSYS") {
            last.remove(process);
        }
        let call = call.strip_prefix("<... ").unwrap_or(call);
        let end = call.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let name = &call[..end.unwrap_or(0)];
        let refused = [" = -1 EPERM", " = -1 EACCES", "<unfinished ...>"];
        if !name.is_empty() && !refused.iter().any(|end| call.contains(end)) {
            calls.extend(last.insert(process, name));
        }
    }
    calls.extend(last.into_values());
    calls
}

#[test]
fn no_unit_forbids_what_lowport_does() {
    const TEST: &str = "the units' system calls";
    if !is_root() {
        return skipped(TEST, "needs root");
    }
    if !is_there(TEST, "systemd-analyze", &["--version"]) || !strace::is_there(TEST) {
        return;
    }
    let node = Node::start();
    for (mode, unit) in [
        (Mode::Activated, "lowport.service"),
        (Mode::Capability, "lowport-ambient.service"),
        (Mode::Root, "lowport-root.service"),
    ] {
        let port = mode.port();
        let toml = |more: &str| {
            format!(
                "[server]\nhttp = \"127.0.0.1:{port}\"\nuser = \"{USER}\"\nworkers = 2\n{}{more}",
                node.route()
            )
        };
        let folder = mode::scene(&toml(""));
        let all = PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder.path(), all).unwrap();
        let file = folder.path().join("trace");
        let strace = format!("strace -D -f -qq -o {}", file.display());
        let mut command = match mode {
            Mode::Activated => {
                let socket = TcpListener::bind(("127.0.0.1", port)).unwrap();
                let somebody = as_somebody("--inh-caps=-all --bounding-set=-all");
                mode::activated(
                    folder.path(),
                    socket.into(),
                    "http",
                    &format!("{somebody} {strace}"),
                )
            }
            Mode::Capability => {
                let only = "-all,+net_bind_service";
                let somebody = as_somebody(&format!(
                    "--inh-caps={only} --ambient-caps={only} --bounding-set={only}"
                ));
                let script = format!("exec {somebody} {strace} \"$@\"");
                mode::started(folder.path(), &script, Stdio::null())
            }
            _ => {
                let script = format!("exec {strace} \"$@\"");
                mode::started(folder.path(), &script, Stdio::null())
            }
        };
        let mut lowport = Lowport::spawn_with_stdin(&mut command);
        lowport.wait_for(" ready ");
        let get = || {
            let request = "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            raw::exchange(port, request)
        };
        assert!(get().starts_with("HTTP/1.1 200 "), "{unit}");
        let config = folder.path().join("lowport.toml");
        std::fs::write(config, toml("[[route]]\npath = \"/x\"\nrespond = \"x\"\n")).unwrap();
        lowport.signal(Signal::SIGHUP);
        lowport.wait_for("reloaded");
        assert!(get().starts_with("HTTP/1.1 200 "), "{unit}");
        lowport.signal(Signal::SIGTERM);
        assert!(lowport.ended().success(), "{unit}");
        let trace = std::fs::read_to_string(&file).unwrap();
        let (made, allowed) = (made(&trace), allowed(unit));
        assert!(
            made.contains("accept4") && made.contains("seccomp"),
            "{made:?}"
        );
        let forbidden: Vec<_> = made
            .iter()
            .filter(|call| !allowed.contains(**call))
            .collect();
        assert!(forbidden.is_empty(), "{unit} forbids {forbidden:?}");
    }
}
