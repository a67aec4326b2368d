//! Landlock: which files, TCP ports and processes this process reaches from now on, kept by the kernel.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::errno::Errno;
use nix::libc;

use super::fork::OneThread;
use super::needs::{DNS_PORT, Needs, Ports, RESOLVER_FILES};

/// What Landlock keeps, told as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LandlockState {
    /// The kernel's version of Landlock, from 1
    pub abi: u32,
    /// Opening, creating, removing, and all else that is done with paths; ABI 1
    pub files: Kept,
    /// Binding and connecting TCP sockets; ABI 4
    pub network: Kept,
    /// Signals to, and abstract Unix sockets of, processes outside; ABI 6
    pub scopes: Kept,
}

/// How far a restriction goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// As far as was asked for
    Full,
    /// Not as far, and what is open
    Partial(String),
    /// Not at all, and why
    None(String),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("full"),
            Self::Partial(open) => write!(f, "partial: {open}"),
            Self::None(reason) => write!(f, "none: {reason}"),
        }
    }
}

impl LandlockState {
    /// Whether ports are kept.
    pub fn keeps_ports(&self) -> bool {
        !matches!(self.network, Kept::None(_))
    }

    /// What a kernel with this version keeps, where it enforces.
    pub(super) fn of(abi: u32, needs: &Needs) -> Self {
        let mut open = Vec::new();
        if abi < 3 {
            open.push("files that may be written can be truncated (Linux 6.2)");
        }
        if abi < 5 {
            open.push("ioctl on devices (Linux 6.10)");
        }
        if abi < 9 && !needs.connect_unix.is_empty() {
            open.push("any Unix socket can be connected to (Linux 7.1)");
        }
        let network = match abi {
            ..4 => Kept::None("ports are not kept (Linux 6.7)".to_owned()),
            _ if needs.resolve => Kept::Partial("UDP, for resolving names".to_owned()),
            _ => Kept::Full,
        };
        Self {
            abi,
            files: if open.is_empty() {
                Kept::Full
            } else {
                Kept::Partial(open.join("; "))
            },
            network,
            scopes: match abi {
                ..6 => Kept::None("signals and abstract sockets (Linux 6.12)".to_owned()),
                _ => Kept::Full,
            },
        }
    }
}

/// The newest version whose rights were looked at one by one.
const NEWEST: ABI = ABI::V9;

/// Takes away from this process, and from every thread and child to come, whatever `needs` does not name.
///
/// As much as the kernel can do; the result tells how much that was, and nothing is assumed. Sets no_new_privs.
///
/// # Errors
/// When a path in `needs` cannot be opened; or nothing at all would be kept, because there is no Landlock or something
/// refuses it: the process is as open then as it was.
pub(super) fn restrict(needs: &Needs, _alone: &OneThread) -> io::Result<LandlockState> {
    let rules = Rules::of(needs)?;
    let status = rules.apply().map_err(io::Error::other)?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, status) => Err(io::Error::other(missing(status))),
        // Never set by a crate that says that it enforces; a kernel of ABI 0 does not exist.
        (_, LandlockStatus::NotEnabled | LandlockStatus::NotImplemented) => Err(io::Error::other(
            "it is said to be kept by a kernel without it",
        )),
        (
            _,
            LandlockStatus::Available {
                effective_abi,
                kernel_abi,
            },
        ) => {
            let mut state = LandlockState::of(effective_abi as u32, needs);
            if let Some(newer) = kernel_abi {
                state.abi = newer.unsigned_abs();
            }
            Ok(state)
        }
    }
}

/// Why there is no Landlock. The crate takes every refusal for an old kernel, so the kernel is asked once more.
#[expect(unsafe_code, reason = "no crate tells the error number")]
fn missing(status: LandlockStatus) -> String {
    if status == LandlockStatus::NotEnabled {
        return "the kernel has it switched off: add landlock to its lsm= parameter".to_owned();
    }
    const VERSION: libc::c_uint = 1;
    // SAFETY: asks for the version; the null pointer goes with a size of zero, and nothing is written.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            VERSION,
        )
    };
    match Errno::result(answer) {
        Err(Errno::ENOSYS) => "the kernel has none: it takes Linux 5.13 or newer".to_owned(),
        Err(errno) => format!(
            "landlock_create_ruleset: {errno}: something refuses it, probably the seccomp profile of a container or unit"
        ),
        Ok(version) => format!(
            "landlock_create_ruleset was refused, and now answers that the version is {version}"
        ),
    }
}

