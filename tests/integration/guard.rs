//! Who runs the upstream: root is refused, whoever may run it is served, and what nobody knows is said.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use crate::support::lowport::{Setup, run};
use crate::support::node::APP_UID;
use crate::support::script::Script;
use crate::support::{Lowport, folder, is_root, port, raw, skipped, until};

/// A server that tells of each request that reaches it. LISTEN is a port or a path, HOST an address; CLOSE has it close
/// each connection.
const SERVER: &str = r#"
const fs = require('fs');
const { LISTEN, HOST, CLOSE } = process.env;
const server = require('http').createServer((request, response) => {
  console.log(`request ${request.url}`);
  if (CLOSE) response.setHeader('connection', 'close');
  response.end('the app');
});
const listen = (then) => server.listen(/^\d+$/.test(LISTEN) ? { port: +LISTEN, host: HOST || '127.0.0.1' } : LISTEN, () => {
  if (!/^\d+$/.test(LISTEN)) fs.chmodSync(LISTEN, 0o777);
  then();
});
"#;
const PLAIN: &str = "listen(() => console.log('listening'));";
/// Refusals are logged with this
const REMEDY: &str = "`USER node` in its Dockerfile";

fn server(uid: Option<u32>, tail: &str, env: &[(&str, &str)]) -> Script {
    Script::start(uid, &format!("{SERVER}{tail}"), env, Stdio::null())
}

/// A server on a port of its own that `uid` runs.
fn tcp(uid: Option<u32>, tail: &str) -> (Script, u16) {
    let port = port();
    (server(uid, tail, &[("LISTEN", &port.to_string())]), port)
}

/// Who runs an app that is as it should be.
fn somebody() -> (Option<u32>, u32) {
    if is_root() {
        (Some(APP_UID), APP_UID)
    } else {
        (None, nix::unistd::geteuid().as_raw())
    }
}

fn to(port: u16) -> String {
    format!("[[route]]\nto = \"http://127.0.0.1:{port}\"\n")
}

fn upstream(peer: &str, keys: &str) -> String {
    format!("[upstream.x]\npeers = \"{peer}\"\n{keys}\n[[route]]\nupstream = \"x\"\n")
}

fn get(lowport: &Lowport) -> String {
    raw::exchange(
        lowport.http,
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
}

fn is_served(lowport: &Lowport) {
    let answer = get(lowport);
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("the app"),
        "{answer}"
    );
}

fn is_refused(lowport: &Lowport) {
    let answer = get(lowport);
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.contains("lowport's log says why"), "{answer}");
    for secret in ["root", "uid", "127.0.0.1", "the app\n"] {
        assert!(!answer.contains(secret), "{secret} in {answer}");
    }
}

fn lines(lowport: &Lowport, text: &str) -> usize {
    lowport
        .output()
        .iter()
        .filter(|line| line.contains(text))
        .count()
}

/// How many requests have come through lowport. One that is sent directly, and printed last, tells that all are printed.
fn requests(app: &Script, peer: &str) -> usize {
    const LAST: &str = "GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let before = app.count("request /last");
    let answer = if peer.starts_with('/') {
        let mut stream = UnixStream::connect(peer).expect("the app answers");
        stream.write_all(LAST.as_bytes()).expect("the app answers");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the app answers");
        answer
    } else {
        raw::exchange(peer.parse().expect("a port"), LAST)
    };
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    until("the app to print its last request", || {
        (app.count("request /last") > before).then_some(())
    });
    app.count("request /")
}

fn needs_root(test: &str) -> bool {
    if !is_root() {
        skipped(test, "it takes root to run apps as several users");
    }
    is_root()
}

#[test]
fn an_app_that_root_runs_is_refused_and_not_even_asked() {
    if !needs_root("an app that root runs") {
        return;
    }
    let (app, port) = tcp(Some(0), PLAIN);
    let lowport = Lowport::start(&to(port));
    for _ in 0..5 {
        is_refused(&lowport);
    }
    assert_eq!(
        requests(&app, &port.to_string()),
        0,
        "no request has reached it"
    );
    let line = lowport.wait_for(REMEDY);
    assert!(
        line.contains("is run by root (uid 0)") && line.contains("anybody but root"),
        "{line}"
    );
    assert_eq!(lines(&lowport, REMEDY), 1, "said once");
    assert!(
        lines(&lowport, "request failed") >= 5,
        "each request is logged"
    );
}

#[test]
fn an_app_that_somebody_runs_is_served_and_what_was_checked_is_said() {
    let (uid, number) = somebody();
    let (app, port) = tcp(uid, PLAIN);
    let lowport = Lowport::start(&to(port));
    for _ in 0..5 {
        is_served(&lowport);
    }
    assert_eq!(requests(&app, &port.to_string()), 5);
    let line = lowport.wait_for("who may run it");
    assert!(
        line.contains(&format!("uid={number}"))
            && line.contains("the owner of the accepted socket"),
        "{line}"
    );
    assert_eq!(lines(&lowport, "who may run it"), 1, "said once");
}

