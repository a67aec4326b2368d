//! lowport beside nginx and HAProxy: what requests, connections and bytes cost each, how long clients wait, and what it
//! takes up, beside the goals that lowport has.
//!
//! ```sh
//! cargo bench --bench vs_nginx                            # every row, 3 rounds of 2 seconds: about ten minutes
//! cargo bench --bench vs_nginx -- 5 3                     # 5 rounds of 3 seconds
//! cargo bench --bench vs_nginx -- 3 2 h1 tls download     # these rows alone
//! ```
//!
//! Each has one worker on one processor of its own; the clients and the upstream share another. They take turns within
//! each round, so that whatever else the machine does hurts all. Prints a table, and leaves it as `results.md`,
//! `results.json` and `results.svg` in `vs_nginx` in the target folder.

#![allow(
    clippy::expect_used,
    reason = "a bench that cannot be set up has failed"
)]

mod chart;
mod client;
#[path = "../support/command_line.rs"]
mod command_line;
mod contest;
#[path = "../support/cpu.rs"]
mod cpu;
mod facts;
mod latency;
mod load;
mod loads;
#[path = "../support/median.rs"]
mod median;
mod memory;
#[path = "../support/processor.rs"]
mod processor;
mod proxies;
#[path = "../support/proxy.rs"]
mod proxy;
mod report;
mod rows;
#[path = "../support/site.rs"]
mod site;
mod upstream;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use command_line::numbers;
use contest::{Contest, Line};
use facts::Facts;
use processor::{OTHERS, pin};
use proxies::Which;
use rows::{Row, rows};

fn main() -> ExitCode {
    let Some(mut numbers) = numbers() else {
        return ExitCode::SUCCESS;
    };
    let rounds = numbers.next().unwrap_or(3).max(1) as usize;
    let seconds = Duration::from_secs(numbers.next().unwrap_or(2).max(1));
    let Some(rows) = wanted_rows() else {
        return ExitCode::from(2);
    };
    if Which::Tuned.version().is_none() {
        eprintln!("\n*** NOT RUN: vs_nginx: nginx is not installed ***\n");
        return ExitCode::SUCCESS;
    }
    let (here, missing): (Vec<_>, Vec<_>) = Which::ALL
        .into_iter()
        .partition(|which| which.version().is_some());
    for which in missing {
        let name = which.name();
        eprintln!("\n*** NOT RUN: {name} is not installed: there is nothing of it below ***\n");
    }
    let facts = Facts::gather(rounds, seconds);
    allow_descriptors();
    pin(OTHERS);

    let mut contest = Contest::new(here, upstream::upstream(), rounds, seconds);
    let mut lines = Vec::new();
    for row in &rows {
        let told = contest.run(row);
        told.iter().for_each(print);
        lines.extend(told);
    }
    drop(contest);

    let table = report::markdown(&facts, &lines);
    println!("\n{table}");
    let json = report::json(&facts, &lines);
    let json = serde_json::to_string_pretty(&json).expect("it is JSON");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("vs_nginx");
    std::fs::create_dir_all(&folder).expect("a folder in the target folder");
    for (name, text) in [
        ("results.md", table),
        ("results.json", json),
        ("results.svg", chart::svg(&facts, &lines)),
    ] {
        let file = folder.join(name);
        std::fs::write(&file, text).expect("written");
        println!("written: {}", file.display());
    }
    ExitCode::SUCCESS
}

/// The rows that are named behind the bench's name, or all; `None` where a name is none of a row.
fn wanted_rows() -> Option<Vec<Row>> {
    let names: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--") && arg.parse::<u64>().is_err())
        .collect();
    let mut rows = rows();
    let known: Vec<&str> = rows.iter().map(|row| row.name).collect();
    for name in &names {
        if !known.contains(&name.as_str()) {
            eprintln!("there is no row `{name}`; there are {}", known.join(", "));
            return None;
        }
    }
    if !names.is_empty() {
        rows.retain(|row| names.iter().any(|name| name == row.name));
    }
    Some(rows)
}

/// As many files at the same time as may be: each resting connection takes one here, and one in a proxy.
fn allow_descriptors() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// What there is so far, for those who wait.
fn print(line: &Line) {
    let mut told = format!("{:<12} {:<38}", line.name, line.figure.what);
    for (which, result) in &line.results {
        let value = result.as_ref().map_or("failed".to_owned(), |values| {
            report::number(values.median())
        });
        told.push_str(&format!("  {} {value}", which.name()));
    }
    println!("{told}  {}", line.figure.unit);
}

/// A runtime on the thread that asks for it.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}
