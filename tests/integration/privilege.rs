//! What is left of root once lowport serves, and what still works without it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::client::curl;
use crate::support::lowport::Setup;
use crate::support::{Lowport, certs, is_root, process, skipped, until};

const RESPOND: &str = "[[route]]\nrespond = \"x\"\n";

fn broker(lowport: &Lowport) -> u32 {
    process::child(lowport.pid(), "lowport-broker")
}

/// `Name: value` lines of a status file.
fn status(path: &Path, name: &str) -> String {
    let text = fs::read_to_string(path).expect("it runs");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect("such a line").trim().to_owned()
}

#[test]
fn every_thread_of_the_worker_is_somebody_else_without_capabilities() {
    if !is_root() {
        return skipped(
            "every_thread_of_the_worker_is_somebody_else_without_capabilities",
            "needs root",
        );
    }
    let lowport = Lowport::start(RESPOND);
    let tasks: Vec<_> = fs::read_dir(format!("/proc/{}/task", lowport.pid()))
        .unwrap()
        .flatten()
        .collect();
    assert!(tasks.len() >= 3, "two workers and the main thread");
    for task in tasks {
        let file = task.path().join("status");
        for (name, value) in [
            ("Uid", "65532\t65532\t65532\t65532"),
            ("Gid", "65532\t65532\t65532\t65532"),
            ("Groups", ""),
            ("NoNewPrivs", "1"),
            ("CapInh", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("Seccomp", "2"),
            ("Seccomp_filters", "3"),
        ] {
            assert_eq!(status(&file, name), value, "{name}");
        }
    }
}

/// A number that a log line tells.
fn told(line: &str, key: &str) -> usize {
    let rest = line.split(&format!(" {key}=")).nth(1).expect(key);
    let word = rest.split(' ').next().expect("a word");
    word.parse().expect("a number")
}

#[test]
fn the_sandbox_is_on_by_default_tried_out_and_small() {
    let lowport = Lowport::start("[[route]]\nto = \"http://127.0.0.1:3999\"\n");
    let line = lowport.wait_for("sandboxed ");
    assert!(told(&line, "calls") <= 55, "{line}");
    assert!(told(&line, "tried") >= 10, "{line}");
    assert!(line.contains("connects_to=3999"), "{line}");
    // What could not be enforced is said; here only what no kernel before 7.1 can.
    let open: Vec<String> = lowport
        .output()
        .into_iter()
        .filter(|line| line.contains("not closed: "))
        .collect();
    assert!(
        open.iter().all(|line| line.contains("Unix socket")),
        "{open:?}"
    );
}

#[test]
fn how_long_the_drop_and_the_sandbox_took_is_told_to_who_asks() {
    let lowport = Lowport::with(&Setup {
        server: "",
        rest: RESPOND,
        args: &["-v"],
    });
    // A quarter of a millisecond or so on an idle machine.
    let line = lowport.wait_for("the drop and the sandbox took this long");
    assert!((1..1_000_000).contains(&told(&line, "micros")), "{line}");
}

#[test]
fn without_the_sandbox_that_is_said() {
    let lowport = Lowport::with(&Setup {
        server: "",
        rest: RESPOND,
        args: &["--no-sandbox"],
    });
    lowport.wait_for("no sandbox why=--no-sandbox");
    let file = format!("/proc/{}/status", lowport.pid());
    assert_eq!(status(Path::new(&file), "Seccomp"), "0");
}

#[test]
fn a_reload_cannot_widen_the_sandbox_but_reaches_what_was_named() {
    let lowport = Lowport::start(
        "[sandbox]\nconnect = \"3998\"\n[[route]]\nto = \"http://127.0.0.1:3999\"\n",
    );
    let with = |port| Setup {
        server: "redirect_to_https = false",
        rest: port,
        args: &[],
    };
    let seen = lowport.output().len();
    lowport.rewrite(&with("[[route]]\nto = \"http://127.0.0.1:3997\"\n"));
    lowport.wait_for_after(seen, "reload refused");
    lowport.wait_for_after(seen, "the sandbox does not reach 127.0.0.1:3997");
    lowport.wait_for_after(seen, "sandbox.connect");
    lowport.rewrite(&with("[[route]]\nto = \"http://127.0.0.1:3998\"\n"));
    lowport.wait_for_after(seen, " reloaded");
}

#[test]
fn the_broker_keeps_two_capabilities_and_no_more() {
    if !is_root() {
        return skipped(
            "the_broker_keeps_two_capabilities_and_no_more",
            "needs root",
        );
    }
    let lowport = Lowport::start(RESPOND);
    let file = format!("/proc/{}/status", broker(&lowport));
    let file = Path::new(&file);
    // CAP_DAC_READ_SEARCH is bit 2, CAP_NET_BIND_SERVICE bit 10.
    for (name, value) in [
        ("CapEff", "0000000000000404"),
        ("CapPrm", "0000000000000404"),
        ("CapInh", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Groups", ""),
    ] {
        assert_eq!(
            until("the broker's state", || Some(status(file, name))
                .filter(|now| now == value)),
            value
        );
    }
}

#[test]
fn a_certificate_that_only_root_can_read_is_renewed_after_the_drop() {
    if !is_root() {
        return skipped(
            "a_certificate_that_only_root_can_read_is_renewed_after_the_drop",
            "needs root",
        );
    }
    let lowport = Lowport::start(RESPOND);
    let private = lowport.folder().join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    certs::write(&private, "site", &["localhost"]);
    let text = fs::read_to_string(lowport.config()).unwrap();
    lowport.rewrite_raw(&text.replace("\"site.", "\"private/site."));
    let serial = || {
        let output = curl(&lowport, "/", &["-o/dev/null", "-w", "%{certs}"]);
        output
            .lines()
            .find_map(|line| line.strip_prefix("Serial Number:").map(str::to_owned))
            .expect("a serial number")
    };
    lowport.wait_for(" reloaded");
    let first = serial();
    certs::write(&private, "site", &["localhost"]);
    for file in ["site.pem", "site.key"] {
        fs::set_permissions(private.join(file), fs::Permissions::from_mode(0o600)).unwrap();
    }
    until("the renewed certificate", || {
        (serial() != first).then_some(())
    });
}

#[test]
fn a_dead_broker_ends_lowport_with_a_failure() {
    let mut lowport = Lowport::start(RESPOND);
    kill(Pid::from_raw(broker(&lowport) as i32), Signal::SIGKILL).unwrap();
    assert_eq!(lowport.ended().code(), Some(1));
    lowport.wait_for("the broker has died");
}

#[test]
fn a_dead_worker_leaves_nobody_behind() {
    let mut lowport = Lowport::start(RESPOND);
    let broker = broker(&lowport);
    lowport.signal(Signal::SIGKILL);
    assert!(!lowport.ended().success());
    until("the broker to end", || {
        (!Path::new(&format!("/proc/{broker}/status")).exists()).then_some(())
    });
}
