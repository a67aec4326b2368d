//! Answers over HTTP/2: limits that say what they are, bodies that are there or not, and none that only looks whole.

use std::io::Write;

use super::BOTH;
use super::h2_requests::{but, with};
use crate::support::Lowport;
use crate::support::frames::{self, END_HEADERS, END_STREAM, Frames, HEADERS, Outcome};
use crate::support::raw::RawUpstream;
use crate::support::recorder::Recorder;

#[test]
fn a_response_that_breaks_off_never_looks_whole() {
    let upstream = RawUpstream::handling(|head, stream| {
        let head = String::from_utf8_lossy(head).into_owned();
        let answer = if head.contains("/length") {
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"
        } else {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"
        };
        let _ = stream.write_all(answer.as_bytes());
    });
    let lowport = Lowport::start(&upstream.route());
    for over in BOTH {
        for path in ["/length", "/chunks"] {
            let mut client = Frames::open(&lowport, over, &[]);
            let stream = client.get(path);
            assert_eq!(client.outcome(stream), Outcome::Status(200));
            assert_eq!(client.body(stream), None, "{path}");
            let after = client.get(path);
            assert_eq!(client.outcome(after), Outcome::Status(200));
        }
    }
}

#[test]
fn limits_are_told_in_readable_answers() {
    let recorder = Recorder::start();
    let rest = format!("[limits]\nrequest_body = \"1KiB\"\n{}", recorder.route());
    let lowport = Lowport::start(&rest);
    let path = |length| format!("/{}", "x".repeat(length));
    let long = "y".repeat(1000);
    for over in BOTH {
        let mut client = Frames::open(&lowport, over, &[]);
        let mut ask = |fields: &[(&str, &str)], data: Option<&[u8]>| {
            // As many frames as it takes.
            let block = frames::block(fields);
            let (head, tail) = block.split_at(block.len().min(16_000));
            let (stream, end) = (client.stream(), if data.is_none() { END_STREAM } else { 0 });
            let last = if tail.is_empty() { END_HEADERS } else { 0 };
            client.frame(HEADERS, end | last, stream, head);
            let more: Vec<&[u8]> = tail.chunks(16_000).collect();
            for (at, chunk) in more.iter().enumerate() {
                let last = if at + 1 == more.len() { END_HEADERS } else { 0 };
                client.frame(frames::CONTINUATION, last, stream, chunk);
            }
            if let Some(data) = data {
                client.data(stream, data, true);
            }
            let outcome = client.outcome(stream);
            (outcome, client.body(stream).unwrap_or_default())
        };
        let said = |answer: (Outcome, Vec<u8>), status, what: &str| {
            let text = String::from_utf8_lossy(&answer.1);
            assert_eq!(answer.0, Outcome::Status(status), "{text}");
            assert!(text.contains(what), "{text}");
        };
        said(ask(&but(":path", &path(8000)), None), 200, "ok");
        said(
            ask(&but(":path", &path(9000)), None),
            414,
            "limits.request_target",
        );
        said(ask(&with("GET", &[("x", &*long); 12]), None), 200, "ok");
        said(
            ask(&with("GET", &[("x", &*long); 17]), None),
            431,
            "limits.request_head",
        );
        said(
            ask(&with("GET", &[("x", "1"); 101]), None),
            431,
            "limits.request_headers",
        );
        // Far beyond, there is still an answer.
        said(ask(&with("GET", &[("x", &*long); 60]), None), 431, "");
        let body = vec![b'z'; 1025];
        said(
            ask(&with("POST", &[("content-length", "1025")]), Some(&body)),
            413,
            "limits.request_body",
        );
        said(
            ask(&with("POST", &[]), Some(&body)),
            413,
            "limits.request_body",
        );
        said(ask(&with("POST", &[]), Some(&body[1..])), 200, "ok");
    }
    let mut whole = recorder.requests();
    whole.retain(|seen| seen.body.is_some());
    // Of each client, the long path, the twelve fields and the body that was just small enough.
    assert_eq!(whole.len(), 2 * 3);
}

#[test]
fn answers_without_a_body_have_none() {
    let recorder = Recorder::answering(|seen| {
        let status = if seen.head.contains("/204") {
            "204 No Content"
        } else if seen.head.contains("/304") {
            "304 Not Modified"
        } else {
            "200 OK\r\ncontent-length: 5"
        };
        format!("HTTP/1.1 {status}\r\n\r\n").into_bytes()
    });
    let rest = format!(
        "[[route]]\npath = \"/said\"\nrespond = \"hello\"\n[[route]]\npath = \"/moved\"\nredirect = \"https://b.test/\"\n{}",
        recorder.route()
    );
    let lowport = Lowport::start(&rest);
    for over in BOTH {
        let mut client = Frames::open(&lowport, over, &[]);
        for (method, path, status) in [
            ("HEAD", "/p", 200),
            ("GET", "/204", 204),
            ("GET", "/304", 304),
            ("HEAD", "/said", 200),
            ("HEAD", "/moved", 308),
            ("HEAD", "/said/../p", 400),
        ] {
            let mut fields = but(":path", path);
            fields[0].1 = method;
            let stream = client.request(&fields, true);
            assert_eq!(client.outcome(stream), Outcome::Status(status), "{path}");
            assert_eq!(client.body(stream).as_deref(), Some(&b""[..]), "{path}");
        }
    }
}

#[test]
fn a_websocket_that_is_answered_is_no_tunnel() {
    let recorder = Recorder::answering(|seen| {
        let status = if seen.head.contains("/no") {
            "403 Forbidden"
        } else {
            "200 OK"
        };
        format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno").into_bytes()
    });
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        let mut client = Frames::open(&lowport, over, &[]);
        for (path, status) in [("/no", 403), ("/yes", 502)] {
            let mut fields = but(":path", path);
            fields[0].1 = "CONNECT";
            fields.insert(1, (":protocol", "websocket"));
            fields.push(("sec-websocket-version", "13"));
            let stream = client.request(&fields, false);
            assert_eq!(client.outcome(stream), Outcome::Status(status), "{path}");
        }
    }
}
