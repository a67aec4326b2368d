//! What lowport holds while the soak lasts.

use std::time::{Duration, Instant};

/// How much more memory it may have at the end than at the beginning: this part of it, or so many KiB.
const GROWTH: (f64, u64) = (0.05, 3 * 1024);
/// How many more descriptors.
const DESCRIPTORS: usize = 30;

/// What all processes of lowport have together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    at: Instant,
    /// KiB of resident memory
    pub(crate) memory: u64,
    /// Open descriptors; none where somebody else may not count them
    pub(crate) descriptors: Option<usize>,
}

impl Sample {
    /// Now, for the process `pid` and those below it.
    pub(crate) fn of(pid: u32) -> Self {
        let pids = family(pid);
        let fds = |pid: &u32| std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
        Self {
            at: Instant::now(),
            memory: pids.iter().map(|pid| memory(*pid)).sum(),
            descriptors: pids.iter().map(|pid| fds(pid).ok()).sum(),
        }
    }
}

/// KiB of resident memory; 0 of what is gone.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|size| size.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn family(pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    let mut next = 0;
    while let Some(pid) = pids.get(next) {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        pids.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
        next += 1;
    }
    pids
}

/// Whether nothing grew from the first quarter of what was seen after `warm` to the last; told in a line each.
pub(crate) fn holds(samples: &[Sample], warm: Instant) -> bool {
    let samples: Vec<&Sample> = samples.iter().filter(|sample| sample.at >= warm).collect();
    let quarter = samples.len() / 4;
    if quarter == 0 {
        println!("growth: NOT MEASURED: too short");
        return false;
    }
    let (first, last) = (&samples[..quarter], &samples[samples.len() - quarter..]);
    let memory = [first, last].map(|part| median(part.iter().map(|sample| sample.memory)));
    let more = ((memory[0] as f64 * GROWTH.0) as u64).max(GROWTH.1);
    println!(
        "memory: {} KiB in the first quarter after warm-up, {} KiB in the last; {more} KiB more would be growth",
        memory[0], memory[1]
    );
    let mut holds = memory[1] <= memory[0] + more;
    let counts = |part: &[&Sample]| -> Option<Vec<usize>> {
        part.iter().map(|sample| sample.descriptors).collect()
    };
    match (counts(first), counts(last)) {
        (Some(first), Some(last)) => {
            let [first, last] = [first, last].map(|part| median(part.into_iter()));
            println!("descriptors: {first}, then {last}; {DESCRIPTORS} more would be growth");
            holds &= last <= first + DESCRIPTORS;
        }
        _ => println!("descriptors: NOT COUNTED: only root may"),
    }
    holds
}

fn median<T: Ord + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// Of how long the soak takes, what is warm-up.
pub(crate) fn warm_up(whole: Duration) -> Duration {
    whole / 5
}
