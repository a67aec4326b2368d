//! What an upstream may send, what becomes of what it may not, and that nothing of it reaches the wrong client.

use std::io::{ErrorKind, Read, Write};
use std::sync::{Mutex, mpsc};

use super::{BOTH, Wire, exchange, statuses};
use crate::support::client::{curl, get, h2, text};
use crate::support::lowport::Setup;
use crate::support::raw::{self, RawUpstream};
use crate::support::recorder::Recorder;
use crate::support::{Lowport, PATIENCE, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_malformed_head_is_502_over_every_protocol() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2",
        "HTTP/1.1 200 OK\r\nContent-Length: +2",
        "HTTP/1.1 200 OK\r\nContent-Length: -2",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x2",
        "HTTP/1.1 200 OK\r\nContent-Length:",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded",
        "HTTP/1.1 200 OK\r\nX : a",
        "HTTP/1.1 200 OK\r\nX: a\0b",
        "HTTP/1.1 200 OK\r\nX: a\rb",
        "HTTP/1.1 200 OK\r\nno colon",
        "HTTP/1.1 200 OK\r\n: no name",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 abc OK",
        "HTTP/2.0 200 OK",
        "HTTQ/1.1 200 OK",
        "ICY 200 OK",
        "{\"not\": \"http\"}",
    ] {
        let upstream = RawUpstream::answering(format!("{head}\r\n\r\nok"));
        let lowport = Lowport::start(&upstream.route());
        for over in BOTH {
            let answer = exchange(&lowport, over, GET);
            assert_eq!(statuses(&answer), [502], "{over:?} {head:?}: {answer}");
            assert!(!answer.ends_with("ok"), "{head:?}: {answer}");
        }
        let mut client = h2(lowport.https).await;
        let answer = client.send_request(get("/")).await.expect("a response");
        assert_eq!(answer.status(), 502, "{head:?}");
        lowport.wait_for("upstream response malformed");
    }
}

#[tokio::test]
async fn a_body_that_breaks_never_looks_complete() {
    for (head, body) in [
        ("Content-Length: 10", "12345"),
        ("Transfer-Encoding: chunked", "5\r\n12345\r\n"),
        ("Transfer-Encoding: chunked", "5\r\n12345\r\n0\r\n"),
        ("Transfer-Encoding: chunked", "5\r\n12345\r\nzz\r\n"),
        (
            "Transfer-Encoding: chunked",
            "5\r\n12345\r\n5 \r\n12345\r\n0\r\n\r\n",
        ),
        ("Transfer-Encoding: chunked", "5\r\n12345\n0\r\n\r\n"),
        (
            "Transfer-Encoding: chunked",
            "5\r\n12345\r\nfffffffffffffffff\r\n",
        ),
        (
            "Transfer-Encoding: chunked",
            "5\r\n12345\r\n0\r\nbad trailer\r\n\r\n",
        ),
    ] {
        let upstream = RawUpstream::answering(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}"));
        let lowport = Lowport::start(&upstream.route());
        for over in BOTH {
            let mut wire = Wire::connect(&lowport, over);
            wire.send(GET);
            let answer = wire.rest_cut();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{over:?}: {answer}");
            assert!(
                answer.contains("content-length: 10\r\n") || !answer.ends_with("0\r\n\r\n"),
                "{over:?} {body:?}: {answer}"
            );
        }
        let mut client = h2(lowport.https).await;
        let answer = client.send_request(get("/")).await.expect("a response");
        let read = http_body_util::BodyExt::collect(answer.into_body()).await;
        let error = read.expect_err("it broke off").to_string();
        assert!(error.contains("error"), "{body:?}: {error}");
        lowport.wait_for("upstream broke off in mid-body");
    }
}

#[test]
fn what_follows_a_response_reaches_nobody() {
    // The second response is one that nobody has asked for.
    let recorder = Recorder::answering(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
            .to_vec()
    });
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        for _ in 0..5 {
            let answer = exchange(&lowport, over, GET);
            assert_eq!(statuses(&answer), [200], "{answer}");
            assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
        }
    }
}

#[test]
fn bytes_on_an_idle_connection_end_it() {
    // Each connection waits for a word before it sends what nobody has asked for, and tells what comes of it.
    let (speak, word) = mpsc::channel();
    let (spoken, heard) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let word = Mutex::new(word);
    let upstream = RawUpstream::handling(move |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let () = word.lock().expect("unpoisoned").recv().expect("a word");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
        let _ = spoken.send(());
        let _ = tell.send(stream.read(&mut [0]));
    });
    // With one pool, so that what is idle would be taken for the next request.
    let lowport = Lowport::with(&Setup {
        server: "redirect_to_https = false\nworkers = 1",
        rest: &upstream.route(),
        args: &[],
    });
    for asked in 1..4 {
        let answer = exchange(&lowport, BOTH[0], GET);
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
        let mut told = told.try_iter();
        assert!(
            !told.any(|read| matches!(read, Ok(1..))),
            "a second request was sent there"
        );
        assert_eq!(upstream.seen().len(), asked);
        speak.send(()).expect("the upstream waits");
        heard.recv_timeout(PATIENCE).expect("it has spoken");
    }
}

