//! What the app sees, what the client gets, and what happens when either goes wrong.

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::Value;

use crate::support::client::{self, curl, full, get, h1, h2, json, request, request_h2, text};
use crate::support::peer::Peer;
use crate::support::raw::{self, RawUpstream};
use crate::support::{Lowport, Node, port, until};

fn field<'a>(echo: &'a Value, name: &str) -> &'a str {
    echo["headers"][name].as_str().unwrap_or_default()
}

#[test]
fn the_app_is_told_who_the_client_is_and_strangers_are_not_believed() {
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    let spoofed = [
        "-HX-Forwarded-For: 6.6.6.6",
        "-HX-Forwarded-Proto: gopher",
        "-HX-Forwarded-Host: evil.example",
        "-HX-Real-IP: 6.6.6.6",
        "-HForwarded: for=6.6.6.6",
        "-HProxy: http://evil.example",
        "-HX_Forwarded_For: 6.6.6.6",
    ];
    for version in ["--http1.1", "--http2"] {
        let args = [&[version][..], &spoofed[..]].concat();
        let echo: Value = serde_json::from_str(&curl(&lowport, "/echo/a?b=c", &args)).unwrap();
        assert_eq!(echo["url"], "/echo/a?b=c", "{version}");
        assert_eq!(field(&echo, "host"), format!("localhost:{}", lowport.https));
        assert_eq!(field(&echo, "x-forwarded-for"), "127.0.0.1");
        assert_eq!(field(&echo, "x-real-ip"), "127.0.0.1");
        assert_eq!(field(&echo, "x-forwarded-proto"), "https");
        assert_eq!(
            field(&echo, "x-forwarded-host"),
            format!("localhost:{}", lowport.https)
        );
        assert_eq!(field(&echo, "x-forwarded-port"), lowport.https.to_string());
        for gone in ["forwarded", "proxy", "x_forwarded_for"] {
            assert!(
                echo["headers"].get(gone).is_none(),
                "{gone} reached the app over {version}"
            );
        }
    }
}

#[test]
fn a_trusted_proxy_is_believed_and_continued() {
    let node = Node::start();
    let lowport = Lowport::with(&crate::support::lowport::Setup {
        server: "redirect_to_https = false\ntrusted_proxies = \"127.0.0.0/8\"",
        rest: &node.route(),
        args: &[],
    });
    let args = [
        "-HX-Forwarded-For: 203.0.113.7",
        "-HX-Forwarded-Proto: https",
        "-HX-Forwarded-Host: shop.example",
    ];
    let url = format!("http://localhost:{}/echo", lowport.http);
    let echo: Value = serde_json::from_str(&curl(&lowport, &url, &args)).unwrap();
    assert_eq!(field(&echo, "x-forwarded-for"), "203.0.113.7, 127.0.0.1");
    assert_eq!(field(&echo, "x-forwarded-proto"), "https");
    assert_eq!(field(&echo, "x-forwarded-host"), "shop.example");
}

