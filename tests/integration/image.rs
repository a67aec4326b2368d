//! The images: built as users build them, and run by podman with the least that they take.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::lowport::run;
use crate::support::podman::{Container, LEAST, NETWORK, Podman, is_release};
use crate::support::process::{self, status};
use crate::support::terminal::{CONFIG, config, text};
use crate::support::{say, skipped, until};

/// Who lowport is in its image.
const LOWPORT: u32 = 65_532;
/// Who `node` is in Docker's image of it.
const NODE: u32 = 1000;

/// What `lowport audit` finds in a container, notes and what holds aside.
fn findings(container: &Container<'_>) -> Vec<String> {
    let output = run(&["audit", "--json", "--pid", &container.pid.to_string()]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let instances = report["instances"].as_array().expect("an array");
    assert_eq!(instances.len(), 1, "{report}");
    let found: Vec<String> = report["findings"]
        .as_array()
        .expect("an array")
        .iter()
        .filter(|finding| finding["severity"] != "holds")
        .map(|finding| format!("{} {}", finding["severity"], finding["rule"]))
        .collect();
    assert_eq!(output.status.success(), found.is_empty(), "{report}");
    found
}

/// That a process has nothing left, as the kernel tells it.
fn assert_powerless(pid: u32, uid: u32) {
    assert_eq!(process::uids(pid), [uid; 4], "{:?}", process::name(pid));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let held = status(pid, set).expect("it runs");
        assert_eq!(u64::from_str_radix(&held, 16), Ok(0), "{set} of {pid}");
    }
    assert_eq!(status(pid, "NoNewPrivs").as_deref(), Some("1"));
    assert_eq!(status(pid, "Seccomp").as_deref(), Some("2"));
}

/// A request whose answer has begun.
struct Begun {
    curl: Child,
    answer: BufReader<ChildStdout>,
}

/// Requests that take a second more, once each answer has begun.
fn slow(container: &Container<'_>, count: usize) -> Vec<Begun> {
    let url = "http://127.0.0.1/slow?head=0&chunks=5&every=800";
    let begin = |_| {
        let mut curl = container
            .begin(url)
            .arg("--no-buffer")
            .spawn()
            .expect("curl starts");
        let answer = BufReader::new(curl.stdout.take().expect("piped"));
        Begun { curl, answer }
    };
    let mut requests: Vec<Begun> = (0..count).map(begin).collect();
    for request in &mut requests {
        let mut line = String::new();
        request.answer.read_line(&mut line).expect("text");
        assert_eq!(line, "chunk 1 of 5\n");
    }
    requests
}

/// How many of the requests were answered to the end.
fn whole(requests: Vec<Begun>) -> usize {
    let ends = requests.into_iter().map(|mut request| {
        let mut rest = String::new();
        let read = request.answer.read_to_string(&mut rest);
        let ended = request.curl.wait().expect("waited");
        read.is_ok() && ended.success() && rest.ends_with("chunk 5 of 5\n")
    });
    ends.filter(|whole| *whole).count()
}

#[test]
fn the_image_holds_a_binary_and_a_configuration_and_is_the_same_twice() {
    let name = "the_image_holds_a_binary_and_a_configuration_and_is_the_same_twice";
    let Some(podman) = Podman::new(name) else {
        return;
    };
    let (id, digest) = podman.lowport_with("buildah", "lowport");
    assert!(digest.starts_with("sha256:"), "{digest}");
    for builder in ["buildah", "podman"] {
        // Nothing of the one before is used again.
        podman.run(&["rmi", "--all", "--force"]);
        let again = podman.lowport_with(builder, "lowport");
        assert_eq!(again.0, id, "{builder}");
        // What else a manifest says of a layer, such as whether it is compressed, is up to who makes it.
        assert!(builder != "buildah" || again.1 == digest, "{}", again.1);
        let images = podman.run(&["images", "--all", "--quiet"]);
        assert_eq!(images.lines().count(), 1, "nothing is left on the way");
    }

    let told = podman.run(&["image", "inspect", "lowport"]);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let (image, config) = (&told[0], &told[0]["Config"]);
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/lowport"]));
    assert_eq!(config["Cmd"], serde_json::json!(["run"]));
    assert_eq!(
        image["Healthcheck"]["Test"],
        serde_json::json!(["CMD", "/lowport", "health"])
    );
    assert_eq!(
        config["Labels"]["org.opencontainers.image.version"],
        env!("CARGO_PKG_VERSION")
    );
    let size = image["Size"].as_u64().expect("a number");
    let pulled = podman.compressed();
    say(&format!(
        "the image has {size} bytes, {pulled} to be pulled, and is {id}"
    ));
    if is_release(&podman.binary) {
        assert!(pulled < 8_000_000 && size < 16_000_000);
    } else {
        skipped(
            "the size of the image",
            "the static binary is no release build",
        );
    }

    podman.run(&["create", "--name", "content", "lowport"]);
    let files = Command::new("tar")
        .arg("t")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut files = files.expect("tar starts");
    let export = podman
        .command("podman")
        .args(["export", "content"])
        .stdout(files.stdin.take().expect("piped"))
        .status();
    assert!(export.expect("podman runs").success());
    let files = files.wait_with_output().expect("waited").stdout;
    let files = String::from_utf8(files).expect("UTF-8");
    let files: Vec<&str> = files.lines().filter(|name| !name.ends_with('/')).collect();
    assert_eq!(files, ["etc/lowport/lowport.toml", "lowport"]);
}

