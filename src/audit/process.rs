//! Processes, and what they are processes of.

use std::path::{Path, PathBuf};

use super::command;
use super::finding::Place;
use crate::privilege::process::pids;
use crate::privilege::status::{Status, TaskState};

/// One process.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: u32,
    /// As the kernel names it, cut to 15 bytes
    pub(super) name: String,
    /// Its first thread's
    pub(super) state: TaskState,
    /// `None` where this user may not see it, and for a thread of the kernel's
    pub(super) exe: Option<PathBuf>,
    /// What it was called as
    pub(super) program: String,
}

/// All that /proc shows.
#[derive(Debug)]
pub(super) struct Processes {
    pub(super) seen: Vec<Process>,
    /// Whether there are more: /proc is mounted with `hidepid`
    pub(super) hides: bool,
}

impl Processes {
    /// Looks at each. Those that end in the meantime are left out.
    pub(super) fn now() -> Self {
        // There always is a first one.
        let mut hides = Status::read(1).is_err();
        let mut seen = Vec::new();
        for pid in pids() {
            match Process::read(pid) {
                Ok(process) => seen.push(process),
                Err(error) => hides |= error.kind() == std::io::ErrorKind::PermissionDenied,
            }
        }
        Self { seen, hides }
    }
}

impl Process {
    /// Reads one process.
    ///
    /// # Errors
    /// When there is none of that number, or /proc does not show it.
    pub(super) fn read(pid: u32) -> std::io::Result<Self> {
        let status = Status::read(pid)?;
        let folder = folder(pid);
        let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Self {
            pid,
            parent: status.parent,
            name: status.name,
            state: status.state,
            exe: std::fs::read_link(folder.join("exe")).ok(),
            program: String::from_utf8_lossy(program).into_owned(),
        })
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

    /// Which network it is in.
    pub(super) fn network(&self) -> Option<PathBuf> {
        std::fs::read_link(self.folder().join("ns/net")).ok()
    }

    /// Its folder in /proc.
    pub(super) fn folder(&self) -> PathBuf {
        folder(self.pid)
    }

    /// Where a finding about it is.
    pub(super) fn place(&self) -> Place {
        Place::Process {
            pid: self.pid,
            name: self.name.clone(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read_and_is_neither() {
        let pid = std::process::id();
        let process = Process::read(pid).unwrap();
        let uid = nix::unistd::getuid().as_raw();
        assert_eq!((process.pid, process.state.uids[0]), (pid, uid));
        assert!(!process.is_node() && !process.is_lowport());
        assert_eq!(
            process.network(),
            std::fs::read_link("/proc/self/ns/net").ok()
        );
        let processes = Processes::now();
        assert!(processes.seen.iter().any(|other| other.pid == pid));
        assert!(Process::read(u32::MAX).is_err());
    }

    #[test]
    fn a_replaced_program_keeps_its_name() {
        for (exe, name, expected) in [
            (Some("/usr/bin/lowport (deleted)"), "x", (false, true)),
            (Some("/usr/bin/node (deleted)"), "lowport", (true, false)),
            (None, "lowport-broker", (false, true)),
            (None, "node", (true, false)),
        ] {
            let process = Process {
                exe: exe.map(PathBuf::from),
                ..super::super::testing::process(7, 1, name)
            };
            assert_eq!(
                (process.is_node(), process.is_lowport()),
                expected,
                "{exe:?} {name}"
            );
        }
    }
}