#[test]
fn targets_pass_byte_for_byte_and_a_prefix_is_stripped() {
    let upstream = RawUpstream::answering("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
    let routes = format!(
        "{}[[route]]\npath = \"/api\"\nstrip_prefix = \"/api\"\nupstream = \"{}\"\n",
        upstream.route(),
        upstream.name()
    );
    let lowport = Lowport::start(&routes);
    for (sent, arrived) in [
        ("/a%2Fb//c;d=%20?q=%zz&r", "/a%2Fb//c;d=%20?q=%zz&r"),
        ("/api/x%2Fy?z", "/x%2Fy?z"),
        ("/api", "/"),
        ("/api?q", "/?q"),
        ("/apix", "/apix"),
        ("http://localhost/abs?q", "/abs?q"),
    ] {
        let before = upstream.seen().len();
        let answer = raw::exchange(
            lowport.http,
            format!("GET {sent} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
        );
        assert!(answer.starts_with("HTTP/1.1 204"), "{sent}: {answer}");
        let head = upstream.seen().get(before).cloned().expect("it arrived");
        assert!(
            head.starts_with(&format!("GET {arrived} HTTP/1.1\r\n")),
            "{sent}: {head}"
        );
    }
}

#[test]
fn hop_by_hop_fields_stop_here_in_both_directions() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 200 OK\r\nconnection: x-secret, close\r\nx-secret: 1\r\nkeep-alive: timeout=9\r\nproxy-connection: x\r\n\
         upgrade: h2c\r\nx-kept: 1\r\ncontent-length: 2\r\n\r\nok",
    );
    let lowport = Lowport::start(&upstream.route());
    let answer = raw::exchange(
        lowport.http,
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close, x-mine, x-forwarded-for\r\nx-mine: 1\r\nkeep-alive: 1\r\n\
         te: gzip, trailers\r\nupgrade: h2c\r\nx-kept: 1\r\n\r\n",
    );
    let head = upstream.first().to_ascii_lowercase();
    for gone in ["x-mine", "keep-alive", "upgrade", "gzip"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    for kept in ["x-kept: 1", "te: trailers", "x-forwarded-for: 127.0.0.1"] {
        assert!(head.contains(kept), "{kept} not in {head}");
    }
    let answer = answer.to_ascii_lowercase();
    for gone in ["x-secret", "keep-alive", "proxy-connection", "upgrade"] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
    assert!(
        answer.contains("x-kept: 1") && answer.ends_with("\r\n\r\nok"),
        "{answer}"
    );
}

#[test]
fn bodies_of_every_framing_arrive_whole() {
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    let folder = crate::support::folder();
    let file = folder.path().join("body");
    std::fs::write(&file, vec![b'x'; 3_000_000]).unwrap();
    let data = format!("@{}", file.display());
    for args in [
        &["--http1.1"][..],
        &["--http1.1", "-HTransfer-Encoding: chunked"],
        &["--http2"],
    ] {
        let args = [args, &["-HExpect:", "-XPOST", "--data-binary", &data]].concat();
        let done: Value = serde_json::from_str(&curl(&lowport, "/upload", &args)).unwrap();
        assert_eq!(done["bytes"], 3_000_000, "{args:?}");
        for url in [
            "/download?bytes=3000000",
            "/download?bytes=3000000&chunked=1",
        ] {
            let size = curl(
                &lowport,
                url,
                &[args[0], "-o/dev/null", "-w", "%{size_download}"],
            );
            assert_eq!(size, "3000000", "{args:?} {url}");
        }
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    use http_body::Frame;
    use http_body_util::StreamBody;
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    let mut sender = h2(lowport.https).await;
    let mut fields = http::HeaderMap::new();
    fields.insert("x-sum", http::HeaderValue::from_static("7"));
    let frames = [
        Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from("body"))),
        Ok(Frame::trailers(fields)),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames))
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut asked = request_h2("POST", "/trailers", body);
    asked
        .headers_mut()
        .insert("trailer", http::HeaderValue::from_static("x-sum"));
    asked
        .headers_mut()
        .insert("te", http::HeaderValue::from_static("trailers"));
    let response = sender.send_request(asked).await.unwrap();
    let whole = response.into_body().collect().await.unwrap();
    assert!(
        whole
            .trailers()
            .is_some_and(|trailers| trailers.contains_key("x-checksum")),
        "{whole:?}"
    );
    let echo: Value = serde_json::from_slice(&whole.to_bytes()).unwrap();
    assert_eq!(echo["trailers"]["x-sum"], "7", "{echo}");
}

