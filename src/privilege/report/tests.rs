//! How the report reads, and what it finds.

use nix::errno::Errno;

use super::super::needs::Ports;
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
        needs: Needs {
            connect: Ports::from_iter([3000, 3001]),
            write: vec!["/var/log/lowport".into()],
            ..Needs::default()
        },
        landlock: Ok(LandlockState {
            abi: 7,
            files: Kept::Full,
            network: Kept::Full,
            scopes: Kept::Full,
        }),
        seccomp: Ok(SeccompState {
            filters: 3,
            calls: vec!["accept4", "close"],
        }),
        tried: vec![
            tried("become root", Outcome::Killed),
            tried("open /etc/passwd", Outcome::Denied(Errno::EACCES)),
        ],
        broker: Some(TaskState {
            uids: [0; 4],
            capabilities: Capabilities {
                effective: 0x400,
                permitted: 0x400,
                ..Capabilities::default()
            },
            ..task(12)
        }),
        supervisor: None,
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
  broker        uid 0, capabilities: cap_net_bind_service (effective, permitted), no new privs: yes, seccomp: 3 filters

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
    report.landlock = Ok(LandlockState {
        abi: 3,
        files: Kept::Partial("ioctl".to_owned()),
        network: Kept::None("too old".to_owned()),
        scopes: Kept::Full,
    });
    report.seccomp = Err("allow_degraded".to_owned());
    report.tried[0].outcome = Outcome::Allowed;
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
fn programs_get_every_fact() {
    let json = report().to_json();
    assert_eq!(json["mode"], "root");
    assert_eq!(json["uid"], 65532);
    assert_eq!(json["threads"][1]["tid"], 11);
    assert_eq!(
        json["threads"][0]["capabilities"]["bounding"],
        "0000000000000000"
    );
    assert_eq!(json["landlock"]["abi"], 7);
    assert_eq!(json["landlock"]["kept"]["network"]["level"], "full");
    assert_eq!(json["seccomp"]["calls"], json!(["accept4", "close"]));
    assert_eq!(json["needs"]["connect"], "3000, 3001");
    assert_eq!(json["tried"][0]["denied"], true);
    assert_eq!(
        json["broker"]["capabilities"]["effective"],
        "0000000000000400"
    );
    assert!(json["supervisor"].is_null());
    assert_eq!(json["open"], json!([]));

    let mut report = report();
    report.landlock = Err("off".to_owned());
    report.threads = Err("hidden".to_owned());
    let json = report.to_json();
    assert_eq!(json["landlock"]["off"], "off");
    assert_eq!(json["threads"]["unknown"], "hidden");
    assert_eq!(json["open"].as_array().unwrap().len(), 2);
}
