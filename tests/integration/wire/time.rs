//! Time: each phase has its own, whoever is late is told, and whoever only waits for somebody else is not late.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::block_in_place;

use super::{BOTH, Over, UPGRADE, UPGRADED, Wire, statuses};
use crate::support::client::{curl, tls};
use crate::support::peer::Peer;
use crate::support::raw::{self, RawUpstream};
use crate::support::recorder::Recorder;
use crate::support::{Lowport, until};

/// Long enough for a busy machine not to be late itself.
const SOON: &str = "500ms";

fn lowport(timeouts: &str, limits: &str, route: &str) -> Lowport {
    Lowport::start(&format!(
        "[timeouts]\n{timeouts}\n[limits]\n{limits}\n{route}"
    ))
}

/// A route to a peer of this process.
fn to(peer: &Peer) -> String {
    format!(
        "[upstream.peer]\npeers = \"127.0.0.1:{}\"\nexpect_user = \"any\"\n[[route]]\nupstream = \"peer\"\n",
        peer.port
    )
}

#[test]
fn a_head_that_does_not_come_is_408() {
    let lowport = lowport(
        &format!("request_head = \"{SOON}\""),
        "",
        "[[route]]\nrespond = \"x\"\n",
    );
    for over in BOTH {
        let mut wire = Wire::connect(&lowport, over);
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n");
        let told = wire.rest();
        assert_eq!(statuses(&told), [408], "{over:?}: {told}");
        assert!(told.contains("timeouts.request_head"), "{told}");
    }
    lowport.wait_for("reason=\"The request's head did not arrive within timeouts.request_head.\"");
}

#[test]
fn a_body_that_stops_is_408_and_incomplete_upstream() {
    let recorder = Recorder::start();
    let lowport = lowport(
        &format!("request_body_idle = \"{SOON}\""),
        "",
        &recorder.route(),
    );
    let mut late = Vec::new();
    for over in BOTH {
        for (how, part) in [
            ("Content-Length: 10", "abc"),
            ("Transfer-Encoding: chunked", "3\r\nabc\r\n"),
        ] {
            let mut wire = Wire::connect(&lowport, over);
            wire.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{how}\r\n\r\n{part}"));
            late.push((over, how, wire));
        }
    }
    for (over, how, mut wire) in late {
        let told = wire.rest();
        assert_eq!(statuses(&told), [408], "{over:?} {how}: {told}");
        assert!(told.contains("timeouts.request_body_idle"), "{told}");
    }
    lowport.wait_for("request body idle for timeouts.request_body_idle (500ms)");
    for request in recorder.requests() {
        assert_eq!(request.body, None, "{request:?}");
    }
}

#[tokio::test]
async fn over_http2_a_body_that_stops_is_408_too() {
    let recorder = Recorder::start();
    let lowport = lowport(
        &format!("request_body_idle = \"{SOON}\""),
        "",
        &recorder.route(),
    );
    let stream = tls(lowport.https, "localhost", &[b"h2"]).await;
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let post = http::Request::post("https://localhost/").body(()).unwrap();
    let (response, mut body) = client.send_request(post, false).unwrap();
    body.send_data(Bytes::from_static(b"abc"), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 408);
    let page = response.into_body().data().await.unwrap().unwrap();
    let page = String::from_utf8_lossy(&page).into_owned();
    assert!(page.contains("timeouts.request_body_idle"), "{page}");
}

/// Sends `piece` again and again with a pause in between, until it is answered or all of it is sent. Returns the answer, and
/// how often it was sent.
fn drip(lowport: &Lowport, head: &str, piece: &str, times: usize) -> (String, usize) {
    let mut stream = raw::connect(lowport.http);
    stream.write_all(head.as_bytes()).expect("sent");
    let pause = Some(Duration::from_millis(50));
    stream.set_read_timeout(pause).expect("a timeout");
    let mut sent = 0;
    while sent < times {
        // The other side may have closed by now.
        let _ = stream.write_all(piece.as_bytes());
        sent += 1;
        match stream.peek(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => break,
        }
    }
    stream
        .set_read_timeout(Some(crate::support::PATIENCE))
        .expect("a timeout");
    let _ = stream.shutdown(std::net::Shutdown::Write);
    (raw::read_all(&mut stream), sent)
}