#[tokio::test]
async fn trailers_say_nothing_that_a_head_says_to_a_peer_of_http2_either() {
    let peer = Peer::start(true);
    let lowport = Lowport::start(&format!(
        "[upstream.h2]\npeers = \"h2c://127.0.0.1:{}\"\nexpect_user = \"any\"\n[[route]]\nupstream = \"h2\"\n",
        peer.port
    ));
    let mut sender = h2(lowport.https).await;
    let fields = [
        "x-sum",
        "host",
        "content-length",
        "x-forwarded-for",
        "x_sum",
    ]
    .map(|name| {
        let name = http::HeaderName::from_static(name);
        (name, http::HeaderValue::from_static("7"))
    });
    let fields = async move { Some(Ok(fields.into_iter().collect())) };
    let body = full("body").with_trailers(fields).boxed_unsync();
    let asked = request_h2("POST", "/trailers", body);
    let response = sender.send_request(asked).await.unwrap();
    let whole = response.into_body().collect().await.unwrap();
    let own = whole.trailers().expect("trailers").clone();
    let names: Vec<_> = own.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["x-sum"]);
    let seen = whole.to_bytes();
    assert_eq!(seen, "Some({\"x-sum\": \"7\"})");
}

#[test]
fn bodiless_answers_have_no_body_and_the_connection_goes_on() {
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    let mut stream = raw::connect(lowport.http);
    for (method, path, status) in [
        ("HEAD", "/echo", "200"),
        ("GET", "/status/204", "204"),
        ("GET", "/status/304", "304"),
        ("GET", "/health", "200"),
    ] {
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"
        )
        .unwrap();
        let head = raw::read_head(&mut stream).expect("a head");
        let head = String::from_utf8(head).unwrap();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}")),
            "{method} {path}: {head}"
        );
        assert!(
            !head.to_ascii_lowercase().contains("transfer-encoding"),
            "{method} {path}: {head}"
        );
    }
}

#[tokio::test]
async fn an_informational_response_passes_and_100_continue_is_the_apps_word() {
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    // The body is only sent when the app has asked for it.
    let mut stream = raw::connect(lowport.http);
    let head = "POST /upload HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let first = raw::read_head(&mut stream).expect("a head");
    assert!(
        first.starts_with(b"HTTP/1.1 100"),
        "{}",
        String::from_utf8_lossy(&first)
    );
    stream.write_all(b"hello").unwrap();
    let second = raw::read_head(&mut stream).expect("a head");
    assert!(
        second.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&second)
    );
    // Where it refuses, the client learns so without sending a body.
    let mut stream = raw::connect(lowport.http);
    let head = head.replace("/upload", "/upload?expect=refuse");
    stream.write_all(head.as_bytes()).unwrap();
    let first = String::from_utf8(raw::read_head(&mut stream).expect("a head")).unwrap();
    assert!(
        first.starts_with("HTTP/1.1 417") || first.starts_with("HTTP/1.1 401"),
        "{first}"
    );
}

