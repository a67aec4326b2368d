//! Each way in which lowport comes by its ports.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use super::lowport::{BINARY, USER};
use super::{Lowport, copy_program, folder, is_root, open_to_all, skipped};

/// Somebody in particular, who needs no account.
pub(crate) const UID: &str = "61234";

/// A rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Activated,
    Root,
    Capability,
    Unprivileged,
}

/// All of them, the first that works first.
pub(crate) const MODES: [Mode; 4] = [
    Mode::Activated,
    Mode::Root,
    Mode::Capability,
    Mode::Unprivileged,
];

/// One that serves, and what its files are in.
pub(crate) struct Rung {
    pub(crate) lowport: Lowport,
    pub(crate) port: u16,
    /// Everybody may write here
    pub(crate) folder: tempfile::TempDir,
}

impl Mode {
    /// As `lowport` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Activated => "activated",
            Self::Root => "root",
            Self::Capability => "capability",
            Self::Unprivileged => "unprivileged",
        }
    }

    /// The most that its bounding set may hold while it serves: its own root empties it, and else whoever starts it.
    pub(crate) fn bounding(self) -> u64 {
        match self {
            _ if !is_root() => own_bounding(),
            Self::Capability => 0x400,
            Self::Activated | Self::Root | Self::Unprivileged => 0,
        }
    }

    /// Starts a lowport in this way, with a port that takes a right to bind where the mode has one, and `rest` of its
    /// configuration, in which `FOLDER` stands for its folder. `None`, loudly, where that takes root and this is not.
    pub(crate) fn start(self, rest: &str, args: &[&str]) -> Option<Rung> {
        if !is_root() && matches!(self, Self::Root | Self::Capability) {
            skipped(&format!("mode {}", self.name()), "needs root");
            return None;
        }
        let passed = (self == Self::Activated)
            .then(|| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
        let port = match (self, &passed) {
            (_, Some(socket)) => socket.local_addr().expect("bound").port(),
            (Self::Root | Self::Capability, None) => low_port(),
            _ => super::port(),
        };
        let listener = match passed {
            Some(_) => String::new(),
            None => format!("http = \"127.0.0.1:{port}\"\n"),
        };
        let toml = format!("[server]\n{listener}user = \"{USER}\"\nworkers = 2\n{rest}");
        let folder = scene("");
        let path = folder.path().to_string_lossy();
        std::fs::write(
            folder.path().join("lowport.toml"),
            toml.replace("FOLDER", &path),
        )
        .expect("written");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777))
            .expect("permissions");
        let script = format!("{}{} \"$@\"", self.passing(), self.becoming());
        let stdin = passed.map_or_else(Stdio::null, |socket| OwnedFd::from(socket).into());
        let mut command = started(folder.path(), &script, stdin);
        let lowport = Lowport::spawn_with_stdin(command.args(args));
        lowport.wait_for(" ready ");
        lowport.wait_for(&format!("mode={} ", self.name()));
        Some(Rung {
            lowport,
            port,
            folder,
        })
    }

    /// As systemd passes a socket, which is standard input here.
    fn passing(self) -> &'static str {
        match self {
            Self::Activated => {
                "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http; "
            }
            _ => "",
        }
    }

    /// Who starts it; root in tests becomes somebody as a service manager would.
    fn becoming(self) -> String {
        let keeping = match self {
            Self::Capability => {
                "--inh-caps=-all,+net_bind_service --ambient-caps=-all,+net_bind_service \
                 --bounding-set=-all,+net_bind_service"
            }
            _ => "--inh-caps=-all --bounding-set=-all",
        };
        match self {
            _ if !is_root() => "exec".to_owned(),
            Self::Root => "exec".to_owned(),
            _ => format!("exec setpriv --reuid {UID} --regid {UID} --clear-groups {keeping}"),
        }
    }
}

/// A folder with `lowport.toml` and the binary, for every user to read.
pub(crate) fn scene(toml: &str) -> tempfile::TempDir {
    let folder = folder();
    let file = folder.path().join("lowport.toml");
    std::fs::write(&file, toml).expect("written");
    open_to_all(&file);
    copy_program(BINARY, folder.path().join("lowport"));
    folder
}

/// `lowport run` behind `sh -c script`, in which `"$@"` stands for it.
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

/// A port that takes a right to bind, that nobody has, and that no other test is given.
pub(crate) fn low_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(600);
    let free = |port: &u16| *port < 1000 && TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed)).take(400);
    ports.find(free).expect("a low port")
}

fn own_bounding() -> u64 {
    let set = super::process::status(std::process::id(), "CapBnd").expect("a status");
    u64::from_str_radix(&set, 16).expect("a set")
}