/// What is allowed, opened and ready.
struct Rules {
    paths: Vec<(PathFd, BitFlags<AccessFs>)>,
    ports: Vec<(u16, AccessNet)>,
    handled_ports: BitFlags<AccessNet>,
}

impl Rules {
    fn of(needs: &Needs) -> io::Result<Self> {
        let mut paths = Vec::new();
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        for path in &needs.read {
            paths.push((open(path)?, of_kind(path, read)));
        }
        if needs.resolve {
            for path in RESOLVER_FILES.iter().map(Path::new) {
                if let Some(path) = where_it_lies(path) {
                    paths.push((open(&path)?, of_kind(&path, read)));
                }
            }
        }
        for path in &needs.write {
            let append = AccessFs::WriteFile | AccessFs::MakeReg;
            paths.push((open(path)?, of_kind(path, append)));
        }
        for socket in &needs.connect_unix {
            // The app makes its socket anew at each start, and maybe its folder too.
            if let Some(folder) = socket.ancestors().skip(1).find(|folder| folder.is_dir()) {
                paths.push((open(folder)?, AccessFs::ResolveUnix.into()));
            }
        }

        let (mut ports, mut handled_ports) = (Vec::new(), BitFlags::EMPTY);
        let mut keep = |which: &Ports, access: AccessNet| {
            if let Ports::Only(which) = which {
                handled_ports |= access;
                ports.extend(which.iter().map(|port| (*port, access)));
            }
        };
        keep(&needs.bind, AccessNet::BindTcp);
        keep(&needs.connect, AccessNet::ConnectTcp);
        if needs.resolve && needs.connect != Ports::Any {
            ports.push((DNS_PORT, AccessNet::ConnectTcp));
        }
        Ok(Self {
            paths,
            ports,
            handled_ports,
        })
    }

    fn apply(self) -> Result<landlock::RestrictionStatus, landlock::RulesetError> {
        let mut ruleset = landlock::Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?;
        if !self.handled_ports.is_empty() {
            ruleset = ruleset.handle_access(self.handled_ports)?;
        }
        let mut created = ruleset.create()?;
        for (path, access) in self.paths {
            created = created.add_rule(PathBeneath::new(path, access))?;
        }
        for (port, access) in self.ports {
            created = created.add_rule(NetPort::new(port, access))?;
        }
        created.restrict_self()
    }
}

fn open(path: &Path) -> io::Result<PathFd> {
    PathFd::new(path).map_err(io::Error::other)
}

/// The rights in `access` that the kernel takes for what is at `path`.
fn of_kind(path: &Path, access: BitFlags<AccessFs>) -> BitFlags<AccessFs> {
    if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(NEWEST)
    }
}