#[test]
fn an_early_refusal_reaches_a_client_in_mid_upload() {
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    let mut stream = raw::connect(lowport.http);
    let head =
        "POST /upload?limit=10 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let _ = stream.write_all(&[b'x'; 1000]);
    let answer = String::from_utf8(raw::read_head(&mut stream).expect("an answer")).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn what_breaks_off_upstream_never_looks_complete() {
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    for path in ["/fail/cut?bytes=1000", "/fail/cut?chunked=1"] {
        let response = h1(lowport.http)
            .await
            .send_request(get(path))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert!(
            response.into_body().collect().await.is_err(),
            "{path} over HTTP/1.1"
        );
        let mut sender = h2(lowport.https).await;
        let response = sender
            .send_request(request_h2("GET", path, client::empty()))
            .await
            .unwrap();
        assert!(
            response.into_body().collect().await.is_err(),
            "{path} over HTTP/2"
        );
    }
}

#[test]
fn broken_upstreams_are_502_slow_ones_504_and_the_log_says_why() {
    let node = Node::start();
    let nobody = port();
    let lowport = Lowport::start(&format!(
        "[timeouts]\nupstream_response = \"300ms\"\n{}[[route]]\npath = \"/nobody\"\nto = \"http://127.0.0.1:{nobody}\"\n",
        node.route()
    ));
    for (path, status, reason) in [
        ("/fail/reset", "502", "closed the connection"),
        ("/fail/garbage", "502", "malformed"),
        ("/fail/hang", "504", "timeouts.upstream_response"),
        ("/nobody", "502", "upstream connect"),
    ] {
        let page = curl(
            &lowport,
            path,
            &["-HAccept: application/json", "-w", "\n%{http_code}"],
        );
        let (page, code) = page.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(code, status, "{path}: {page}");
        let page: Value = serde_json::from_str(page).unwrap();
        let id = page["request_id"].as_str().unwrap();
        assert!(
            !page.to_string().contains("127.0.0.1"),
            "an address leaks: {page}"
        );
        let line = lowport.wait_for(&format!("id={id}"));
        let lines = lowport.output();
        assert!(
            lines
                .iter()
                .any(|line| line.contains(id) && line.contains(reason)),
            "{path}: {reason} not in {line}"
        );
    }
    let page = curl(&lowport, "/fail/reset", &["-HAccept: text/html"]);
    assert!(
        page.starts_with("<!doctype html>") && page.contains("request id"),
        "{page}"
    );
}

#[test]
fn nothing_that_matches_is_404_without_naming_routes() {
    let node = Node::start();
    let lowport = Lowport::start(&format!(
        "[[route]]\npath = \"/app\"\nto = \"http://127.0.0.1:{}\"\n",
        node.port
    ));
    let page = curl(&lowport, "/other", &["-w", "\n%{http_code}"]);
    assert!(page.ends_with("\n404") && !page.contains("/app"), "{page}");
}

#[test]
fn a_client_that_leaves_ends_the_exchange_at_once() {
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    let mut stream = raw::connect(lowport.http);
    write!(
        stream,
        "GET /slow?ms=60000 HTTP/1.1\r\nhost: localhost\r\n\r\n"
    )
    .unwrap();
    let mut events = raw::connect(lowport.http);
    write!(events, "GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    raw::read_head(&mut events).expect("events begin");
    drop((stream, events));
    until("the app to learn of both", || {
        let log = curl(&lowport, "/abort-log", &[]);
        (log.contains("/slow?ms=60000") && log.contains("/events")).then_some(())
    });
}

#[test]
fn events_pass_one_by_one() {
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    let mut stream = raw::connect(lowport.http);
    write!(
        stream,
        "GET /events?interval=3600000 HTTP/1.1\r\nhost: localhost\r\n\r\n"
    )
    .unwrap();
    let head = raw::read_head(&mut stream).expect("the head comes before the first event");
    assert!(String::from_utf8_lossy(&head).contains("text/event-stream"));
    // Whatever the app writes first arrives although nothing follows for an hour.
    let mut chunk = [0; 512];
    assert!(stream.read(&mut chunk).unwrap() > 0);
}

#[test]
fn a_stale_connection_is_replaced_for_what_may_be_repeated() {
    // Node gives up an idle connection at once; the pool must not trip over that.
    let node = Node::start_with(port(), &[("KEEP_ALIVE_TIMEOUT", "1")]);
    let lowport = Lowport::start(&node.route());
    for _ in 0..50 {
        assert_eq!(
            curl(&lowport, "/health", &["-o/dev/null", "-w", "%{http_code}"]),
            "200"
        );
    }
}

#[test]
fn a_post_is_never_sent_twice() {
    // The first request is answered; the second finds the connection alive, is read whole, and then it dies.
    let upstream = RawUpstream::handling(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let _ = raw::read_head(stream);
    });
    let lowport = Lowport::start(&upstream.route());
    let mut stream = raw::connect(lowport.http);
    for (method, expected) in [("GET", "200"), ("POST", "502")] {
        write!(
            stream,
            "{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
        )
        .unwrap();
        let head = String::from_utf8(raw::read_head(&mut stream).expect("a head")).unwrap();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {expected}")),
            "{method}: {head}"
        );
        if method == "GET" {
            stream.read_exact(&mut [0; 2]).unwrap();
        }
    }
    assert_eq!(
        upstream.seen().len(),
        1,
        "the POST went over a second connection"
    );
}