#[test]
fn bodiless_means_bodiless() {
    let recorder = Recorder::answering(|request| {
        let path = request
            .head
            .split(' ')
            .nth(1)
            .unwrap_or_default()
            .to_owned();
        match path.as_str() {
            "/204" => "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n".into(),
            "/204-chunked" => {
                "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n".into()
            }
            "/304" => {
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"a\"\r\n\r\n".into()
            }
            "/304-chunked" => {
                "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n".into()
            }
            "/chunked" if request.head.starts_with("HEAD") => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into()
            }
            _ if request.head.starts_with("HEAD") => {
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".into()
            }
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
        }
    });
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        for (line, status) in [
            ("GET /204", 204),
            ("GET /204-chunked", 204),
            ("GET /304", 304),
            ("GET /304-chunked", 304),
            ("HEAD /", 200),
            ("HEAD /chunked", 200),
        ] {
            // What follows on the same connection is the next response, not the body of this one.
            let answer = exchange(
                &lowport,
                over,
                format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n{GET}"),
            );
            assert_eq!(
                statuses(&answer),
                [status, 200],
                "{over:?} {line}: {answer}"
            );
            let (first, second) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(second.starts_with("HTTP/1.1 200 "), "{line}: {answer}");
            assert!(second.ends_with("hello"), "{line}: {answer}");
            if status == 204 {
                assert!(!first.contains("content-length"), "{first}");
                assert!(!first.contains("transfer-encoding"), "{first}");
            }
        }
    }
    let head = curl(&lowport, "/", &["--http2", "-I"]);
    assert!(head.contains("content-length: 5"), "{head}");
}

#[test]
fn http10_clients_get_what_they_understand() {
    let recorder = Recorder::answering(|request| {
        if request.head.starts_with("GET /interim") {
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()
        } else {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_vec()
        }
    });
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        for path in ["/chunked", "/interim"] {
            let answer = exchange(&lowport, over, format!("GET {path} HTTP/1.0\r\n\r\n"));
            assert_eq!(
                statuses(&answer.replace("HTTP/1.0 ", "HTTP/1.1 ")),
                [200],
                "{answer}"
            );
            assert!(!answer.contains("transfer-encoding"), "{answer}");
            assert!(answer.ends_with("\r\n\r\nok"), "{over:?}: {answer}");
        }
    }
    assert!(
        recorder
            .requests()
            .iter()
            .all(|request| request.head.contains(" HTTP/1.1\r\n")),
        "the upstream is spoken to in 1.1 all the same"
    );
}

#[test]
fn a_client_that_says_that_it_is_done_is_not_waited_for() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        let mut stream = raw::connect(lowport.http);
        stream.write_all(request.as_bytes()).unwrap();
        assert!(raw::read_all(&mut stream).contains(" 200 "), "{request}");
        // Whoever still listened would read this; a socket that is closed resets the connection.
        stream.write_all(b"x").unwrap();
        let error = until("a reset", || stream.take_error().unwrap());
        assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{request}");
    }
}

#[test]
fn an_upload_that_is_aborted_never_looks_complete_upstream() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        for framing in [
            "Content-Length: 10\r\n\r\n12345",
            "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        ] {
            let before = recorder.requests().len();
            let mut wire = Wire::connect(&lowport, over);
            wire.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}"));
            // It is on its way when its head and the beginning of its body are there.
            until("the beginning of the upload", || {
                let bytes = String::from_utf8_lossy(&recorder.bytes()).into_owned();
                (bytes.matches("12345").count() > before).then_some(())
            });
            drop(wire);
            let broken = until("the end of the upload", || {
                recorder.requests().get(before).cloned()
            });
            assert_eq!(broken.body, None, "{over:?} {framing:?}: {broken:?}");
        }
    }
}

#[test]
fn a_body_that_is_too_large_is_not_tried_again_without_its_beginning() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&format!(
        "[limits]\nrequest_body = 10\n{}",
        recorder.route()
    ));
    for over in BOTH {
        // Leaves an idle connection, which is where another attempt would be allowed.
        exchange(&lowport, over, GET);
        let before = recorder.requests().len();
        let answer = exchange(
            &lowport,
            over,
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n0\r\n\r\n",
        );
        assert_eq!(statuses(&answer), [413], "{over:?}: {answer}");
        let whole = |request: &crate::support::recorder::Recorded| request.body.is_some();
        assert!(!recorder.requests()[before..].iter().any(whole), "{over:?}");
    }
}

#[tokio::test]
async fn an_upload_goes_on_while_its_answer_comes() {
    // The answer's head is there before the upload has ended, and the upstream reads on.
    let upstream = RawUpstream::handling(|_, stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
        );
        let mut rest = 4 << 20;
        let mut buffer = [0; 65536];
        while rest > 0 {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => rest -= count.min(rest),
            }
        }
        let _ = stream.write_all(b"3\r\nall\r\n0\r\n\r\n");
        let _ = stream.read(&mut buffer);
    });
    let lowport = Lowport::start(&upstream.route());
    let body = crate::support::client::full(vec![b'x'; 4 << 20]);
    let request = crate::support::client::request_h2("POST", "/", body);
    let answer = h2(lowport.https)
        .await
        .send_request(request)
        .await
        .expect("a response");
    assert_eq!(text(answer).await, "all");
    for over in BOTH {
        let mut wire = Wire::connect(&lowport, over);
        wire.send(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4194304\r\n\r\n",
        );
        wire.send(vec![b'x'; 4 << 20]);
        let answer = wire.rest();
        assert!(
            answer.ends_with("3\r\nall\r\n0\r\n\r\n"),
            "{over:?}: {answer}"
        );
    }
}
