//! Tying a child process to the one that starts it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};

/// Has `command` start in a process group of its own and be killed when the thread that starts it ends.
///
/// The kernel ties it to the thread, not to the process: start it from one that lives as long as the child should.
#[expect(
    unsafe_code,
    reason = "what runs between fork and exec must be async-signal-safe"
)]
pub fn tether(command: &mut Command) {
    let parent = getpid();
    command.process_group(0);
    // SAFETY: the closure only makes two system calls; it takes no lock and does not allocate.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            // If the parent was gone by then, nothing will ever send that signal.
            if getppid() == parent {
                Ok(())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tethered_child_leads_its_group_and_dies_with_its_thread() {
        let mut child = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("600");
            tether(&mut command);
            let child = command.spawn().unwrap();
            let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
            assert_eq!(nix::unistd::getpgid(Some(pid)).unwrap(), pid);
            child
        })
        .join()
        .unwrap();
        let status = child.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
    }
}