#[test]
fn a_body_that_drips_is_408_long_before_its_end() {
    let recorder = Recorder::start();
    let lowport = lowport(
        &format!("request_body_idle = \"{SOON}\""),
        "request_body_rate = \"1KiB/s\"",
        &recorder.route(),
    );
    for (how, piece) in [
        ("Content-Length: 1000", "x"),
        ("Transfer-Encoding: chunked", "1\r\nx\r\n"),
    ] {
        let head = format!("POST /slow HTTP/1.1\r\nHost: a\r\n{how}\r\n\r\n");
        // Each byte comes in time.
        let (told, sent) = drip(&lowport, &head, piece, 400);
        assert_eq!(statuses(&told), [408], "{how}: {told}");
        assert!(told.contains("limits.request_body_rate"), "{told}");
        assert!(sent < 400, "it was let finish");
    }
    lowport.wait_for("request body slower than limits.request_body_rate (1024 bytes/s)");
    // Ten times as fast as it must be, and no faster.
    let head =
        "POST /fine HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 12000\r\n\r\n";
    let (told, _) = drip(&lowport, head, &"x".repeat(600), 20);
    assert_eq!(statuses(&told), [200], "{told}");
}

#[test]
fn a_route_may_let_bodies_come_as_slowly_as_they_like() {
    let recorder = Recorder::start();
    let route = format!(
        "{}[route.limits]\nrequest_body_rate = 0\n",
        recorder.route()
    );
    let lowport = lowport(
        &format!("request_body_idle = \"{SOON}\""),
        "request_body_rate = \"1KiB/s\"",
        &route,
    );
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 30\r\n\r\n";
    let (told, _) = drip(&lowport, head, "x", 30);
    assert_eq!(statuses(&told), [200], "{told}");
}

#[test]
fn a_client_is_not_late_while_the_upstream_does_not_read() {
    const SIZE: usize = 30 << 20;
    let upstream = RawUpstream::handling(|_, stream| {
        // Much longer than the client may take.
        std::thread::sleep(Duration::from_millis(1500));
        let mut body = vec![0; SIZE];
        stream.read_exact(&mut body).expect("all of it");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    let lowport = lowport(
        &format!("request_body_idle = \"{SOON}\""),
        "request_body_rate = \"1MiB/s\"",
        &upstream.route(),
    );
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n"
    );
    let mut stream = raw::connect(lowport.http);
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b'x'; SIZE]).unwrap();
    assert_eq!(statuses(&raw::read_all(&mut stream)), [200]);
}

#[test]
fn an_upstream_that_does_not_answer_is_504() {
    let upstream = RawUpstream::handling(|_, stream| {
        let _ = stream.read(&mut [0]);
    });
    let lowport = lowport(
        &format!("upstream_response = \"{SOON}\""),
        "",
        &upstream.route(),
    );
    for over in BOTH {
        let mut wire = Wire::connect(&lowport, over);
        wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let told = wire.rest();
        assert_eq!(statuses(&told), [504], "{told}");
        assert!(told.contains("timeouts.upstream_response"), "{told}");
    }
    let told = curl(&lowport, "/", &["--http2", "-w%{http_code}"]);
    assert!(
        told.contains("timeouts.upstream_response") && told.ends_with("504"),
        "{told}"
    );
}

#[test]
fn an_upstream_whose_queue_is_full_is_504() {
    // Nobody accepts, and the kernel takes one or two on its own.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    let short = Duration::from_millis(200);
    let _queue: Vec<TcpStream> =
        std::iter::from_fn(|| TcpStream::connect_timeout(&addr, short).ok()).collect();
    let lowport = lowport(
        &format!("upstream_connect = \"{SOON}\""),
        "",
        &format!("[[route]]\nto = \"http://{addr}\"\n"),
    );
    let mut wire = Wire::connect(&lowport, Over::Plain);
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let told = wire.rest();
    assert_eq!(statuses(&told), [504], "{told}");
    assert!(told.contains("timeouts.upstream_connect"), "{told}");
}