/// What to allow so that the resolver's file at `path` can be read, also after an update: systemd-resolved and
/// NetworkManager put a symbolic link there, and replace the file in a folder of theirs. `None` when it is missing.
fn where_it_lies(path: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(path).ok()?;
    match real.parent() {
        Some(folder) if path.parent() != Some(folder) => Some(folder.to_owned()),
        _ => Some(real),
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    use std::process::Command;

    use nix::sys::signal::kill;
    use nix::unistd::getppid;

    use super::super::testing::in_child;
    use super::*;

    /// Where [`a_strange_kernel`] has its copy write what was kept.
    const TOLD: &str = "LOWPORT_TEST_LANDLOCK_TOLD";

    /// What [`restrict`] says of a kernel that answers as `inject` has strace make it.
    /// `None`, loudly, where there is no strace.
    fn told_by(inject: &str) -> Option<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let traced = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", inject])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "privilege::landlock::tests::a_strange_kernel"])
            .env(TOLD, file.path())
            .output();
        match traced {
            Err(error) => {
                eprintln!("SKIPPED: strace: {error} (apt-get install strace)");
                None
            }
            Ok(output) => {
                assert!(output.status.success(), "{output:?}");
                Some(fs::read_to_string(file.path()).unwrap())
            }
        }
    }

    fn needs() -> Needs {
        Needs {
            read: vec!["/usr".into()],
            write: vec!["/tmp".into()],
            connect: Ports::from_iter([3000]),
            connect_unix: vec!["/run/lowport-test/app.sock".into()],
            ..Needs::default()
        }
    }

    /// Not a test of its own: the process that [`told_by`] traces.
    #[test]
    fn a_strange_kernel() {
        let Some(file) = std::env::var_os(TOLD) else {
            return;
        };
        let told = in_child(|| {
            Ok(match restrict(&needs(), &OneThread::check()?) {
                Ok(state) => format!(
                    "{}\n{}\n{}\n{}",
                    state.abi, state.files, state.network, state.scopes
                ),
                Err(error) => format!("refused: {error}"),
            })
        });
        fs::write(file, told).unwrap();
    }

    #[test]
    fn each_version_is_told_with_what_it_leaves_open() {
        let (truncate, ioctl, unix) = (
            "files that may be written can be truncated (Linux 6.2)",
            "ioctl on devices (Linux 6.10)",
            "any Unix socket can be connected to (Linux 7.1)",
        );
        let no_ports = "none: ports are not kept (Linux 6.7)";
        let no_scopes = "none: signals and abstract sockets (Linux 6.12)";
        for (abi, files, network, scopes) in [
            (1, vec![truncate, ioctl, unix], no_ports, no_scopes),
            (2, vec![truncate, ioctl, unix], no_ports, no_scopes),
            (3, vec![ioctl, unix], no_ports, no_scopes),
            (4, vec![ioctl, unix], "full", no_scopes),
            (5, vec![unix], "full", no_scopes),
            (6, vec![unix], "full", "full"),
        ] {
            let inject = format!("inject=landlock_create_ruleset:retval={abi}:when=1");
            let Some(told) = told_by(&inject) else { return };
            let files = format!("partial: {}", files.join("; "));
            assert_eq!(told, format!("{abi}\n{files}\n{network}\n{scopes}"));
        }
    }

    #[test]
    fn a_refusal_is_not_taken_for_success() {
        for (inject, reason) in [
            (":error=ENOSYS", "the kernel has none: it takes Linux 5.13"),
            (":error=EOPNOTSUPP", "the kernel has it switched off"),
            (":error=EPERM", "something refuses it"),
            (":error=EPERM:when=1", "was refused, and now answers"),
        ] {
            let inject = format!("inject=landlock_create_ruleset{inject}");
            let Some(told) = told_by(&inject) else { return };
            assert!(
                told.starts_with("refused: ") && told.contains(reason),
                "{inject}: {told}"
            );
        }
    }

    #[test]
    fn a_kernel_that_has_it_and_refuses_it_is_an_error() {
        // The second call is the one that makes the rules.
        for inject in [
            "inject=landlock_create_ruleset:error=EPERM:when=2",
            "inject=landlock_restrict_self:error=EPERM",
        ] {
            let Some(told) = told_by(inject) else { return };
            assert!(told.starts_with("refused: "), "{inject}: {told}");
        }
    }

    #[test]
    fn a_path_that_is_missing_is_named() {
        let told = in_child(|| {
            let needs = Needs {
                read: vec!["/nowhere/at/all".into()],
                ..Needs::default()
            };
            Ok(restrict(&needs, &OneThread::check()?)
                .unwrap_err()
                .to_string())
        });
        assert!(told.contains("/nowhere/at/all"), "{told}");
        assert!(told.contains("No such file"), "{told}");
    }

    #[test]
    fn processes_outside_are_out_of_reach() {
        let name = format!("lowport-test-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).unwrap();
        let _listener = UnixListener::bind_addr(&addr).unwrap();
        let told = in_child(|| {
            let state = restrict(&Needs::default(), &OneThread::check()?)?;
            if state.scopes != Kept::Full {
                return Ok("SKIPPED: this kernel has no scopes".to_owned());
            }
            assert_eq!(kill(getppid(), None), Err(Errno::EPERM));
            assert!(UnixStream::connect_addr(&addr).is_err());
            Ok(String::new())
        });
        eprint!("{told}");
        UnixStream::connect_addr(&addr).unwrap();
    }
}
