//! Limits: whoever goes past one is told which, finds it in the log, and harms nobody else.

use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;

use super::{BOTH, Over, Wire, exchange, statuses};
use crate::support::client::{get, h1, request_h2, text, tls};
use crate::support::lowport::Setup;
use crate::support::raw::{self, RawUpstream};
use crate::support::recorder::Recorder;
use crate::support::{Lowport, PATIENCE, client, until};

const HELLO: &str = "[[route]]\nrespond = \"hello\"\n";

fn ask(stream: &mut TcpStream) -> String {
    write!(
        stream,
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    )
    .expect("sent");
    raw::read_all(stream)
}

#[test]
fn a_body_that_is_too_large_is_413_also_to_a_client_that_goes_on_sending() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&format!(
        "[limits]\nrequest_body = \"1KiB\"\n{}",
        recorder.route()
    ));
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    for over in BOTH {
        for (how, part) in [
            ("Content-Length: 10000000", "x".repeat(1024)),
            ("Transfer-Encoding: chunked", chunk.clone()),
            ("Content-Length: 2000", "x".repeat(2000)),
        ] {
            let mut wire = Wire::connect(&lowport, over);
            wire.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{how}\r\n\r\n"));
            // Well past the limit, and past what lowport reads of a body that nobody wants.
            let times = if how.ends_with("2000") { 1 } else { 1000 };
            for _ in 0..times {
                wire.send(&part);
            }
            let told = wire.answer();
            assert_eq!(statuses(&told), [413], "{over:?} {how}: {told}");
            assert!(told.contains("limits.request_body "), "{told}");
        }
    }
    let line = lowport.wait_for("reason=\"request body over limits.request_body (1024 bytes)\"");
    assert!(line.contains("\"POST / HTTP/1.1\" 413 "), "{line}");
    assert!(
        recorder
            .requests()
            .iter()
            .all(|request| request.body.is_none()),
        "none of them may look complete"
    );
    let fits = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1024\r\n\r\n{}",
        "x".repeat(1024)
    );
    assert_eq!(statuses(&exchange(&lowport, Over::Plain, fits)), [200]);
}

#[tokio::test]
async fn over_http2_a_body_that_is_too_large_is_413_too() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&format!(
        "[limits]\nrequest_body = \"1KiB\"\n{}",
        recorder.route()
    ));
    let stream = tls(lowport.https, "localhost", &[b"h2"]).await;
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for declared in [None, Some("2000"), Some("10000000")] {
        let mut request = http::Request::post("https://localhost/");
        if let Some(length) = declared {
            request = request.header("content-length", length);
        }
        client = client.ready().await.unwrap();
        let (response, mut body) = client
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        // And no end: the client is still sending.
        body.send_data(Bytes::from(vec![b'x'; 1500]), false)
            .unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 413, "{declared:?}");
        let mut told = Vec::new();
        let mut page = response.into_body();
        while let Some(data) = page.data().await {
            told.extend_from_slice(&data.unwrap());
        }
        let told = String::from_utf8(told).unwrap();
        assert!(told.contains("limits.request_body "), "{told}");
    }
    // The connection goes on.
    let get = http::Request::get("https://localhost/").body(()).unwrap();
    let (response, _) = client
        .ready()
        .await
        .unwrap()
        .send_request(get, true)
        .unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
}

