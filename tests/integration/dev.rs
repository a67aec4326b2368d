//! `lowport dev`: what a person sees, who runs what, and how the app is started.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::Value;

use crate::support::room::{DEVELOPER, Dev, Room, Who, has_namespaces};
use crate::support::{Lowport, is_root, open_to_all, port_after, process, skipped};

/// A server that tells its environment.
const TELLS: &str = "console.log('hello from the app');
require('http').createServer((q, r) => r.end(JSON.stringify(process.env)))
  .listen(process.env.PORT, process.env.HOST);";

/// Whether the test must be left out, which is said loudly.
fn lacks_root(test: &str) -> bool {
    let lacks = !has_namespaces();
    if lacks {
        skipped(test, "needs root, and namespaces");
    }
    lacks
}

/// Root that may not make namespaces can still not run this as somebody else.
fn lacks_user(test: &str) -> bool {
    is_root() && lacks_root(test)
}

fn mode(path: &std::path::Path) -> u32 {
    path.metadata().expect("it is there").permissions().mode() & 0o777
}

/// The authority's and the other keys are there, the owner's, and for nobody else.
fn keys_are_private(folder: &std::path::Path, owner: u32) {
    for name in ["ca-key.pem", "localhost-key.pem", "app.localhost-key.pem"] {
        let key = folder.join(name);
        assert_eq!(
            (mode(&key), key.metadata().expect("it is there").uid()),
            (0o600, owner),
            "{name}"
        );
    }
    assert_eq!(mode(&folder.join("ca.pem")), 0o644);
    assert_eq!(
        folder.join("ca.pem").metadata().expect("it is there").uid(),
        owner
    );
}

#[test]
fn an_ordinary_user_has_it_all_without_root() {
    if lacks_user("an_ordinary_user_has_it_all_without_root") {
        return;
    }
    let dev = Room::sample().dev(Who::User);
    let lowport = &dev.lowport;
    if has_namespaces() {
        assert_eq!((lowport.https, lowport.http), (8443, 8080));
        let why = "Low ports are not open to this user. To have 443 and 80: `sudo lowport dev`, or \
             `sudo sysctl net.ipv4.ip_unprivileged_port_start=80`";
        lowport.wait_for(why);
        let count = lowport
            .output()
            .iter()
            .filter(|line| line.contains(why))
            .count();
        assert_eq!(count, 1, "it is said once");
    }
    lowport.wait_for("app: script \"start\" of package.json, on port ");
    lowport.wait_for("app | listening on http://127.0.0.1:");
    lowport.wait_for("app ready in ");
    let ca = dev.room.home().join(".local/share/lowport/ca.pem");
    lowport.wait_for(&format!(
        "until they trust {}: `lowport cert trust`",
        ca.display()
    ));
    let me = if is_root() {
        DEVELOPER
    } else {
        nix::unistd::geteuid().as_raw()
    };
    keys_are_private(ca.parent().unwrap(), me);

    let whoami = dev.json("/whoami");
    assert_eq!(whoami["app"]["uid"], me);
    assert_eq!(whoami["app"]["capabilities"], "0");
    assert_eq!(whoami["visitor"]["protocol"], "https");
    assert_eq!(
        whoami["visitor"]["host"],
        format!("localhost:{}", lowport.https)
    );
    let version = [
        "--http2",
        "-o/dev/null",
        "-w",
        "%{http_version} %{ssl_verify_result}",
    ];
    assert_eq!(dev.curl("/", &version), "2 0");
    // The app's own name, and names below it, have a certificate that curl accepts.
    for host in ["app.localhost", "api.app.localhost"] {
        let url = format!("https://{host}:{}/health", lowport.https);
        let resolve = format!("{host}:{}:127.0.0.1", lowport.https);
        assert!(
            dev.curl(&url, &["--resolve", &resolve]).starts_with("ok"),
            "{host}"
        );
    }
    // The proxy is the same user, with nothing of root left to it.
    assert_eq!(process::uids(lowport.pid()), [me; 4]);
}

#[test]
fn plain_http_leads_to_https_with_the_port_that_was_taken() {
    if lacks_user("plain_http_leads_to_https_with_the_port_that_was_taken") {
        return;
    }
    let dev = Room::script(TELLS).dev(Who::User);
    let url = format!("http://localhost:{}/a%20b?c=d", dev.lowport.http);
    let head = dev.curl(&url, &["-o/dev/null", "-w", "%{http_code} %{redirect_url}"]);
    let port = dev.lowport.https;
    assert_eq!(head, format!("308 https://localhost:{port}/a%20b?c=d"));
    assert!(dev.curl(&url, &["-L"]).contains("\"PORT\""));
}

