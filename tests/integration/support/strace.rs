//! strace(1), which answers system calls in the kernel's place.

use std::process::{Command, Stdio};

use super::lowport::BINARY;
use super::skipped;

/// Whether there is one that can stand between lowport and the kernel; not where another one does already. What is missing
/// is said.
pub(crate) fn is_there(test: &str) -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-o", "/dev/null", BINARY, "--version"]);
    let output = strace.stdin(Stdio::null()).output();
    let works = output
        .is_ok_and(|output| output.status.success() && output.stdout.starts_with(b"lowport "));
    if !works {
        skipped(
            test,
            "there is no strace that works (apt-get install strace)",
        );
    }
    works
}

/// The beginning of a command that has system calls answered as `inject` says. As a grandchild: lowport stays the process
/// that is waited for, and that sockets are passed to.
pub(crate) fn injecting(inject: &str) -> String {
    format!("strace -D -f -qq -o /dev/null -e inject={inject}")
}