/// Its listening socket says root for ever; the accepted ones do not.
#[test]
fn an_app_that_listens_as_root_and_then_gives_it_up_is_no_false_alarm() {
    if !needs_root("an app that gives root up") {
        return;
    }
    let tail = format!(
        "listen(() => {{ process.setgroups([]); process.setgid({APP_UID}); process.setuid({APP_UID}); console.log('listening'); }});"
    );
    let (_app, port) = tcp(Some(0), &tail);
    let lowport = Lowport::start(&to(port));
    is_served(&lowport);
    assert!(
        lowport
            .wait_for("who may run it")
            .contains(&format!("uid={APP_UID}"))
    );
    assert_eq!(lines(&lowport, "is run by root"), 0);
}

/// Nothing that the kernel tells gives it away, so the log says no more than what was checked.
#[test]
fn an_app_that_is_root_behind_the_socket_of_somebody_else_is_missed() {
    if !needs_root("root behind another user's socket") {
        return;
    }
    let tail = format!(
        "process.seteuid({APP_UID}); listen(() => console.log('listening')); \
         server.on('connection', () => {{ process.seteuid(0); }});"
    );
    let (_app, port) = tcp(Some(0), &tail);
    let lowport = Lowport::start(&to(port));
    is_served(&lowport);
    let line = lowport.wait_for("who may run it");
    assert!(
        line.contains(&format!("uid={APP_UID}"))
            && line.contains("the owner of the accepted socket"),
        "{line}"
    );
}

#[test]
fn a_lowport_in_a_user_namespace_of_its_own_does_not_know_and_says_so() {
    let unshare = ["unshare", "-U"];
    if !works(&unshare) {
        return skipped("a user namespace", "unshare -U is refused here");
    }
    let (uid, _) = somebody();
    let (_app, port) = tcp(uid, PLAIN);
    let lowport = Lowport::within(
        &unshare,
        &Setup {
            server: "redirect_to_https = false",
            rest: &to(port),
            args: &[],
        },
    );
    for _ in 0..3 {
        is_served(&lowport);
    }
    lowport.wait_for(
        "nobody knows who runs the upstream: it belongs to a user of another user namespace",
    );
    assert_eq!(
        lines(&lowport, "nobody knows who runs the upstream"),
        1,
        "said once"
    );
}

#[test]
fn the_overflow_uid_is_unknown_as_well() {
    if !needs_root("an app as uid 65534") {
        return;
    }
    let (_app, port) = tcp(Some(65534), PLAIN);
    let lowport = Lowport::start(&upstream(
        &format!("127.0.0.1:{port}"),
        "expect_user = 1000",
    ));
    is_served(&lowport);
    lowport.wait_for("nobody knows who runs the upstream");
}

/// As two containers of a pod are, or of `docker run --network container:app`.
#[test]
fn a_sidecar_that_shares_only_the_network_knows_the_truth() {
    let unshare = ["unshare", "-pmf", "--kill-child"];
    if !needs_root("a sidecar") {
        return;
    }
    if !works(&unshare) {
        return skipped("a sidecar", "unshare -pm is refused here");
    }
    for (uid, serves) in [(0, false), (APP_UID, true)] {
        let (_app, port) = tcp(Some(uid), PLAIN);
        let lowport = Lowport::within(
            &unshare,
            &Setup {
                server: "redirect_to_https = false",
                rest: &to(port),
                args: &[],
            },
        );
        if serves {
            is_served(&lowport);
            assert!(
                lowport
                    .wait_for("who may run it")
                    .contains(&format!("uid={uid}"))
            );
        } else {
            is_refused(&lowport);
            lowport.wait_for(REMEDY);
        }
    }
}

