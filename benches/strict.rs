//! What the strict layer costs: the time that it looks at a request's bytes, of the CPU time of the whole request, in one
//! run.
//!
//! ```sh
//! cargo bench --bench strict                    # 5 rounds of 1 second
//! cargo bench --bench strict -- 10 3            # 10 rounds of 3 seconds
//! ```
//!
//! The very bytes that the load's clients send are looked at by what looks at them in lowport, as often as it takes to
//! measure, on the processor that lowport has had. Ends with a failure where that is more than it may be.

#[path = "support/command_line.rs"]
mod command_line;
#[path = "support/median.rs"]
mod median;
#[path = "support/processor.rs"]
mod processor;
#[path = "support/rounds.rs"]
mod rounds;
mod support;
#[path = "support/verdict.rs"]
mod verdict;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use command_line::numbers;
use lowport::http1::{Bounds, Inspector};
use lowport::http2::Gauge;
use median::median;
use processor::{OTHERS, PROXY, on_own_processor, pin};
use rounds::{Round, round};
use support::site::Via;
use support::{REQUEST, SETUP, lowport, upstream};
use verdict::verdict;

/// The most that it may take, of a request's CPU time.
const MOST: f64 = 0.02;
/// Looks that are timed together.
const LOOKS: u32 = 1_000_000;

fn main() -> ExitCode {
    let Some(mut numbers) = numbers() else {
        return ExitCode::SUCCESS;
    };
    let rounds = numbers.next().unwrap_or(5).max(1);
    let seconds = Duration::from_secs(numbers.next().unwrap_or(1).max(1));
    pin(OTHERS);
    let upstream = upstream();
    let proxy = on_own_processor(move || lowport(upstream, SETUP));
    println!("{rounds} rounds of {seconds:?}; medians\n");
    println!("       us/request  busy   req/s   ns looked at   share");
    let mut holds = true;
    for via in Via::ALL {
        let pairs: Vec<(Round, f64)> = (0..rounds)
            .map(|_| (round(&proxy, via, seconds), looked(via)))
            .collect();
        let of =
            |what: fn(&Round) -> f64| median(pairs.iter().map(|(round, _)| what(round)).collect());
        let micros = of(|round| round.micros);
        let nanos = median(pairs.iter().map(|(_, nanos)| *nanos).collect());
        let share = nanos / 1000.0 / micros;
        println!(
            "{:<6} {micros:>10.2}  {:>4.2}  {:>6.0}   {nanos:>12.0}   {:.2} %",
            via.name(),
            of(|round| round.busy),
            of(|round| round.rate),
            share * 100.0
        );
        holds &= share <= MOST;
    }
    verdict(
        holds,
        "the strict layer costs no more than it may",
        &format!("THE STRICT LAYER COSTS MORE THAN IT MAY: {MOST} of the CPU time"),
    )
}

/// Nanoseconds to look at the bytes of one request in this manner.
fn looked(via: Via) -> f64 {
    let looking = std::thread::spawn(move || {
        pin(PROXY);
        match via {
            Via::Http1 | Via::Tls => http1(),
            Via::Http2 => http2(),
        }
    });
    looking.join().expect("looked at").as_nanos() as f64 / f64::from(LOOKS)
}

fn http1() -> Duration {
    let mut inspector = Inspector::new(Bounds {
        head: 16 << 10,
        target: 8 << 10,
        fields: 100,
    });
    let begin = Instant::now();
    for _ in 0..LOOKS {
        let looked = inspector.look(black_box(REQUEST));
        assert!(looked.is_ok());
    }
    begin.elapsed()
}

/// A request's HEADERS frame, after the client's preface.
fn http2() -> Duration {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    /// What a connection's second request has: all its fields are in HPACK's table
    const HEAD: &[u8] = b"\0\0\x06\x01\x05\0\0\0\x03\x82\x87\xc0\xbf\xbe\xbd";
    let mut gauge = Gauge::new();
    gauge.look(PREFACE);
    let mut head = HEAD.to_vec();
    let begin = Instant::now();
    for number in 0..LOOKS {
        let stream = number * 2 + 1;
        head[5..9].copy_from_slice(&stream.to_be_bytes());
        gauge.turn();
        gauge.earn(64);
        let looked = gauge.look(black_box(&head));
        assert!(matches!(looked, lowport::http2::Look::Pass));
    }
    begin.elapsed()
}