#[test]
fn a_mount_replaces_the_configuration_and_https_upstreams_take_authorities() {
    let name = "a_mount_replaces_the_configuration_and_https_upstreams_take_authorities";
    let Some(podman) = Podman::new(name) else {
        return;
    };
    podman.lowport("lowport");
    let (_folder, file) = config("[[route]]\nto = \"https://example.com\"\n");
    let file = format!("{file}:/etc/lowport/lowport.toml:ro");
    let check = |mounts: &[&str]| {
        let mut command = podman.command("podman");
        command.args(["run", "--rm", "--cgroups=disabled"]);
        command.args(LEAST).args(NETWORK).args(mounts);
        let output = command.args(["lowport", "check"]).output();
        output.expect("podman runs")
    };
    let output = check(&["--volume", &file]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(CONFIG), "{said}");
    assert!(said.contains("has no certificate authorities"), "{said}");

    let here = "/etc/ssl/certs/ca-certificates.crt";
    if !std::path::Path::new(here).exists() {
        return skipped(name, "this machine has no authorities to mount");
    }
    let here = format!("{here}:{here}:ro");
    let output = check(&["--volume", &file, "--volume", &here]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(text(&output.stdout).contains("https://example.com"));
}

#[test]
fn a_sidecar_serves_port_80_without_root_and_without_capabilities() {
    let name = "a_sidecar_serves_port_80_without_root_and_without_capabilities";
    let Some(podman) = Podman::new(name) else {
        return;
    };
    podman.lowport("lowport");
    podman.node();
    podman.app("Dockerfile", "app");
    let lowport = podman.start("front", &[&LEAST[..], &NETWORK].concat(), &["lowport"]);
    lowport.wait_for(" ready ");
    lowport.wait_for(" mode=unprivileged ");
    let shared = ["--network", "container:front"];
    let app = podman.start("app", &[&LEAST[..], &shared].concat(), &["app"]);
    app.wait_for("listening on http://127.0.0.1:3000");

    // Port 80 leads to Node, who is `node`.
    let told = lowport.curl("http://127.0.0.1/whoami", &[]);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["app"]["uid"], NODE, "{told}");
    for pid in lowport.pids() {
        assert_powerless(pid, LOWPORT);
    }
    assert_eq!(findings(&lowport), Vec::<String>::new());

    // It is healthy until it stands still.
    let (healthy, said) = lowport.health();
    assert!(healthy, "{said}");
    assert_eq!(said, "healthy: lowport answers on 127.0.0.1:80");
    lowport.signal(Signal::SIGSTOP);
    let (healthy, said) = lowport.health();
    lowport.signal(Signal::SIGCONT);
    assert!(!healthy);
    assert!(
        said.contains("no answer from 127.0.0.1:80 within 2s"),
        "{said}"
    );

    // Without the app it is, too: that is for who looks after the app.
    app.stop();
    assert!(lowport.health().0);
    let ask = [
        "exec",
        "front",
        "/lowport",
        "health",
        "http://127.0.0.1/health",
    ];
    let asked = podman
        .command("podman")
        .args(ask)
        .output()
        .expect("podman runs");
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(said.contains("answered 502 Bad Gateway"), "{asked:?}");

    // An app that is root gets no request.
    let as_root = ["--user", "0:0", "--env", "ALLOW_ROOT=1"];
    let root = podman.start("root", &[&LEAST[..], &shared, &as_root].concat(), &["app"]);
    root.wait_for("listening on http://127.0.0.1:3000");
    let refused = lowport.curl("http://127.0.0.1/whoami", &["-w", "\n%{http_code}"]);
    assert!(refused.ends_with("\n502"), "{refused}");
    assert!(!refused.contains("visitor"), "{refused}");
    let remedy = lowport.wait_for("USER node");
    assert!(remedy.contains("runAsNonRoot"), "{remedy}");
    root.stop();

    // It stops without losing anything, and is done before anybody has to kill it.
    let again = podman.start("again", &[&LEAST[..], &shared].concat(), &["app"]);
    again.wait_for("listening on http://127.0.0.1:3000");
    until("the app to be served again", || {
        let status = lowport.curl(
            "http://127.0.0.1/health",
            &["-o/dev/null", "-w", "%{http_code}"],
        );
        (status == "200").then_some(())
    });
    let requests = slow(&lowport, 20);
    assert_eq!(lowport.stop(), "0");
    assert_eq!(whole(requests), 20);
    lowport.wait_for("drained");
}

