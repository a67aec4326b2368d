//! Clients that come and go: aborted at any point, and more than are let in.

use std::io::{ErrorKind, Write};
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::block_in_place;

use super::{report, size};
use crate::support::client::{empty, h2, request_h2, tcp};
use crate::support::lowport::Setup;
use crate::support::peer::{Counter, Endless};
use crate::support::raw::{self, RawUpstream};
use crate::support::{Lowport, until};

/// KiB that an allocator may still hold of what was freed.
const LEFT: u64 = 8 * 1024;
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_requests_leave_nothing_behind() {
    let count = size(500, 5000);
    let open = Arc::new(AtomicUsize::new(0));
    let upstream = tireless(&open);
    let lowport = Lowport::start(&upstream.route());
    let seed = std::process::id().into();
    let before = lowport.descriptors();
    let back = || {
        until("all connections to be gone", || {
            let gone = lowport.descriptors() <= before && open.load(Ordering::SeqCst) == 0;
            gone.then_some(())
        });
        lowport.memory()
    };
    abort(200, seed, &lowport).await;
    let first = block_in_place(back);
    abort(count, seed + 1, &lowport).await;
    let second = block_in_place(back);
    let growth = second.saturating_sub(first);
    report(
        &format!("{count} aborted requests"),
        &format!("grew by {growth} KiB"),
    );
    assert!(growth < LEFT, "grew by {growth} KiB, seed {seed}");
    assert!(!upstream.seen().is_empty());
}

/// An upstream that keeps at it until the other side is gone, and keeps no connection.
fn tireless(open: &Arc<AtomicUsize>) -> RawUpstream {
    let open = Arc::clone(open);
    RawUpstream::handling(move |head, stream| {
        open.fetch_add(1, Ordering::SeqCst);
        if head.starts_with(b"GET /endless") {
            let head =
                b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\nconnection: close\r\n\r\n";
            let mut sent = stream.write_all(head);
            while sent.is_ok() {
                sent = stream.write_all(&[b'x'; 8192]);
            }
        } else {
            // An upload, or a request that is never answered.
            let _ = std::io::copy(stream, &mut std::io::sink());
        }
        open.fetch_sub(1, Ordering::SeqCst);
    })
}

/// Makes `count` requests, some at a time, none of which comes to its end.
async fn abort(count: u64, seed: u64, lowport: &Lowport) {
    let (http, https) = (lowport.http, lowport.https);
    let tasks: Vec<_> = (0..AT_ONCE as u64)
        .map(|task| {
            tokio::spawn(async move {
                let mut dice = Dice::new(seed * 100 + task);
                for _ in 0..count / AT_ONCE as u64 {
                    if dice.below(4) == 0 {
                        abort_h2(https, &mut dice).await;
                    } else {
                        abort_h1(http, https, &mut dice).await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no client failed");
    }
}

async fn abort_h1(http: u16, https: u16, dice: &mut Dice) {
    const GET: &[u8] =
        b"GET /endless HTTP/1.1\r\nhost: localhost\r\nuser-agent: one that leaves\r\n\r\n";
    const WAIT: &[u8] = b"GET /wait HTTP/1.1\r\nhost: localhost\r\n\r\n";
    const POST: &[u8] = b"POST /hold HTTP/1.1\r\nhost: localhost\r\ncontent-length: 200000\r\n\r\n";
    // The first bytes of a TLS handshake; what follows is missing.
    const HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let kind = dice.below(5);
    let mut stream = tcp(if kind == 0 { https } else { http }).await;
    // Whether all of it arrives is of no interest: lowport may be done with this client first.
    let _ = match kind {
        0 => stream.write_all(&HELLO[..dice.below(HELLO.len())]).await,
        1 => stream.write_all(&GET[..dice.below(GET.len())]).await,
        2 => stream.write_all(WAIT).await,
        3 => {
            let part = vec![b'x'; dice.below(199_999)];
            stream.write_all(&[POST, &part].concat()).await
        }
        _ => {
            let mut part = vec![0; 1 + dice.below(100_000)];
            stream.write_all(GET).await.expect("sent");
            stream.read_exact(&mut part).await.map(drop)
        }
    };
    if dice.below(2) == 0 {
        // A reset instead of an end.
        let linger = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        linger.expect("set");
    }
}

async fn abort_h2(https: u16, dice: &mut Dice) {
    let mut sender = h2(https).await;
    for _ in 0..1 + dice.below(3) {
        match dice.below(3) {
            0 => {
                let body = Endless::counted(&Counter::default());
                let response = sender.send_request(request_h2("POST", "/hold", body));
                // Dropped before an answer, so the stream is reset.
                let patience = Duration::from_millis(dice.below(3) as u64);
                assert!(tokio::time::timeout(patience, response).await.is_err());
            }
            1 => drop(sender.send_request(request_h2("GET", "/wait", empty()))),
            _ => {
                let request = request_h2("GET", "/endless", empty());
                let mut response = sender.send_request(request).await.expect("a response");
                for _ in 0..dice.below(4) {
                    response.frame().await.expect("more").expect("data");
                }
            }
        }
    }
}

#[test]
fn accepting_rests_at_the_limit_of_connections_and_resumes_below_it() {
    const LIMIT: usize = 4;
    let lowport = limited(LIMIT, 1);
    let mut inside: Vec<StdStream> = (0..LIMIT)
        .map(|_| {
            let mut stream = raw::connect(lowport.http);
            ask(&mut stream);
            assert!(answered(&mut stream));
            // Between two requests it would make room.
            stream.write_all(b"GET / HTTP/1.1\r\n").expect("sent");
            stream
        })
        .collect();
    // The kernel takes it, and that is all.
    let mut outside = raw::connect(lowport.http);
    ask(&mut outside);
    outside
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("a timeout");
    let error = outside.peek(&mut [0]).expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    lowport.wait_for("accepting rests");
    inside.pop();
    outside
        .set_read_timeout(Some(crate::support::PATIENCE))
        .expect("a timeout");
    assert!(answered(&mut outside));
    // Those inside are served as ever.
    inside[0].write_all(b"host: a\r\n\r\n").expect("sent");
    assert!(answered(&mut inside[0]));
}

#[test]
fn more_clients_than_are_let_in_are_all_served_in_turn() {
    let (limit, clients, each) = (8, 32, size(15, 100));
    let lowport = limited(limit, 2);
    let before = lowport.descriptors();
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                for _ in 0..each {
                    let mut stream = raw::connect(lowport.http);
                    ask(&mut stream);
                    assert!(answered(&mut stream));
                }
            });
        }
    });
    lowport.wait_for("limits.connections (8) reached");
    until("all connections to be gone", || {
        (lowport.descriptors() <= before).then_some(())
    });
    report(
        &format!("{} connections", clients * each),
        &format!("{limit} at a time, all served"),
    );
}

fn limited(connections: usize, workers: usize) -> Lowport {
    Lowport::with(&Setup {
        server: &format!("redirect_to_https = false\nworkers = {workers}"),
        rest: &format!("[limits]\nconnections = {connections}\n[[route]]\nrespond = \"in\"\n"),
        args: &[],
    })
}

fn ask(stream: &mut StdStream) {
    write!(stream, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
}

fn answered(stream: &mut StdStream) -> bool {
    let head = raw::read_head(stream).expect("an answer");
    let mut body = [0; 2];
    std::io::Read::read_exact(stream, &mut body).expect("a body");
    head.starts_with(b"HTTP/1.1 200") && &body == b"in"
}

/// Numbers that look random and come again with the same seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
