//! `lowport run -- COMMAND`: an app on the command line, with a configuration and without one.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::client::curl;
use crate::support::lowport::{BINARY, Setup, USER};
use crate::support::node::{self, APP_UID};
use crate::support::room::{DEVELOPER, Dev, Room, Who, has_namespaces};
use crate::support::terminal::{CONFIG, USAGE, config, done, failed, server};
use crate::support::{Lowport, folder, is_root, port, process, skipped};

/// Says what it was given.
const TELLS: &str = "const { PORT, HOST, USER } = process.env;
    const told = { PORT, HOST, USER, cwd: process.cwd(), args: process.argv.slice(2), uid: process.getuid() };
    require('http').createServer((q, r) => r.end(JSON.stringify(told))).listen(PORT, HOST);";

/// Without a network of one's own, ports 80 and 3000 are other people's.
fn lacks_root(test: &str) -> bool {
    let lacks = !has_namespaces();
    if lacks {
        skipped(test, "needs root and namespaces");
    }
    lacks
}

/// `lowport run` with these arguments in the app's folder.
fn command(room: &Room, who: Who, args: &[&str]) -> Command {
    let mut command = room.command(who, true, &[&["run"], args].concat());
    command.current_dir(&room.app);
    command
}

/// `lowport run -- node server.js` where there is no configuration.
fn run(room: Room, who: Who) -> Dev {
    let lowport = Lowport::spawn(&mut command(
        &room,
        who,
        &["--", "node", "server.js", "-x", "--", "y"],
    ));
    lowport.wait_for("app ready in");
    lowport.wait_for(" ready ");
    Dev { lowport, room }
}

#[test]
fn without_a_configuration_port_80_leads_to_the_app() {
    if lacks_root("without_a_configuration_port_80_leads_to_the_app") {
        return;
    }
    let dev = run(Room::script(TELLS), Who::Sudo);
    for url in ["http://localhost/", "http://[::1]/any/path?x"] {
        let told = dev.json(url);
        assert_eq!(
            (&told["PORT"], &told["HOST"]),
            (&"3000".into(), &"127.0.0.1".into())
        );
        assert_eq!(
            (&told["uid"], &told["USER"]),
            (&DEVELOPER.into(), &"developer".into())
        );
        assert_eq!(told["cwd"], dev.room.app.to_str().unwrap());
        assert_eq!(told["args"], serde_json::json!(["-x", "--", "y"]));
    }
    // As for everybody: the access log is on, and lowport is nobody in particular.
    dev.lowport.wait_for("\"GET /any/path?x HTTP/1.1\" 200");
    assert_eq!(process::uids(dev.lowport.pid()), [65532; 4]);
    dev.lowport.wait_for("connects_to=3000");
}

#[test]
fn an_ordinary_user_gets_8080_and_is_told_how_to_have_80() {
    if lacks_root("an_ordinary_user_gets_8080_and_is_told_how_to_have_80") {
        return;
    }
    let dev = run(Room::script(TELLS), Who::User);
    assert_eq!(dev.json("http://localhost:8080/")["uid"], DEVELOPER);
    let why = dev
        .lowport
        .wait_for("port 80 is not open to this user, so it is 8080");
    assert!(why.contains("ip_unprivileged_port_start=80"), "{why}");

    let mut room = Room::script(TELLS);
    room.first_port = 80;
    let dev = run(room, Who::User);
    assert_eq!(dev.json("http://localhost/")["uid"], DEVELOPER);
    let output = dev.lowport.output();
    assert!(
        !output.iter().any(|line| line.contains("8080")),
        "{output:?}"
    );
}

#[test]
fn root_gives_the_app_to_node_and_to_nobody_else() {
    if lacks_root("root_gives_the_app_to_node_and_to_nobody_else") {
        return;
    }
    let mut room = Room::script(TELLS);
    room.accounts = "node:x:1300:1300::/nonexistent:/bin/sh\n";
    let dev = run(room, Who::Root);
    assert_eq!(dev.json("http://localhost/")["uid"], 1300);
    drop(dev);

    let room = Room::script(TELLS);
    let output = command(&room, Who::Root, &["--", "node", "server.js"]).output();
    let error = failed(&output.unwrap(), CONFIG);
    for said in [
        "the app must not run as root",
        "useradd --create-home node",
        "<command line>: 1 mistake",
    ] {
        assert!(error.contains(said), "{said} in {error}");
    }
}

#[test]
fn a_port_80_that_somebody_has_is_an_error_and_no_other_is_taken() {
    if lacks_root("a_port_80_that_somebody_has_is_an_error_and_no_other_is_taken") {
        return;
    }
    let dev = run(Room::script(TELLS), Who::Sudo);
    let output = dev.inside(|| {
        // In the network of the first one.
        let mut command = dev
            .room
            .command(Who::Sudo, false, &["run", "--", "node", "x.js"]);
        command.current_dir(&dev.room.app).output().unwrap()
    });
    let error = failed(&output, CONFIG);
    assert!(
        error.contains("server.http: 0.0.0.0:80 is in use"),
        "{error}"
    );
    assert!(error.contains("lowport (pid"), "{error}");
}

