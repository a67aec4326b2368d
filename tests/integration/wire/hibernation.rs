//! A connection with nothing to do loses its buffers, and nothing else: no byte, no limit, no timer.

use std::io::Write;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::overload::answered;
use super::places::stop;
use super::{Wire, statuses};
use crate::support::lowport::Setup;
use crate::support::over::{BOTH, Over};
use crate::support::{Lowport, raw, say, until};

const HELLO: &str = "[[route]]\nrespond = \"hello\"\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HIBERNATES: &str = "client connection hibernates";

/// What hibernates after a moment, with these timeouts and other tables.
fn lowport(timeouts: &str, rest: &str) -> Lowport {
    Lowport::with(&Setup {
        server: "redirect_to_https = false",
        rest: &format!("[timeouts]\nhibernate = \"50ms\"\n{timeouts}{rest}"),
        args: &["-v"],
    })
}

/// A connection that was used and hibernates now.
fn hibernating(lowport: &Lowport, over: Over) -> Wire {
    let seen = lowport.output().len();
    let mut wire = Wire::connect(lowport, over);
    wire.send(GET);
    assert!(wire.answer().ends_with("hello"));
    lowport.wait_for_after(seen, HIBERNATES);
    wire
}

#[test]
fn it_goes_on_as_if_nothing_had_been() {
    let lowport = lowport("", HELLO);
    for over in BOTH {
        let mut wire = hibernating(&lowport, over);
        for _ in 0..3 {
            let seen = lowport.output().len();
            // In pieces, and with an empty line in front.
            for byte in format!("\r\n{GET}").bytes() {
                wire.send([byte]);
            }
            assert!(wire.answer().ends_with("hello"), "{over:?}");
            lowport.wait_for_after(seen, HIBERNATES);
        }
        // Several at once.
        wire.send(GET.repeat(3));
        for _ in 0..3 {
            assert!(wire.answer().ends_with("hello"), "{over:?}");
        }
        wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(statuses(&wire.rest()), [200], "{over:?}");
    }
}

#[test]
fn an_end_of_the_client_is_noticed() {
    let lowport = lowport("", HELLO);
    let before = lowport.descriptors();
    for over in BOTH {
        drop(hibernating(&lowport, over));
    }
    until("both to be let go", || {
        (lowport.descriptors() <= before).then_some(())
    });
}

/// Some clients send an empty line behind a body, which is a part of nothing and is still in the way.
#[test]
fn it_stays_awake_with_bytes_that_belong_to_a_request_to_come() {
    let lowport = lowport("", HELLO);
    for (rest, begun) in [("", "\r\n"), ("/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET ")] {
        for over in BOTH {
            let seen = lowport.output().len();
            let mut wire = Wire::connect(&lowport, over);
            wire.send(format!("{GET}{begun}"));
            assert!(wire.answer().ends_with("hello"));
            // As long as others take to.
            drop(hibernating(&lowport, over));
            drop(hibernating(&lowport, over));
            let rest = if rest.is_empty() { GET } else { rest };
            wire.send(rest);
            assert!(wire.answer().ends_with("hello"), "{over:?} {begun:?}");
            drop(wire);
            let lines = lowport.output().split_off(seen);
            let hibernated = lines.iter().filter(|line| line.contains(HIBERNATES));
            assert_eq!(hibernated.count(), 2, "{over:?} {begun:?}");
        }
    }
}

#[test]
fn its_timers_go_on() {
    let times = "keepalive_idle = \"700ms\"\nrequest_head = \"300ms\"\n";
    let lowport = lowport(times, HELLO);
    for over in BOTH {
        let mut wire = hibernating(&lowport, over);
        let begin = Instant::now();
        assert_eq!(wire.rest(), "");
        let idle = begin.elapsed();
        assert!(
            (Duration::from_millis(300)..Duration::from_secs(5)).contains(&idle),
            "{over:?} {idle:?}"
        );
        let mut wire = hibernating(&lowport, over);
        wire.send("GET / HT");
        assert_eq!(statuses(&wire.rest()), [408], "{over:?}");
    }
}

#[test]
fn its_requests_are_counted_on() {
    let lowport = lowport(
        "",
        &format!("[limits]\nrequests_per_connection = 2\n{HELLO}"),
    );
    for over in BOTH {
        let mut wire = hibernating(&lowport, over);
        wire.send(GET);
        let answer = wire.rest();
        assert!(answer.contains("connection: close"), "{over:?} {answer}");
    }
}

