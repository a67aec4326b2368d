//! What the kernel says that each thread of a process is and may do: the one reader of it, for the report at start, the
//! broker, `check` and the audit.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::capability;

/// A process as `/proc/PID/status` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// As the kernel names it, cut to 15 bytes
    pub name: String,
    /// Who started it, or inherited it; 0 where that is outside of this PID namespace
    pub parent: u32,
    /// Its first thread's
    pub state: TaskState,
}

impl Status {
    /// Reads that of the process `pid`.
    ///
    /// # Errors
    /// When there is no such process, it is hidden, or the kernel's text is not understood.
    pub fn read(pid: u32) -> io::Result<Self> {
        let text = text(folder(pid))?;
        let status = || {
            Some(Self {
                name: field(&text, "Name")?.to_owned(),
                parent: field(&text, "PPid")?.parse().ok()?,
                state: TaskState::parse(pid, &text)?,
            })
        };
        status().ok_or_else(|| not_understood(pid))
    }
}

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

    /// What the thread can use, at once or by asking for it.
    pub fn usable(&self) -> u64 {
        self.permitted | self.effective | self.ambient
    }

    /// Each set with its name.
    pub fn sets(&self) -> [(&'static str, u64); 5] {
        [
            ("effective", self.effective),
            ("permitted", self.permitted),
            ("inheritable", self.inheritable),
            ("ambient", self.ambient),
            ("bounding", self.bounding),
        ]
    }
}

impl fmt::Display for Capabilities {
    /// `cap_kill (effective, permitted); 41 capabilities (bounding)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("none in any set");
        }
        let mut alike: Vec<(u64, Vec<&str>)> = Vec::new();
        for (name, set) in self.sets().into_iter().filter(|(_, set)| *set != 0) {
            match alike.iter_mut().find(|(other, _)| *other == set) {
                Some((_, names)) => names.push(name),
                None => alike.push((set, vec![name])),
            }
        }
        let told: Vec<String> = alike
            .iter()
            .map(|(set, names)| format!("{} ({})", capability::names(*set), names.join(", ")))
            .collect();
        f.write_str(&told.join("; "))
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
    fn parse(tid: u32, status: &str) -> Option<Self> {
        let field = |name| field(status, name);
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
            seccomp: match field("Seccomp") {
                // Left out by a kernel that is built without it.
                None | Some("0") => SeccompMode::Off,
                Some("1") => SeccompMode::Strict,
                Some("2") => SeccompMode::Filter,
                Some(_) => return None,
            },
            seccomp_filters: field("Seccomp_filters").and_then(|count| count.parse().ok()),
        })
    }

    /// Whether any of its user ids is root's.
    pub fn is_root(&self) -> bool {
        self.uids.contains(&0)
    }

    /// How seccomp treats it, in a word or two.
    pub fn filters(&self) -> String {
        match (self.seccomp, self.seccomp_filters) {
            (SeccompMode::Off, _) => "off".to_owned(),
            (SeccompMode::Strict, _) => "strict".to_owned(),
            (SeccompMode::Filter, Some(1)) => "1 filter".to_owned(),
            (SeccompMode::Filter, Some(filters)) => format!("{filters} filters"),
            (SeccompMode::Filter, None) => "filters".to_owned(),
        }
    }

    /// For programs: every fact.
    pub fn to_json(&self) -> Value {
        let sets: serde_json::Map<_, _> = self
            .capabilities
            .sets()
            .map(|(name, set)| (name.to_owned(), format!("{set:016x}").into()))
            .into_iter()
            .collect();
        json!({
            "tid": self.tid,
            "uids": self.uids,
            "gids": self.gids,
            "groups": self.groups,
            "capabilities": sets,
            "no_new_privs": self.no_new_privs,
            "seccomp": match self.seccomp {
                SeccompMode::Off => "off",
                SeccompMode::Strict => "strict",
                SeccompMode::Filter => "filter",
            },
            "seccomp_filters": self.seccomp_filters,
        })
    }
}

/// The value of a line `name: value`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::trim)
}

/// Reads the state of every thread of the process `pid`: its first one, then the others in the order of their ids.
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

/// For programs: each thread, or why they are unknown.
pub fn threads_json(threads: &Result<Vec<TaskState>, String>) -> Value {
    threads.as_ref().map_or_else(
        |reason| json!({ "unknown": reason }),
        |threads| threads.iter().map(TaskState::to_json).collect(),
    )
}

/// A thread's state from the kernel's text.
pub(super) fn understood(tid: u32, text: &str) -> io::Result<TaskState> {
    TaskState::parse(tid, text).ok_or_else(|| not_understood(tid))
}

fn not_understood(tid: u32) -> io::Error {
    io::Error::other(format!("the status of thread {tid} is not understood"))
}

