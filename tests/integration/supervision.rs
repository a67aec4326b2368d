//! Nothing of the app outlives lowport, whoever is killed, and no dead process is left lying about.

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::client::curl;
use crate::support::lowport::{BINARY, Setup};
use crate::support::{Lowport, is_root, node, port, process, skipped, until};

/// A Node server that a shell is in front of, as with npm, and that has started what nobody waits for: a process in a
/// session of its own whose parent is gone, and one that is its own. It answers with their ids; `/orphan` makes one more
/// orphan, which ends at once.
const FAMILY: &str = r#"
    const { spawn, execFileSync } = require('child_process');
    const orphan = (what) => Number(execFileSync('sh', ['-c', `setsid ${what} >/dev/null 2>&1 & echo $!`]));
    const daemon = orphan('sleep 600');
    const child = spawn('sleep', ['600']).pid;
    require('http').createServer((q, r) => {
      if (q.url === '/orphan') return r.end(String(orphan('true')));
      r.end(JSON.stringify([process.pid, process.ppid, daemon, child]));
    }).listen(process.env.PORT, process.env.HOST);"#;

/// In front of it: it stays where it is when it is told to stop.
const STUBBORN: &str = "process.on('SIGTERM', () => {});";

/// A lowport with such an app.
struct Scene {
    lowport: Lowport,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn within(wrapper: &[&str], before: &str) -> Self {
        let folder = node::script(&format!("{before}{FAMILY}"));
        let toml = format!(
            "[app]\ncommand = [\"sh\", \"-c\", \"node server.js; true\"]\ndir = \"{}\"\nport = {}\n{}",
            folder.path().display(),
            port(),
            node::app_user()
        );
        let lowport = Lowport::within(
            wrapper,
            &Setup {
                server: "redirect_to_https = false",
                rest: &toml,
                args: &[],
            },
        );
        lowport.wait_for("app ready in");
        Self {
            lowport,
            _folder: folder,
        }
    }

    /// Node, the shell before it, and the other two.
    fn family(&self) -> [u32; 4] {
        serde_json::from_str(&curl(&self.lowport, "/", &[])).expect("JSON")
    }

    /// Everybody of the app, by the ids that they have here.
    fn family_outside(&self, init: u32) -> Vec<u32> {
        let family = self.family();
        let of = |pid: &u32| {
            let ids = process::status(*pid, "NSpid").unwrap_or_default();
            let inner = ids.split_whitespace().last().and_then(|id| id.parse().ok());
            inner.is_some_and(|inner: u32| family.contains(&inner))
        };
        let found: Vec<u32> = everybody(init).into_iter().filter(of).collect();
        assert_eq!(found.len(), family.len(), "{family:?}");
        found
    }
}

/// The processes that lowport starts besides: broker, guardian, supervisor.
struct Helpers {
    broker: u32,
    guardian: u32,
    supervisor: u32,
}

impl Helpers {
    fn of(lowport: u32) -> Self {
        let named = |name: &str, of: u32| {
            until(name, || {
                let named = |pid: &u32| process::name(*pid).is_some_and(|own| own == name);
                process::children(of).into_iter().find(named)
            })
        };
        let guardian = named("lowport-app", lowport);
        Self {
            broker: named("lowport-broker", lowport),
            guardian,
            supervisor: named("lowport-app", guardian),
        }
    }
}

fn kill_9(pid: u32) {
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("killed");
}

#[test]
fn nothing_of_the_app_outlives_anybody_who_is_killed() {
    for who in ["the worker", "the broker", "the guardian", "the supervisor"] {
        let mut scene = Scene::within(&[], STUBBORN);
        let family = scene.family();
        let lowport = scene.lowport.pid();
        let helpers = Helpers::of(lowport);
        kill_9(match who {
            "the worker" => lowport,
            "the broker" => helpers.broker,
            "the guardian" => helpers.guardian,
            _ => helpers.supervisor,
        });
        match who {
            "the worker" => assert!(!scene.lowport.ended().success()),
            "the broker" => assert_eq!(scene.lowport.ended().code(), Some(1)),
            _ => drop(scene.lowport.wait_for(
                "the app's supervisor was killed by SIGKILL: the app is not started again until lowport is",
            )),
        }
        process::gone(&family);
        process::gone(&[helpers.guardian, helpers.supervisor]);
        if ["the worker", "the broker"].contains(&who) {
            process::gone(&[helpers.broker]);
        } else {
            // The rest goes on, and can be stopped.
            assert!(
                !process::is_gone(lowport) && !process::is_gone(helpers.broker),
                "{who}"
            );
            scene.lowport.signal(Signal::SIGTERM);
            assert!(scene.lowport.ended().success(), "{who}");
        }
    }
}

#[test]
fn sigterm_ends_the_whole_family_even_what_does_not_listen_to_it() {
    let mut scene = Scene::within(&[], STUBBORN);
    let family = scene.family();
    let helpers = Helpers::of(scene.lowport.pid());
    scene.lowport.signal(Signal::SIGTERM);
    assert!(scene.lowport.ended().success());
    for pid in family
        .into_iter()
        .chain([helpers.guardian, helpers.supervisor])
    {
        assert!(process::is_gone(pid), "{pid} is left");
    }
}

