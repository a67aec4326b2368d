//! Start, reload, drain, stop; the access log.

use std::io::Write;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::client::curl;
use crate::support::lowport::Setup;
use crate::support::raw::RawUpstream;
use crate::support::{Lowport, Node, certs, port, raw, until};

const OPEN: &str = "redirect_to_https = false";

fn respond(text: &str) -> String {
    format!("[[route]]\nrespond = \"{text}\"\n")
}

#[test]
fn a_changed_file_is_loaded_and_a_bad_one_changes_nothing() {
    let lowport = Lowport::start(&respond("one"));
    assert_eq!(curl(&lowport, "/", &[]), "one");
    lowport.rewrite(&Setup {
        server: OPEN,
        rest: &respond("two"),
        args: &[],
    });
    until("the new table", || {
        (curl(&lowport, "/", &[]) == "two").then_some(())
    });
    lowport.rewrite(&Setup {
        server: OPEN,
        rest: "[[route]]\nrespnd = \"three\"\n",
        args: &[],
    });
    lowport.wait_for("reload refused");
    lowport.wait_for("respnd");
    assert_eq!(curl(&lowport, "/", &[]), "two");
    // The same file again, on request.
    let seen = lowport.output().len();
    lowport.signal(Signal::SIGHUP);
    lowport.wait_for_after(seen, "reload refused");
    assert_eq!(curl(&lowport, "/", &[]), "two");
}

#[test]
fn a_renewed_certificate_is_served_and_one_that_does_not_fit_its_key_is_not() {
    let lowport = Lowport::start(&respond("one"));
    let serial = || {
        let output = curl(&lowport, "/", &["-o/dev/null", "-w", "%{certs}"]);
        output
            .lines()
            .find_map(|line| line.strip_prefix("Serial Number:").map(str::to_owned))
            .expect("a serial number")
    };
    let before = serial();
    certs::write(lowport.folder(), "site", &["localhost", "127.0.0.1"]);
    until("the renewed certificate", || {
        (serial() != before).then_some(())
    });
    let renewed = serial();
    certs::write(lowport.folder(), "other", &["localhost"]);
    std::fs::copy(
        lowport.folder().join("other.key"),
        lowport.folder().join("site.key"),
    )
    .unwrap();
    lowport.wait_for("reload refused");
    assert_eq!(serial(), renewed);
}

#[test]
fn listeners_come_and_go_with_a_reload() {
    // A port that somebody else has, and one that nobody has.
    let held = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (taken, new) = (held.local_addr().unwrap().port(), port());
    let lowport = Lowport::start(&format!(
        "[sandbox]\nbind = [\"{new}\", \"{taken}\"]\n{}",
        respond("one")
    ));
    let old = lowport.http;
    let text = std::fs::read_to_string(lowport.config())
        .unwrap()
        .replace(&format!(":{old}\""), &format!(":{new}\""));
    lowport.rewrite_raw(&text);
    until("the new listener", || {
        std::net::TcpStream::connect(("127.0.0.1", new)).ok()
    });
    until("the old listener to be gone", || {
        std::net::TcpStream::connect(("127.0.0.1", old)).err()
    });
    assert!(
        raw::exchange(
            new,
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        )
        .ends_with("one")
    );
    // The one that somebody else has is a mistake in the new file, and the old one goes on.
    lowport.rewrite_raw(&text.replace(&format!(":{new}\""), &format!(":{taken}\"")));
    lowport.wait_for("is in use");
    assert!(
        raw::exchange(
            new,
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        )
        .ends_with("one")
    );
}

