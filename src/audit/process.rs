//! Processes as /proc shows them.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use super::command;

/// Who a task is and what it may do (proc_pid_status(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// Real, effective, saved, file system
    pub(super) uids: [u32; 4],
    pub(super) gids: [u32; 4],
    pub(super) groups: Vec<u32>,
    pub(super) capabilities: Capabilities,
    pub(super) no_new_privs: bool,
    /// 0 off, 1 strict, 2 filter
    pub(super) seccomp: u32,
    /// `None` before Linux 5.9
    pub(super) filters: Option<u32>,
}

/// The five sets of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) inheritable: u64,
    pub(super) permitted: u64,
    pub(super) effective: u64,
    pub(super) bounding: u64,
    pub(super) ambient: u64,
}

impl Capabilities {
    /// Each set with the kernel's name for it.
    pub(super) fn sets(&self) -> [(&'static str, u64); 5] {
        [
            ("CapInh", self.inheritable),
            ("CapPrm", self.permitted),
            ("CapEff", self.effective),
            ("CapBnd", self.bounding),
            ("CapAmb", self.ambient),
        ]
    }

    /// What the task can use, at once or by asking for it.
    pub(super) fn usable(&self) -> u64 {
        self.permitted | self.effective | self.ambient
    }
}

impl State {
    /// Whether any of its user ids is root's.
    pub(super) fn is_root(&self) -> bool {
        self.uids.contains(&0)
    }

    /// The second and third line of defence, in a few words.
    pub(super) fn defences(&self) -> String {
        let no_new_privs = if self.no_new_privs {
            "no_new_privs"
        } else {
            "no no_new_privs"
        };
        let seccomp = match (self.seccomp, self.filters) {
            (0, _) => "no seccomp".to_owned(),
            (1, _) => "strict seccomp".to_owned(),
            (_, Some(1)) => "1 seccomp filter".to_owned(),
            (_, Some(filters)) => format!("{filters} seccomp filters"),
            (_, None) => "seccomp filters".to_owned(),
        };
        format!("{no_new_privs}, {seccomp}")
    }
}

/// One process.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: u32,
    /// As the kernel names it, cut to 15 bytes
    pub(super) name: String,
    pub(super) state: State,
    /// `None` where this user may not see it, and for a thread of the kernel's
    pub(super) exe: Option<PathBuf>,
    /// What it was called as
    pub(super) program: String,
}

impl Process {
    /// Reads one process.
    ///
    /// # Errors
    /// When there is none of that number, or /proc does not show it.
    pub(super) fn read(pid: u32) -> io::Result<Self> {
        let folder = folder(pid);
        let (name, parent, state) = status(&folder)?;
        let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Self {
            pid,
            parent,
            name,
            state,
            exe: std::fs::read_link(folder.join("exe")).ok(),
            program: String::from_utf8_lossy(program).into_owned(),
        })
    }

    /// Every process that /proc shows. Those that end in the meantime are left out.
    pub(super) fn all() -> Vec<Self> {
        let entries = std::fs::read_dir("/proc");
        let mut pids: Vec<u32> = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        pids.sort_unstable();
        pids.into_iter()
            .filter_map(|pid| Self::read(pid).ok())
            .collect()
    }

    /// Node, or what runs on it, npm and pm2 among others.
    pub(super) fn is_node(&self) -> bool {
        match &self.exe {
            Some(exe) => command::is_node_binary(&without_deleted(exe)),
            None => command::is_node_binary(&self.name) || command::is_node_binary(&self.program),
        }
    }

    /// lowport itself, or one of its helpers.
    pub(super) fn is_lowport(&self) -> bool {
        match &self.exe {
            Some(exe) => command::base_name(&without_deleted(exe)) == "lowport",
            None => matches!(
                self.name.as_str(),
                "lowport" | "lowport-broker" | "lowport-app"
            ),
        }
    }

    /// The inodes of its sockets.
    ///
    /// # Errors
    /// When this user may not look at them.
    pub(super) fn sockets(&self) -> io::Result<HashSet<u64>> {
        let links = std::fs::read_dir(folder(self.pid).join("fd"))?;
        Ok(links
            .flatten()
            .filter_map(|link| {
                let link = std::fs::read_link(link.path()).ok()?;
                let inode = link.to_str()?.strip_prefix("socket:[")?;
                inode.strip_suffix(']')?.parse().ok()
            })
            .collect())
    }

    /// Which network it is in.
    pub(super) fn network(&self) -> Option<PathBuf> {
        std::fs::read_link(folder(self.pid).join("ns/net")).ok()
    }

    /// The state of every task (thread).
    ///
    /// # Errors
    /// When the process is gone.
    pub(super) fn tasks(&self) -> io::Result<Vec<State>> {
        let entries = std::fs::read_dir(folder(self.pid).join("task"))?;
        Ok(entries
            .flatten()
            .filter_map(|entry| status(&entry.path()).ok())
            .map(|(_, _, state)| state)
            .collect())
    }
}

