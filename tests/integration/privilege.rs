//! What is left of root once lowport serves, and what still works without it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::client::curl;
use crate::support::lowport::Setup;
use crate::support::process::status;
use crate::support::{Lowport, certs, is_root, skipped, until};

const RESPOND: &str = "[[route]]\nrespond = \"x\"\n";

/// The processes that `pid` has started, by name.
fn children(pid: u32) -> Vec<(String, u32)> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace()
        .filter_map(|child| {
            let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            Some((name.trim().to_owned(), child.parse().ok()?))
        })
        .collect()
}

fn broker(lowport: &Lowport) -> u32 {
    let find = || {
        children(lowport.pid())
            .into_iter()
            .find(|(name, _)| name == "lowport-broker")
    };
    until("the broker", find).1
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
fn without_the_sandbox_that_is_said() {
    let lowport = Lowport::with(&Setup {
        server: "",
        rest: RESPOND,
        args: &["--no-sandbox"],
    });
    lowport.wait_for("no sandbox why=--no-sandbox");
    assert_eq!(status(lowport.pid(), "Seccomp").as_deref(), Some("0"));
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
    let broker = broker(&lowport);
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
            until("the broker's state", || status(broker, name)
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
