//! Which processor belongs to whom, in benches of what a proxy costs.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// The proxy's.
pub(crate) const PROXY: usize = 0;
/// Everybody else's.
pub(crate) const OTHERS: usize = 1;

/// Starts a process from a thread that is pinned: what it starts inherits that.
pub(crate) fn on_own_processor<T: Send + 'static>(start: impl FnOnce() -> T + Send + 'static) -> T {
    let started = std::thread::spawn(move || {
        pin(PROXY);
        start()
    });
    started.join().expect("it started")
}

/// Keeps this thread on one processor; where there is only one, all share it.
pub(crate) fn pin(processor: usize) {
    let mut set = CpuSet::new();
    if set.set(processor).is_ok() && sched_setaffinity(Pid::from_raw(0), &set).is_err() {
        eprintln!("processor {processor} is not to be had: not pinned");
    }
}
