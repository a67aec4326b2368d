//! Other processes, as /proc tells of them.

use super::until;

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

/// Whom it has started, or who was handed to it.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let list =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace()
        .map(|pid| pid.parse().expect("a number"))
        .collect()
}

/// Its threads.
pub(crate) fn threads(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    tasks
        .flatten()
        .map(|task| task.file_name().to_string_lossy().parse())
        .map(|id| id.expect("a number"))
        .collect()
}

/// The child of this name.
pub(crate) fn child(parent: u32, called: &str) -> u32 {
    until(called, || {
        let mut pids = children(parent).into_iter();
        pids.find(|pid| name(*pid).as_deref() == Some(called))
    })
}

/// What it calls itself; `None` when it is gone.
pub(crate) fn name(pid: u32) -> Option<String> {
    status(pid, "Name")
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
