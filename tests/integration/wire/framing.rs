//! One framing, strict chunks, clean output: no bytes can be one request here and two behind.

use super::{BOTH, UPGRADE, Wire, exchange, statuses};
use crate::support::Lowport;
use crate::support::recorder::Recorder;

/// What would be a request of its own, were the bytes before it cut in another place.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn what_can_be_framed_in_two_ways_is_refused_and_nothing_after_it_is_read() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        for (head, body, status) in [
            (
                "Content-Length: 4\r\nTransfer-Encoding: chunked",
                "0\r\n\r\n",
                400,
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 4",
                "0\r\n\r\n",
                400,
            ),
            ("Content-Length: 0\r\nContent-Length: 0", "", 400),
            ("Content-Length: 0\r\nContent-Length: 5", "", 400),
            ("Content-Length: 0, 0", "", 400),
            ("Content-Length: +0", "", 400),
            ("Content-Length: -1", "", 400),
            ("Content-Length: 0x0", "", 400),
            ("Content-Length:", "", 400),
            ("Content-Length: 0 0", "", 400),
            ("Content-Length: 99999999999999999999999", "", 400),
            ("Content-Length : 0", "", 400),
            (" Content-Length: 0", "", 400),
            ("Content-Length: 0\0", "", 400),
            ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n", 501),
            ("Transfer-Encoding: chunked, identity", "0\r\n\r\n", 400),
            ("Transfer-Encoding: xchunked", "0\r\n\r\n", 400),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                "0\r\n\r\n",
                400,
            ),
            ("Transfer-Encoding:\r\n chunked", "0\r\n\r\n", 400),
            ("Transfer-Encoding : chunked", "0\r\n\r\n", 400),
            ("Transfer-Encoding: \x0bchunked", "0\r\n\r\n", 400),
            ("X: a\nContent-Length: 0", "", 400),
            ("X: a\rContent-Length: 0", "", 400),
        ] {
            let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{body}{SMUGGLED}");
            let answer = exchange(&lowport, over, bytes);
            assert_eq!(statuses(&answer), [status], "{over:?} {head:?}: {answer}");
            assert!(
                answer.contains("connection: close\r\n"),
                "{head:?}: {answer}"
            );
        }
        let old =
            format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}");
        assert_eq!(statuses(&exchange(&lowport, over, old)), [400]);
    }
    assert_eq!(recorder.bytes(), b"", "something of it went upstream");
}

#[test]
fn a_refusal_can_be_read_and_found_in_the_log() {
    let lowport = Lowport::start("[[route]]\nrespond = \"hello\"\n");
    let bytes = "POST /pay HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n";
    let answer = exchange(&lowport, BOTH[0], bytes);
    assert!(
        answer.contains("The request's Content-Length is not one number."),
        "{answer}"
    );
    assert!(answer.contains("\r\ndate: "), "{answer}");
    let (_, id) = answer.split_once("request id: ").expect("an id");
    let line = lowport.wait_for(&format!("id={}", id.trim()));
    assert!(line.contains("\"POST /pay HTTP/1.1\" 400 "), "{line}");
    assert!(line.contains("Content-Length is not one number"), "{line}");
    // hyper's own findings are logged as well.
    let answer = exchange(&lowport, BOTH[0], "GET / HTTP/1.1\r\nHo st: a\r\n\r\n");
    assert_eq!(statuses(&answer), [400]);
    lowport.wait_for("invalid HTTP header parsed");
}

#[test]
fn what_was_asked_before_is_answered_first() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        let bytes = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n\
            POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
            GET /c HTTP/1.1\r\nHost: a\n\r\n";
        let mut wire = Wire::connect(&lowport, over);
        wire.send(bytes);
        wire.send(SMUGGLED);
        let answer = wire.rest();
        assert_eq!(statuses(&answer), [200, 200, 400], "{over:?}: {answer}");
    }
    let heads: Vec<_> = recorder
        .requests()
        .into_iter()
        .map(|request| request.head[..6].to_owned())
        .collect();
    assert_eq!(heads, ["GET /a", "POST /", "GET /a", "POST /"]);
}

