//! `lowport audit`: real processes, real folders. Other tests' processes are around: what is found is looked up by pid.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::support::lowport::{BINARY, run};
use crate::support::node::sample;
use crate::support::{copy_program, folder, is_root, port, skipped, until};

/// Nobody in particular.
const UID: u32 = 61234;

/// A Node that listens and does nothing else. Killed when dropped.
struct Listening(Child);

impl Listening {
    fn start(binary: &Path, host: &str, uid: Option<u32>) -> Self {
        let port = port();
        let script = format!("require('net').createServer().listen({port}, '{host}')");
        let mut command = Command::new(binary);
        command
            .arg("-e")
            .arg(script)
            .current_dir("/")
            .stdin(Stdio::null());
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let mut node = Self(command.spawn().expect("node starts"));
        until("node to listen", || {
            let ended = node.0.try_wait().expect("waited");
            assert!(ended.is_none(), "node ended: {ended:?}");
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        node
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What an audit with `--json` says, whatever its exit code.
fn entries(output: &Output) -> Vec<Value> {
    let json: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    json["findings"].as_array().expect("an array").clone()
}

/// `severity rule` of everything about one process, on this machine.
fn of_process(output: &Output, pid: u32) -> Vec<String> {
    entries(output)
        .iter()
        .filter(|entry| entry["place"]["pid"] == pid)
        .map(|entry| format!("{} {}", text(entry, "severity"), text(entry, "rule")))
        .collect()
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry[field].as_str().expect("a text")
}

/// The whole machine, with no files.
fn host() -> Output {
    let empty = folder();
    run(&["audit", "--json", &empty.path().to_string_lossy()])
}

fn files(path: &Path, more: &[&str]) -> Output {
    let path = path.to_string_lossy();
    run(&[&["audit", "--no-host", &path], more].concat())
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, text).expect("written");
    }
}

#[test]
fn a_node_that_listens_as_root_is_found_and_one_that_is_nobody_is_not() {
    let user = is_root().then_some(UID);
    let nobody = Listening::start("node".as_ref(), "127.0.0.1", user);
    let exposed = Listening::start("node".as_ref(), "0.0.0.0", user);
    let root = is_root().then(|| Listening::start("node".as_ref(), "127.0.0.1", None));
    let output = host();
    assert_eq!(of_process(&output, nobody.pid()), [] as [&str; 0]);
    assert_eq!(of_process(&output, exposed.pid()), ["low node-exposed"]);
    assert_eq!(output.status.code(), Some(1));
    match root {
        Some(root) => assert_eq!(of_process(&output, root.pid()), ["high node-root"]),
        None => skipped("audit: a node that is root", "this is not root"),
    }
}

#[test]
fn a_root_process_on_a_low_port_is_found() {
    if !is_root() {
        return skipped("audit: a root process on a low port", "this is not root");
    }
    let _listener = (600..1024)
        .rev()
        .find_map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).ok())
        .expect("a free low port");
    let found = of_process(&host(), std::process::id());
    assert_eq!(found, ["low port-privilege"]);
}

#[test]
fn what_an_ordinary_user_cannot_see_is_said() {
    if !is_root() {
        return skipped("audit: what a user cannot see", "this is not root");
    }
    let _listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bound");
    let folder = folder();
    let binary = folder.path().join("lowport");
    copy_program(BINARY, &binary);
    std::fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("permissions");
    let output = Command::new(&binary)
        .args(["audit", "--json"])
        .current_dir(folder.path())
        .uid(UID)
        .gid(UID)
        .output()
        .expect("it runs");
    let unseen = entries(&output)
        .into_iter()
        .find(|entry| entry["rule"] == "host-unseen")
        .expect("a note");
    assert_eq!(unseen["severity"], "note");
    assert_eq!(unseen["fix"], "run the audit as root");
}

#[test]
fn a_node_with_file_capabilities_is_found_in_its_file_and_in_its_process() {
    const NAME: &str = "audit: node with file capabilities";
    if !is_root() {
        return skipped(NAME, "this is not root");
    }
    let folder = folder();
    let node = folder.path().join("node");
    let real = Command::new("node")
        .args(["-p", "process.execPath"])
        .output()
        .expect("node runs");
    copy_program(String::from_utf8_lossy(&real.stdout).trim(), &node);
    let set = Command::new("setcap")
        .arg("cap_net_bind_service=+ep")
        .arg(&node)
        .status();
    if !set.is_ok_and(|status| status.success()) {
        return skipped(
            NAME,
            "setcap (libcap2-bin) is missing, or the file system takes none",
        );
    }
    let process = Listening::start(&node, "127.0.0.1", Some(UID));
    let output = Command::new(BINARY)
        .args(["audit", "--json"])
        .current_dir(folder.path())
        .env("PATH", folder.path())
        .output()
        .expect("it runs");
    assert_eq!(
        of_process(&output, process.pid()),
        ["high node-capabilities"]
    );
    let file = node.canonicalize().expect("there");
    let found: Vec<Value> = entries(&output)
        .into_iter()
        .filter(|entry| entry["place"]["file"] == *file.to_string_lossy())
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["rule"], "program-capabilities");
    assert!(text(&found[0], "what").contains("cap_net_bind_service+ep"));
    assert!(text(&found[0], "fix").starts_with(&format!("`setcap -r {}", file.display())));
}

