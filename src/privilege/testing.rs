//! For tests: processes to sandbox, since a test's own process must stay as it is.

use std::fs::File;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, alarm, pipe};

use super::fork::exit_now;

/// Runs `body` in a copy of this process that has one thread, and returns what it told.
///
/// # Panics
/// When the copy ended otherwise than by returning, or `body` failed or panicked.
pub(super) fn in_child(body: impl FnOnce() -> io::Result<String>) -> String {
    let (told, ended) = run(body);
    assert_eq!(ended, Ended::Returned, "{told}");
    told
}

/// How a copy ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Returned,
    Failed,
    By(nix::sys::signal::Signal),
}

/// As [`in_child`], for a body that may not return.
#[expect(unsafe_code, reason = "fork(2) for tests, whose harness has threads")]
pub(super) fn run(body: impl FnOnce() -> io::Result<String>) -> (String, Ended) {
    let (from, to) = pipe().unwrap();
    // SAFETY: glibc makes its allocator usable in the copy; the other threads of the harness hold no lock that `body`
    // takes, as it prints nothing.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Child => {
            drop(from);
            alarm::set(30);
            // Some are killed on purpose.
            let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
            let (text, code) = match catch_unwind(AssertUnwindSafe(body)) {
                Ok(Ok(text)) => (text, 0),
                Ok(Err(error)) => (error.to_string(), 1),
                Err(panic) => {
                    let text = panic
                        .downcast_ref::<String>()
                        .cloned()
                        .or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
                    (text.unwrap_or_default(), 1)
                }
            };
            let _ = File::from(to).write_all(text.as_bytes());
            exit_now(code)
        }
        ForkResult::Parent { child } => {
            drop(to);
            let mut told = String::new();
            File::from(from).read_to_string(&mut told).unwrap();
            let ended = match waitpid(child, None).unwrap() {
                WaitStatus::Exited(_, 0) => Ended::Returned,
                WaitStatus::Signaled(_, signal, _) => Ended::By(signal),
                _ => Ended::Failed,
            };
            (told, ended)
        }
    }
}
