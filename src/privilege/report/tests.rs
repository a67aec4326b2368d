//! How the report reads, and what it finds.

use nix::errno::Errno;

use super::super::needs::{Ports, Work};
use super::super::seccomp::SeccompState;
use super::super::status::Capabilities;
use super::super::trial::Outcome;
use super::*;

fn task(tid: u32) -> TaskState {
    TaskState {
        tid,
        uids: [65532; 4],
        gids: [65533; 4],
        groups: Vec::new(),
        capabilities: Capabilities::default(),
        no_new_privs: true,
        seccomp: SeccompMode::Filter,
        seccomp_filters: Some(3),
    }
}

fn landlock() -> LandlockState {
    LandlockState {
        abi: 7,
        files: Kept::Full,
        network: Kept::Full,
        scopes: Kept::Full,
    }
}

fn report() -> PrivilegeReport {
    let tried = |action: &str, outcome| Tried {
        action: action.to_owned(),
        outcome,
    };
    PrivilegeReport {
        mode: Mode::Root,
        identity: Identity {
            uid: 65532,
            gid: 65533,
            name: Some("lowport".to_owned()),
            home: None,
        },
        threads: Ok(vec![task(10), task(11)]),
        walls: Walls {
            needs: Needs {
                connect: Ports::from_iter([3000, 3001]),
                write: vec!["/var/log/lowport".into()],
                ..Needs::default()
            },
            landlock: Ok(landlock()),
            seccomp: Ok(SeccompState {
                filters: 3,
                calls: vec!["accept4", "close"],
            }),
            tried: vec![
                tried("become root", Outcome::Killed),
                tried("open /etc/passwd", Outcome::Denied(Errno::EACCES)),
            ],
        },
        broker: Some((
            Ok(TaskState {
                uids: [0; 4],
                capabilities: Capabilities {
                    effective: 0x404,
                    permitted: 0x404,
                    ..Capabilities::default()
                },
                ..task(12)
            }),
            Walls {
                needs: Needs {
                    work: Work::Answering,
                    bind: Ports::from_iter([80]),
                    read: vec!["/proc".into()],
                    ..Needs::default()
                },
                landlock: Ok(landlock()),
                seccomp: Ok(SeccompState {
                    filters: 3,
                    calls: vec!["close"],
                }),
                tried: vec![tried("open /", Outcome::Denied(Errno::EACCES))],
            },
        )),
        app: Some(AppReport {
            guardian: Ok(task(13)),
            supervisor: Ok(task(14)),
            filters: Ok(2),
        }),
        degraded: Vec::new(),
    }
}

#[test]
fn a_terminal_gets_it_aligned_and_short() {
    assert_eq!(
        report().to_string(),
        "  ports from    root
  runs as       lowport (uid 65532), gid 65533
  capabilities  none in any set
  no new privs  yes
  threads       2, all alike
  landlock      ABI 7: files full, network full, scopes full
  seccomp       3 filters, 2 system calls left
  may connect   TCP 3000, 3001
  may bind      none
  may read      nothing
  may write     /var/log/lowport
  broker        uid 0, capabilities: cap_dac_read_search, cap_net_bind_service (effective, permitted), no new privs: yes, \
         seccomp: 3 filters
    landlock    ABI 7: files full, network full, scopes full
    seccomp     3 filters, 1 system calls left
    may connect none
    may bind    80
    may read    /proc
    may write   nothing
    tried       1, all denied
  guardian      uid 65532, capabilities: none in any set, no new privs: yes, seccomp: 3 filters
  supervisor    uid 65532, capabilities: none in any set, no new privs: yes, seccomp: 3 filters

tried in throwaway processes:

  become root       denied (killed by SIGSYS)
  open /etc/passwd  denied (EACCES)

everything is enforced
"
    );
}

#[test]
fn what_is_not_enforced_is_said_plainly() {
    let mut report = report();
    report.walls.landlock = Ok(LandlockState {
        abi: 3,
        files: Kept::Partial("ioctl".to_owned()),
        network: Kept::None("too old".to_owned()),
        scopes: Kept::Full,
    });
    report.walls.seccomp = Err("allow_degraded".to_owned());
    report.walls.tried[0].outcome = Outcome::Allowed;
    report.degraded.push("the broker is missing".to_owned());
    let expected = [
        "landlock, files: partial: ioctl",
        "landlock, network: none: too old",
        "seccomp is off: allow_degraded",
        "without it, Multipath TCP and TCP Fast Open connect to any port",
        "become root: ALLOWED",
        "the broker is missing",
    ];
    assert_eq!(report.open(), expected);
    let told = report.to_string();
    assert!(
        told.ends_with(&format!("\nNOT enforced:\n\n  {}\n", expected.join("\n  "))),
        "{told}"
    );
    assert!(told.contains("ABI 3: files PARTIAL, network NONE, scopes full"));
}

