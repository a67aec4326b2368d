//! What the kernel says that each thread of a process is and may do.

use std::fmt;
use std::fs;
use std::io::{self, Read};

/// A thread as `/proc/PID/task/TID/status` tells it, see proc_pid_status(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskState {
    /// Thread id; the process's own for its first thread
    pub tid: u32,
    /// Real, effective, saved and filesystem user
    pub uids: [u32; 4],
    /// Real, effective, saved and filesystem group
    pub gids: [u32; 4],
    /// Supplementary groups
    pub groups: Vec<u32>,
    /// What it may do
    pub capabilities: Capabilities,
    /// Whether programs that it starts can gain nothing
    pub no_new_privs: bool,
    /// How seccomp treats it
    pub seccomp: SeccompMode,
    /// How many seccomp filters it has, those that it was born with included; `None` before Linux 5.9
    pub seccomp_filters: Option<u32>,
}

/// The five sets of capabilities, a bit each, see capabilities(7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Kept over execve for programs that ask for them
    pub inheritable: u64,
    /// Can be made effective
    pub permitted: u64,
    /// In force
    pub effective: u64,
    /// Could ever be gained by execve
    pub bounding: u64,
    /// Kept over execve for any program
    pub ambient: u64,
}

impl Capabilities {
    /// Whether there is nothing in any set.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("none in any set");
        }
        write!(
            f,
            "effective {:x}, permitted {:x}, inheritable {:x}, ambient {:x}, bounding {:x}",
            self.effective, self.permitted, self.inheritable, self.ambient, self.bounding
        )
    }
}

/// How seccomp treats a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeccompMode {
    /// Not at all
    Off,
    /// read, write, exit and sigreturn only
    Strict,
    /// Filters decide
    Filter,
}

impl TaskState {
    pub(super) fn parse(tid: u32, status: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim)
        };
        let numbers = |name| -> Option<Vec<u32>> {
            field(name)?
                .split_ascii_whitespace()
                .map(|number| number.parse().ok())
                .collect()
        };
        let set = |name| u64::from_str_radix(field(name)?, 16).ok();
        Some(Self {
            tid,
            uids: numbers("Uid")?.try_into().ok()?,
            gids: numbers("Gid")?.try_into().ok()?,
            groups: numbers("Groups")?,
            capabilities: Capabilities {
                inheritable: set("CapInh")?,
                permitted: set("CapPrm")?,
                effective: set("CapEff")?,
                bounding: set("CapBnd")?,
                ambient: set("CapAmb")?,
            },
            no_new_privs: field("NoNewPrivs")? == "1",
            seccomp: match field("Seccomp")? {
                "0" => SeccompMode::Off,
                "1" => SeccompMode::Strict,
                "2" => SeccompMode::Filter,
                _ => return None,
            },
            seccomp_filters: field("Seccomp_filters").and_then(|count| count.parse().ok()),
        })
    }
}

/// Reads the state of every thread of the process `pid`, in the order of their ids.
///
/// A process under Landlock cannot do it for itself; any other one can, of whatever user, unless `/proc` is mounted
/// with `hidepid`.
///
/// # Errors
/// When there is no such process, it is hidden, or the kernel's text is not understood.
pub fn tasks(pid: u32) -> io::Result<Vec<TaskState>> {
    texts(pid)?
        .iter()
        .map(|(tid, text)| understood(*tid, text))
        .collect()
}

/// A thread's state from the kernel's text.
pub(super) fn understood(tid: u32, text: &str) -> io::Result<TaskState> {
    TaskState::parse(tid, text)
        .ok_or_else(|| io::Error::other(format!("the status of thread {tid} is not understood")))
}

/// The kernel's text of each thread of the process `pid`, in the order of their ids.
pub(super) fn texts(pid: u32) -> io::Result<Vec<(u32, String)>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(tid) = name.and_then(|name| name.parse().ok()) else {
            continue;
        };
        match fs::read_to_string(path.join("status")) {
            Ok(status) => texts.push((tid, status)),
            // It ended in between.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(nix::libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    texts.sort_unstable_by_key(|(tid, _)| *tid);
    Ok(texts)
}

/// The kernel's lines on who the process `pid` is and what it may do, and no others: at most 4 KiB.
///
/// # Errors
/// When there is no such process, or it is hidden.
pub(super) fn essence(pid: u32) -> io::Result<String> {
    const MOST: u64 = 16 * 1024;
    let file = fs::File::open(format!("/proc/{pid}/status"))?;
    Ok(essential(&io::read_to_string(file.take(MOST))?))
}

