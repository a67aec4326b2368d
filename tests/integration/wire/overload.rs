//! Overload: what is inside is served, what is outside waits or is told, and it ends when the load does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;

use super::{UPGRADE, UPGRADED, statuses};
use crate::support::client::{curl, tls};
use crate::support::lowport::Setup;
use crate::support::raw::{self, RawUpstream};
use crate::support::{Lowport, until};

/// Answers are held until it is opened.
#[derive(Clone, Default)]
pub(super) struct Barrier(Arc<(Mutex<bool>, Condvar)>);

impl Barrier {
    pub(super) fn open(&self) {
        *self.0.0.lock().expect("unpoisoned") = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let open = self.0.0.lock().expect("unpoisoned");
        drop(
            self.0
                .1
                .wait_while(open, |open| !*open)
                .expect("unpoisoned"),
        );
    }
}

/// An upstream that answers when the barrier is open.
pub(super) fn held() -> (RawUpstream, Barrier) {
    let barrier = Barrier::default();
    let wait = barrier.clone();
    let upstream = RawUpstream::handling(move |_, stream| {
        wait.wait();
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nup");
    });
    (upstream, barrier)
}

pub(super) fn ask(stream: &mut TcpStream, path: &str) {
    write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
}

pub(super) fn answered(stream: &mut TcpStream) -> String {
    let head = raw::read_head(stream).expect("an answer");
    String::from_utf8_lossy(&head).into_owned()
}

pub(super) fn exchange(lowport: &Lowport, path: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    raw::exchange(lowport.http, head)
}

const HEALTH: &str = "[[route]]\npath = \"/health\"\nrespond = \"ok\"\n";

/// lowport with so many descriptors.
fn poor(descriptors: usize, rest: &str) -> Lowport {
    let limit = format!("ulimit -n {descriptors}; exec \"$@\"");
    Lowport::within(
        &["sh", "-c", &limit, "sh"],
        &Setup {
            server: "redirect_to_https = false\nworkers = 1",
            rest,
            args: &[],
        },
    )
}

#[test]
fn requests_past_the_bound_are_503_while_health_answers() {
    let (upstream, barrier) = held();
    let lowport = Lowport::start(&format!(
        "[limits]\nrequests_in_flight = 2\n{}{HEALTH}",
        upstream.route()
    ));
    let mut busy: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = raw::connect(lowport.http);
            ask(&mut stream, "/");
            stream
        })
        .collect();
    until("both upstream", || {
        (upstream.seen().len() == 2).then_some(())
    });
    for _ in 0..5 {
        let shed = exchange(&lowport, "/");
        assert_eq!(statuses(&shed), [503], "{shed}");
        assert!(shed.contains("retry-after: 1\r\n"), "{shed}");
        assert!(shed.contains("limits.requests_in_flight"), "{shed}");
        let health = exchange(&lowport, "/health");
        assert!(health.ends_with("ok"), "{health}");
    }
    let told = curl(&lowport, "/", &["--http2", "-w%{http_code}"]);
    assert!(told.ends_with("503"), "{told}");
    assert_eq!(upstream.seen().len(), 2, "none of them went upstream");
    lowport.wait_for("reason=\"shed: limits.requests_in_flight (2) reached\"");
    barrier.open();
    for stream in &mut busy {
        assert_eq!(statuses(&answered(stream)), [200]);
    }
    until("places", || {
        (statuses(&exchange(&lowport, "/")) == [200]).then_some(())
    });
    let said = lowport.output();
    let said = said
        .iter()
        .filter(|line| line.contains("requests_in_flight reached"));
    assert_eq!(said.count(), 1, "one line for all of it");
}

#[test]
fn a_client_that_leaves_gives_its_place_back_and_an_open_websocket_takes_none() {
    let upstream = RawUpstream::handling(|head, stream| {
        if head.starts_with(b"GET /ws") {
            let _ = stream.write_all(UPGRADED);
        }
        let _ = stream.read(&mut [0]);
    });
    let lowport = Lowport::start(&format!(
        "[limits]\nrequests_in_flight = 1\n{}",
        upstream.route()
    ));
    let mut socket = raw::connect(lowport.http);
    socket.write_all(UPGRADE.as_bytes()).unwrap();
    assert_eq!(statuses(&answered(&mut socket)), [101]);
    let mut busy = raw::connect(lowport.http);
    ask(&mut busy, "/hang");
    until("it upstream", || (upstream.seen().len() == 2).then_some(()));
    assert_eq!(statuses(&exchange(&lowport, "/")), [503]);
    drop(busy);
    until("its place", || {
        let mut next = raw::connect(lowport.http);
        ask(&mut next, "/hang");
        next.set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        // Shed, or on its way.
        next.peek(&mut [0]).is_err().then_some(())
    });
}

