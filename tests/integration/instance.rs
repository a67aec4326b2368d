//! `lowport audit` of lowports that run: the truth about each process, and findings where one keeps too much.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::lowport::{BINARY, Setup, run};
use crate::support::mode::{self, Mode};
use crate::support::node::{self, APP_UID};
use crate::support::process::status;
use crate::support::{Lowport, folder, is_root, port, skipped, until};

const RESPOND: &str = "[[route]]\nrespond = \"x\"\n";

/// What `audit --json` says of one process of the only instance that was asked for.
struct Audit {
    code: Option<i32>,
    json: Value,
}

impl Audit {
    fn of(output: &Output) -> Self {
        let json = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self {
            code: output.status.code(),
            json,
        }
    }

    fn pid(pid: u32) -> Self {
        Self::of(&run(&["audit", "--json", "--pid", &pid.to_string()]))
    }

    fn processes(&self) -> &[Value] {
        let instances = self.json["instances"].as_array().expect("an array");
        assert_eq!(instances.len(), 1, "{}", self.json);
        instances[0]["processes"].as_array().expect("an array")
    }

    fn role(&self, role: &str) -> &Value {
        let mut found = self
            .processes()
            .iter()
            .filter(|process| process["role"] == role);
        let first = found.next();
        first.unwrap_or_else(|| panic!("no {role} in {}", self.json))
    }

    /// `severity rule` of what is to be done, and of what could not be seen.
    fn told(&self) -> Vec<String> {
        let findings = self.json["findings"].as_array().expect("an array");
        findings
            .iter()
            .filter(|finding| finding["severity"] != "holds")
            .inspect(|finding| {
                let to_do = finding["severity"] != "note";
                assert_eq!(
                    finding["fix"].is_string(),
                    to_do,
                    "each with its remedy: {finding}"
                );
            })
            .map(|finding| {
                let text = |field: &str| finding[field].as_str().expect("a text").to_owned();
                format!("{} {}", text("severity"), text("rule"))
            })
            .collect()
    }
}

/// The state of a thread as `audit --json` is to tell it, from the kernel's text.
fn of_kernel(text: &str) -> Value {
    let field = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    let numbers = |name: &str| -> Vec<u32> {
        let words = field(name);
        words
            .split_whitespace()
            .map(|word| word.parse().expect("a number"))
            .collect()
    };
    json!({
        "tid": numbers("Pid")[0],
        "uids": numbers("Uid"),
        "gids": numbers("Gid"),
        "groups": numbers("Groups"),
        "capabilities": {
            "inheritable": field("CapInh"),
            "permitted": field("CapPrm"),
            "effective": field("CapEff"),
            "bounding": field("CapBnd"),
            "ambient": field("CapAmb"),
        },
        "no_new_privs": field("NoNewPrivs") == "1",
        "seccomp": match field("Seccomp").as_str() {
            "0" => "off",
            "1" => "strict",
            _ => "filter",
        },
        "seccomp_filters": field("Seccomp_filters").parse::<u32>().ok(),
    })
}

fn kernel_threads(pid: u64) -> Vec<Value> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let mut threads: Vec<Value> = entries
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok())
        .map(|text| of_kernel(&text))
        .collect();
    // The first one has the process's id. Later ones have lower ones where ids have begun anew meanwhile.
    threads.sort_by_key(|thread| (thread["tid"] != pid, thread["tid"].as_u64()));
    threads
}

/// Whether everybody but root leaves more in the bounding set than lowport may keep, as a login shell does.
fn open_bounding(mode: Mode) -> bool {
    mode.bounding() & !0x400 != 0
}

fn in_mode(mode: Mode, args: &[&str]) -> Lowport {
    Lowport::in_mode(
        mode,
        &Setup {
            server: "redirect_to_https = false",
            rest: RESPOND,
            args,
        },
    )
}

#[test]
fn each_mode_is_told_as_the_kernel_has_it_and_nothing_is_found() {
    for mode in Mode::all().iter().copied() {
        let lowport = in_mode(mode, &[]);
        let pid = lowport.pid();
        let audit = Audit::pid(pid);
        for process in audit.processes() {
            let threads = kernel_threads(process["pid"].as_u64().expect("a pid"));
            assert_eq!(process["threads"], json!(threads), "{mode:?}");
        }
        let worker = audit.role("worker");
        assert_eq!(
            (&worker["pid"], &worker["dumpable"]),
            (&json!(pid), &json!(false))
        );
        let held = match is_root() {
            true => {
                let mut ports = [lowport.http, lowport.https];
                ports.sort_unstable();
                json!(ports.map(|port| format!("127.0.0.1:{port}")))
            }
            false => json!({ "unknown": "it is undumpable, so only root may look" }),
        };
        assert_eq!(worker["listeners"], held, "{mode:?}");
        assert_eq!(audit.role("broker")["name"], "lowport-broker");
        let found = open_bounding(mode);
        assert_eq!(
            audit.code,
            Some(i32::from(found)),
            "{mode:?}: {:?}",
            audit.told()
        );
        if is_root() {
            assert_eq!(audit.told(), [] as [&str; 0], "{mode:?}");
        }
        person_reads(pid, found);
    }
}