#[test]
fn a_broken_chunk_breaks_the_upload_on_both_sides() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    let mut sent = 0;
    for over in BOTH {
        for chunks in [
            "3 \r\nabc\r\n0\r\n\r\n",
            "0x3\r\nabc\r\n0\r\n\r\n",
            "+3\r\nabc\r\n0\r\n\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "3;a\nb\r\nabc\r\n0\r\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "ffffffffffffffff1\r\nabc\r\n0\r\n\r\n",
            "3\r\nabc\r\n0\r\n\n",
            "3\r\nabc\r\n0\r\nX: y\n\r\n",
            "\r\n3\r\nabc\r\n0\r\n\r\n",
        ] {
            let bytes = format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n{chunks}{SMUGGLED}"
            );
            let answer = exchange(&lowport, over, bytes);
            assert_eq!(statuses(&answer), [400], "{over:?} {chunks:?}: {answer}");
            sent += 1;
        }
    }
    // Some never reached the upstream; of those that did, none looked complete, and nothing came after it.
    let requests = recorder.requests();
    assert!(requests.len() <= sent);
    assert!(
        requests.iter().all(|request| request.body.is_none()),
        "{requests:?}"
    );
    let bytes = String::from_utf8_lossy(&recorder.bytes()).into_owned();
    assert!(!bytes.contains("smuggled"), "{bytes}");
}

#[test]
fn chunks_are_framed_anew() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for (number, over) in BOTH.into_iter().enumerate() {
        let mut wire = Wire::connect(&lowport, over);
        wire.send(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cHunked\r\n\r\n\
             0005;secret=1\r\nhello\r\n1 ;a\r\n",
        );
        let answer = wire.rest();
        assert_eq!(statuses(&answer), [400], "{answer}");
        let mut wire = Wire::connect(&lowport, over);
        wire.send(
            "POST /whole HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cHunked\r\n\r\n\
             0005;secret=1\r\nhello\r\n00\r\nContent-Length: 99\r\nHost: evil\r\n\r\n",
        );
        assert!(wire.head().starts_with("HTTP/1.1 200 "));
        let whole = recorder
            .requests()
            .into_iter()
            .filter(|request| request.head.starts_with("POST /whole"))
            .nth(number)
            .expect("it arrived");
        assert_eq!(whole.body.as_deref(), Some(&b"hello"[..]));
        assert_eq!(whole.values("transfer-encoding"), ["chunked"]);
        assert_eq!(whole.values("content-length"), [""; 0]);
        assert_eq!(whole.values("host"), ["a"]);
        assert_eq!(
            whole.trailers, "",
            "no trailer that means something in a head"
        );
    }
    assert!(!String::from_utf8_lossy(&recorder.bytes()).contains("secret"));
}

#[test]
fn a_refused_websocket_keeps_the_connection_unless_bytes_followed_it() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        let mut wire = Wire::connect(&lowport, over);
        for _ in 0..2 {
            wire.send(UPGRADE);
            let head = wire.head();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert!(!head.contains("connection: close"), "{head}");
            let mut body = [0; 2];
            wire.exactly(&mut body);
            assert_eq!(&body, b"ok");
        }
        // The next request is looked at as any other.
        wire.send("GET / HTTP/1.1\r\nHost: a\n\r\n");
        assert_eq!(statuses(&wire.rest()), [400]);
        let answer = exchange(&lowport, over, format!("{UPGRADE}{SMUGGLED}"));
        assert_eq!(statuses(&answer), [200], "{over:?}: {answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        let body = UPGRADE.replace("Host: a", "Host: a\r\nContent-Length: 3");
        assert_eq!(
            statuses(&exchange(&lowport, over, format!("{body}abc"))),
            [400]
        );
    }
    assert!(!String::from_utf8_lossy(&recorder.bytes()).contains("smuggled"));
}

#[test]
fn heads_past_a_limit_name_the_limit() {
    let lowport = Lowport::start(
        "[limits]\nrequest_target = \"1KiB\"\nrequest_headers = 10\n[[route]]\nrespond = \"hello\"\n",
    );
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(1024));
    let fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(10));
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "y".repeat(16 << 10)
    );
    for over in BOTH {
        for (bytes, status, limit) in [
            (&target, 414, "limits.request_target"),
            (&fields, 431, "limits.request_headers"),
            (&head, 431, "limits.request_head"),
        ] {
            let answer = exchange(&lowport, over, bytes);
            assert_eq!(statuses(&answer), [status], "{over:?}: {answer}");
            assert!(answer.contains(limit), "{over:?}: {answer}");
        }
    }
}
