//! `lowport init`: what it refuses, and that nothing is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{EDGE, Project, SIDECAR};
use crate::support::is_root;
use crate::support::lowport::{BINARY, run};
use crate::support::terminal::{CONFIG, USAGE, done, failed};

const TARGETS: [&str; 6] = [
    "dockerfile",
    "compose",
    "swarm",
    "kubernetes",
    "systemd",
    "nftables",
];

#[test]
fn what_is_there_is_not_overwritten_and_then_nothing_is_written() {
    for target in TARGETS {
        let project = Project::without_table();
        done(&project.init(&[target]));
        let written = project.written();
        let kept = written.last().unwrap();
        for file in &written[..written.len() - 1] {
            fs::remove_file(file).unwrap();
        }
        fs::write(kept, "mine").unwrap();
        let error = failed(&project.init(&[target]), 1);
        let name = kept.strip_prefix(project.path("")).unwrap();
        assert!(
            error.contains(&format!("{} is there already", name.display())),
            "{error}"
        );
        assert!(
            error.contains("nothing was written") && error.contains("--out"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(kept).unwrap(), "mine");
        assert_eq!(project.written(), std::slice::from_ref(kept), "{target}");
        // A link that leads nowhere is somebody's, too.
        fs::remove_file(kept).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", kept).unwrap();
        failed(&project.init(&[target]), 1);
        done(&project.init(&[target, "--out", "elsewhere"]));
        assert!(project.path("elsewhere").join(name).is_file(), "{target}");
    }
}

#[test]
fn what_cannot_be_written_whole_leaves_nothing() {
    let project = Project::new(SIDECAR);
    // The third of the files is larger than a file may be here.
    let script = "trap '' XFSZ; ulimit -f 2; exec \"$0\" init kubernetes";
    let output = Command::new("bash")
        .args(["-c", script, BINARY])
        .current_dir(project.path(""))
        .output()
        .unwrap();
    let error = failed(&output, 1);
    assert!(
        error.contains("kubernetes/deployment.yaml cannot be written: File too large"),
        "{error}"
    );
    assert_eq!(project.written().len(), 0);
    assert!(!project.path("kubernetes").exists());
}

#[test]
fn a_folder_in_the_way_leaves_nothing_behind() {
    let project = Project::new(SIDECAR);
    // The second file's folder cannot be made: the first one goes again.
    project.write("there", "a file");
    let error = failed(&project.init(&["kubernetes", "--out", "there/below"]), 1);
    assert!(error.contains("there/below"), "{error}");
    assert_eq!(project.written(), [project.path("there")]);
}

#[test]
fn an_unknown_target_is_told_with_those_that_there_are() {
    let error = failed(&Project::new(SIDECAR).init(&["helm"]), USAGE);
    for target in TARGETS {
        assert!(error.contains(target), "{target} in {error}");
    }
}

#[test]
fn a_table_that_a_target_cannot_express_is_refused_at_its_place() {
    let app = "[app]\ncommand = [\"node\", \"server.js\"]\n";
    let socket = "[[route]]\nto = \"unix:/run/app/app.sock\"\n";
    let log = format!("[log]\naccess = \"/var/log/lowport.log\"\n{SIDECAR}");
    let loopback = format!("[server]\nhttp = \"127.0.0.1:8080\"\n{SIDECAR}");
    let low = format!("[server]\nhttp = \":80\"\n{SIDECAR}");
    for (target, table, place, what, remedy) in [
        (
            "compose",
            app,
            "lowport.toml:1:1",
            "no Node",
            "init dockerfile",
        ),
        (
            "kubernetes",
            app,
            "lowport.toml:1:1",
            "no Node",
            "http://127.0.0.1:3000",
        ),
        (
            "compose",
            socket,
            "lowport.toml:2:6",
            "out of lowport's reach",
            "127.0.0.1",
        ),
        (
            "swarm",
            socket,
            "lowport.toml:2:6",
            "out of lowport's reach",
            "127.0.0.1",
        ),
        (
            "swarm",
            SIDECAR,
            "lowport.toml:2:6",
            "another machine",
            "http://app:3000",
        ),
        (
            "kubernetes",
            log.as_str(),
            "lowport.toml",
            "read-only",
            "access = \"stdout\"",
        ),
        (
            "compose",
            &loopback,
            "lowport.toml:2:8",
            "nobody reaches",
            "\":8080\"",
        ),
        (
            "nftables",
            &low,
            "lowport.toml:2:8",
            "from 1024 up",
            "http = \":8080\"",
        ),
        (
            "dockerfile",
            &format!("{app}{EDGE}"),
            "lowport.toml:5:7",
            "into an image",
            "init compose",
        ),
        (
            "compose",
            "[[route]]\nto = 1\n",
            "lowport.toml:2:6",
            "`to` must be",
            "1 mistake",
        ),
    ] {
        let project = Project::new(table);
        let error = failed(&project.init(&[target]), CONFIG);
        for part in [place, what, remedy] {
            assert!(error.contains(part), "{target}: {part} in {error}");
        }
        assert_eq!(project.written().len(), 0, "{target}");
    }
}

#[test]
fn a_secret_that_cannot_be_read_is_refused_with_what_to_do() {
    let project = Project::new(EDGE);
    let key = project.path("certs/site.key");
    if is_root() {
        std::os::unix::fs::chown(&key, Some(0), Some(0)).unwrap();
    }
    fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    // Compose mounts it as it is.
    let error = failed(&project.init(&["compose"]), CONFIG);
    assert!(
        error.contains("lowport.toml:3:7") && error.contains("uid 65532"),
        "{error}"
    );
    assert!(error.contains("sudo chown 65532 "), "{error}");
    // These take its contents.
    done(&project.init(&["swarm"]));
    done(&project.init(&["kubernetes"]));
    fs::remove_file(&key).unwrap();
    for target in ["compose", "swarm", "kubernetes"] {
        let error = failed(&project.init(&[target, "--out", "new"]), CONFIG);
        assert!(
            error.contains("site.key cannot be read: No such file"),
            "{error}"
        );
    }
    assert!(!project.path("new").exists());
}

#[test]
fn without_a_table_one_is_written_that_leads_to_the_app() {
    for (target, table) in [
        ("compose", "lowport.toml"),
        ("swarm", "lowport.toml"),
        ("nftables", "lowport.toml"),
        ("kubernetes", "kubernetes/lowport.toml"),
    ] {
        let project = Project::without_table();
        let told = done(&project.init(&[target]));
        assert!(told.contains(table), "{told}");
        let file = project.path(table);
        let url = "http://a.test/x";
        let told = done(&run(&["explain", "-c", file.to_str().unwrap(), url]));
        assert!(told.contains(":3000"), "{target}: {told}");
    }
    let project = Project::without_table();
    let told = done(&project.init(&["dockerfile"]));
    assert!(
        !told.contains("lowport.toml"),
        "an image without lowport has no table: {told}"
    );
}

#[test]
fn print_shows_what_would_be_written_and_writes_nothing() {
    let project = Project::new(EDGE);
    for target in ["compose", "swarm", "kubernetes"] {
        let shown = done(&project.init(&[target, "--print"]));
        assert_eq!(project.written().len(), 0);
        done(&project.init(&[target]));
        for file in project.written() {
            let text = fs::read_to_string(&file).unwrap();
            let name = file.strip_prefix(project.path("")).unwrap();
            assert!(
                shown.contains(&format!("==> {} <==\n{text}", name.display())),
                "{shown}"
            );
            fs::remove_file(file).unwrap();
        }
    }
}

#[test]
fn the_table_decides_ports_names_times_and_where_files_are() {
    let project = Project::without_table();
    let pem = project.path("other.pem");
    fs::copy(project.path("certs/site.key"), &pem).unwrap();
    crate::support::open_to_all(&pem);
    let pem = pem.to_str().unwrap();
    project.write(
        "lowport.toml",
        &format!(
            "[server]\nhttp = [\":8080\"]\nhttps = [\":8443\"]\n[timeouts]\ndrain = \"90s\"\n\
             [[certificate]]\ncert = \"{pem}\"\nkey = \"{pem}\"\n\
             [[route]]\nto = \"http://127.0.0.1:4321\"\n"
        ),
    );
    // A table elsewhere, so that the keys are not below it.
    fs::create_dir(project.path("conf")).unwrap();
    fs::rename(project.path("lowport.toml"), project.path("conf/site.toml")).unwrap();
    done(&project.init(&[
        "compose",
        "-c",
        "conf/site.toml",
        "--image",
        "r.test/lowport:9",
        "--app-image",
        "r.test/shop:7",
    ]));
    let compose = super::yaml::document(&project.read("compose.yaml"));
    let lowport = &compose["services"]["lowport"];
    assert_eq!(lowport["image"], "r.test/lowport:9");
    assert_eq!(compose["services"]["app"]["image"], "r.test/shop:7");
    assert_eq!(compose["services"]["app"]["environment"]["PORT"], "4321");
    assert_eq!(lowport["stop_grace_period"], "95s");
    assert_eq!(
        lowport["ports"],
        serde_json::json!(["8080:8080", "8443:8443"])
    );
    assert!(lowport.get("sysctls").is_none(), "no low port is asked for");
    let secrets = lowport["secrets"].as_array().unwrap();
    assert_eq!(
        secrets.len(),
        1,
        "a file with both is one secret: {secrets:?}"
    );
    assert_eq!(secrets[0]["target"], pem);
    assert_eq!(compose["configs"]["lowport"]["file"], "./conf/site.toml");
    // As seen from the folder that is written to.
    done(&project.init(&["compose", "-c", "conf/site.toml", "--out", "deploy/x"]));
    let compose = super::yaml::document(&project.read("deploy/x/compose.yaml"));
    assert_eq!(
        compose["configs"]["lowport"]["file"],
        "../../conf/site.toml"
    );
    assert_eq!(compose["services"]["app"]["build"], "../..");
}
