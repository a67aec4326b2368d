//! What a proxy uses of its processor.

use std::path::PathBuf;
use std::time::Duration;

/// CPU time that this process and its descendants have used, to the nanosecond, their living threads only.
pub(crate) fn cpu(pid: u32) -> Duration {
    let threads = tree(pid).into_iter().flat_map(threads);
    let nanos = threads.map(|thread| {
        let nanos = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
        let nanos = nanos.split_whitespace().next().and_then(|n| n.parse().ok());
        Duration::from_nanos(nanos.unwrap_or_default())
    });
    nanos.sum()
}

/// This process and its descendants.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let (mut found, mut next) = (vec![pid], 0);
    while let Some(pid) = found.get(next).copied() {
        for thread in threads(pid) {
            let children = std::fs::read_to_string(thread.join("children")).unwrap_or_default();
            let children = children.split_whitespace();
            found.extend(children.filter_map(|pid| pid.parse::<u32>().ok()));
        }
        next += 1;
    }
    found
}

fn threads(pid: u32) -> impl Iterator<Item = PathBuf> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks.map(|task| task.path())
}
