//! What `fuzz/differential` found, each with the bytes that it took.

use std::io::{Read, Write};

use super::{Over, exchange, statuses};
use crate::support::recorder::Recorder;
use crate::support::{Lowport, raw};

#[test]
fn a_body_reaches_the_app_whatever_the_method() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PROPFIND"] {
        let head = format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
        for body in [
            "Content-Length: 3\r\n\r\nabc",
            "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        ] {
            let answer = exchange(&lowport, Over::Plain, format!("{head}{body}"));
            assert_eq!(statuses(&answer), [200], "{method}: {answer}");
        }
        let seen = recorder.requests();
        let whole = seen
            .iter()
            .filter(|request| request.head.starts_with(method))
            .filter(|request| request.body.as_deref() == Some(b"abc"));
        assert_eq!(whole.count(), 2, "{method}: {seen:?}");
        // Nor does one that breaks off look whole.
        let broken = format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\nx");
        let answer = exchange(&lowport, Over::Plain, broken);
        assert_eq!(statuses(&answer), [400], "{method}: {answer}");
        let seen = recorder.requests();
        assert!(
            seen.iter().all(|request| request.body != Some(b"a".into())),
            "{seen:?}"
        );
    }
}

#[test]
fn a_broken_body_behind_another_request_is_answered_at_once() {
    let recorder = Recorder::start();
    // With no timer that comes while somebody waits here.
    let late: String = [
        "request_head",
        "request_body_idle",
        "response_write_idle",
        "keepalive_idle",
        "upstream_response",
        "upstream_idle",
    ]
    .map(|key| format!("{key} = \"1h\"\n"))
    .concat();
    let lowport = Lowport::start(&format!("[timeouts]\n{late}{}", recorder.route()));
    let broken =
        "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\0\r\nx\r\n0\r\n\r\n";
    let bytes = format!("OPTIONS /a HTTP/1.1\r\nHost: a\r\n\r\n{broken}");
    let answer = exchange(&lowport, Over::Plain, bytes);
    assert_eq!(statuses(&answer), [200, 400], "{answer}");
}

/// A connection that is closed while the client is sending is reset, and many clients lose over that what was answered
/// (RFC 9112 section 9.6). Only one who has said that it sends no more is not listened to.
#[test]
fn who_is_still_sending_can_read_the_answer() {
    let recorder = Recorder::start();
    let limits = "[limits]\nrequests_per_connection = 1\n";
    let lowport = Lowport::start(&format!("{limits}{}", recorder.route()));
    for (bytes, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            200,
        ),
        ("PUT: / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nx",
            400,
        ),
    ] {
        let mut client = raw::connect(lowport.http);
        client.write_all(bytes.as_bytes()).expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert_eq!(statuses(&answer), [status], "{bytes:?}: {answer}");
        for _ in 0..10 {
            client.write_all(b"x").expect("not reset");
        }
    }
}

#[test]
fn a_target_of_another_scheme_is_none() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for (target, status) in [
        ("http://a/x", 200),
        ("HTTP://a/x", 200),
        ("ht0p://a/x", 400),
        ("ftp://a/x", 400),
        ("://a/x", 400),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = exchange(&lowport, Over::Plain, bytes);
        assert_eq!(statuses(&answer), [status], "{target}: {answer}");
    }
}

#[test]
fn the_preface_of_http2_is_no_method() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    let answer = exchange(
        &lowport,
        Over::Plain,
        "PRI / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(statuses(&answer), [405], "{answer}");
    assert!(recorder.requests().is_empty());
}
