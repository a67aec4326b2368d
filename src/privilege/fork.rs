//! A second process with the memory of this one.

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::fd::RawFd;

use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Pid};

/// Which of the two processes this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The one that was there before, and the new one's id
    Parent(Pid),
    /// The new one
    Child,
}

/// Says that the calling thread is the only one: what it gives up or copies is then the whole process's.
///
/// Asked for once and shown to what depends on it, because a sandboxed process cannot look any more. Start no thread
/// while it is around.
#[derive(Debug)]
pub struct OneThread(PhantomData<*const ()>);

impl OneThread {
    /// # Errors
    /// When there are more, or `/proc/self/task` cannot be read.
    pub fn check() -> io::Result<Self> {
        match fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(PhantomData)),
            threads => Err(io::Error::other(format!(
                "this takes a process with one thread, and there are {threads} threads: whatever is loaded into it \
                 besides lowport (LD_PRELOAD) must not start any"
            ))),
        }
    }
}

/// Forks this process.
///
/// # Errors
/// When the process has more than one thread, or the kernel refuses (a limit on processes or memory).
#[expect(
    unsafe_code,
    reason = "fork(2) is sound only in a process with one thread, which is checked"
)]
pub fn fork() -> io::Result<Fork> {
    let _alone = OneThread::check()?;
    // SAFETY: there is no other thread that could hold a lock or leave memory half-written in the copy, and none
    // can appear in between, because only this thread could start one.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Fork::Parent(child)),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// Closes every descriptor but the standard three and `keep`.
///
/// For a child that shares nothing with its parent's work: a listener that it kept open could never be closed by the
/// parent. The owners of those descriptors must never run again in this process, so end it with [`exit_now`].
///
/// # Errors
/// When `/proc/self/fd` cannot be read.
pub fn close_inherited(keep: RawFd) -> io::Result<()> {
    let open: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|fd| *fd > 2 && *fd != keep) {
        // The one that listed the folder is gone already.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}

/// The signals that are the proxy's to decide about, not its helpers': Ctrl-C and the like reach the whole foreground group.
pub fn not_for_helpers() -> SigSet {
    SigSet::from_iter([
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ])
}

/// Ends this process without running destructors or exit handlers, which belong to the parent.
#[expect(unsafe_code, reason = "libc declares _exit as unsafe")]
pub fn exit_now(code: u8) -> ! {
    // SAFETY: _exit(2) takes no pointers and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // The test harness always has more than one.
        let error = fork().unwrap_err();
        assert!(error.to_string().contains("threads"), "{error}");
    }
}
