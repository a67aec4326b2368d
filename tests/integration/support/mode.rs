//! The ways in which lowport comes by its ports: what must hold, must hold in each.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use super::lowport::{BINARY, USER};
use super::{copy_program, folder, is_root, low_port, open_to_all, port, process, say};

/// Somebody in particular, who needs no account.
pub(crate) const SOMEBODY: u32 = 61_234;

/// Who starts lowport, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Somebody who is passed the listening socket
    Activated,
    Root,
    /// Somebody with CAP_NET_BIND_SERVICE
    Capability,
    /// Somebody, or whoever runs the tests where that is not root
    Unprivileged,
}

impl Mode {
    /// Those that can be had here. What is missing is said.
    pub(crate) fn all() -> &'static [Self] {
        if is_root() {
            return &[
                Self::Activated,
                Self::Root,
                Self::Capability,
                Self::Unprivileged,
            ];
        }
        say("*** NOT RUN as root and with a capability: needs root ***");
        &[Self::Activated, Self::Unprivileged]
    }

    /// As the log tells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Activated => "activated",
            Self::Root => "root",
            Self::Capability => "capability",
            Self::Unprivileged => "unprivileged",
        }
    }

    /// Who serves in the end.
    pub(crate) fn uid(self) -> u32 {
        match self {
            Self::Root => {
                let (uid, _) = USER.split_once(':').expect("two numbers");
                uid.parse().expect("a uid")
            }
            _ if is_root() => SOMEBODY,
            _ => nix::unistd::getuid().as_raw(),
        }
    }

    /// The most that its bounding set may hold while it serves: its own root empties it, and else whoever starts it.
    pub(crate) fn bounding(self) -> u64 {
        match self {
            _ if !is_root() => {
                let set = process::status(std::process::id(), "CapBnd").expect("a status");
                u64::from_str_radix(&set, 16).expect("a set")
            }
            Self::Capability => 0x400,
            Self::Activated | Self::Root | Self::Unprivileged => 0,
        }
    }

    /// A port for it: one that takes a right to bind where the mode has that right.
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Root | Self::Capability => low_port(),
            Self::Activated | Self::Unprivileged => port(),
        }
    }

    /// `lowport run` of what is in `folder`, which then listens in plaintext on `port`.
    pub(crate) fn command(self, folder: &Path, port: u16) -> Command {
        let only = "-all,+net_bind_service";
        let wrapper = match self {
            Self::Root => String::new(),
            _ if !is_root() => String::new(),
            Self::Capability => as_somebody(&format!(
                "--inh-caps={only} --ambient-caps={only} --bounding-set={only}"
            )),
            Self::Activated | Self::Unprivileged => {
                as_somebody("--inh-caps=-all --bounding-set=-all")
            }
        };
        if self == Self::Activated {
            let socket = TcpListener::bind(("127.0.0.1", port)).expect("bound");
            return activated(folder, socket.into(), "http", &wrapper);
        }
        started(folder, &format!("exec {wrapper} \"$@\""), Stdio::null())
    }
}

/// The beginning of a command that root has somebody run, as a service manager would, with these options of setpriv(1).
pub(crate) fn as_somebody(options: &str) -> String {
    format!("setpriv --reuid {SOMEBODY} --regid {SOMEBODY} --clear-groups {options}")
}

/// `lowport run` behind `sh -c script`, in which `"$@"` stands for it. Binary and configuration are those in `folder`.
pub(crate) fn started(folder: &Path, script: &str, stdin: Stdio) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]);
    command
        .arg(folder.join("lowport"))
        .args(["run", "-c"])
        .arg(folder.join("lowport.toml"));
    command.stdin(stdin);
    command
}

/// Passes a socket the way systemd does, by `wrapper`, which runs the command in its last arguments in its own place.
pub(crate) fn activated(folder: &Path, socket: OwnedFd, name: &str, wrapper: &str) -> Command {
    let script = format!(
        "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name}; exec {wrapper} \"$@\""
    );
    started(folder, &script, socket.into())
}

/// A folder with this configuration and the binary, for every user to read.
pub(crate) fn scene(toml: &str) -> tempfile::TempDir {
    let folder = folder();
    let file = folder.path().join("lowport.toml");
    std::fs::write(&file, toml).expect("written");
    open_to_all(&file);
    bring_binary(folder.path());
    folder
}

/// Puts the binary into `folder`: where the build's lies, not everybody may go.
pub(crate) fn bring_binary(folder: &Path) {
    copy_program(BINARY, folder.join("lowport"));
}
