//! Whoever does not read holds back whoever writes: nothing piles up in between, and nobody else has to wait.

use std::any::Any;
use std::net::SocketAddr;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::block_in_place;

use super::{grown, report};
use crate::support::Lowport;
use crate::support::client::{curl, h2, request, request_h2, tcp, tls};
use crate::support::lowport::Setup;
use crate::support::peer::{Counter, Endless, Peer};

/// Exchanges that stall at the same time.
const STALLED: usize = 24;
/// KiB that lowport may hold for each of them. Memory comes in steps of 2 MiB, so the figure of a single one says little.
const EACH: u64 = 720;

/// RFC 9113 section 6.5.2.
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// Who does not read a response.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Http1,
    /// Reads its socket, but opens no stream's window
    Http2Window,
    /// Has opened all windows and reads nothing
    Http2Socket,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_hold_the_upstream_back() {
    for upstream_h2 in [false, true] {
        for reader in [Reader::Http1, Reader::Http2Window, Reader::Http2Socket] {
            let what = format!("{STALLED} downloads, {reader:?}, upstream h2 {upstream_h2}");
            let peer = Peer::start(upstream_h2);
            let lowport = between(&peer, upstream_h2);
            let before = lowport.memory();
            let held = stall(reader, &lowport).await;
            let given = block_in_place(|| peer.given.wait_until_still());
            end(&lowport, before, given, &what);
            drop(held);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_does_not_read_holds_the_clients_back() {
    for upstream_h2 in [false, true] {
        for client_h2 in [false, true] {
            let what =
                format!("{STALLED} uploads, client h2 {client_h2}, upstream h2 {upstream_h2}");
            let peer = Peer::start(upstream_h2);
            let lowport = between(&peer, upstream_h2);
            let before = lowport.memory();
            let sent = Counter::default();
            let held = send(client_h2, &lowport, &sent).await;
            let sent = block_in_place(|| sent.wait_until_still());
            end(&lowport, before, sent, &what);
            drop(held);
        }
    }
}

/// One worker, so that all of it meets in one place.
fn between(peer: &Peer, h2: bool) -> Lowport {
    let scheme = if h2 { "h2c" } else { "http" };
    let lowport = Lowport::with(&Setup {
        server: "redirect_to_https = false\nworkers = 1",
        rest: &format!(
            "[limits]\nrequest_body = 0\n[upstream.raw]\npeers = \"{scheme}://127.0.0.1:{}\"\nexpect_user = \"any\"\n[[route]]\nupstream = \"raw\"\n",
            peer.port
        ),
        args: &[],
    });
    assert_eq!(block_in_place(|| curl(&lowport, "/small", &[])), "small");
    lowport
}

fn end(lowport: &Lowport, before: u64, passed: u64, what: &str) {
    assert!(
        passed < Endless::LIMIT * STALLED as u64 / 2,
        "{what}: nothing was held back"
    );
    let growth = grown(lowport, before, what);
    assert!(
        growth < EACH * STALLED as u64,
        "{what}: grew by {growth} KiB"
    );
    report(
        what,
        &format!("{} KiB left, grew by {growth} KiB", passed / 1024),
    );
    // Over what others have filled, where connections are shared.
    assert_eq!(block_in_place(|| curl(lowport, "/small", &[])), "small");
}

/// Begins downloads and does not read them, for as long as what is returned lives.
async fn stall(reader: Reader, lowport: &Lowport) -> Vec<Box<dyn Any + Send>> {
    let mut held: Vec<Box<dyn Any + Send>> = Vec::new();
    if let Reader::Http1 = reader {
        for _ in 0..STALLED {
            let mut stream = narrow(lowport.http).await;
            let head = b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n";
            stream.write_all(head).await.expect("sent");
            held.push(Box::new(stream));
        }
        return held;
    }
    // No window at first: heads come, and nothing after them.
    let stream = tls(lowport.https, "localhost", &[b"h2"]).await;
    let (mut client, mut connection) = h2::client::Builder::new()
        .initial_window_size(0)
        .initial_connection_window_size(MAX_WINDOW)
        .handshake::<_, bytes::Bytes>(stream)
        .await
        .expect("a handshake");
    let mut bodies = Vec::new();
    for _ in 0..STALLED {
        let request = http::Request::get("https://localhost/endless")
            .body(())
            .expect("a request");
        let (response, _) = client.send_request(request, true).expect("sent");
        tokio::select! {
            ended = &mut connection => panic!("{ended:?}"),
            response = response => bodies.push(response.expect("a response").into_body()),
        }
    }
    let window = match reader {
        Reader::Http2Socket => MAX_WINDOW,
        _ => 64 * 1024,
    };
    connection
        .set_initial_window_size(window)
        .expect("no other change under way");
    tokio::select! {
        biased;
        data = bodies[0].data() => assert!(data.expect("more").is_ok()),
        ended = &mut connection => panic!("{ended:?}"),
    }
    held.push(Box::new((bodies, client)));
    match reader {
        // From now on nobody reads the socket.
        Reader::Http2Socket => held.push(Box::new(connection)),
        _ => drop(tokio::spawn(connection)),
    }
    held
}

/// A connection whose kernel takes little on its own account.
async fn narrow(port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a size");
    let lowport = SocketAddr::from(([127, 0, 0, 1], port));
    socket.connect(lowport).await.expect("connected")
}

/// Begins uploads without end; they go on for as long as what is returned lives.
async fn send(client_h2: bool, lowport: &Lowport, sent: &Counter) -> Vec<Box<dyn Any + Send>> {
    let mut held: Vec<Box<dyn Any + Send>> = Vec::new();
    for _ in 0..STALLED {
        let body = Endless::counted(sent);
        if client_h2 {
            let mut sender = h2(lowport.https).await;
            let response = sender.send_request(request_h2("POST", "/hold", body));
            held.push(Box::new((sender, tokio::spawn(response))));
        } else {
            let io = TokioIo::new(tcp(lowport.http).await);
            let (mut sender, connection) = http1::handshake(io).await.expect("a handshake");
            tokio::spawn(connection);
            let response = sender.send_request(request("POST", "/hold", body));
            held.push(Box::new((sender, tokio::spawn(response))));
        }
    }
    held
}