#[test]
fn an_idle_get_moves_to_a_fresh_connection() {
    let upstream = RawUpstream::handling(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let _ = raw::read_head(stream);
    });
    let lowport = Lowport::start(&upstream.route());
    let mut stream = raw::connect(lowport.http);
    for _ in 0..2 {
        write!(stream, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let head = String::from_utf8(raw::read_head(&mut stream).expect("a head")).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        stream.read_exact(&mut [0; 2]).unwrap();
    }
    assert_eq!(upstream.seen().len(), 2);
}

#[tokio::test]
async fn a_reader_that_stalls_holds_the_app_back() {
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    let response = h1(lowport.http)
        .await
        .send_request(get("/download?bytes=300000000"))
        .await
        .unwrap();
    let before = lowport.memory();
    let mut body = response.into_body();
    let mut read = 0;
    // Read a little, then nothing while the app could write: what lowport holds must not grow.
    while read < 1_000_000 {
        let frame = body.frame().await.unwrap().unwrap();
        read += frame.data_ref().map_or(0, Bytes::len);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let grown = lowport.memory().saturating_sub(before);
    assert!(grown < 20_000, "grew by {grown} KiB");
    // And it all arrives.
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(read, 300_000_000);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_its_name() {
    let node = Node::start();
    let lowport = Lowport::start(&format!(
        "[limits]\nrequest_body = \"1KiB\"\n{}",
        node.route()
    ));
    let declared = h1(lowport.http)
        .await
        .send_request(request("POST", "/upload", full(vec![0; 2000])))
        .await
        .unwrap();
    assert_eq!(declared.status(), 413);
    assert!(text(declared).await.contains("limits.request_body"));
    let mut sender = h2(lowport.https).await;
    let ok = sender
        .send_request(request_h2("POST", "/upload", full(vec![0; 1000])))
        .await
        .unwrap();
    assert_eq!(json(ok).await["bytes"], 1000);
    // Chunked: nobody knows the size beforehand.
    let args = [
        "--http1.1",
        "-HTransfer-Encoding: chunked",
        "-HExpect:",
        "--data-binary",
        &"x".repeat(5000),
        "-w",
        "%{http_code}",
    ];
    let answer = curl(&lowport, "/upload", &args);
    assert!(answer.ends_with("413"), "{answer}");
}

#[test]
fn a_killed_app_under_load_hangs_nobody() {
    let mut node = Node::start();
    let port = node.port;
    let lowport = Lowport::start(&node.route());
    let (http, stop) = (
        lowport.http,
        std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)),
    );
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let stop = std::sync::Arc::clone(&stop);
            std::thread::spawn(move || {
                let (mut good, mut bad) = (0u32, 0u32);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let mut stream = raw::connect(http);
                    let asked =
                        "GET /slow?ms=5 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
                    stream.write_all(asked.as_bytes()).unwrap();
                    let answer = raw::read_all(&mut stream);
                    match answer.get(9..12) {
                        Some("200") => good += 1,
                        Some("502" | "504") => bad += 1,
                        _ => panic!("{answer}"),
                    }
                }
                (good, bad)
            })
        })
        .collect();
    until("some traffic", || {
        (curl(&lowport, "/health", &[]).contains("ok")).then_some(())
    });
    node.kill();
    lowport.wait_for("request failed");
    let _again = Node::start_with(port, &[]);
    until("the app to be back", || {
        curl(&lowport, "/health", &[]).contains("ok").then_some(())
    });
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let totals = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(totals.0 > 64 && totals.1 > 0, "{totals:?}");
}
