//! Places: where all are taken, those who have nothing to ask give theirs up, and nobody else does.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::overload::{answered, ask, held};
use super::{Over, UPGRADE, UPGRADED, statuses};
use crate::support::frames::{Frames, GOAWAY, Outcome};
use crate::support::lowport::Setup;
use crate::support::{Lowport, PATIENCE, process, raw, until};

/// So few places, no timer that would help, and `respond` at `/health`.
fn few(places: usize, workers: usize, rest: &str) -> Lowport {
    Lowport::with(&Setup {
        server: &format!("redirect_to_https = false\nworkers = {workers}"),
        rest: &format!(
            "[limits]\nconnections = {places}\n[timeouts]\nrequest_head = \"1h\"\ntls_handshake = \"1h\"\n\
             keepalive_idle = \"1h\"\n[[route]]\npath = \"/health\"\nrespond = \"ok\"\n{rest}"
        ),
        args: &["-v"],
    })
}

/// A connection that was answered and is between two requests.
fn idle(lowport: &Lowport) -> TcpStream {
    let mut stream = raw::connect(lowport.http);
    health(&mut stream);
    stream
}

fn health(stream: &mut TcpStream) {
    ask(stream, "/health");
    assert_eq!(statuses(&answered(stream)), [200]);
    stream.read_exact(&mut [0; 2]).expect("a body");
}

/// Whether lowport has ended a connection that nothing else comes on.
fn is_ended(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("set");
    let ended = match stream.peek(&mut [0]) {
        Ok(0) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        other => panic!("{other:?}"),
    };
    stream.set_nonblocking(false).expect("set");
    ended
}

fn waits(stream: &TcpStream) -> bool {
    let moment = Some(Duration::from_millis(200));
    stream.set_read_timeout(moment).expect("a timeout");
    let waits = stream.peek(&mut [0]).is_err();
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    waits
}

#[test]
fn those_that_were_idle_longest_make_room_one_for_each_that_comes() {
    let mut lowport = few(8, 1, "");
    let mut inside: Vec<TcpStream> = (0..8).map(|_| idle(&lowport)).collect();
    // Not by when they came.
    std::thread::sleep(Duration::from_millis(5));
    for stream in &mut inside[..2] {
        health(stream);
    }
    let since = Instant::now();
    let new: Vec<TcpStream> = (0..3).map(|_| idle(&lowport)).collect();
    assert!(since.elapsed() < Duration::from_secs(5), "at once");
    for stream in &mut inside[2..5] {
        assert_eq!(raw::read_all(stream), "", "without a word");
    }
    for stream in inside[..2].iter().chain(&inside[5..]).chain(&new) {
        assert!(!is_ended(stream));
    }
    for stream in &mut inside[5..] {
        health(stream);
    }
    lowport.signal(Signal::SIGTERM);
    assert!(lowport.ended().success());
    let line = lowport.wait_for(" ending ");
    assert!(line.contains(" closed_for_room=3"), "{line}");
    assert!(!line.contains("accept_rests"), "{line}");
    let said = lowport.output();
    let told = said.iter().filter(|line| {
        line.contains("limits.connections (8) reached: connections that were idle longest")
    });
    assert_eq!(told.count(), 1, "one line for all of it: {said:?}");
}

#[test]
fn whoever_is_answered_is_left_alone() {
    let (upstream, barrier) = held();
    let lowport = few(3, 1, &upstream.route());
    let mut busy: Vec<TcpStream> = (0..2).map(|_| raw::connect(lowport.http)).collect();
    for stream in &mut busy {
        ask(stream, "/");
    }
    until("both upstream", || {
        (upstream.seen().len() == 2).then_some(())
    });
    let mut idle = idle(&lowport);
    let mut third = raw::connect(lowport.http);
    ask(&mut third, "/");
    until("it upstream", || (upstream.seen().len() == 3).then_some(()));
    assert_eq!(raw::read_all(&mut idle), "");
    // Now nobody has nothing to do.
    let mut outside = raw::connect(lowport.http);
    ask(&mut outside, "/health");
    lowport.wait_for("limits.connections (3) reached: accepting rests");
    assert!(waits(&outside));
    barrier.open();
    for stream in busy.iter_mut().chain([&mut third]) {
        assert_eq!(statuses(&answered(stream)), [200]);
    }
    assert_eq!(statuses(&answered(&mut outside)), [200]);
}

#[test]
fn a_response_that_its_client_has_not_taken_is_not_cut() {
    const SIZE: usize = 32 << 20;
    let upstream = raw::RawUpstream::handling(|_, stream| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&vec![b'x'; SIZE]);
    });
    let lowport = few(1, 1, &upstream.route());
    let mut slow = raw::connect(lowport.http);
    ask(&mut slow, "/");
    assert_eq!(statuses(&answered(&mut slow)), [200]);
    let outside = raw::connect(lowport.http);
    assert!(waits(&outside));
    let mut body = vec![0; SIZE];
    slow.read_exact(&mut body).expect("all of it");
    assert!(body.iter().all(|byte| *byte == b'x'));
}

