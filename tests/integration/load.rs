//! What must hold under load.
//!
//! The sizes are small enough for every run of the tests. `LOWPORT_FULL=1` takes the full ones (10 GB bodies, 2,000
//! WebSockets, 200 reloads, 5,000 aborts), for which a release build is advised:
//!
//! ```sh
//! LOWPORT_FULL=1 cargo test --release --test integration load:: -- --test-threads 1
//! ```
//!
//! What ran and what was measured is printed whether or not the test passes.

mod balance;
mod bodies;
mod clients;
mod idle;
mod reloads;
mod stalled;
mod websockets;

use crate::support::{Lowport, say};

/// KiB by which lowport may grow while bytes only pass through it.
const GROWTH: u64 = 20 * 1024;

/// The size to run at.
fn size<T>(small: T, full: T) -> T {
    if std::env::var("LOWPORT_FULL").is_ok_and(|value| value == "1") {
        full
    } else {
        small
    }
}

/// Tells what was measured.
fn report(what: &str, figures: &str) {
    let size = size("small", "full");
    say(&format!("load ({size}): {what}: {figures}"));
}

/// KiB that lowport's memory ever was above `before`; fails past [`GROWTH`].
fn grown(lowport: &Lowport, before: u64, what: &str) -> u64 {
    let growth = lowport.peak().saturating_sub(before);
    assert!(growth < GROWTH, "{what}: grew by {growth} KiB");
    growth
}