#[test]
fn descriptors_are_kept_for_upstreams_and_whoever_waits_comes_in_later() {
    let (upstream, barrier) = held();
    let lowport = poor(64, &format!("{}{HEALTH}", upstream.route()));
    // More than there can be descriptors for; the kernel's queue takes them all.
    let mut clients: Vec<TcpStream> = (0..60)
        .map(|_| {
            let mut stream = raw::connect(lowport.http);
            ask(&mut stream, "/");
            stream
        })
        .collect();
    lowport.wait_for("clients take half of the descriptors that RLIMIT_NOFILE allows");
    // Each of those inside is served, all at the same time.
    let mut inside = 0;
    until("those inside upstream, and no more", || {
        let before = std::mem::replace(&mut inside, upstream.seen().len());
        std::thread::sleep(Duration::from_millis(300));
        (before == upstream.seen().len() && before > 0).then_some(())
    });
    assert!((3..32).contains(&inside), "{inside}");
    barrier.open();
    // Those outside come in when the others have nothing more to ask.
    for stream in &mut clients {
        assert_eq!(statuses(&answered(stream)), [200]);
    }
    let served = upstream.seen().len();
    assert_eq!(served, clients.len(), "each once");
    let said = lowport.output();
    let said = said.iter().filter(|line| line.contains("accepting rests"));
    assert_eq!(said.count(), 1, "one line for all of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_which_no_descriptor_is_left_is_503_and_lowport_goes_on() {
    let (upstream, barrier) = held();
    let lowport = poor(64, &format!("{}{HEALTH}", upstream.route()));
    let stream = tls(lowport.https, "localhost", &[b"h2"]).await;
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    // Each takes a connection of its own.
    let mut responses = Vec::new();
    for _ in 0..80 {
        client = client.ready().await.unwrap();
        let get = http::Request::get("https://localhost/").body(()).unwrap();
        responses.push(client.send_request(get, true).unwrap().0);
    }
    tokio::task::block_in_place(|| {
        lowport.wait_for("reason=\"no descriptor left for an upstream connection");
        barrier.open();
    });
    let (mut served, mut shed) = (0, 0);
    for response in responses {
        let response = response.await.unwrap();
        match response.status().as_u16() {
            200 => served += 1,
            503 => {
                assert_eq!(response.headers()["retry-after"], "1");
                shed += 1;
            }
            other => panic!("{other}"),
        }
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let _: Bytes = data.unwrap();
        }
    }
    assert!(served > 5 && shed > 5, "{served} served, {shed} shed");
    tokio::task::block_in_place(|| {
        until("descriptors", || {
            (statuses(&exchange(&lowport, "/")) == [200]).then_some(())
        });
    });
    let said = lowport.output();
    let said = said
        .iter()
        .filter(|line| line.contains(" out of descriptors"));
    assert_eq!(said.count(), 1, "one line for all of it");
}

#[test]
fn accepting_rests_once_for_an_episode() {
    let lowport = Lowport::with(&Setup {
        server: "redirect_to_https = false\nworkers = 2",
        rest: &format!("[limits]\nconnections = 2\n{HEALTH}"),
        args: &[],
    });
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert_eq!(statuses(&exchange(&lowport, "/health")), [200]);
                }
            });
        }
    });
    let said = lowport.output();
    let said = said.iter().filter(|line| line.contains("accepting rests"));
    assert_eq!(said.count(), 1);
}

#[test]
fn what_happened_is_counted() {
    let mut lowport = Lowport::with(&Setup {
        server: "redirect_to_https = false",
        rest: "[limits]\nrequest_rate = \"2/h\"\nrequest_body = \"1KiB\"\n\
               [[route]]\npath = \"/a\"\nrespond = \"a\"\n[[route]]\npath = \"/b\"\nto = \"http://127.0.0.1:1\"\n\
               [route.limits]\nrequest_rate = 0\n",
        args: &["-v"],
    });
    for (path, status) in [
        ("/a", 200),
        ("/a", 200),
        ("/a", 429),
        ("/b", 502),
        ("/c", 404),
    ] {
        assert_eq!(statuses(&exchange(&lowport, path)), [status], "{path}");
    }
    let too_large = "POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 2000\r\n\r\n";
    let mut stream = raw::connect(lowport.http);
    stream.write_all(too_large.as_bytes()).unwrap();
    assert_eq!(statuses(&answered(&mut stream)), [413]);
    drop(stream);
    assert_eq!(
        statuses(&raw::exchange(lowport.http, "GET / HTTP/1.1\r\nA: b\n\r\n")),
        [400]
    );
    lowport.signal(Signal::SIGTERM);
    assert!(lowport.ended().success());
    let line = lowport.wait_for(" ending ");
    for count in [
        "connections_active=0",
        "connections_accepted=7",
        "requests=6",
        "responses_2xx=2",
        "responses_4xx=4",
        "responses_5xx=1",
        "refused_rate=1",
        "refused_no_route=1",
        "refused_body=1",
        "refused_malformed=1",
        "upstream_connect=1",
    ] {
        assert!(line.contains(count), "{count}: {line}");
    }
}
