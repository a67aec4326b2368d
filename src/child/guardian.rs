//! The process above the supervisor, for the case that the supervisor is killed.
//!
//! The kernel ties the app to its supervisor, but not what the app has started: a shell's or npm's Node would go on, with
//! the port, and be handed to init. The guardian is the ancestor that it is handed to instead, as the same user, and does
//! nothing else. If it is the guardian that is killed, the supervisor ends everything as if the proxy were gone. Only a
//! kill of both at once leaves something behind.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gettid};

use crate::privilege;

/// How often a process that is about to end is looked after.
const LOOK: Duration = Duration::from_millis(2);
/// How long killing what is left may take.
const KILLED: Duration = Duration::from_secs(1);

/// Waits for the supervisor's end, kills all that it leaves, and ends as it did. `_lifeline` closes with this process,
/// which tells the supervisor.
pub(super) fn guard(supervisor: Pid, _lifeline: UnixStream) -> ! {
    let ended = loop {
        match waitpid(None, None) {
            Ok(status) if status.pid() == Some(supervisor) => break Some(status),
            Err(Errno::ECHILD) => break None,
            _ => {}
        }
    };
    kill_adopted();
    match ended {
        Some(WaitStatus::Signaled(_, signal, _)) => {
            let _ = raise(signal);
            privilege::exit_now(1)
        }
        Some(WaitStatus::Exited(_, code)) => privilege::exit_now(u8::try_from(code).unwrap_or(1)),
        _ => privilege::exit_now(1),
    }
}

/// Kills what left the app's group and was handed to us when its parent ended.
pub(super) fn kill_adopted() {
    let children = format!("/proc/self/task/{}/children", gettid());
    let deadline = Instant::now() + KILLED;
    while Instant::now() < deadline {
        let list = std::fs::read_to_string(&children).unwrap_or_default();
        let mut pids = list
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .peekable();
        if pids.peek().is_none() {
            return;
        }
        for pid in pids.map(Pid::from_raw) {
            // Its own children come to us with that, so look again.
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
        std::thread::sleep(LOOK);
    }
}
