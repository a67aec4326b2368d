//! What each safety costs: CPU time of a request with it over the same without, one row a feature.
//!
//! ```sh
//! cargo bench --bench cost                  # 10 rounds of 1 second
//! cargo bench --bench cost -- 20 2          # 20 rounds of 2 seconds
//! ```
//!
//! As in `vs_nginx`, one worker on one processor of its own. The two lowports of a row take turns, now one first and now
//! the other. Rows of more than a few per cent it tells on any machine; on a shared one, what is less is noise, and
//! `instructions` counts all but the sandbox's to the last one. Two rows stand elsewhere: what looking at every byte costs
//! is a share of one and the same process (`strict`), and how long the sandbox takes at start is in `sandbox`.

#[path = "support/command_line.rs"]
mod command_line;
#[path = "support/features.rs"]
mod features;
#[path = "support/median.rs"]
mod median;
#[path = "support/pair.rs"]
mod pair;
#[path = "support/processor.rs"]
mod processor;
#[path = "support/rounds.rs"]
mod rounds;
mod support;

use std::time::Duration;

use command_line::numbers;
use features::{FEATURES, Feature};
use median::median;
use pair::in_turn;
use processor::{OTHERS, on_own_processor, pin};
use rounds::Round;
use support::site::Via;
use support::{SETUP, Setup, lowport, upstream};

/// The feature whose cost is the kernel's.
const SANDBOX: Feature = (
    "sandbox",
    SETUP,
    Setup {
        args: &["--no-sandbox"],
        ..SETUP
    },
);

fn main() {
    let Some(mut numbers) = numbers() else {
        return;
    };
    let rounds = numbers.next().unwrap_or(10).max(1);
    let seconds = Duration::from_secs(numbers.next().unwrap_or(1).max(1));
    pin(OTHERS);
    let upstream = upstream();
    println!(
        "{rounds} rounds of {seconds:?}; CPU time of a request with over without: median, least and greatest\n"
    );
    let names = Via::ALL.map(Via::name).join(" | ");
    println!("| | {names} |\n|---|---|---|---|");
    for (name, with, without) in std::iter::once(SANDBOX).chain(FEATURES) {
        let proxies =
            [with, without].map(|setup| on_own_processor(move || lowport(upstream, setup)));
        let cells = Via::ALL.map(|via| {
            let rounds = (0..rounds).map(|number| in_turn(&proxies, via, seconds, number));
            cell(&rounds.collect::<Vec<_>>())
        });
        println!("| {name} | {} |", cells.join(" | "));
    }
}

/// Below a `busy` of 0.8 a proxy sleeps and wakes for each request, and that is what was measured.
fn cell(rounds: &[[Round; 2]]) -> String {
    let of = |what: fn(&[Round; 2]) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(what).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let micros = of(|[with, without]| with.micros / without.micros);
    let rates = of(|[with, without]| with.rate / without.rate);
    let busy = of(|[with, _]| with.busy);
    let (least, most) = (micros[0], micros[micros.len() - 1]);
    format!(
        "{:.3} ({least:.2} to {most:.2}; requests a second {:.3}, busy {:.2})",
        median(micros),
        median(rates),
        median(busy)
    )
}