/// What the container of both takes to become two users.
const TWO_USERS: [&str; 8] = [
    "--user",
    "0:0",
    "--cap-add",
    "SETUID",
    "--cap-add",
    "SETGID",
    "--cap-add",
    "SETPCAP",
];

#[test]
fn one_container_for_both_runs_neither_as_root() {
    let name = "one_container_for_both_runs_neither_as_root";
    let Some(podman) = Podman::new(name) else {
        return;
    };
    podman.lowport("lowport");
    podman.node();
    podman.app("Dockerfile.with-lowport", "both");
    let bound = [
        &["--network", "none", "--cap-add", "NET_BIND_SERVICE"],
        &TWO_USERS[..],
    ];
    for (name, mode, uid, args) in [
        ("rootless", "unprivileged", NODE, NETWORK.to_vec()),
        ("two", "root", LOWPORT, [&NETWORK[..], &TWO_USERS].concat()),
        ("bound", "root", LOWPORT, bound.concat()),
    ] {
        let both = podman.start(name, &[&LEAST[..], &args].concat(), &["both"]);
        both.wait_for("app ready in");
        both.wait_for(&format!(" mode={mode} "));
        both.wait_for("http://0.0.0.0:80");
        let told = both.curl("http://127.0.0.1/whoami", &[]);
        let told: Value = serde_json::from_str(&told).expect("JSON");
        assert_eq!(told["app"]["uid"], NODE, "{told}");
        for pid in both.pids() {
            match process::name(pid).as_deref() {
                Some("lowport") => assert_powerless(pid, uid),
                Some("lowport-broker") if mode == "root" => {
                    // It is root without what makes root, or with what a reload takes to bind.
                    let keeps = if name == "bound" { 0x400 } else { 0 };
                    let kept = status(pid, "CapPrm").expect("it runs");
                    assert_eq!(u64::from_str_radix(&kept, 16), Ok(keeps));
                }
                _ => assert_powerless(pid, NODE),
            }
        }
        assert_eq!(findings(&both), Vec::<String>::new());
        let (healthy, said) = both.health();
        assert!(healthy, "{said}");
        let requests = slow(&both, 10);
        assert_eq!(both.stop(), "0");
        assert_eq!(whole(requests), 10);
        both.wait_for("drained");
    }
}

#[test]
fn a_container_that_cannot_give_root_up_does_not_serve() {
    let name = "a_container_that_cannot_give_root_up_does_not_serve";
    let Some(podman) = Podman::new(name) else {
        return;
    };
    podman.lowport("lowport");
    // Without SETPCAP what is left in the bounding set stays there.
    let args = [&LEAST[..], &NETWORK, &TWO_USERS[..6]].concat();
    let lowport = podman.start("kept", &args, &["lowport"]);
    lowport.wait_for("the drop does not hold: capabilities are left");
    lowport.wait_for("cap_setuid (bounding)");
}
