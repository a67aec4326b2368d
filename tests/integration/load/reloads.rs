//! Reloads while everything is in use.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::{SinkExt, StreamExt};
use nix::sys::signal::Signal;
use tokio::task::{JoinHandle, block_in_place};
use tokio_tungstenite::tungstenite::Message;

use super::{report, size};
use crate::support::client::{h2, request_h2, text, tls, websocket};
use crate::support::{Lowport, Node, raw, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_drop_no_request_no_websocket_and_no_event_stream() {
    let reloads = size(40, 200);
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    let mut sockets = [
        websocket(lowport.http, "/ws/echo").await,
        websocket(lowport.http, "/ws/echo").await,
    ];
    let stream = tls(lowport.https, "localhost", &[b"http/1.1"]).await;
    let (mut secure, _) = tokio_tungstenite::client_async("wss://localhost/ws/echo", stream)
        .await
        .expect("an upgrade");
    let events: Vec<Arc<AtomicU64>> = (0..3).map(|_| follow_events(lowport.http)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let kept = threads(4, &stop, lowport.http, true);
    let fresh = threads(4, &stop, lowport.http, false);
    let streams = streams(2, 4, &stop, lowport.https).await;
    for number in 0..reloads {
        let seen = lowport.output().len();
        lowport.signal(Signal::SIGHUP);
        block_in_place(|| lowport.wait_for_after(seen, " reloaded"));
        for socket in &mut sockets {
            echo(socket, number).await;
        }
        echo(&mut secure, number).await;
    }
    // Each event stream goes on after the last reload.
    for count in events {
        let last = count.load(Ordering::Relaxed);
        block_in_place(|| {
            until("another event", || {
                (count.load(Ordering::Relaxed) > last).then_some(())
            })
        });
    }
    stop.store(true, Ordering::Relaxed);
    let sum = |threads: Vec<std::thread::JoinHandle<u64>>| -> u64 {
        let ended = threads.into_iter().map(|thread| thread.join());
        ended.map(|count| count.expect("no request failed")).sum()
    };
    let (kept, fresh) = (sum(kept), sum(fresh));
    let mut multiplexed = 0;
    for stream in streams {
        multiplexed += stream.await.expect("no request failed");
    }
    for count in [kept, fresh, multiplexed] {
        assert!(count > reloads, "{kept} {fresh} {multiplexed}");
    }
    let refused = lowport.output().iter().any(|line| line.contains("refused"));
    assert!(!refused, "a reload was refused");
    report(
        &format!("{reloads} reloads"),
        &format!(
            "no failure in {kept} requests over kept, {fresh} over fresh and {multiplexed} over HTTP/2 connections"
        ),
    );
}

async fn echo<S>(socket: &mut tokio_tungstenite::WebSocketStream<S>, number: u64)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let sent = Message::text(number.to_string());
    socket.send(sent.clone()).await.expect("sent");
    assert_eq!(socket.next().await.expect("open").expect("a message"), sent);
}

/// Threads that make one HTTP/1.1 request after the other, each over one connection or over a new one each time.
fn threads(
    count: usize,
    stop: &Arc<AtomicBool>,
    http: u16,
    keep: bool,
) -> Vec<std::thread::JoinHandle<u64>> {
    let client = move |stop: Arc<AtomicBool>| {
        let mut stream = raw::connect(http);
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            if !keep && count > 0 {
                stream = raw::connect(http);
            }
            exchange(&mut stream);
            count += 1;
        }
        count
    };
    (0..count)
        .map(|_| {
            let stop = Arc::clone(stop);
            std::thread::spawn(move || client(stop))
        })
        .collect()
}

fn exchange(stream: &mut std::net::TcpStream) {
    write!(stream, "GET /health HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let head = raw::read_head(stream).expect("an answer");
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("\r\ncontent-length: 3\r\n"), "{head}");
    let mut body = [0; 3];
    stream.read_exact(&mut body).expect("a whole body");
    assert_eq!(&body, b"ok\n");
}

/// Tasks that make one request after the other, several over each HTTP/2 connection.
async fn streams(
    connections: usize,
    each: usize,
    stop: &Arc<AtomicBool>,
    https: u16,
) -> Vec<JoinHandle<u64>> {
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let sender = h2(https).await;
        for _ in 0..each {
            let (mut sender, stop) = (sender.clone(), Arc::clone(stop));
            tasks.push(tokio::spawn(async move {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let request = request_h2("GET", "/health", crate::support::client::empty());
                    let response = sender.send_request(request).await.expect("an answer");
                    assert_eq!(response.status(), 200);
                    assert_eq!(text(response).await, "ok\n");
                    count += 1;
                }
                count
            }));
        }
    }
    tasks
}

/// Counts the events of a stream for as long as it lasts.
fn follow_events(http: u16) -> Arc<AtomicU64> {
    let mut stream = raw::connect(http);
    write!(
        stream,
        "GET /events?interval=20 HTTP/1.1\r\nhost: a\r\n\r\n"
    )
    .expect("sent");
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(id) = line.strip_prefix("id: ") {
                let last = counted.swap(id.parse().expect("a number"), Ordering::Relaxed);
                assert_eq!(
                    last + 1,
                    counted.load(Ordering::Relaxed),
                    "an event is missing"
                );
            }
        }
    });
    count
}