/// Of [`FIELDS`], those that are there. A longer line than any of them should have is left out.
fn essential(status: &str) -> String {
    const LONGEST: usize = 256;
    let wanted = |line: &&str| {
        let name = line.split(':').next();
        line.len() <= LONGEST && name.is_some_and(|name| FIELDS.contains(&name))
    };
    let lines: Vec<&str> = status.lines().filter(wanted).collect();
    lines.join("\n")
}

/// What [`TaskState`] is made of.
const FIELDS: [&str; 11] = [
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
];

/// The one state that all of `tasks` are in, told as that of the first one.
///
/// # Errors
/// When there is no task, or one that differs from the first, with what differs.
pub fn one_state(tasks: &[TaskState]) -> Result<&TaskState, String> {
    let (first, others) = tasks.split_first().ok_or("there is no thread")?;
    for other in others {
        let differs = [
            ("user", first.uids != other.uids),
            ("group", first.gids != other.gids),
            ("groups", first.groups != other.groups),
            ("capabilities", first.capabilities != other.capabilities),
            ("no_new_privs", first.no_new_privs != other.no_new_privs),
            (
                "seccomp",
                (first.seccomp, first.seccomp_filters) != (other.seccomp, other.seccomp_filters),
            ),
        ];
        let differs: Vec<_> = differs
            .iter()
            .filter(|(_, differs)| *differs)
            .map(|(name, _)| *name)
            .collect();
        if !differs.is_empty() {
            return Err(format!(
                "thread {} differs from thread {} in: {}",
                other.tid,
                first.tid,
                differs.join(", ")
            ));
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tlowport\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapInh:\t0000000000000000\n\
        CapPrm:\t0000000000000400\nCapEff:\t0000000000000400\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000001\n\
        NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";

    #[test]
    fn a_status_is_read() {
        let state = TaskState::parse(7, STATUS).unwrap();
        assert_eq!(
            (state.tid, state.uids, state.gids),
            (7, [1, 2, 3, 4], [5, 6, 7, 8])
        );
        assert_eq!(state.groups, [9, 10]);
        assert_eq!(
            state.capabilities,
            Capabilities {
                inheritable: 0,
                permitted: 0x400,
                effective: 0x400,
                bounding: 0x1ff_ffff_ffff,
                ambient: 1,
            }
        );
        assert!(state.no_new_privs);
        assert_eq!(
            (state.seccomp, state.seccomp_filters),
            (SeccompMode::Filter, Some(3))
        );
        // Linux before 5.9, and no groups.
        let older = STATUS
            .replace("Seccomp_filters:\t3\n", "")
            .replace("9 10", "");
        let state = TaskState::parse(7, &older).unwrap();
        assert_eq!((state.seccomp_filters, state.groups), (None, Vec::new()));
        assert!(TaskState::parse(7, &STATUS.replace("CapEff", "CapX")).is_none());
    }

    #[test]
    fn only_what_matters_is_told_of_a_process() {
        let essence = essential(STATUS);
        assert!(!essence.contains("Name"), "{essence}");
        assert_eq!(TaskState::parse(7, &essence), TaskState::parse(7, STATUS));
        let long = STATUS.replace("9 10", &"1234567 ".repeat(100));
        assert!(!essential(&long).contains("Groups"));
        let own = super::essence(std::process::id()).unwrap();
        assert!(TaskState::parse(7, &own).is_some(), "{own}");
        assert!(super::essence(u32::MAX).is_err());
    }

    #[test]
    fn a_task_that_differs_is_named_with_what_differs() {
        let first = TaskState::parse(7, STATUS).unwrap();
        let same = TaskState {
            tid: 8,
            ..first.clone()
        };
        assert_eq!(one_state(&[first.clone(), same.clone()]), Ok(&first));
        let root = TaskState {
            tid: 9,
            uids: [0; 4],
            seccomp_filters: Some(2),
            ..first.clone()
        };
        assert_eq!(
            one_state(&[first, same, root]),
            Err("thread 9 differs from thread 7 in: user, seccomp".to_owned())
        );
        assert!(one_state(&[]).is_err());
    }

    #[test]
    fn this_process_is_told_with_all_its_threads() {
        let (end, wait) = std::sync::mpsc::channel::<()>();
        let (here, started) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            here.send(nix::unistd::gettid().as_raw().unsigned_abs())
                .unwrap();
            let _ = wait.recv();
        });
        let tid = started.recv().unwrap();
        let tasks = tasks(std::process::id()).unwrap();
        assert!(tasks.iter().any(|task| task.tid == std::process::id()));
        assert!(tasks.iter().any(|task| task.tid == tid));
        let uid = nix::unistd::getuid().as_raw();
        assert_eq!(one_state(&tasks).unwrap().uids[0], uid);
        drop(end);
        thread.join().unwrap();
        assert!(super::tasks(u32::MAX).is_err());
    }
}
