//! Other processes, as /proc tells of them.

use std::path::Path;
use std::process::{Command, Stdio};

use super::until;

/// Copies a program in order to run it. By another process: while this one has the copy open to write, a process that
/// another test starts inherits that for a moment, and the copy cannot be run ("text file busy").
pub(crate) fn copy_program(from: impl AsRef<Path>, to: &Path) {
    let mut copy = Command::new("cp");
    copy.arg(from.as_ref()).arg(to).stdin(Stdio::null());
    assert!(copy.status().expect("cp is there").success());
}

/// Real, effective, saved and file-system user.
pub(crate) fn uids(pid: u32) -> [u32; 4] {
    let uids = status(pid, "Uid").expect("it runs");
    let uids: Vec<u32> = uids
        .split_whitespace()
        .map(|uid| uid.parse().expect("a number"))
        .collect();
    uids.try_into().expect("four of them")
}

/// Who started it.
pub(crate) fn parent(pid: u32) -> u32 {
    let parent = status(pid, "PPid").expect("it runs");
    parent.parse().expect("a number")
}

/// A line of its status; `None` when it is gone.
pub(crate) fn status(pid: u32, key: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| {
        let value = line.strip_prefix(key)?.strip_prefix(':')?;
        Some(value.trim().to_owned())
    })
}

/// Whether it has ended, though nobody may have taken note yet.
pub(crate) fn is_gone(pid: u32) -> bool {
    status(pid, "State").is_none_or(|state| state.starts_with(['Z', 'X']))
}

/// Waits for the end of all of them.
pub(crate) fn gone(pids: &[u32]) {
    until("the processes to end", || {
        pids.iter().all(|pid| is_gone(*pid)).then_some(())
    });
}

/// The process of this name that `pid` has started.
pub(crate) fn child(pid: u32, name: &str) -> u32 {
    until(name, || {
        let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let mut children = list.split_whitespace();
        let named = |child: &&str| {
            let path = format!("/proc/{child}/comm");
            std::fs::read_to_string(path).is_ok_and(|found| found.trim_end() == name)
        };
        children.find(named)?.parse().ok()
    })
}