#[test]
fn whoever_asks_too_often_is_told_when_to_come_again() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&format!(
        "[limits]\nrequest_rate = \"2/h\"\n{}\
         [[route]]\npath = \"/own\"\nrespond = \"own\"\n[route.limits]\nrequest_rate = \"1/m\"\n\
         [[route]]\npath = \"/free\"\nrespond = \"free\"\n[route.limits]\nrequest_rate = 0\n\
         [[route]]\npath = \"/other\"\nrespond = \"other\"\n",
        recorder.route()
    ));
    let mut wire = Wire::connect(&lowport, Over::Plain);
    let mut asked = |path: &str| {
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        wire.answer()
    };
    assert_eq!(statuses(&asked("/")), [200]);
    // Routes without a rate of their own are counted together.
    assert_eq!(statuses(&asked("/other")), [200]);
    let told = asked("/");
    assert_eq!(statuses(&told), [429], "{told}");
    assert!(told.contains("limits.request_rate"), "{told}");
    let wait: u64 = told
        .lines()
        .find_map(|line| line.strip_prefix("retry-after: "))
        .expect("a time")
        .parse()
        .expect("seconds");
    assert!((1700..=1800).contains(&wait), "{wait}");
    assert_eq!(statuses(&asked("/own")), [200]);
    assert_eq!(statuses(&asked("/own")), [429]);
    for _ in 0..5 {
        assert_eq!(statuses(&asked("/free")), [200]);
    }
    // Over whatever connection, protocol and worker.
    for _ in 0..4 {
        let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert_eq!(statuses(&exchange(&lowport, Over::Tls, head)), [429]);
    }
    lowport.wait_for("reason=\"more requests than limits.request_rate (2/h, 2 at once)\"");
    assert_eq!(recorder.requests().len(), 1, "the app is not asked");
    let mut other = raw::connect_from_elsewhere(lowport.http);
    assert_eq!(statuses(&ask(&mut other)), [200], "another client");
}

#[test]
fn behind_a_trusted_proxy_the_client_is_who_that_says() {
    let config = |trusted: &str| {
        Lowport::with(&Setup {
            server: &format!("redirect_to_https = false\ntrusted_proxies = {trusted}"),
            rest: &format!("[limits]\nrequest_rate = \"1/h\"\n{HELLO}"),
            args: &[],
        })
    };
    let lowport = config("[\"127.0.0.1\"]");
    let asked = |lowport: &Lowport, claim: &str| {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: {claim}\r\n\r\n"
        );
        statuses(&exchange(lowport, Over::Plain, head))
    };
    assert_eq!(asked(&lowport, "192.0.2.1"), [200]);
    assert_eq!(asked(&lowport, "192.0.2.2"), [200]);
    assert_eq!(asked(&lowport, "192.0.2.1"), [429]);
    assert_eq!(asked(&lowport, "6.6.6.6, 192.0.2.1"), [429]);
    assert_eq!(asked(&lowport, "2001:db8::1"), [200]);
    assert_eq!(asked(&lowport, "2001:db8::2"), [429], "the same /64");
    // Whoever is not trusted is itself, whatever it claims.
    let lowport = config("[\"10.0.0.0/8\"]");
    assert_eq!(asked(&lowport, "192.0.2.1"), [200]);
    assert_eq!(asked(&lowport, "192.0.2.2"), [429]);
}

#[test]
fn a_reload_that_raises_the_rate_holds_at_once() {
    let rest = |rate: &str| format!("[limits]\nrequest_rate = \"{rate}\"\n{HELLO}");
    let lowport = Lowport::start(&rest("1/h"));
    let asked = || statuses(&ask(&mut raw::connect(lowport.http)));
    assert_eq!(asked(), [200]);
    assert_eq!(asked(), [429]);
    lowport.rewrite(&Setup {
        server: "redirect_to_https = false",
        rest: &rest("1000/s"),
        args: &[],
    });
    until("the new rate", || (asked() == [200]).then_some(()));
    assert_eq!(asked(), [200]);
}

#[test]
fn a_connection_ends_after_its_last_request() {
    let recorder = Recorder::start();
    for route in [HELLO.to_owned(), recorder.route()] {
        let lowport = Lowport::start(&format!("[limits]\nrequests_per_connection = 3\n{route}"));
        for over in BOTH {
            let mut wire = Wire::connect(&lowport, over);
            for last in [false, false, true] {
                wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                let told = wire.answer();
                assert_eq!(statuses(&told), [200]);
                assert_eq!(
                    told.contains("connection: close\r\n"),
                    last,
                    "{over:?} {told}"
                );
            }
            assert_eq!(wire.rest(), "", "{over:?}");
        }
    }
}