const GOOD_POD: &str = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - name: web\n      image: node:22\n      securityContext:\n        \
                        runAsNonRoot: true\n        runAsUser: 1000\n        allowPrivilegeEscalation: false\n        capabilities: {drop: [ALL]}\n";

#[test]
fn good_files_are_left_alone() {
    let folder = folder();
    write(
        folder.path(),
        &[
            (
                "Dockerfile",
                "FROM node:22\nWORKDIR /app\nCOPY . .\nUSER node\nCMD [\"node\", \"server.js\"]\n",
            ),
            (
                "compose.yaml",
                "services:\n  web:\n    build: .\n  front:\n    image: lowport\n    ports: [\"80:80\", \"443:443\"]\n",
            ),
            ("k8s/pod.yaml", GOOD_POD),
            (
                "app.service",
                "[Service]\nUser=app\nExecStart=/usr/bin/node /srv/app/server.js\n",
            ),
            (
                "package.json",
                "{\"scripts\": {\"start\": \"node server.js\"}}",
            ),
            ("node_modules/x/Dockerfile", "FROM node\n"),
        ],
    );
    let output = files(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "nothing found\n");
    let output = files(folder.path(), &["--json"]);
    assert_eq!(
        (output.status.code(), entries(&output)),
        (Some(0), Vec::new())
    );
    assert_eq!(files(&sample(), &[]).status.code(), Some(0));
}

#[test]
fn bad_files_are_told_with_their_lines_and_remedies() {
    let folder = folder();
    write(
        folder.path(),
        &[
            (
                "Dockerfile",
                "FROM node:22\nWORKDIR /app\nCOPY . .\nCMD [\"node\", \"server.js\"]\n",
            ),
            (
                "compose.yaml",
                "services:\n  web:\n    image: node:22\n    ports:\n      - \"80:3000\"\n",
            ),
            (
                "k8s/pod.yaml",
                &GOOD_POD
                    .replace("runAsNonRoot: true", "privileged: true")
                    .replace("1000", "0"),
            ),
            (
                "app.service",
                "[Service]\nExecStart=/usr/bin/node server.js\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n",
            ),
            (
                "package.json",
                "{\"scripts\": {\n  \"start\": \"sudo PORT=80 node server.js\"\n}}",
            ),
            (
                "chart/templates/pod.yaml",
                "kind: Pod\n{{- if .Values.x }}\nspec: {}\n{{- end }}\n",
            ),
        ],
    );
    let output = files(folder.path(), &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let root = folder.path().to_string_lossy().into_owned();
    let mut found: Vec<String> = entries(&output)
        .iter()
        .map(|entry| {
            let file = entry["place"]["file"].as_str().expect("a file");
            let file = file
                .strip_prefix(&root)
                .expect("below")
                .trim_start_matches('/');
            format!(
                "{} {file}:{} {}",
                text(entry, "severity"),
                entry["place"]["line"],
                text(entry, "rule")
            )
        })
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "high Dockerfile:1 dockerfile-user",
            "high app.service:2 unit-user",
            "high compose.yaml:2 compose-user",
            "high k8s/pod.yaml:8 k8s-privileged",
            "high k8s/pod.yaml:9 k8s-user",
            "high package.json:2 package-sudo",
            "medium app.service:3 unit-capabilities",
            "medium compose.yaml:5 compose-ports",
            "medium package.json:2 package-port",
            "note chart/templates/pod.yaml:2 yaml-template",
        ]
    );
    let output = files(folder.path(), &[]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        told.contains("fix: add `USER node` after line 3\n"),
        "{told}"
    );
    assert!(
        told.ends_with("9 findings: 6 high, 3 medium, 0 low; 1 note\n"),
        "{told}"
    );
    assert!(!told.contains('\x1b'), "{told}");
    let one = files(&folder.path().join("package.json"), &["--json"]);
    assert_eq!(entries(&one).len(), 2);
}

#[test]
fn what_is_not_there_is_a_mistake_of_usage() {
    for args in [
        &["audit", "/does/not/exist"][..],
        &["audit", "--pid", "4194999"],
        &["audit", "--pid", "x"],
        &["audit", "--no-such-option"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}
