//! Processes as /proc shows them to others.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// Every process that /proc lists, the oldest number first. With `hidepid` those of others may be missing.
pub fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc");
    let mut pids: Vec<u32> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

/// The inodes of the sockets that the process `pid` holds.
///
/// # Errors
/// When it is gone, or this user may not look: only root may where it belongs to another one or is undumpable.
pub fn sockets(pid: u32) -> io::Result<HashSet<u32>> {
    let links = fs::read_dir(format!("/proc/{pid}/fd"))?;
    Ok(links
        .flatten()
        .filter_map(|link| {
            let link = fs::read_link(link.path()).ok()?;
            let inode = link.to_str()?.strip_prefix("socket:[")?;
            inode.strip_suffix(']')?.parse().ok()
        })
        .collect())
}

/// Whether others with the user number `uid`, which is that of the process `pid`, may read its memory (PR_GET_DUMPABLE).
///
/// Told by who owns its files in /proc: root, where they may not (proc(5)). So it is not to be seen of a process of
/// root's, nor through a user namespace that has no number for its owner: that is `None`.
pub fn dumpable(pid: u32, uid: u32) -> Option<bool> {
    /// The kernel's default for users that a namespace has no number for.
    const OVERFLOW: u32 = 65534;
    if [0, OVERFLOW].contains(&uid) {
        return None;
    }
    let status = fs::metadata(format!("/proc/{pid}/status")).ok()?;
    Some(status.uid() == uid)
}

/// Whether there is a process `pid`, shown or not.
pub fn exists(pid: u32) -> bool {
    // 0 and numbers below stand for groups of processes.
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else {
        return false;
    };
    matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(Errno::EPERM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn this_process_is_seen_with_its_sockets() {
        let pid = std::process::id();
        assert!(pids().contains(&pid) && exists(pid));
        assert!(!exists(0) && !exists(u32::MAX));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let held = sockets(pid).unwrap();
        assert!(
            held.iter()
                .any(|inode| link.to_str() == Some(&format!("socket:[{inode}]")))
        );
        assert!(sockets(u32::MAX).is_err());
    }

    #[test]
    fn whether_memory_is_kept_from_others_is_seen_from_outside() {
        use super::super::testing::in_child;
        let told = |dumpable: bool| {
            in_child(move || {
                if nix::unistd::geteuid().is_root() {
                    let nobody = nix::unistd::Uid::from_raw(61234);
                    nix::unistd::setresuid(nobody, nobody, nobody)?;
                }
                nix::sys::prctl::set_dumpable(dumpable)?;
                let uid = nix::unistd::geteuid().as_raw();
                Ok(format!("{:?}", super::dumpable(std::process::id(), uid)))
            })
        };
        assert_eq!(
            (told(true), told(false)),
            ("Some(true)".into(), "Some(false)".into())
        );
        assert_eq!(dumpable(std::process::id(), 0), None);
    }
}