#[tokio::test]
async fn an_http2_connection_says_goodbye_and_answers_all_that_it_has_taken() {
    let lowport = Lowport::start(&format!("[limits]\nrequests_per_connection = 3\n{HELLO}"));
    let stream = tls(lowport.https, "localhost", &[b"h2"]).await;
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    for _ in 0..3 {
        client = client.ready().await.unwrap();
        let get = http::Request::get("https://localhost/").body(()).unwrap();
        let (response, _) = client.send_request(get, true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "hello");
    }
    // Though the client would have gone on. Its own goodbye may come too late.
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    if let Err(error) = ended.expect("it ends").unwrap() {
        assert!(
            error.is_io() || error.reason() == Some(h2::Reason::NO_ERROR),
            "{error:?}"
        );
    }
    assert!(client.ready().await.is_err());
    assert_eq!(
        text(h1(lowport.http).await.send_request(get("/")).await.unwrap()).await,
        "hello"
    );
}

#[tokio::test]
async fn streams_at_a_time_are_as_many_as_are_announced() {
    let upstream = RawUpstream::handling(|_, stream| {
        // Until lowport gives up.
        let _ = stream.read(&mut [0]);
    });
    let lowport = Lowport::start(&format!("[limits]\nstreams = 3\n{}", upstream.route()));
    let stream = tls(lowport.https, "localhost", &[b"h2"]).await;
    let (mut client, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut ping = connection.ping_pong().expect("the only one");
    let connection = tokio::spawn(connection);
    ping.ping(h2::Ping::opaque()).await.unwrap();
    assert_eq!(client.current_max_send_streams(), 3);
    let mut held = Vec::new();
    for _ in 0..3 {
        client = client.ready().await.unwrap();
        let get = http::Request::get("https://localhost/").body(()).unwrap();
        held.push(client.send_request(get, true).unwrap().0);
    }
    tokio::task::spawn_blocking(move || {
        until("three upstream", || {
            (upstream.seen().len() == 3).then_some(())
        })
    })
    .await
    .unwrap();
    connection.abort();
}

#[test]
fn a_client_with_too_many_connections_is_told_and_others_come_in() {
    let lowport = Lowport::start(&format!("[limits]\nconnections_per_ip = 2\n{HELLO}"));
    let mut inside: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = raw::connect(lowport.http);
            write!(stream, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
            raw::read_head(&mut stream).unwrap();
            stream
        })
        .collect();
    let told = ask(&mut raw::connect(lowport.http));
    assert_eq!(statuses(&told), [429], "{told}");
    assert!(told.contains("limits.connections_per_ip"), "{told}");
    assert!(told.contains("retry-after: 1\r\n"), "{told}");
    let line = lowport.wait_for("limits.connections_per_ip");
    assert!(line.contains("\"GET / HTTP/1.1\" 429 "), "{line}");
    // TLS would take a handshake first: it is just closed. So is whoever asks nothing.
    for port in [lowport.https, lowport.http] {
        assert_eq!(raw::read_all(&mut raw::connect(port)), "");
    }
    let mut other = raw::connect_from_elsewhere(lowport.http);
    assert_eq!(statuses(&ask(&mut other)), [200], "another client");
    inside.pop();
    until("a place", || {
        (statuses(&ask(&mut raw::connect(lowport.http))) == [200]).then_some(())
    });
}

#[test]
fn a_trusted_proxy_may_have_as_many_connections_as_it_likes() {
    let lowport = Lowport::with(&Setup {
        server: "redirect_to_https = false\ntrusted_proxies = [\"127.0.0.1\"]",
        rest: &format!("[limits]\nconnections_per_ip = 1\n{HELLO}"),
        args: &[],
    });
    let held: Vec<TcpStream> = (0..3).map(|_| raw::connect(lowport.http)).collect();
    assert_eq!(statuses(&ask(&mut raw::connect(lowport.http))), [200]);
    drop(held);
}

#[tokio::test]
async fn a_route_may_take_larger_bodies_than_others() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&format!(
        "[limits]\nrequest_body = 10\n{}[[route]]\npath = \"/big\"\nupstream = \"recorder\"\n\
         [route.limits]\nrequest_body = 100\n",
        recorder.route()
    ));
    let mut sender = client::h2(lowport.https).await;
    for (path, size, status) in [("/", 11, 413), ("/big", 100, 200), ("/big", 101, 413)] {
        let body = client::full(vec![b'x'; size]);
        let response = sender.send_request(request_h2("POST", path, body)).await;
        assert_eq!(response.unwrap().status(), status, "{path} {size}");
    }
}