#[test]
fn draining_lets_what_is_in_flight_finish_and_takes_no_more() {
    let node = Node::start();
    let mut lowport = Lowport::start(&node.route());
    let mut idle = raw::connect(lowport.http);
    write!(idle, "GET /health HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    raw::read_head(&mut idle).unwrap();
    let mut slow = raw::connect(lowport.http);
    write!(
        slow,
        "GET /slow?head=0&chunks=5&every=200 HTTP/1.1\r\nhost: a\r\n\r\n"
    )
    .unwrap();
    raw::read_head(&mut slow).unwrap();
    lowport.signal(Signal::SIGTERM);
    lowport.wait_for("draining");
    until("new connections to be refused", || {
        std::net::TcpStream::connect(("127.0.0.1", lowport.http)).err()
    });
    // The idle connection is let go, the busy one is served to its end.
    raw::read_all(&mut idle);
    let rest = raw::read_all(&mut slow);
    assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
    assert!(lowport.ended().success());
    lowport.wait_for("drained");
}

#[test]
fn a_drain_ends_at_its_deadline_or_at_the_second_signal() {
    let node = Node::start();
    for second in [false, true] {
        let drain = if second { "60s" } else { "200ms" };
        let mut lowport = Lowport::start(&format!(
            "[timeouts]\ndrain = \"{drain}\"\n{}",
            node.route()
        ));
        let mut events = raw::connect(lowport.http);
        write!(events, "GET /events HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        raw::read_head(&mut events).unwrap();
        lowport.signal(Signal::SIGTERM);
        lowport.wait_for("draining");
        if second {
            lowport.signal(Signal::SIGTERM);
        }
        assert!(lowport.ended().success());
        lowport.wait_for("cutting off");
    }
}

#[test]
fn access_records_tell_all_and_hostile_bytes_break_no_line() {
    let node = Node::start();
    let lowport = Lowport::start(&format!(
        "[log]\naccess = \"stdout\"\nformat = \"json\"\n{}",
        node.route()
    ));
    curl(
        &lowport,
        "/echo?q=1",
        &[
            "--http2",
            "-A",
            "evil\"\\ \u{e9}",
            "-e",
            "http://from/",
            "--data",
            "12345",
        ],
    );
    let line = lowport.wait_for("\"/echo?q=1\"");
    let record: Value =
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(record["method"], "POST");
    assert_eq!(record["status"], 200);
    assert_eq!(record["received"], 5);
    assert_eq!(record["user_agent"], "evil\"\\ \u{e9}");
    assert_eq!(record["referer"], "http://from/");
    assert_eq!(record["upstream"], format!("127.0.0.1:{}", node.port));
    assert_eq!(record["client"], "127.0.0.1");
    assert!(
        record["sent"].as_u64().unwrap() > 10
            && record["upstream_ms"].is_number()
            && record["ms"].is_number()
    );
    assert!(!line.contains('\u{1b}'));
}

#[test]
fn a_client_that_goes_away_is_logged_too() {
    let silent = RawUpstream::handling(|_, stream| drop(raw::read_head(stream)));
    let lowport = Lowport::start(&format!(
        "[log]\naccess = \"stdout\"\nformat = \"json\"\n{}",
        silent.route()
    ));
    let mut stream = raw::connect(lowport.http);
    write!(stream, "GET /gone HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    silent.first();
    drop(stream);
    let line = lowport.wait_for("\"/gone\"");
    assert!(line.contains("\"status\":499"), "{line}");
}

#[test]
fn a_rotated_access_log_is_reopened() {
    let folder = crate::support::folder();
    // Whoever lowport becomes must be able to make the new file.
    std::fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let (log, rotated) = (
        folder.path().join("access.log"),
        folder.path().join("access.log.1"),
    );
    let lowport = Lowport::start(&format!(
        "[log]\naccess = \"{}\"\n{}",
        log.display(),
        respond("x")
    ));
    let has = |file: &std::path::Path, text: &str| {
        std::fs::read_to_string(file).is_ok_and(|log| log.contains(text))
    };
    curl(&lowport, "/first", &[]);
    until("the first record", || has(&log, "GET /first").then_some(()));
    std::fs::rename(&log, &rotated).unwrap();
    lowport.signal(Signal::SIGUSR1);
    until("the new file", || log.exists().then_some(()));
    curl(&lowport, "/second", &[]);
    until("the second record", || {
        has(&log, "GET /second").then_some(())
    });
    assert!(!has(&rotated, "/second"));
}