fn folder(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// A program that was replaced while it runs has a mark at the end of its name.
fn without_deleted(exe: &Path) -> String {
    let exe = exe.to_string_lossy();
    exe.strip_suffix(" (deleted)").unwrap_or(&exe).to_owned()
}

fn status(folder: &Path) -> io::Result<(String, u32, State)> {
    // A name may hold any byte.
    let bytes = std::fs::read(folder.join("status"))?;
    let text = String::from_utf8_lossy(&bytes);
    parse(&text).ok_or_else(|| io::Error::other("its status has an unknown form"))
}

/// The name, the parent and the state in the text of a `status`.
fn parse(text: &str) -> Option<(String, u32, State)> {
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key == name).then(|| value.trim())
        })
    };
    let numbers = |name: &str| -> Option<Vec<u32>> {
        field(name)?
            .split_whitespace()
            .map(|number| number.parse().ok())
            .collect()
    };
    let set = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
    let state = State {
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
        // Left out where the kernel is built without it.
        seccomp: field("Seccomp").map_or(Some(0), |mode| mode.parse().ok())?,
        filters: field("Seccomp_filters").and_then(|count| count.parse().ok()),
    };
    Some((
        field("Name")?.to_owned(),
        field("PPid")?.parse().ok()?,
        state,
    ))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A state with nothing in it, of user 998.
    pub(in crate::audit) fn nobody() -> State {
        State {
            uids: [998; 4],
            gids: [998; 4],
            groups: Vec::new(),
            capabilities: Capabilities {
                inheritable: 0,
                permitted: 0,
                effective: 0,
                bounding: 0,
                ambient: 0,
            },
            no_new_privs: true,
            seccomp: 2,
            filters: Some(3),
        }
    }

    #[test]
    fn this_process_is_read() {
        let pid = std::process::id();
        let process = Process::read(pid).unwrap();
        let uid = nix::unistd::getuid().as_raw();
        assert_eq!((process.pid, process.state.uids[0]), (pid, uid));
        assert_eq!(process.parent, nix::unistd::getppid().as_raw() as u32);
        assert!(!process.tasks().unwrap().is_empty());
        assert!(!process.is_node() && !process.is_lowport());
        assert!(Process::all().iter().any(|other| other.pid == pid));
        assert!(Process::read(u32::MAX).is_err());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let link = std::fs::read_link(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&listener)
        ))
        .unwrap();
        let sockets = process.sockets().unwrap();
        assert!(
            sockets
                .iter()
                .any(|inode| link.to_str() == Some(&format!("socket:[{inode}]")))
        );
    }

    #[test]
    fn a_status_is_parsed_whole_or_not_at_all() {
        let text = "Name:\tnode\nPPid:\t1\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapInh:\t0\n\
                    CapPrm:\t0000000000000400\nCapEff:\t400\nCapBnd:\t1ff\nCapAmb:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        let (name, parent, state) = parse(text).unwrap();
        assert_eq!(
            (name.as_str(), parent, state.uids),
            ("node", 1, [1, 2, 3, 4])
        );
        assert_eq!(
            (state.groups.as_slice(), state.capabilities.usable()),
            (&[9, 10][..], 0x400)
        );
        assert_eq!(state.defences(), "no_new_privs, 3 seccomp filters");
        for missing in ["Uid", "CapEff", "NoNewPrivs", "Groups"] {
            assert!(parse(&text.replace(missing, "X")).is_none(), "{missing}");
        }
        assert!(parse("").is_none());
    }
}
