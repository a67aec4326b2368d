//! What the sandbox costs: CPU time and throughput beside `--no-sandbox`, and how long it takes to put on.
//!
//! ```sh
//! cargo bench --bench sandbox                  # 20 rounds of 1 second
//! cargo bench --bench sandbox -- 30 2          # 30 rounds of 2 seconds
//! ```
//!
//! As in `vs_nginx`, one worker on one processor of its own; the two lowports take turns, now one first and now the
//! other, so that whatever else the machine does hurts both: on a busy one take more rounds. Ends with a failure where
//! the sandbox costs more than it may.

#[path = "support/command_line.rs"]
mod command_line;
#[path = "support/median.rs"]
mod median;
#[path = "support/pair.rs"]
mod pair;
#[path = "support/processor.rs"]
mod processor;
#[path = "support/rounds.rs"]
mod rounds;
mod support;
#[path = "support/verdict.rs"]
mod verdict;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use command_line::numbers;
use median::median;
use pair::in_turn;
use processor::{OTHERS, on_own_processor, pin};
use rounds::Round;
use support::proxy::LOG;
use support::site::Via;
use support::{SETUP, Setup, lowport, upstream};
use verdict::verdict;

/// The most that a request may take, of what it takes without a sandbox.
const MOST: f64 = 1.03;
/// The most that the drop and the sandbox may take when lowport starts, in microseconds.
const MOST_MICROS: f64 = 2000.0;
/// How often that is measured.
const STARTS: usize = 15;

fn main() -> ExitCode {
    let Some(mut numbers) = numbers() else {
        return ExitCode::SUCCESS;
    };
    let rounds = numbers.next().unwrap_or(20).max(1);
    let seconds = Duration::from_secs(numbers.next().unwrap_or(1).max(1));
    pin(OTHERS);
    let upstream = upstream();
    let mut holds = starts(upstream);

    let proxies = [&["--no-sandbox"][..], &[]]
        .map(|args| on_own_processor(move || lowport(upstream, Setup { args, ..SETUP })));
    println!("{rounds} rounds of {seconds:?}; medians, and the least and the greatest ratio\n");
    println!(
        "       no sandbox us/request  busy   req/s   sandbox us/request  busy   req/s   CPU ratio              req/s ratio"
    );
    for via in Via::ALL {
        let rounds: Vec<[Round; 2]> = (0..rounds)
            .map(|number| in_turn(&proxies, via, seconds, number))
            .collect();
        holds &= print(via, &rounds);
    }
    verdict(
        holds,
        "the sandbox costs no more than it may",
        &format!(
            "THE SANDBOX COSTS MORE THAN IT MAY: {MOST} of the CPU time, {MOST_MICROS} us at start"
        ),
    )
}

/// Starts lowport again and again, and tells what it says of the time that it took to become harmless. Whether that is
/// short enough.
fn starts(upstream: u16) -> bool {
    let took: Vec<f64> = (0..STARTS)
        .map(|_| {
            let proxy = lowport(
                upstream,
                Setup {
                    args: &["-v"],
                    ..SETUP
                },
            );
            told_micros(&proxy.site.path().join(LOG))
        })
        .collect();
    let least = took.iter().copied().fold(f64::MAX, f64::min);
    let most = took.iter().copied().fold(0.0, f64::max);
    let middle = median(took);
    println!("drop and sandbox at start: {middle} us ({least} to {most}, {STARTS} starts)\n");
    middle < MOST_MICROS
}

/// What stands behind `micros=` in this file, as soon as it is there: the ports are open before.
fn told_micros(log: &Path) -> f64 {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let log = std::fs::read_to_string(log).expect("it writes");
        let told = log.split_once(" micros=").map(|(_, rest)| rest);
        if let Some(number) = told.and_then(|rest| rest.split_whitespace().next()?.parse().ok()) {
            return number;
        }
        assert!(Instant::now() < patience, "it does not tell: {log}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the CPU time is what it may be.
fn print(via: Via, rounds: &[[Round; 2]]) -> bool {
    let of = |which: usize, what: fn(&Round) -> f64| {
        median(rounds.iter().map(|round| what(&round[which])).collect())
    };
    let ratio = |what: fn(&Round) -> f64| {
        let ratios = rounds.iter().map(|[off, on]| what(on) / what(off));
        let mut ratios: Vec<f64> = ratios.collect();
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        let middle = median(ratios);
        (middle, format!("{middle:.3} ({least:.2} to {most:.2})"))
    };
    let (cpu, cpu_told) = ratio(|round| round.micros);
    let (_, rate_told) = ratio(|round| round.rate);
    println!(
        "{:<6} {:>21.2}  {:>4.2}  {:>6.0}   {:>18.2}  {:>4.2}  {:>6.0}   {cpu_told}   {rate_told}",
        via.name(),
        of(0, |round| round.micros),
        of(0, |round| round.busy),
        of(0, |round| round.rate),
        of(1, |round| round.micros),
        of(1, |round| round.busy),
        of(1, |round| round.rate),
    );
    cpu <= MOST
}