/// The kernel's text of each thread of the process `pid`: of its first one, then of the others in the order of their
/// ids.
pub(super) fn texts(pid: u32) -> io::Result<Vec<(u32, String)>> {
    is_ours()?;
    let mut texts = Vec::new();
    for entry in fs::read_dir(format!("{}/task", folder(pid)))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(tid) = name.and_then(|name| name.parse().ok()) else {
            continue;
        };
        match text(&path) {
            Ok(status) => texts.push((tid, status)),
            // It ended in between.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    || error.raw_os_error() == Some(nix::libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    texts.sort_unstable_by_key(|(tid, _)| rank(pid, *tid));
    Ok(texts)
}

/// Where a thread stands among those of its process. Ids begin anew below when they have run out, so a later thread can
/// have a lower one than the first.
fn rank(pid: u32, tid: u32) -> (bool, u32) {
    (tid != pid, tid)
}

/// The kernel's lines on who the process `pid` is and what it may do, and no others: at most 4 KiB.
///
/// # Errors
/// When there is no such process, it is hidden, or /proc counts processes otherwise.
pub(super) fn essence(pid: u32) -> io::Result<String> {
    is_ours()?;
    Ok(essential(&text(folder(pid))?))
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

/// Whether /proc counts processes as this one does: one that was mounted outside of this PID namespace has others under the
/// same numbers.
fn is_ours() -> io::Result<()> {
    let status = text("/proc/self")?;
    let pid = field(&status, "Pid").and_then(|pid| pid.parse().ok());
    if pid == Some(std::process::id()) {
        return Ok(());
    }
    Err(io::Error::other(
        "/proc belongs to another PID namespace: mount one for this",
    ))
}

fn folder(pid: u32) -> String {
    format!("/proc/{pid}")
}

/// A name may hold any byte.
fn text(folder: impl AsRef<Path>) -> io::Result<String> {
    let bytes = fs::read(folder.as_ref().join("status"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The one state that all of `tasks` are in, told as that of the first one.
///
/// # Errors
/// When there is no task, or some differ from the first: which, and in what.
pub fn one_state(tasks: &[TaskState]) -> Result<&TaskState, String> {
    let (first, others) = tasks.split_first().ok_or("there is no thread")?;
    let differences: Vec<String> = others
        .iter()
        .filter_map(|other| difference(first, other))
        .collect();
    if differences.is_empty() {
        return Ok(first);
    }
    Err(differences.join("; "))
}

fn difference(first: &TaskState, other: &TaskState) -> Option<String> {
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
    let differs: Vec<&str> = differs
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect();
    (!differs.is_empty()).then(|| {
        let names = differs.join(", ");
        format!(
            "thread {} differs from thread {} in: {names}",
            other.tid, first.tid
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thread_is_first_also_when_the_ids_began_anew() {
        let mut tids = [4266, 32_001, 2392, 32_000];
        tids.sort_unstable_by_key(|tid| rank(32_000, *tid));
        assert_eq!(tids, [32_000, 2392, 4266, 32_001]);
    }

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
        assert_eq!(
            (state.is_root(), state.filters().as_str()),
            (false, "3 filters")
        );
        // Linux before 5.9, and no groups.
        let older = STATUS
            .replace("Seccomp_filters:\t3\n", "")
            .replace("9 10", "");
        let state = TaskState::parse(7, &older).unwrap();
        assert_eq!((state.seccomp_filters, state.groups), (None, Vec::new()));
        // One that is built without seccomp.
        let without = older.replace("Seccomp:\t2\n", "");
        let state = TaskState::parse(7, &without).unwrap();
        assert_eq!(state.filters(), "off");
        for missing in ["Uid", "CapEff", "NoNewPrivs", "Groups"] {
            let text = STATUS.replace(missing, "X");
            assert!(TaskState::parse(7, &text).is_none(), "{missing}");
        }
    }

    #[test]
    fn sets_that_are_alike_are_told_together() {
        let capabilities = TaskState::parse(7, STATUS).unwrap().capabilities;
        assert_eq!(capabilities.usable(), 0x401);
        assert_eq!(
            capabilities.to_string(),
            "cap_net_bind_service (effective, permitted); cap_chown (ambient); 41 capabilities (bounding)"
        );
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
        let of = |tid| TaskState::parse(tid, STATUS).unwrap();
        assert_eq!(one_state(&[of(7), of(8)]), Ok(&of(7)));
        let root = TaskState {
            uids: [0; 4],
            seccomp_filters: Some(2),
            ..of(9)
        };
        let member = TaskState {
            groups: vec![0],
            ..of(10)
        };
        assert_eq!(
            one_state(&[of(7), of(8), root, member]),
            Err(
                "thread 9 differs from thread 7 in: user, seccomp; thread 10 differs from thread 7 in: groups"
                    .to_owned()
            )
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
        let pid = std::process::id();
        let tasks = tasks(pid).unwrap();
        assert!(tasks.iter().any(|task| task.tid == pid));
        assert!(tasks.iter().any(|task| task.tid == tid));
        let uid = nix::unistd::getuid().as_raw();
        assert_eq!(one_state(&tasks).unwrap().uids[0], uid);
        let status = Status::read(pid).unwrap();
        assert_eq!(
            status.parent,
            nix::unistd::getppid().as_raw().unsigned_abs()
        );
        assert_eq!((status.state.tid, status.state.uids[0]), (pid, uid));
        drop(end);
        thread.join().unwrap();
        assert!(super::tasks(u32::MAX).is_err() && Status::read(u32::MAX).is_err());
    }
}
