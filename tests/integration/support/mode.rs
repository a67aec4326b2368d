//! The ways in which lowport comes by its ports, one after the other: what must hold, must hold in each.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use super::lowport::{BINARY, USER};
use super::{copy_program, is_root, say};

/// Somebody in particular, who needs no account.
pub(crate) const SOMEBODY: u32 = 61_234;

/// Who starts lowport, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Root,
    /// Somebody with CAP_NET_BIND_SERVICE
    Capability,
    /// Somebody who is passed the listening socket
    Activated,
    /// Somebody, or whoever runs the tests where that is not root
    Unprivileged,
}

impl Mode {
    /// Those that can be had here. What is missing is said.
    pub(crate) fn all() -> &'static [Self] {
        if is_root() {
            return &[
                Self::Root,
                Self::Capability,
                Self::Activated,
                Self::Unprivileged,
            ];
        }
        say("*** NOT RUN as root and with a capability: needs root ***");
        &[Self::Activated, Self::Unprivileged]
    }

    /// As the log tells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Capability => "capability",
            Self::Activated => "activated",
            Self::Unprivileged => "unprivileged",
        }
    }

    /// Who serves in the end.
    pub(crate) fn uid(self) -> u32 {
        match self {
            Self::Root => USER
                .split(':')
                .next()
                .expect("a uid")
                .parse()
                .expect("a uid"),
            _ if is_root() => SOMEBODY,
            _ => nix::unistd::getuid().as_raw(),
        }
    }

    /// `lowport run` of what is in `folder`, which then listens in plaintext on `port`.
    pub(crate) fn command(self, folder: &Path, port: u16) -> Command {
        let somebody = if is_root() && self != Self::Root {
            format!("setpriv --reuid {SOMEBODY} --regid {SOMEBODY} --clear-groups")
        } else {
            String::new()
        };
        match self {
            Self::Root => started(folder, r#"exec "$@""#, Stdio::null()),
            Self::Unprivileged => {
                started(folder, &format!(r#"exec {somebody} "$@""#), Stdio::null())
            }
            Self::Capability => {
                let only = "-all,+net_bind_service";
                let script = format!(
                    r#"exec {somebody} --inh-caps={only} --ambient-caps={only} --bounding-set={only} "$@""#
                );
                started(folder, &script, Stdio::null())
            }
            Self::Activated => {
                let socket = TcpListener::bind(("127.0.0.1", port)).expect("bound");
                activated(folder, socket.into(), "http", &somebody)
            }
        }
    }
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
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name} exec {wrapper} \"$@\""
    );
    started(folder, &script, socket.into())
}

/// Puts the binary into `folder`: where the build's lies, not everybody may go.
pub(crate) fn bring_binary(folder: &Path) {
    copy_program(BINARY, folder.join("lowport"));
}