#[test]
fn it_is_held_to_the_limits_of_now() {
    let lowport = lowport("", &format!("[limits]\nrequest_headers = 50\n{HELLO}"));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(30));
    let mut wires = BOTH.map(|over| hibernating(&lowport, over));
    for wire in &mut wires {
        let seen = lowport.output().len();
        wire.send(&many);
        assert!(wire.answer().ends_with("hello"));
        lowport.wait_for_after(seen, HIBERNATES);
    }
    let seen = lowport.output().len();
    lowport.rewrite(&Setup {
        server: "redirect_to_https = false",
        rest: &format!("[limits]\nrequest_headers = 20\n{HELLO}"),
        args: &[],
    });
    lowport.wait_for_after(seen, " reloaded");
    for mut wire in wires {
        wire.send(&many);
        assert_eq!(statuses(&wire.rest()), [431]);
    }
}

#[test]
fn it_makes_room_for_others_and_does_not_keep_a_worker_from_ending() {
    let mut lowport = lowport("", &format!("[limits]\nconnections = 1\n{HELLO}"));
    let mut last: Option<Wire> = None;
    for over in BOTH {
        let wire = hibernating(&lowport, over);
        if let Some(mut last) = last.replace(wire) {
            assert_eq!(last.rest(), "");
        }
    }
    let begin = Instant::now();
    lowport.signal(Signal::SIGTERM);
    assert_eq!(last.expect("the last one").rest(), "");
    assert!(lowport.ended().success());
    assert!(begin.elapsed() < Duration::from_secs(10));
}

/// A connection that was used, and whether it hibernates by now.
fn idle(lowport: &Lowport, over: Over, asleep: bool) -> Wire {
    if asleep {
        return hibernating(lowport, over);
    }
    let mut wire = Wire::connect(lowport, over);
    wire.send(GET);
    assert!(wire.answer().ends_with("hello"));
    wire
}

/// What has reached the kernel need not have reached the worker when it hears that the connection is to go.
#[test]
fn it_is_answered_where_its_place_is_wanted_at_the_moment_that_it_asks() {
    let lowport = lowport("", &format!("[limits]\nconnections = 1\n{HELLO}"));
    for over in BOTH {
        for round in 0..10 {
            let mut inside = idle(&lowport, over, round % 2 == 0);
            stop(&lowport);
            let mut new = raw::connect(lowport.http);
            new.write_all(GET.as_bytes()).expect("sent");
            inside.send(GET);
            lowport.signal(Signal::SIGCONT);
            assert!(inside.answer().ends_with("hello"), "{over:?} {round}");
            assert!(answered(&mut new).starts_with("HTTP/1.1 200 "), "{over:?}");
        }
    }
}

#[test]
fn it_is_answered_where_lowport_is_to_end_at_the_moment_that_it_asks() {
    for over in BOTH {
        for round in 0..4 {
            let lowport = lowport("", HELLO);
            let mut inside = idle(&lowport, over, round % 2 == 0);
            stop(&lowport);
            lowport.signal(Signal::SIGTERM);
            inside.send(GET);
            lowport.signal(Signal::SIGCONT);
            assert_eq!(statuses(&inside.rest()), [200], "{over:?} {round}");
        }
    }
}

/// Most of what an idle connection would weigh is what hyper reads into.
#[test]
fn it_weighs_little() {
    const COUNT: usize = 1000;
    for (over, most) in [(Over::Plain, 6.0), (Over::Tls, 20.0)] {
        let lowport = lowport("", HELLO);
        // What is allocated once is not for them to pay.
        drop(hibernating(&lowport, over));
        let (before, seen) = (lowport.memory(), lowport.output().len());
        let ask = |_| {
            let mut wire = Wire::connect(&lowport, over);
            wire.send(GET);
            assert!(wire.answer().ends_with("hello"));
            wire
        };
        let wires: Vec<Wire> = (0..COUNT).map(ask).collect();
        until("all to hibernate", || {
            let lines = lowport.output().split_off(seen);
            let hibernated = lines.iter().filter(|line| line.contains(HIBERNATES));
            (hibernated.count() == COUNT).then_some(())
        });
        // The allocator gives back what they had every few seconds.
        let each = || lowport.memory().saturating_sub(before) as f64 / COUNT as f64;
        let weighs = until("them to weigh little", || {
            Some(each()).filter(|each| *each < most)
        });
        say(&format!("{over:?}: {weighs:.1} KiB an idle connection"));
        drop(wires);
    }
}
