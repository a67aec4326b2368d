//! How many instructions a request takes lowport, as it comes and with each feature on or off: counted by valgrind, so that
//! the figures are the same again whatever else the machine does. The kernel's are not among them.
//!
//! ```sh
//! cargo bench --bench instructions          # about three minutes
//! ```
//!
//! Of two runs, one with more requests than the other, the difference is what requests take, and nothing of what starting
//! and connecting do.

#[path = "support/command_line.rs"]
mod command_line;
#[path = "support/features.rs"]
mod features;
mod support;

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use command_line::numbers;
use features::FEATURES;
use futures_util::future::join_all;
use support::site::Via;
use support::{Client, SETUP, Setup, lowport, proxy, runtime, upstream};

const CONNECTIONS: u64 = 16;
/// Requests of each connection, and how many times as many in the longer run.
const REQUESTS: u64 = 60;
const TIMES: u64 = 4;

fn main() {
    let Some(_) = numbers() else { return };
    let valgrind = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if valgrind.is_err() {
        eprintln!("\n*** NOT RUN: instructions: valgrind is not installed ***\n");
        return;
    }
    let upstream = upstream();
    let mut known = HashMap::new();
    let mut each = |setup: Setup<'static>, via: Via| -> f64 {
        let key = (format!("{setup:?}"), via.name());
        *known
            .entry(key)
            .or_insert_with(|| a_request(upstream, setup, via))
    };
    let names = Via::ALL.map(Via::name).join(" | ");
    println!("| instructions a request | {names} |\n|---|---:|---:|---:|");
    let cells = Via::ALL.map(|via| format!("{:.0}", each(SETUP, via)));
    println!("| as it comes, without a log | {} |", cells.join(" | "));
    for (name, with, without) in FEATURES {
        let cells = Via::ALL.map(|via| {
            let (with, without) = (each(with, via), each(without, via));
            let share = 100.0 * (with - without) / without;
            format!("{:+.0} ({share:+.1} %)", with - without)
        });
        println!("| {name} | {} |", cells.join(" | "));
    }
}

fn a_request(upstream: u16, setup: Setup<'_>, via: Via) -> f64 {
    let [few, many] = [1, TIMES].map(|times| count(upstream, setup, via, times * REQUESTS));
    (many - few) as f64 / (CONNECTIONS * REQUESTS * (TIMES - 1)) as f64
}

/// A program that is lowport with valgrind counting, and leaves what it has counted in this folder.
fn counted(folder: &Path) -> tempfile::TempPath {
    let mut script = tempfile::NamedTempFile::new().expect("a file");
    let (out, lowport) = (folder.join("%p"), proxy::lowport());
    let text = format!(
        "#!/bin/sh\nexec valgrind --tool=callgrind --trace-children=yes --callgrind-out-file='{}' '{}' \"$@\"\n",
        out.display(),
        lowport.display()
    );
    script.write_all(text.as_bytes()).expect("written");
    permit(script.path(), 0o755);
    // Closed: a program that is open for writing cannot be run.
    script.into_temp_path()
}

fn permit(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("permitted");
}

/// All instructions of a lowport's life, in which each connection asks so often.
fn count(upstream: u16, setup: Setup<'_>, via: Via, requests: u64) -> u64 {
    let counts = tempfile::tempdir().expect("a folder");
    // Whoever lowport becomes writes there when it ends.
    permit(counts.path(), 0o777);
    let program = counted(counts.path());
    let proxy = lowport(
        upstream,
        Setup {
            program: Some(&program),
            // The sandbox would stop valgrind, and is no instruction of lowport's.
            args: &["--no-sandbox"],
            ..setup
        },
    );
    runtime().block_on(async {
        let clients = (0..CONNECTIONS).map(|_| async {
            let mut client = Client::connect(&proxy.site, via).await;
            for _ in 0..requests {
                client.ask().await;
            }
        });
        join_all(clients).await;
    });
    let files = || {
        let files = fs::read_dir(counts.path()).expect("read");
        files.map(|file| file.expect("a file").path())
    };
    files().for_each(|file| permit(&file, 0o666));
    drop(proxy);
    let counts = files().map(|file| {
        let text = fs::read_to_string(&file).expect("read");
        let mut totals = text
            .lines()
            .filter_map(|line| line.strip_prefix("summary: "));
        let total = totals.next().expect("valgrind has written its counts");
        total.parse::<u64>().expect("a number")
    });
    counts.sum()
}