/// The same for a person.
fn person_reads(pid: u32, found: bool) {
    let output = run(&["audit", "--pid", &pid.to_string()]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        told.starts_with(&format!("process {pid} (lowport): the worker\n")),
        "{told}"
    );
    assert!(told.contains("  ok       no new privs  yes\n"), "{told}");
    assert!(told.contains("  ok       seccomp       "), "{told}");
    assert!(told.contains(", all alike\n"), "{told}");
    assert!(told.contains("(lowport-broker): the broker\n"), "{told}");
    assert_eq!(told.contains("nothing found"), !found, "{told}");
    assert!(
        told.lines().all(|line| line.chars().count() <= 80),
        "{told}"
    );
}

#[test]
fn without_the_sandbox_each_mode_is_a_finding_with_its_remedy() {
    for mode in Mode::all().iter().copied() {
        let lowport = in_mode(mode, &["--no-sandbox"]);
        let pid = lowport.pid();
        let seccomp = status(pid, "Seccomp").expect("it runs");
        if seccomp != "0" {
            skipped(
                "an audit without the sandbox",
                "this container has a filter of its own",
            );
            continue;
        }
        let audit = Audit::pid(pid);
        assert_eq!(audit.code, Some(1), "{mode:?}");
        let told = audit.told();
        assert!(
            told.contains(&"medium instance-seccomp".to_owned()),
            "{told:?}"
        );
        let open = audit.role("worker")["open"].to_string();
        assert!(
            open.contains("seccomp: off: every system call is open to it"),
            "{open}"
        );
        let output = run(&["audit", "--pid", &pid.to_string()]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.contains("fix: start it without `--no-sandbox`"),
            "{text}"
        );
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn a_bounding_set_that_was_left_open_is_a_finding() {
    if !is_root() {
        return skipped(
            "audit: a bounding set left open",
            "needs root to become somebody",
        );
    }
    let wrapper = mode::as_somebody("");
    let wrapper: Vec<&str> = wrapper.split_whitespace().collect();
    let setup = Setup {
        server: "redirect_to_https = false",
        rest: RESPOND,
        args: &[],
    };
    let lowport = Lowport::within(&wrapper, &setup);
    let audit = Audit::pid(lowport.pid());
    assert_eq!(
        (audit.code, audit.told()),
        (Some(1), vec!["low instance-capabilities".to_owned()])
    );
    let bounding = &audit.role("worker")["threads"][0]["capabilities"]["bounding"];
    assert_eq!(*bounding, status(lowport.pid(), "CapBnd").expect("it runs"));
}

/// Has the app told, with `keys` in its table.
fn with_app(keys: &str) -> (Audit, u16) {
    let folder = node::script(
        "require('http').createServer((_, res) => res.end()).listen(process.env.PORT, '127.0.0.1')",
    );
    let (port, user) = (port(), node::app_user());
    let lowport = Lowport::start(&format!(
        "[[route]]\nto = \"http://127.0.0.1:{port}\"\n[app]\ncommand = [\"node\", \"server.js\"]\ndir = \"{}\"\nport = {port}\n{user}{keys}",
        folder.path().display()
    ));
    until("the app", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    (Audit::pid(lowport.pid()), port)
}

#[test]
fn the_supervisor_and_the_app_are_told_with_the_rest() {
    let (audit, port) = with_app("");
    let (supervisor, app) = (audit.role("supervisor"), audit.role("app"));
    assert_eq!(supervisor["name"], "lowport-app");
    assert_eq!(app["listeners"], json!([format!("127.0.0.1:{port}")]));
    for process in [supervisor, app] {
        assert_eq!(process["threads"][0]["no_new_privs"], true);
        assert_eq!(process["threads"][0]["seccomp"], "filter");
        assert_eq!(process["open"], json!([]), "{process}");
        let uid = if is_root() {
            APP_UID
        } else {
            nix::unistd::geteuid().as_raw()
        };
        assert_eq!(process["uid"], uid);
    }
    if is_root() {
        assert_eq!((audit.code, audit.told()), (Some(0), Vec::new()));
    }
}

#[test]
fn an_app_without_a_filter_is_a_finding() {
    if status(std::process::id(), "Seccomp").as_deref() != Some("0") {
        return skipped(
            "audit: an app without a filter",
            "this container has a filter of its own",
        );
    }
    let (audit, _) = with_app("sandbox = false\n");
    // The guardian and the supervisor; what they start is theirs to answer for.
    let open: Vec<String> = audit
        .processes()
        .iter()
        .filter(|process| {
            ["supervisor", "app"].contains(&process["role"].as_str().expect("a role"))
        })
        .map(|process| process["open"].to_string())
        .collect();
    let without = open.iter().filter(|open| open.contains("seccomp: off"));
    assert_eq!((without.count(), open.len()), (2, 3), "{open:?}");
    assert_eq!(audit.code, Some(1));
    let low = "low instance-seccomp".to_owned();
    assert!(audit.told().contains(&low), "{:?}", audit.told());
}

#[test]
fn an_audit_of_the_machine_tells_each_lowport_on_it() {
    let lowports = [Lowport::start(RESPOND), Lowport::start(RESPOND)];
    let empty = folder();
    let mut command = Command::new(BINARY);
    command.args(["audit", "--json"]).arg(empty.path());
    let command = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let itself = command.id();
    let audit = Audit::of(&command.wait_with_output().expect("it ends"));
    let instances = audit.json["instances"].as_array().expect("an array");
    for lowport in &lowports {
        let instance = instances
            .iter()
            .find(|instance| instance["pid"] == lowport.pid())
            .unwrap_or_else(|| panic!("{instances:?}"));
        let roles: Vec<&Value> = instance["processes"]
            .as_array()
            .expect("an array")
            .iter()
            .map(|process| &process["role"])
            .collect();
        assert_eq!(roles, ["worker", "broker"]);
    }
    // A command that serves nothing is none of them.
    let mains: Vec<&Value> = instances.iter().map(|instance| &instance["pid"]).collect();
    assert!(!mains.contains(&&json!(itself)), "{mains:?}");
}

/// An audit by somebody who may see little, with /proc mounted as `options` say.
fn as_somebody(options: &str, folder: &std::path::Path, pid: u32) -> Output {
    let mount = match options {
        "" => String::new(),
        options => format!("mount -t proc -o {options} proc /proc && "),
    };
    let somebody = mode::as_somebody("");
    let script = format!("{mount}exec {somebody} \"$0\" audit --json --pid {pid}");
    Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .arg(folder.join("lowport"))
        .current_dir("/")
        .output()
        .expect("unshare runs")
}

#[test]
fn what_somebody_else_may_not_look_into_is_unknown_and_never_fine() {
    if !is_root() {
        return skipped(
            "audit: as somebody who may see little",
            "needs root to become somebody",
        );
    }
    let lowport = Lowport::start(RESPOND);
    let folder = folder();
    mode::bring_binary(folder.path());
    let pid = lowport.pid();
    // Its state is there for everybody to read; its descriptors are not.
    let audit = Audit::of(&as_somebody("", folder.path(), pid));
    assert_eq!(audit.code, Some(0));
    assert_eq!(audit.told(), ["note instance-listeners"; 2]);
    assert!(audit.role("worker")["listeners"]["unknown"].is_string());
    for options in ["hidepid=1", "hidepid=2"] {
        let output = as_somebody(options, folder.path(), pid);
        if String::from_utf8_lossy(&output.stderr).contains("mount:") {
            return skipped(
                "audit: a /proc that hides processes",
                "it cannot be mounted here",
            );
        }
        let audit = Audit::of(&output);
        assert_eq!(audit.code, Some(1), "{options}");
        assert_eq!(audit.told(), ["unknown instance-unknown"], "{options}");
        let hidden = &audit.processes()[0];
        assert_eq!(hidden["threads"]["unknown"], "hidden from this user");
        assert!(
            hidden["uid"].is_null() && hidden["open"][0].is_string(),
            "{hidden}"
        );
    }
}

#[test]
fn one_thread_that_differs_is_found() {
    // This process, of which one thread gives something up that the others keep.
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let (here, started) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().expect("set");
        here.send(nix::unistd::gettid().as_raw()).expect("sent");
        let _ = wait.recv();
    });
    let tid = started.recv().expect("it runs");
    let audit = Audit::pid(std::process::id());
    drop(end);
    thread.join().expect("joined");
    let told = audit.told();
    assert_eq!(audit.code, Some(1));
    assert!(told.contains(&"note instance-name".to_owned()), "{told:?}");
    if status(std::process::id(), "NoNewPrivs").is_some_and(|set| set == "1") {
        return skipped(
            "audit: a thread that differs",
            "this process can gain nothing already",
        );
    }
    assert!(told.contains(&"high instance-tasks".to_owned()), "{told:?}");
    let open = audit.role("worker")["open"].to_string();
    let differs = format!(
        "thread {tid} differs from thread {} in: no_new_privs",
        std::process::id()
    );
    assert!(open.contains(&differs), "{open}");
}