#[test]
fn what_may_be_done_without_a_sandbox_is_not_told_as_little() {
    let mut report = report();
    report.walls = Walls::none("--no-sandbox");
    report.broker = None;
    let told = report.to_string();
    assert!(told.contains("  seccomp       off\n"), "{told}");
    assert!(!told.contains("may "), "{told}");
    assert!(told.contains("landlock is off: --no-sandbox"), "{told}");
}

#[test]
fn what_was_read_back_is_compared() {
    let with = |change: fn(&mut TaskState)| {
        let mut report = report();
        let mut tasks = vec![task(10)];
        change(&mut tasks[0]);
        report.threads = Ok(tasks);
        assert_eq!(report.open(), report.contradictions());
        report.open()
    };
    assert!(with(|_| {}).is_empty());
    let first = |open: Vec<String>| open.first().cloned().unwrap_or_default();
    assert!(first(with(|task| task.uids[2] = 0)).contains("not as lowport"));
    assert!(first(with(|task| task.groups = vec![4])).contains("groups [4]"));
    assert!(first(with(|task| task.capabilities.bounding = 1)).contains("cap_chown (bounding)"));
    assert!(first(with(|task| task.no_new_privs = false)).contains("no_new_privs"));
    assert!(first(with(|task| task.seccomp_filters = Some(2))).contains("filters"));
    assert!(first(with(|task| task.seccomp = SeccompMode::Off)).contains("filters"));

    let mut report = report();
    let mut other = task(11);
    other.uids = [0; 4];
    report.threads = Ok(vec![task(10), other]);
    assert!(report.open()[0].contains("thread 11 differs"));
    report.threads = Err("hidden".to_owned());
    assert!(report.open()[0].contains("hidden"));
    assert!(report.contradictions().is_empty());
}

#[test]
fn who_was_never_root_keeps_a_bounding_set_that_is_of_no_use() {
    let mut report = report();
    let mut task = task(10);
    task.capabilities.bounding = 0x1ff;
    task.groups = vec![100];
    report.mode = Mode::Unprivileged;
    report.threads = Ok(vec![task.clone()]);
    assert!(report.open().is_empty());
    task.no_new_privs = false;
    report.threads = Ok(vec![task]);
    assert_eq!(report.open().len(), 2);
}

#[test]
fn helpers_that_can_do_more_are_told() {
    let with = |change: fn(&mut PrivilegeReport)| {
        let mut report = report();
        change(&mut report);
        report.open().join("\n")
    };
    let told = with(|report| {
        if let Some((Ok(broker), walls)) = &mut report.broker {
            broker.capabilities.effective |= 1;
            broker.seccomp = SeccompMode::Off;
            walls.landlock = Err("no kernel".to_owned());
            walls.tried[0].outcome = Outcome::Allowed;
        }
        if let Some(app) = &mut report.app {
            app.supervisor = Err("hidden".to_owned());
            app.filters = Err("somebody wants it so".to_owned());
        }
    });
    for sentence in [
        "the broker: capabilities are left: cap_chown (effective)",
        "the broker: the seccomp filters are not on",
        "the broker: landlock is off: no kernel",
        "the broker: open /: ALLOWED",
        "the supervisor could not be read back: hidden",
        "the app: seccomp is off: somebody wants it so",
    ] {
        assert!(told.contains(sentence), "{sentence} in {told}");
    }
}

#[test]
fn helpers_that_were_not_confined_are_contradictions() {
    type Change = fn(&mut TaskState);
    let changes: [(Change, &str); 5] = [
        (
            |task| task.capabilities.bounding = 0x400,
            "capabilities are left",
        ),
        (|task| task.no_new_privs = false, "no_new_privs is not set"),
        (|task| task.seccomp = SeccompMode::Off, "filters are not on"),
        (|task| task.seccomp_filters = Some(1), "filters are not on"),
        (|task| task.uids[2] = 0, "runs as"),
    ];
    for (change, sentence) in changes {
        for who in ["the broker", "the guardian", "the supervisor"] {
            let mut report = report();
            let (Some((broker, _)), Some(app)) = (&mut report.broker, &mut report.app) else {
                panic!("no helpers");
            };
            let helper = match who {
                "the broker" => broker,
                "the guardian" => &mut app.guardian,
                _ => &mut app.supervisor,
            };
            change(helper.as_mut().unwrap());
            let found = report.contradictions();
            if (who, sentence) == ("the broker", "runs as") {
                // It is root.
                assert!(found.is_empty(), "{found:?}");
                continue;
            }
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(
                found[0].starts_with(who) && found[0].contains(sentence),
                "{found:?}"
            );
            assert_eq!(report.open(), found);
        }
    }
    // What need not be on may be off; who cannot be read back is told, and is no contradiction.
    let mut report = report();
    let Some(app) = &mut report.app else {
        panic!("no app");
    };
    app.filters = Err("why".to_owned());
    app.supervisor.as_mut().unwrap().seccomp = SeccompMode::Off;
    app.guardian = Err("hidden".to_owned());
    assert!(report.contradictions().is_empty());
}
