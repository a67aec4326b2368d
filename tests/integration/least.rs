//! The least privilege, as the kernel tells it, whichever way lowport came by its ports: read here from /proc, and by none
//! of lowport's own code.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;

use crate::support::lowport::Setup;
use crate::support::mode::Mode;
use crate::support::process::status;
use crate::support::raw::{self, RawUpstream};
use crate::support::{Lowport, is_root, until};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx";

/// What each thread has of its own, by the kernel's names.
const FIELDS: [&str; 11] = [
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
];

/// A thread's fields.
type State = BTreeMap<&'static str, String>;

/// Every thread of a process.
fn threads(pid: u32) -> BTreeMap<u32, State> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let threads = entries.flatten().filter_map(|entry| {
        let tid = entry.file_name().to_str()?.parse().ok()?;
        // Some end in the meantime.
        let text = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let field = |name: &'static str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            (name, line.unwrap_or("absent").trim().to_owned())
        };
        Some((tid, FIELDS.map(field).into()))
    });
    threads.collect()
}

/// What a worker is to be.
fn expected(mode: Mode) -> State {
    let own = |name| status(std::process::id(), name).unwrap_or_default();
    let user = mode.uid().to_string();
    let group = match is_root() {
        true => user.clone(),
        false => nix::unistd::getegid().to_string(),
    };
    let nothing = "0".repeat(16);
    // The filters of the container that this test may run in are inherited.
    let filters = match own("Seccomp_filters").parse::<u32>() {
        Ok(own) => (own + 3).to_string(),
        Err(_) => "absent".to_owned(),
    };
    State::from([
        ("Uid", [user.as_str(); 4].join("\t")),
        ("Gid", [group.as_str(); 4].join("\t")),
        (
            "Groups",
            if is_root() {
                String::new()
            } else {
                own("Groups")
            },
        ),
        ("CapInh", nothing.clone()),
        ("CapPrm", nothing.clone()),
        ("CapEff", nothing.clone()),
        ("CapBnd", format!("{:016x}", mode.bounding())),
        ("CapAmb", nothing),
        ("NoNewPrivs", "1".to_owned()),
        ("Seccomp", "2".to_owned()),
        ("Seccomp_filters", filters),
    ])
}

/// Has it do what makes threads late: look up a name, write a log, reload, and open the log anew.
fn exercise(lowport: &Lowport) {
    let log = lowport.folder().join("access.log");
    let logged = |path: &str| {
        let request = GET.replace("/ ", &format!("{path} "));
        assert!(
            raw::exchange(lowport.http, request).ends_with('x'),
            "{path}"
        );
        until("the record", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.contains(path).then_some(())
        });
    };
    logged("/first");
    let seen = lowport.output().len();
    lowport.signal(Signal::SIGHUP);
    lowport.wait_for_after(seen, " reloaded");
    std::fs::rename(&log, log.with_extension("1")).expect("renamed");
    lowport.signal(Signal::SIGUSR1);
    until("the new log", || log.exists().then_some(()));
    logged("/second");
}

#[test]
fn every_thread_of_the_worker_is_nobody_with_nothing_in_every_mode() {
    for mode in Mode::all() {
        let upstream = RawUpstream::answering(ANSWER);
        let rest = format!(
            "[log]\naccess = \"./access.log\"\n[upstream.named]\npeers = \"localhost:{}\"\nexpect_user = \"any\"\n\
             [[route]]\nupstream = \"named\"\n",
            upstream.port
        );
        let lowport = Lowport::in_mode(
            *mode,
            &Setup {
                server: "redirect_to_https = false",
                rest: &rest,
                args: &[],
            },
        );
        let pid = lowport.pid();
        let early = threads(pid);
        assert!(
            early.len() >= 3,
            "the main thread and two workers: {early:?}"
        );
        exercise(&lowport);
        let late = threads(pid);
        // One that looks names up stays for a while.
        assert!(
            late.keys().any(|tid| !early.contains_key(tid)),
            "{mode:?}: no thread is younger than ready"
        );
        let expected = expected(*mode);
        for (tid, state) in early.iter().chain(&late) {
            assert_eq!(state, &expected, "{mode:?}: thread {tid}");
        }
    }
}