/// A lowport with a configuration, and a command whose script is in a folder of its own.
fn with_a_file(rest: &str, script: &Path) -> Lowport {
    let lowport = Lowport::with(&Setup {
        server: "redirect_to_https = false",
        rest,
        args: &["--", "node", script.to_str().expect("UTF-8")],
    });
    lowport.wait_for("app ready in");
    lowport
}

/// A folder with the script, and whoever runs it.
fn scene() -> (tempfile::TempDir, std::path::PathBuf, String) {
    let folder = node::script(TELLS);
    let script = folder.path().join("server.js");
    (folder, script, node::app_user())
}

fn told(lowport: &Lowport) -> Value {
    serde_json::from_str(&curl(lowport, "/", &[])).expect("JSON")
}

#[test]
fn the_command_line_overrides_the_command_and_nothing_else_in_every_reload() {
    let (folder, script, user) = scene();
    let port = port();
    let dir = folder.path().to_str().unwrap();
    let app =
        format!("[app]\ncommand = \"no-such-program\"\nport = {port}\ndir = \"{dir}\"\n{user}");
    let lowport = with_a_file(&app, &script);
    let check = |told: Value| {
        assert_eq!(
            (&told["PORT"], &told["cwd"]),
            (&port.to_string().into(), &dir.into())
        );
        if is_root() {
            assert_eq!(told["uid"], APP_UID);
        }
    };
    check(told(&lowport));
    // A reload sees no change in it.
    let seen = lowport.output().len();
    lowport.signal(nix::sys::signal::Signal::SIGHUP);
    lowport.wait_for_after(seen, " reloaded");
    let output = lowport.output();
    assert!(
        !output.iter().any(|line| line.contains("takes a restart")),
        "{output:?}"
    );
    check(told(&lowport));
}

#[test]
fn a_file_whose_route_names_the_apps_address_is_enough() {
    let (_folder, script, user) = scene();
    let port = port();
    let app = format!("[app]\nport = {port}\n{user}[[route]]\nto = \"http://127.0.0.1:{port}\"\n");
    let lowport = with_a_file(&app, &script);
    let told = told(&lowport);
    assert_eq!(told["PORT"], port.to_string());
    // Where lowport was started.
    assert_eq!(
        told["cwd"],
        std::env::current_dir().unwrap().to_str().unwrap()
    );
}

#[test]
fn dashes_without_a_command_are_misuse() {
    for (args, said) in [
        (&["run", "--"][..], "there is no command after `--`"),
        (&["check", "--"], "there is no command after `--`"),
        (&["dev", "--"], "there is no command after `--`"),
        (&["run", "--", ""], "begins with nothing"),
        (&["run", "--", "node server.js"], "leave its quotes out"),
    ] {
        let error = failed(&crate::support::lowport::run(args), USAGE);
        assert!(error.contains(said), "{said} in {error}");
        assert!(error.contains("help: write -- node server.js"), "{error}");
    }
    for command in ["run", "check", "explain"] {
        let help = done(&crate::support::lowport::run(&[command, "--help"]));
        assert!(help.contains("[-- <COMMAND>...]"), "{help}");
    }
}

#[test]
fn check_and_explain_know_the_command_line_too() {
    let app = port();
    let (_folder, file) = config(&format!(
        "{}[app]\nport = {app}\nuser = \"{USER}\"\n",
        server(port(), port()).replace("https", "#")
    ));
    let error = failed(
        &crate::support::lowport::run(&["check", "-c", &file]),
        CONFIG,
    );
    assert!(error.contains("[app] needs `command`"), "{error}");
    let with = |command: &[&str]| {
        let args = [command, &["-c", &file, "--", "node", "x.js"]].concat();
        done(&crate::support::lowport::run(&args))
    };
    let told = with(&["check"]);
    let user = if is_root() {
        format!(", as {USER}")
    } else {
        String::new()
    };
    let here = std::env::current_dir().unwrap();
    let line = format!(
        "\napp\n  node x.js  in {}{user}, its command from the command line\n",
        here.display()
    );
    assert!(told.contains(&line), "{line} in {told}");
    assert!(
        told.contains(&format!("  app  http://127.0.0.1:{app}\n")),
        "{told}"
    );
    assert!(with(&["explain", "http://a.test/"]).starts_with("-> app"));

    // Without a file, too.
    let empty = folder();
    if Path::new("/etc/lowport/lowport.toml").exists() || is_root() && !has_node() {
        return skipped(
            "check without a configuration",
            "there is one in /etc, or no user node for root to give an app to",
        );
    }
    let output = Command::new(BINARY)
        .args(["check", "--no-ports", "--", "node", "x.js"])
        .current_dir(empty.path())
        .output()
        .unwrap();
    let told = done(&output);
    assert!(told.starts_with("<command line>: no mistakes\n"), "{told}");
    assert!(told.contains("  app  http://127.0.0.1:3000\n"), "{told}");
}

/// Whether root has somebody to give the app to.
fn has_node() -> bool {
    std::env::var_os("SUDO_UID").is_some()
        || nix::unistd::User::from_name("node").is_ok_and(|user| user.is_some())
}
