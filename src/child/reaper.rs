//! Taking note of children that have ended, also of those that are not our own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::get_child_subreaper;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use tokio::time::sleep;

/// How often a process that is about to end is looked after.
const LOOK: Duration = Duration::from_millis(5);

/// Reaps the orphans that are handed to this process, where they are: to PID 1 of a container, to a subreaper. Nobody else
/// can, and each that is not takes up an entry in the table of processes for good.
#[derive(Debug, Clone)]
pub struct Reaper {
    adopts: bool,
    /// The children that somebody asks for, and how those have ended that have
    own: Rc<RefCell<HashMap<Pid, Option<WaitStatus>>>>,
}

impl Reaper {
    /// For this process. To be made before a sandbox keeps it from finding out what it is.
    pub fn new() -> Self {
        Self::that(getpid() == Pid::from_raw(1) || get_child_subreaper().unwrap_or(false))
    }

    fn that(adopts: bool) -> Self {
        Self {
            adopts,
            own: Rc::default(),
        }
    }

    /// Keeps the end of a child for [`exit_of`](Self::exit_of).
    pub(super) fn expect(&self, pid: Pid) {
        self.own.borrow_mut().insert(pid, None);
    }

    /// Takes note of all that have ended, on SIGCHLD. Does nothing in a process that adopts nobody: its children are
    /// asked for one by one.
    pub fn reap(&self) {
        if !self.adopts {
            return;
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(status) => self.note(status),
                // A real-time signal, which nix has no name for, has killed one. It is reaped.
                Err(_) => {}
            }
        }
    }

    fn note(&self, status: WaitStatus) {
        let mut own = self.own.borrow_mut();
        if let Some(end) = status.pid().and_then(|pid| own.get_mut(&pid)) {
            *end = Some(status);
        }
    }

    /// Waits for the end of a child; `None` if there is nothing to know.
    pub(super) async fn exit_of(&self, pid: Pid) -> Option<WaitStatus> {
        loop {
            self.reap();
            if let Some(Some(status)) = self.own.borrow().get(&pid) {
                return Some(*status);
            }
            match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => sleep(LOOK).await,
                Ok(status) => return Some(status),
                Err(_) => return None,
            }
        }
    }
}

impl Default for Reaper {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[expect(clippy::zombie_processes, reason = "the reaper waits for it")]
    fn ends_with(code: u8) -> Pid {
        let child = Command::new("sh")
            .args(["-c", &format!("exit {code}")])
            .spawn()
            .unwrap();
        Pid::from_raw(child.id().cast_signed())
    }

    /// To reap all would take other tests' children.
    #[tokio::test]
    async fn an_end_is_told_whoever_has_noted_it() {
        let reaper = Reaper::that(false);
        let pid = ends_with(3);
        reaper.expect(pid);
        reaper.reap();
        let ended = WaitStatus::Exited(pid, 3);
        assert_eq!(reaper.exit_of(pid).await, Some(ended));
        assert_eq!(reaper.exit_of(pid).await, None, "it is gone");
        reaper.note(ended);
        assert_eq!(reaper.exit_of(pid).await, Some(ended));
        let other = WaitStatus::Exited(Pid::from_raw(1), 0);
        reaper.note(other);
        assert_eq!(reaper.own.borrow().len(), 1, "orphans are not kept");
    }
}