#[test]
fn an_ordinary_user_has_the_usual_ports_once_low_ports_are_open() {
    if lacks_root("an_ordinary_user_has_the_usual_ports_once_low_ports_are_open") {
        return;
    }
    let mut room = Room::script(TELLS);
    room.first_port = 80;
    let dev = room.dev(Who::User);
    assert_eq!((dev.lowport.https, dev.lowport.http), (443, 80));
    assert!(
        !dev.lowport
            .output()
            .iter()
            .any(|line| line.contains("sudo"))
    );
    dev.json("https://localhost/");
    // Both loopbacks are served, and nothing else.
    dev.json("https://[::1]/");
    let listening = dev.inside(|| std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
    assert!(listening.contains(" 0100007F:01BB ") && !listening.contains(" 00000000:01BB "));
}

#[test]
fn under_sudo_the_app_and_the_authority_are_the_users() {
    if lacks_root("under_sudo_the_app_and_the_authority_are_the_users") {
        return;
    }
    let dev = Room::sample().dev(Who::Sudo);
    assert_eq!((dev.lowport.https, dev.lowport.http), (443, 80));
    dev.lowport.wait_for(" as developer");
    let whoami = dev.json("https://localhost/whoami");
    assert_eq!(whoami["app"]["user"], "developer");
    assert_eq!(whoami["app"]["uid"], DEVELOPER);
    assert_eq!(whoami["app"]["capabilities"], "0");
    assert_eq!(whoami["app"]["noNewPrivs"], true);
    keys_are_private(&dev.room.home().join(".local/share/lowport"), DEVELOPER);
    for folder in [".local", ".local/share", ".local/share/lowport"] {
        let owner = dev.room.home().join(folder).metadata().unwrap().uid();
        assert_eq!(owner, DEVELOPER, "{folder}");
    }
    assert_eq!(process::uids(dev.lowport.pid()), [65532; 4]);
}

#[test]
fn under_sudo_the_app_has_the_users_environment() {
    if lacks_root("under_sudo_the_app_has_the_users_environment") {
        return;
    }
    let mut room = Room::script(TELLS);
    room.accounts = "lowport:x:4242:4242::/nonexistent:/bin/false\n";
    let dev = room.dev(Who::Sudo);
    let env = dev.json("https://localhost/");
    let home = dev.room.home();
    assert_eq!(env["HOME"], home.to_str().unwrap());
    assert_eq!(
        (&env["USER"], &env["HOST"]),
        (&"developer".into(), &"127.0.0.1".into())
    );
    assert_eq!(env["SUDO_UID"], Value::Null);
    // The app may call itself by its public name.
    let ca = home.join(".local/share/lowport/ca.pem");
    assert_eq!(env["NODE_EXTRA_CA_CERTS"], ca.to_str().unwrap());
    // An account made for it is taken for the proxy.
    assert_eq!(process::uids(dev.lowport.pid()), [4242; 4]);
}

#[test]
fn root_gives_the_app_to_nobody_or_to_node() {
    if lacks_root("root_gives_the_app_to_nobody_or_to_node") {
        return;
    }
    let dev = Room::sample().dev(Who::Root);
    assert_eq!(
        dev.json("https://localhost/whoami")["app"]["user"],
        "nobody"
    );
    assert_eq!(process::uids(dev.lowport.pid()), [65532; 4]);
    let root = format!("/proc/{}/root/var/lib/lowport/dev", dev.lowport.pid());
    keys_are_private(root.as_ref(), 0);

    let mut room = Room::script(TELLS);
    room.accounts = "node:x:1300:1300::/nonexistent:/bin/sh\n";
    let dev = room.dev(Who::Root);
    assert_eq!(dev.json("https://localhost/")["USER"], "node");
}

#[test]
fn an_app_in_a_folder_for_root_alone_is_shown_to_it_and_to_nobody_else() {
    if lacks_root("an_app_in_a_folder_for_root_alone_is_shown_to_it_and_to_nobody_else") {
        return;
    }
    let mut room = Room::sample();
    let closed = room.path().join("closed");
    std::fs::create_dir_all(closed.join("projects")).unwrap();
    std::fs::rename(&room.app, closed.join("projects/app")).unwrap();
    std::fs::write(closed.join("secret"), "").unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    room.app = closed.join("projects/app");
    let mut dev = room.dev(Who::Root);
    dev.lowport.wait_for(&format!(
        "may not enter {}: the app is shown only what it needs",
        closed.display()
    ));
    let whoami = dev.json("https://localhost/whoami");
    assert_eq!(whoami["app"]["user"], "nobody");
    assert!(dev.curl("https://localhost/", &[]).contains("<html"));

    let mounts = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
    let name = closed.to_str().unwrap();
    let app = whoami["app"]["pid"].to_string();
    assert!(mounts(&app).contains(name), "{}", mounts(&app));
    assert!(!mounts("self").contains(name));
    assert!(!mounts(&dev.lowport.pid().to_string()).contains(name));
    // What it does not need it does not see.
    let seen = std::path::PathBuf::from(format!("/proc/{app}/root{name}"));
    assert!(seen.join("projects/app/server.js").exists() && !seen.join("secret").exists());

    dev.lowport.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(dev.lowport.ended().success());
    assert_eq!(mode(&closed), 0o700);
    let left = |folder: &std::path::Path| {
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(left(&closed), ["projects", "secret"]);
    assert_eq!(left(&closed.join("projects")), ["app"]);
}

#[test]
fn ports_that_are_taken_are_named_with_their_holder() {
    if lacks_root("ports_that_are_taken_are_named_with_their_holder") {
        return;
    }
    let first = Room::script(TELLS).dev(Who::Root);
    let room = Room::script(TELLS);
    let (second, held) = first.inside(|| {
        // Both of https are taken now, and one of http.
        let held = std::net::TcpListener::bind(("127.0.0.1", 8443)).unwrap();
        let app = room.app.to_str().unwrap().to_owned();
        let command = room.command(Who::Root, false, &["dev", &app]);
        (Dev::start(room, Who::Root, command), held)
    });
    second.lowport.wait_for(&format!(
        "Port 443 is held by lowport (pid {})",
        first.lowport.pid()
    ));
    second.lowport.wait_for("Port 80 is held by lowport");
    assert_eq!(second.lowport.http, 8080);
    assert!(![443, 8443].contains(&second.lowport.https));
    second.json("/");
    drop(held);
}

#[test]
fn the_printed_configuration_does_the_same() {
    if lacks_user("the_printed_configuration_does_the_same") {
        return;
    }
    let who = if is_root() { Who::Sudo } else { Who::User };
    let room = Room::sample();
    let app = room.app.to_str().unwrap();
    let printed = room
        .command(who, true, &["dev", "--print-config", app])
        .output()
        .unwrap();
    assert!(printed.status.success(), "{printed:?}");
    let file = room.path().join("lowport.toml");
    std::fs::write(&file, &printed.stdout).unwrap();
    open_to_all(&file);
    let toml = String::from_utf8(printed.stdout).unwrap();
    assert!(
        toml.starts_with("# What `lowport dev` amounts to"),
        "{toml}"
    );

    let run = room.command(who, true, &["run", "-c", file.to_str().unwrap()]);
    let dev = Ran::start(room, run, &toml);
    let whoami = dev.0.json("/whoami");
    let uid = if is_root() {
        DEVELOPER
    } else {
        nix::unistd::geteuid().as_raw()
    };
    assert_eq!(whoami["app"]["uid"], uid);
    let head = format!("http://localhost:{}/x", dev.0.lowport.http);
    let status = dev.0.curl(&head, &["-o/dev/null", "-w", "%{http_code}"]);
    assert_eq!(status, "308");
}

/// `lowport run` in a room.
struct Ran(Dev);

impl Ran {
    fn start(room: Room, mut command: std::process::Command, toml: &str) -> Self {
        let mut lowport = Lowport::spawn(&mut command);
        lowport.wait_for("app ready in");
        let port = |key: &str| {
            let line = toml
                .lines()
                .find(|line| line.starts_with(key))
                .expect("it is there");
            port_after(line, "127.0.0.1:")
        };
        (lowport.http, lowport.https) = (port("http ="), port("https ="));
        let ca = room.home().join(".local/share/lowport/ca.pem");
        std::fs::copy(ca, lowport.folder().join("ca.pem")).expect("it has an authority");
        Self(Dev { lowport, room })
    }
}

#[test]
fn a_command_after_the_dashes_is_taken_as_it_is() {
    if lacks_user("a_command_after_the_dashes_is_taken_as_it_is") {
        return;
    }
    let room = Room::new();
    room.write("odd.name", TELLS);
    let app = room.app.to_str().unwrap().to_owned();
    let command = room.command(Who::User, true, &["dev", &app, "--", "node", "odd.name"]);
    let dev = Dev::start(room, Who::User, command);
    dev.lowport.wait_for("app: node odd.name, on port ");
    assert_eq!(dev.json("/")["HOST"], "127.0.0.1");
    dev.lowport.wait_for("app | hello from the app");
}

#[test]
fn a_folder_without_an_app_is_told_what_was_looked_for() {
    if lacks_user("a_folder_without_an_app_is_told_what_was_looked_for") {
        return;
    }
    let room = Room::new();
    let said = |folder: &str| {
        let output = room
            .command(Who::User, true, &["dev", folder])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let app = room.app.to_str().unwrap();
    let nothing = said(app);
    assert!(
        nothing.starts_with(&format!("lowport: there is no app in {app}: ")),
        "{nothing}"
    );
    assert!(nothing.contains("lowport dev -- node app.js"), "{nothing}");
    room.write("package.json", "{\n  \"scripts\": { \"dev\": 1, }\n}");
    let broken = said(app);
    assert_eq!(
        broken,
        format!("lowport: {app}/package.json:2:26: trailing comma\n")
    );
    assert!(said("/no/such/folder").contains("/no/such/folder: No such file"));
    // Nothing was made for what was never started.
    assert!(!room.home().join(".local").exists());
}

#[test]
fn control_c_ends_it_all_at_once() {
    if lacks_user("control_c_ends_it_all_at_once") {
        return;
    }
    let mut dev = Room::sample().dev(Who::User);
    let app = dev.json("/whoami")["app"]["pid"].as_u64().unwrap() as u32;
    let supervisor = process::parent(process::parent(app));
    dev.lowport.signal(nix::sys::signal::Signal::SIGINT);
    assert!(dev.lowport.ended().success());
    process::gone(&[app, supervisor]);
}