fn works(unshare: &[&str]) -> bool {
    let status = Command::new(unshare[0])
        .args(&unshare[1..])
        .arg("true")
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn unix_sockets_are_guarded_too() {
    if !needs_root("Unix sockets of several users") {
        return;
    }
    for (uid, serves) in [(0, false), (APP_UID, true)] {
        let folder = folder();
        let path = folder.path().join("app.sock");
        nix::unistd::chown(folder.path(), Some(uid.into()), None).unwrap();
        let path = path.to_str().expect("UTF-8");
        let app = server(Some(uid), PLAIN, &[("LISTEN", path)]);
        let lowport = Lowport::start(&upstream(&format!("unix:{path}"), ""));
        if serves {
            is_served(&lowport);
            let line = lowport.wait_for("who may run it");
            assert!(line.contains(&format!("uid={uid}")), "{line}");
        } else {
            is_refused(&lowport);
            assert_eq!(requests(&app, path), 0);
            lowport.wait_for(REMEDY);
        }
    }
}

/// systemd is root and listens for services that are not: SO_PEERCRED names it instead of them.
#[test]
fn a_unix_socket_that_root_made_for_somebody_is_no_false_alarm() {
    if !needs_root("socket activation") {
        return;
    }
    let folder = folder();
    let path = folder.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let tail = "server.listen({ fd: 0 }, () => console.log('listening'));";
    let code = format!("{SERVER}{tail}");
    let _app = Script::start(
        Some(APP_UID),
        &code,
        &[],
        std::os::fd::OwnedFd::from(listener),
    );
    let lowport = Lowport::start(&upstream(&format!("unix:{}", path.display()), ""));
    is_served(&lowport);
    assert!(
        lowport
            .wait_for("who may run it")
            .contains(&format!("uid={APP_UID}"))
    );
}

#[test]
fn a_process_that_kept_capabilities_is_told() {
    if !needs_root("an app with capabilities") {
        return;
    }
    let folder = folder();
    let path = folder.path().join("app.sock");
    nix::unistd::chown(folder.path(), Some(APP_UID.into()), None).unwrap();
    let path = path.to_str().expect("UTF-8");
    let tail = format!("process.seteuid({APP_UID}); {PLAIN}");
    let _app = server(Some(0), &tail, &[("LISTEN", path)]);
    // In the sandbox nothing of /proc can be read: there it is the broker that tells.
    for args in [&[][..], &["--no-sandbox"]] {
        let lowport = Lowport::with(&Setup {
            server: "redirect_to_https = false",
            rest: &upstream(&format!("unix:{path}"), ""),
            args,
        });
        is_served(&lowport);
        let line = lowport.wait_for("can become root again");
        assert!(line.contains(&format!("uid={APP_UID}")), "{line}");
    }
}

#[test]
fn who_may_run_it_is_a_name_a_number_or_anybody() {
    let (uid, number) = somebody();
    let (_app, port) = tcp(uid, PLAIN);
    let peer = format!("127.0.0.1:{port}");
    for (expect, serves) in [
        (format!("{number}"), true),
        (format!("\"{number}\""), true),
        ("\"any\"".to_owned(), true),
        ("\"not-root\"".to_owned(), true),
        ("1".to_owned(), false),
        ("\"root\"".to_owned(), false),
        ("\"daemon\"".to_owned(), false),
    ] {
        let lowport = Lowport::start(&upstream(&peer, &format!("expect_user = {expect}")));
        if serves {
            is_served(&lowport);
        } else {
            let answer = get(&lowport);
            assert!(answer.starts_with("HTTP/1.1 502"), "{expect}: {answer}");
            let line = lowport.wait_for(REMEDY);
            assert!(line.contains(&format!("is run by uid {number}")), "{line}");
        }
        if expect == "\"any\"" {
            assert_eq!(lines(&lowport, "the upstream"), 0, "nothing is looked at");
        }
    }
}

#[test]
fn a_name_that_a_reload_brings_is_found_although_the_sandbox_is_on() {
    let (uid, _) = somebody();
    let (_app, port) = tcp(uid, PLAIN);
    let lowport = Lowport::start(&to(port));
    is_served(&lowport);
    let with = |name: &str| {
        let keys = format!("expect_user = \"{name}\"");
        let seen = lowport.output().len();
        lowport.rewrite(&Setup {
            server: "redirect_to_https = false",
            rest: &upstream(&format!("127.0.0.1:{port}"), &keys),
            args: &[],
        });
        seen
    };
    let seen = with("nosuchuser");
    lowport.wait_for_after(seen, "reload refused");
    lowport.wait_for_after(seen, "a uid needs no account");
    is_served(&lowport);
    let seen = with("daemon");
    lowport.wait_for_after(seen, " reloaded");
    is_refused(&lowport);
    lowport.wait_for_after(seen, "daemon (uid 1)");
}

#[test]
fn a_user_that_is_not_there_is_a_mistake_when_the_file_is_loaded() {
    let folder = folder();
    let file = folder.path().join("lowport.toml");
    let text = format!(
        "[server]\nhttp = \"127.0.0.1:{}\"\n{}",
        port(),
        upstream("127.0.0.1:1", "expect_user = \"nosuchuser\"")
    );
    std::fs::write(&file, text).unwrap();
    let output = run(&["check", "-c", file.to_str().expect("UTF-8")]);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    for part in [
        "lowport.toml:5",
        "there is no user \"nosuchuser\"",
        "useradd",
        "a uid needs no account",
    ] {
        assert!(said.contains(part), "{part} not in {said}");
    }
}

#[test]
fn a_warning_is_said_once_and_refuses_nothing() {
    let (uid, number) = somebody();
    let (_app, port) = tcp(uid, PLAIN);
    let keys = "expect_user = 1\non_mismatch = \"warn\"";
    let lowport = Lowport::start(&upstream(&format!("127.0.0.1:{port}"), keys));
    for _ in 0..5 {
        is_served(&lowport);
    }
    let line = lowport.wait_for(REMEDY);
    assert!(
        line.contains("WARN") && line.contains(&format!("is run by uid {number}")),
        "{line}"
    );
    assert_eq!(lines(&lowport, REMEDY), 1);
}

/// Whoever closes each connection first leaves nothing behind to look at.
#[test]
fn an_app_that_closes_each_connection_does_not_escape() {
    let (uid, _) = somebody();
    let port = port();
    let app = server(uid, PLAIN, &[("LISTEN", &port.to_string()), ("CLOSE", "1")]);
    let lowport = Lowport::start(&upstream(&format!("127.0.0.1:{port}"), "expect_user = 1"));
    for _ in 0..5 {
        is_refused(&lowport);
    }
    assert_eq!(requests(&app, &port.to_string()), 0);
}

#[test]
fn an_app_that_becomes_root_is_refused_and_served_again_when_it_is_not() {
    if !needs_root("an app that becomes root") {
        return;
    }
    let (app, port) = tcp(Some(APP_UID), PLAIN);
    let lowport = Lowport::start(&to(port));
    is_served(&lowport);
    drop(app);
    let env = [("LISTEN", &*port.to_string())];
    let app = server(Some(0), PLAIN, &env);
    for _ in 0..5 {
        is_refused(&lowport);
    }
    // The first request had to be sent before anybody could know; one for each of the two workers at most.
    assert!(requests(&app, &port.to_string()) <= 2);
    lowport.wait_for(REMEDY);
    drop(app);
    let _app = server(Some(APP_UID), PLAIN, &env);
    until("the app to be served again", || {
        get(&lowport).starts_with("HTTP/1.1 200").then_some(())
    });
}

#[test]
fn a_peer_that_is_refused_leaves_the_work_to_the_others() {
    if !needs_root("two apps of two users") {
        return;
    }
    let (bad, bad_port) = tcp(Some(0), PLAIN);
    let (good, good_port) = tcp(Some(APP_UID), PLAIN);
    let lowport = Lowport::start(&format!(
        "[upstream.x]\npeers = [\"127.0.0.1:{bad_port}\", \"127.0.0.1:{good_port}\"]\n[[route]]\nupstream = \"x\"\n"
    ));
    for _ in 0..6 {
        is_served(&lowport);
    }
    assert_eq!(requests(&bad, &bad_port.to_string()), 0);
    assert_eq!(requests(&good, &good_port.to_string()), 6);
}

#[test]
fn a_reload_judges_connections_that_are_open_already() {
    let (uid, _) = somebody();
    let (_app, port) = tcp(uid, PLAIN);
    let peer = format!("127.0.0.1:{port}");
    let lowport = Lowport::start(&upstream(&peer, "expect_user = \"any\""));
    is_served(&lowport);
    lowport.rewrite(&Setup {
        server: "redirect_to_https = false",
        rest: &upstream(&peer, "expect_user = 1"),
        args: &[],
    });
    until("the app to be refused", || {
        get(&lowport).starts_with("HTTP/1.1 502").then_some(())
    });
    lowport.rewrite(&Setup {
        server: "redirect_to_https = false",
        rest: &upstream(&peer, "expect_user = \"not-root\""),
        args: &[],
    });
    until("the app to be served", || {
        get(&lowport).starts_with("HTTP/1.1 200").then_some(())
    });
}

#[test]
fn an_app_that_can_be_reached_around_lowport_is_told_once() {
    let (uid, _) = somebody();
    for host in ["0.0.0.0", "::"] {
        let port = port();
        let env = [("LISTEN", &*port.to_string()), ("HOST", host)];
        let _app = server(uid, PLAIN, &env);
        let lowport = Lowport::start(&to(port));
        for _ in 0..3 {
            is_served(&lowport);
        }
        let line = lowport.wait_for("can be reached around lowport");
        assert!(line.contains(&format!("({host})")), "{line}");
        assert_eq!(lines(&lowport, "can be reached around lowport"), 1);
    }
    let (_app, port) = tcp(uid, PLAIN);
    let lowport = Lowport::start(&to(port));
    is_served(&lowport);
    lowport.wait_for("who may run it");
    assert_eq!(lines(&lowport, "can be reached around lowport"), 0);
}