/// A connection whose kernel takes little on its own account.
fn narrow(port: u16) -> TcpStream {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a size");
    let lowport = SocketAddr::from(([127, 0, 0, 1], port));
    socket.connect(&lowport.into()).expect("connected");
    socket
        .set_read_timeout(Some(crate::support::PATIENCE))
        .expect("a timeout");
    socket.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_cut_off() {
    let peer = Peer::start(false);
    let lowport = lowport(&format!("response_write_idle = \"{SOON}\""), "", &to(&peer));
    block_in_place(|| {
        let name = "localhost".try_into().unwrap();
        let session =
            rustls::ClientConnection::new(crate::support::certs::client(&[b"http/1.1"]), name);
        let mut plain = narrow(lowport.http);
        let mut secret = rustls::StreamOwned::new(session.unwrap(), narrow(lowport.https));
        let head = b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n";
        plain.write_all(head).unwrap();
        secret.write_all(head).unwrap();
        secret.flush().unwrap();
        let cut = "reason=\"client read nothing for timeouts.response_write_idle\"";
        until("both to be cut off", || {
            let lines = lowport.output();
            let cut = lines.iter().filter(|line| line.contains(cut));
            (cut.count() == 2).then_some(())
        });
        // Nothing is kept for it: not in the kernel either, so that it can be told from an end.
        let mut chunk = [0; 64 * 1024];
        let ended = loop {
            match plain.read(&mut chunk) {
                Ok(0) => break None,
                Ok(_) => {}
                Err(error) => break Some(error.kind()),
            }
        };
        assert_eq!(ended, Some(ErrorKind::ConnectionReset));
        assert_eq!(curl(&lowport, "/small", &[]), "small");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_slowly_gets_all_of_it() {
    let body = "x".repeat(4 << 20);
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let upstream = RawUpstream::answering(answer);
    let lowport = lowport(
        &format!("response_write_idle = \"{SOON}\""),
        "",
        &upstream.route(),
    );
    block_in_place(|| {
        let mut stream = narrow(lowport.http);
        let head = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(head).unwrap();
        let (mut got, mut chunk) = (0, vec![0; 256 * 1024]);
        let start = Instant::now();
        loop {
            let count = stream.read(&mut chunk).unwrap();
            if count == 0 {
                break;
            }
            got += count;
            // At a pace that takes it several times as long as it may stand still.
            let due = Duration::from_millis(got as u64 * 2000 / (4 << 20));
            if let Some(early) = due.checked_sub(start.elapsed()) {
                std::thread::sleep(early);
            }
        }
        assert!(got > body.len(), "{got}");
        assert!(start.elapsed() > Duration::from_millis(1500));
        let slow = [
            "--http2",
            "--limit-rate",
            "2M",
            "-o/dev/null",
            "-w%{size_download}",
        ];
        assert_eq!(curl(&lowport, "/", &slow), body.len().to_string());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_http2_that_reads_nothing_at_all_is_cut_off() {
    const WINDOW: u32 = (1 << 31) - 1;
    let peer = Peer::start(false);
    let lowport = lowport(&format!("response_write_idle = \"{SOON}\""), "", &to(&peer));
    let stream = tls(lowport.https, "localhost", &[b"h2"]).await;
    let (client, mut connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake::<_, Bytes>(stream)
        .await
        .unwrap();
    let asked = async {
        let mut client = client.ready().await.unwrap();
        let get = http::Request::get("https://localhost/endless");
        let (response, _) = client.send_request(get.body(()).unwrap(), true).unwrap();
        (response.await.unwrap(), client)
    };
    // All windows are open, and from now on nobody reads the socket.
    let _held = tokio::select! {
        ended = &mut connection => panic!("{ended:?}"),
        held = asked => held,
    };
    block_in_place(|| {
        lowport.wait_for("reason=\"client read nothing for timeouts.response_write_idle\"");
        assert_eq!(curl(&lowport, "/small", &[]), "small");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_whose_window_stays_shut_is_reset_and_the_others_go_on() {
    let peer = Peer::start(false);
    let lowport = lowport(&format!("response_write_idle = \"{SOON}\""), "", &to(&peer));
    let stream = tls(lowport.https, "localhost", &[b"h2"]).await;
    let (mut client, connection) = h2::client::Builder::new()
        .initial_window_size(10)
        .initial_connection_window_size(1 << 20)
        .handshake::<_, Bytes>(stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut bodies = Vec::new();
    for path in ["/endless", "/endless"] {
        client = client.ready().await.unwrap();
        let get = http::Request::get(format!("https://localhost{path}"));
        let (response, _) = client.send_request(get.body(()).unwrap(), true).unwrap();
        bodies.push(response.await.unwrap().into_body());
    }
    for mut body in bodies {
        // The window is never opened again.
        let error = loop {
            match body.data().await.unwrap() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error:?}");
        assert!(error.is_remote());
    }
    block_in_place(|| {
        lowport.wait_for("reason=\"client read nothing for timeouts.response_write_idle\"");
    });
    client = client.ready().await.unwrap();
    let get = http::Request::get("https://localhost/small")
        .body(())
        .unwrap();
    let (response, _) = client.send_request(get, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "small");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_waits_for_its_upstream_is_not_late() {
    let upstream = RawUpstream::handling(|_, stream| {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nabc";
        let _ = stream.write_all(head);
        std::thread::sleep(Duration::from_millis(1500));
        let _ = stream.write_all(b"def");
    });
    let lowport = lowport(
        &format!("response_write_idle = \"{SOON}\""),
        "",
        &upstream.route(),
    );
    for version in ["--http1.1", "--http2"] {
        let got = block_in_place(|| curl(&lowport, "/", &[version]));
        assert_eq!(got, "abcdef", "{version}");
    }
}

/// An upstream that accepts any websocket and returns each byte.
fn echo() -> RawUpstream {
    RawUpstream::handling(|_, stream| {
        let _ = stream.write_all(UPGRADED);
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|count| count == 1) {
            if stream.write_all(&byte).is_err() {
                break;
            }
        }
    })
}

#[test]
fn a_quiet_tunnel_outlives_the_timeouts_of_requests() {
    let upstream = echo();
    let short = [
        "request_head",
        "request_body_idle",
        "response_write_idle",
        "keepalive_idle",
        "upstream_response",
        "upstream_idle",
    ]
    .map(|key| format!("{key} = \"200ms\"\n"))
    .concat();
    let lowport = lowport(&short, "", &upstream.route());
    for over in BOTH {
        let mut wire = Wire::connect(&lowport, over);
        wire.send(UPGRADE);
        assert!(wire.head().starts_with("HTTP/1.1 101 "));
        std::thread::sleep(Duration::from_millis(1000));
        wire.send("x");
        let mut back = [0];
        wire.exactly(&mut back);
        assert_eq!(&back, b"x", "{over:?}");
    }
}

#[test]
fn a_tunnel_without_a_byte_for_too_long_is_ended() {
    let upstream = echo();
    let route = format!(
        "{}[route.timeouts]\ntunnel_idle = \"{SOON}\"\n",
        upstream.route()
    );
    let lowport = lowport("tunnel_idle = \"1h\"", "", &route);
    for over in BOTH {
        let mut wire = Wire::connect(&lowport, over);
        wire.send(UPGRADE);
        assert!(wire.head().starts_with("HTTP/1.1 101 "));
        // For longer than it may be quiet.
        for _ in 0..10 {
            wire.send("x");
            let mut back = [0];
            wire.exactly(&mut back);
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(wire.rest(), "", "{over:?}");
    }
    lowport.wait_for("reason=\"tunnel quiet for timeouts.tunnel_idle (500ms)\"");
}