#[test]
fn over_http2_goaway_comes_first_and_streams_are_finished() {
    let (upstream, barrier) = held();
    let lowport = few(2, 1, &upstream.route());
    for over in super::BOTH {
        let mut idle = Frames::open(&lowport, over, &[]);
        let stream = idle.get("/health");
        assert_eq!(idle.outcome(stream), Outcome::Status(200));
        let before = upstream.seen().len();
        let mut busy = Frames::open(&lowport, over, &[]);
        let stream = busy.get("/");
        until("it upstream", || {
            (upstream.seen().len() > before).then_some(())
        });
        let mut new = Frames::open(&lowport, over, &[]);
        let health = new.get("/health");
        assert_eq!(new.outcome(health), Outcome::Status(200), "{over:?}");
        assert_eq!(idle.ends_with(), Some(0), "{over:?}");
        assert_eq!(busy.count(GOAWAY), 0);
        if over == Over::Tls {
            barrier.open();
            assert_eq!(busy.outcome(stream), Outcome::Status(200));
        }
    }
}

#[test]
fn other_workers_make_room_too() {
    // Two of them at least have no connection at any time.
    let lowport = few(2, 4, "");
    let mut before: Vec<TcpStream> = (0..2).map(|_| idle(&lowport)).collect();
    let since = Instant::now();
    for _ in 0..64 {
        before.push(idle(&lowport));
    }
    let took = since.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    until("all but two to be ended", || {
        let open = before.iter().filter(|stream| !is_ended(stream)).count();
        (open <= 2).then_some(())
    });
}

#[test]
fn whoever_asks_at_the_same_moment_is_answered() {
    let lowport = few(1, 1, "");
    for _ in 0..20 {
        let mut inside = raw::connect(lowport.http);
        health(&mut inside);
        // Both wait for lowport when it goes on, which may look at either first.
        stop(&lowport);
        let mut new = raw::connect(lowport.http);
        ask(&mut new, "/health");
        ask(&mut inside, "/health");
        lowport.signal(Signal::SIGCONT);
        for stream in [&mut inside, &mut new] {
            assert_eq!(statuses(&answered(stream)), [200]);
        }
    }
}

#[test]
fn one_that_goes_on_after_all_has_its_place_again() {
    let (upstream, barrier) = held();
    let lowport = few(1, 1, &upstream.route());
    let mut inside = until("it to be asked to make room and to ask", || {
        let mut inside = idle(&lowport);
        let before = upstream.seen().len();
        stop(&lowport);
        let mut new = raw::connect(lowport.http);
        let head = "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        new.write_all(head.as_bytes()).expect("sent");
        ask(&mut inside, "/");
        lowport.signal(Signal::SIGCONT);
        until("it upstream", || {
            (upstream.seen().len() > before).then_some(())
        });
        // Where lowport saw the request first, the other one waits.
        (!waits(&new)).then(|| {
            assert_eq!(statuses(&raw::read_all(&mut new)), [200]);
            inside
        })
    });
    let mut outside = raw::connect(lowport.http);
    ask(&mut outside, "/health");
    assert!(waits(&outside), "there is one place");
    barrier.open();
    let told = raw::read_all(&mut inside);
    assert_eq!(statuses(&told), [200]);
    assert!(told.contains("connection: close"), "{told}");
    assert_eq!(statuses(&answered(&mut outside)), [200]);
}

#[test]
fn a_websocket_has_a_place_for_as_long_as_it_is_open() {
    let upstream = raw::RawUpstream::handling(|_, stream| {
        let _ = stream.write_all(UPGRADED);
        let _ = stream.read(&mut [0]);
    });
    let lowport = few(1, 1, &upstream.route());
    let mut socket = raw::connect(lowport.http);
    socket.write_all(UPGRADE.as_bytes()).expect("sent");
    assert_eq!(statuses(&answered(&mut socket)), [101]);
    let mut outside = raw::connect(lowport.http);
    ask(&mut outside, "/health");
    assert!(waits(&outside), "a quiet one is not idle");
    drop(socket);
    assert_eq!(statuses(&answered(&mut outside)), [200]);
}

pub(super) fn stop(lowport: &Lowport) {
    lowport.signal(Signal::SIGSTOP);
    // The threads stop one by one.
    until("it to stand still", || {
        let mut threads = process::threads(lowport.pid()).into_iter();
        let stands = |thread| process::status(thread, "State").is_none_or(|s| s.starts_with('T'));
        threads.all(stands).then_some(())
    });
}

#[test]
fn one_that_has_been_silent_since_it_came_makes_room_after_a_while() {
    let lowport = few(4, 1, "");
    let (mut silent, mut of_tls) = (raw::connect(lowport.http), raw::connect(lowport.https));
    let mut slow = raw::connect(lowport.http);
    slow.write_all(b"GET /health HT").expect("sent");
    let mut shaken = Over::Tls.connect(&lowport, b"http/1.1");
    shaken.flush().expect("flushed");
    // The handshake comes with the first bytes, which are none.
    let _ = shaken.write(b"");
    let since = Instant::now();
    let mut new: Vec<TcpStream> = (0..3).map(|_| raw::connect(lowport.http)).collect();
    for stream in &mut new {
        ask(stream, "/health");
    }
    lowport.wait_for("accepting rests");
    for stream in &mut new {
        assert_eq!(statuses(&answered(stream)), [200]);
    }
    let took = since.elapsed();
    assert!(took > Duration::from_secs(1), "not at once: {took:?}");
    assert_eq!(raw::read_all(&mut silent), "");
    assert_eq!(raw::read_all(&mut of_tls), "");
    assert_eq!(raw::read_all(&mut shaken), "");
    // Who has begun to ask is awaited.
    slow.write_all(b"TP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    assert_eq!(statuses(&answered(&mut slow)), [200]);
}
