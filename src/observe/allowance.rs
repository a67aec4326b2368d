//! How much memory the system has for this process.

use std::path::{Path, PathBuf};

/// Bytes: the least of what its control groups may have and of what the machine has. `None` where neither is told.
pub(super) fn allowance() -> Option<u64> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total(&text));
    let limits = limits(&groups).filter_map(|file| number(&read(&file)?));
    limits.chain(machine).min()
}

/// Where the limits of a process are told that is in these groups, see cgroups(7): of its own, and of all above. In a
/// container, some are out of sight, and its own are at the top.
fn limits(groups: &str) -> impl Iterator<Item = PathBuf> {
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?);
        let (top, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return None;
        };
        let groups = Path::new(group.trim_start_matches('/')).ancestors();
        let files = groups.map(|group| Path::new(top).join(group).join(file));
        Some(files.collect::<Vec<_>>())
    };
    groups.lines().filter_map(of_line).flatten()
}

/// `max` is none.
fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The first line, see proc_meminfo(5).
fn total(text: &str) -> Option<u64> {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_may_have_no_more_than_those_above_it() {
        let told = |groups: &str| -> Vec<String> {
            let files = limits(groups);
            files.map(|file| file.display().to_string()).collect()
        };
        assert_eq!(
            told("0::/system.slice/lowport.service\n"),
            [
                "/sys/fs/cgroup/system.slice/lowport.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert_eq!(told("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(
            told("5:cpu:/a\n4:memory:/docker/x\n1:name=systemd:/\n"),
            [
                "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            ]
        );
        assert!(told("").is_empty() && told("0\n:\n").is_empty());
    }

    #[test]
    fn numbers_as_the_kernel_writes_them() {
        assert_eq!(number("536870912\n"), Some(512 << 20));
        assert_eq!(number("max\n"), None);
        assert_eq!(
            total("MemTotal:        2048 kB\nMemFree: 1 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(allowance() > Some(16 << 20), "this machine tells");
    }
}