/// A pid namespace in which lowport is PID 1, with a /proc of its own.
const UNSHARE: [&str; 4] = ["unshare", "--pid", "--fork", "--mount-proc"];

fn lacks_namespaces(test: &str) -> bool {
    let works = || {
        let [program, arguments @ ..] = UNSHARE;
        let mut command = Command::new(program);
        command.args(arguments).arg("true").stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let lacks = !is_root() || !works();
    if lacks {
        skipped(test, "needs root and unshare(1)");
    }
    lacks
}

/// Everybody in the pid namespace of `pid`, seen from outside.
fn everybody(pid: u32) -> Vec<u32> {
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let there = namespace(pid).expect("it runs");
    std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| namespace(*pid).is_some_and(|other| other == there))
        .collect()
}

fn is_zombie(pid: u32) -> bool {
    process::status(pid, "State").is_some_and(|state| state.starts_with('Z'))
}

/// A lowport that is PID 1.
struct Init {
    scene: Scene,
    /// Its id outside
    pid: u32,
}

impl Init {
    fn start() -> Self {
        let scene = Scene::within(&UNSHARE, "");
        let pid = scene.lowport.inner().expect("it runs");
        let ids = process::status(pid, "NSpid").expect("it runs");
        assert!(ids.ends_with("\t1"), "{ids}");
        Self { scene, pid }
    }
}

#[test]
fn as_pid_1_it_reaps_orphans_whoever_they_were_left_by() {
    if lacks_namespaces("as_pid_1_it_reaps_orphans_whoever_they_were_left_by") {
        return;
    }
    let init = Init::start();
    // Of the app: these are handed to the supervisor.
    for _ in 0..5 {
        curl(&init.scene.lowport, "/orphan", &[]);
    }
    // And from elsewhere, as of `docker exec`: handed to PID 1.
    let entered = Command::new("nsenter")
        .args(["--pid", "--mount", "--target", &init.pid.to_string()])
        .args([
            "sh",
            "-c",
            "for i in 1 2 3 4 5; do setsid sh -c : & done; setsid sleep 600 & ",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(entered.is_ok_and(|status| status.success()), "nsenter(1)");
    let sleeper = until("an orphan that is lowport's", || {
        let is = |pid: &u32| process::name(*pid).is_some_and(|name| name == "sleep");
        process::children(init.pid).into_iter().find(is)
    });
    let none = || {
        let zombies = everybody(init.pid)
            .into_iter()
            .filter(|pid| is_zombie(*pid));
        (zombies.count() == 0).then_some(())
    };
    until("no zombie", none);
    kill_9(sleeper);
    until("it to be reaped", || {
        process::name(sleeper).is_none().then_some(())
    });
    // How its own children end is still known, and theirs are reaped as well.
    let family = init.scene.family_outside(init.pid);
    kill_9(Helpers::of(init.pid).supervisor);
    init.scene
        .lowport
        .wait_for("the app's supervisor was killed by SIGKILL");
    process::gone(&family);
    until("no zombie", none);
}

#[test]
fn as_pid_1_it_follows_signals_and_leaves_nobody() {
    if lacks_namespaces("as_pid_1_it_follows_signals_and_leaves_nobody") {
        return;
    }
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGKILL,
    ] {
        let mut init = Init::start();
        let everybody = everybody(init.pid);
        assert!(everybody.len() >= 8, "{everybody:?}");
        // A reload is a signal as well.
        let seen = init.scene.lowport.output().len();
        kill(Pid::from_raw(init.pid as i32), Signal::SIGHUP).unwrap();
        init.scene.lowport.wait_for_after(seen, " reloaded");
        kill(Pid::from_raw(init.pid as i32), signal).unwrap();
        let ended = init.scene.lowport.ended();
        if signal == Signal::SIGKILL {
            assert!(!ended.success());
        } else {
            assert!(ended.success(), "{signal}: {ended}");
            init.scene.lowport.wait_for("app stopped");
        }
        process::gone(&everybody);
    }
}

/// What [`UNSHARE`] ends with when told so while lowport is still on its way.
#[test]
fn as_pid_1_it_can_be_stopped_before_it_serves() {
    if lacks_namespaces("as_pid_1_it_can_be_stopped_before_it_serves") {
        return;
    }
    // Its configuration never comes to its end.
    let mut command = Command::new(UNSHARE[0]);
    command.args(&UNSHARE[1..]).args([BINARY, "run", "-c", "-"]);
    let mut lowport = Lowport::spawn_with_stdin(command.stdin(Stdio::piped()));
    let pid = until("lowport", || lowport.inner());
    until("it to heed the signal", || {
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
        process::is_gone(pid).then_some(())
    });
    assert_eq!(lowport.ended().code(), Some(128 + 15));
}
