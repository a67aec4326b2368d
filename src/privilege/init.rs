//! Being PID 1.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{Pid, getpid};

const INIT: Pid = Pid::from_raw(1);

/// Whether somebody else follows the signals by now.
static FOLLOWED: AtomicBool = AtomicBool::new(false);

/// Has the signals that stop a process stop this one even if it is PID 1 of its container, from the start on: the kernel
/// does not deliver to that what it has no handler for.
///
/// # Errors
/// The kernel does not take a handler.
#[expect(
    unsafe_code,
    reason = "a handler may only do what is async-signal-safe"
)]
pub fn heed_signals() -> io::Result<()> {
    if getpid() != INIT {
        return Ok(());
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT] {
        // SAFETY: the handler reads an atomic and makes two system calls; it takes no lock and does not allocate.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Leaves the signals to handlers that were put in since [`heed_signals`]: those of the runtime call the ones before them.
pub fn signals_are_followed() {
    FOLLOWED.store(true, Ordering::Relaxed);
}

/// As a shell tells of a process that was killed by a signal. Forked processes have inherited this, and are not PID 1.
#[expect(unsafe_code, reason = "libc declares _exit as unsafe")]
extern "C" fn end(signal: libc::c_int) {
    if getpid() == INIT && !FOLLOWED.load(Ordering::Relaxed) {
        // SAFETY: _exit(2) takes no pointers and does not return.
        unsafe { libc::_exit(128 + signal) }
    }
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::signal::raise;
    use nix::sys::wait::waitpid;
    use nix::unistd::alarm;

    use super::super::testing::in_child;
    use super::super::{Fork, exit_now, fork, is_root};
    use super::*;

    #[test]
    fn pid_1_heeds_a_signal_until_somebody_else_does() {
        if !is_root() {
            eprintln!("SKIPPED: only root can make a pid namespace");
            return;
        }
        let ended = |heeds: bool| {
            in_child(|| {
                unshare(CloneFlags::CLONE_NEWPID)?;
                match fork()? {
                    Fork::Parent(pid) => Ok(format!("{:?}", waitpid(pid, None)?)),
                    Fork::Child => {
                        alarm::set(10);
                        let heard = !heeds || heed_signals().is_ok();
                        let _ = raise(Signal::SIGTERM);
                        exit_now(if heard { 7 } else { 8 })
                    }
                }
            })
        };
        assert!(
            ended(false).ends_with(", 7)"),
            "the kernel leaves PID 1 alone"
        );
        assert!(ended(true).ends_with(", 143)"));
    }
}
