//! What a process with the sandbox on cannot do, found out by trying it in throwaway processes.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Uid, alarm, execv, pipe2, setresuid};

use super::capability::Capability;
use super::drop::{Lesser, capset};
use super::fork::{Fork, exit_now, fork};
use super::needs::{Needs, Ports};
use super::walls::Walls;
use crate::config::Sandbox;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// What was tried, for people
    pub action: String,
    /// How it went
    pub outcome: Outcome,
}

/// How an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Refused: EPERM (by seccomp or for want of a capability), EACCES (by Landlock or the file's mode), or EAFNOSUPPORT (by a
    /// filter from outside, such as systemd's `RestrictAddressFamilies=`, or a kernel without such sockets)
    Denied(Errno),
    /// It ended the process (SIGSYS), as seccomp should
    Killed,
    /// It worked
    Allowed,
    /// It was let through, and then failed for a reason that protects nobody
    LetThrough(Errno),
    /// The process ended in an unexpected way, or took longer than a second: nothing is known
    Unknown,
}

impl Outcome {
    /// Whether somebody who takes the process over could not do it.
    pub fn is_denied(self) -> bool {
        matches!(self, Self::Denied(_) | Self::Killed)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(errno) => write!(f, "denied ({errno:?})"),
            Self::Killed => f.write_str("denied (killed by SIGSYS)"),
            Self::Allowed => f.write_str("ALLOWED"),
            Self::LetThrough(errno) => write!(f, "ALLOWED (it failed with {errno:?})"),
            Self::Unknown => f.write_str("UNKNOWN"),
        }
    }
}

/// Something to try.
struct Attempt {
    action: String,
    /// Whether nothing but Landlock's rules on ports would deny it
    is_on_ports: bool,
    make: Box<dyn Fn() -> io::Result<()>>,
}

/// Tries what must not be possible, in throwaway processes that first become as little as `lesser` says, and put on the
/// sandbox for `needs` just as this process will.
///
/// One process tries on until it is killed, and then the next one goes on from there; each may take a second. What
/// `needs` allows is not tried, nor what takes a port that this kernel's Landlock does not keep, which its state tells
/// (before Linux 6.7). The kernel's audit log gets a line for each kill.
///
/// # Errors
/// When there is more than one thread, no process can be made, or the drop or the sandbox failed in one.
pub(super) fn trial(needs: &Needs, lesser: Lesser<'_>) -> io::Result<Vec<Tried>> {
    let attempts = attempts(needs);
    let mut outcomes = Vec::new();
    while outcomes.len() < attempts.len() {
        let left = &attempts[outcomes.len()..];
        let (from, to) = pipe2(OFlag::O_CLOEXEC)?;
        let pid = match fork()? {
            Fork::Parent(pid) => pid,
            Fork::Child => exit_now(try_all(needs, lesser, left, File::from(to))),
        };
        drop(to);
        let mut told = Vec::new();
        let read = File::from(from).read_to_end(&mut told);
        let ended = waitpid(pid, None)?;
        read?;
        if ended == WaitStatus::Exited(pid, NO_SANDBOX.into()) {
            let why = String::from_utf8_lossy(&told);
            return Err(io::Error::other(format!(
                "the sandbox could not be tried out: {why}"
            )));
        }
        outcomes.extend(told.iter().take(left.len()).map(|told| outcome(*told)));
        if told.len() < left.len() {
            outcomes.push(Some(last_outcome(ended)));
        }
    }
    Ok(attempts
        .into_iter()
        .zip(outcomes)
        .filter_map(|(attempt, outcome)| {
            outcome.map(|outcome| Tried {
                action: attempt.action,
                outcome,
            })
        })
        .collect())
}

/// The exit code for when there was nothing to try.
const NO_SANDBOX: u8 = 255;
/// Told of a failure that has no number; no error has a number that large.
const NO_NUMBER: u8 = 254;
/// Told of what was not tried.
const NOT_TRIED: u8 = 253;

/// Puts the sandbox on and tells how each attempt went: 0, or the error's number; or why there is none. The exit code.
fn try_all(needs: &Needs, lesser: Lesser<'_>, attempts: &[Attempt], mut told: File) -> u8 {
    // Sends SIGALRM, which ends the process.
    alarm::set(1);
    let sandboxed = || -> io::Result<Walls> {
        // Being killed would leave one.
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        lesser.now()?;
        // Whole: what may be left out would show as allowed.
        Walls::put_on(needs.clone(), Vec::new(), &Sandbox::default())
    };
    let walls = match sandboxed() {
        Ok(walls) => walls,
        Err(error) => {
            // Some of the filters may be on by now, but none that forbids to write.
            let _ = told.write_all(error.to_string().as_bytes());
            return NO_SANDBOX;
        }
    };
    let keeps_ports = walls.landlock.is_ok_and(|state| state.keeps_ports());
    for attempt in attempts {
        let outcome = if attempt.is_on_ports && !keeps_ports {
            NOT_TRIED
        } else {
            number((attempt.make)())
        };
        if told.write_all(&[outcome]).is_err() {
            return NO_NUMBER;
        }
    }
    0
}

fn number(result: io::Result<()>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => error
            .raw_os_error()
            .and_then(|number| u8::try_from(number).ok())
            .unwrap_or(NO_NUMBER),
    }
}

/// Of an attempt that was told of; `None` if it was not made.
fn outcome(told: u8) -> Option<Outcome> {
    Some(match told {
        0 => Outcome::Allowed,
        NO_NUMBER => Outcome::Unknown,
        NOT_TRIED => return None,
        number => match Errno::from_raw(number.into()) {
            errno @ (Errno::EPERM | Errno::EACCES | Errno::EAFNOSUPPORT) => Outcome::Denied(errno),
            errno => Outcome::LetThrough(errno),
        },
    })
}

/// Of the attempt after which nothing was told any more.
fn last_outcome(ended: WaitStatus) -> Outcome {
    match ended {
        WaitStatus::Signaled(_, Signal::SIGSYS, _) => Outcome::Killed,
        // It turned into another program, and that succeeded.
        WaitStatus::Exited(_, 0) => Outcome::Allowed,
        _ => Outcome::Unknown,
    }
}

fn attempts(needs: &Needs) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let mut try_with = |action: &str, is_on_ports, make| {
        attempts.push(Attempt {
            action: action.to_owned(),
            is_on_ports,
            make,
        });
    };
    let mut add =
        |action: &str, make: Box<dyn Fn() -> io::Result<()>>| try_with(action, false, make);
    let root = Uid::from_raw(0);
    add(
        "become root (setresuid)",
        Box::new(move || Ok(setresuid(root, root, root)?)),
    );
    add(
        "gain capabilities (capset)",
        Box::new(|| capset(Capability::NetBindService.bit())),
    );
    add(
        "gain them in a new user namespace (unshare)",
        Box::new(|| Ok(unshare(CloneFlags::CLONE_NEWUSER)?)),
    );
    add("start a program (execve)", Box::new(exec));
    add("start a process (fork)", Box::new(another));
    add(
        "trace a process (ptrace)",
        Box::new(|| Ok(ptrace::traceme()?)),
    );
    add(
        "run code that it wrote (mmap PROT_EXEC)",
        Box::new(map_code),
    );
    for path in ["/", "/etc/passwd", "/etc/shadow", "/proc/self/mem"].map(Path::new) {
        let needed = needs.read.iter().any(|folder| path.starts_with(folder));
        // A container may have no users; that there is nothing to open protects nobody.
        if needed || !path.exists() {
            continue;
        }
        add(
            &format!("open {}", path.display()),
            Box::new(move || File::open(path).map(drop)),
        );
    }
    add("talk to the kernel (socket AF_NETLINK)", Box::new(netlink));
    // Where there are none at all, seccomp denies the call.
    if let Some(port) = not_in(&needs.bind, 81) {
        try_with(
            &format!("bind port {port}"),
            !needs.bind.is_none(),
            Box::new(move || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop)),
        );
    }
    if let Some(port) = not_in(&needs.connect, 1) {
        try_with(
            &format!("connect to port {port} on loopback"),
            !needs.connect.is_none(),
            Box::new(move || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop)),
        );
    }
    attempts
}

/// The first port from `from` on that is not one of `ports`.
fn not_in(ports: &Ports, from: u16) -> Option<u16> {
    (from..=u16::MAX).find(|port| !ports.contains(*port))
}

fn exec() -> io::Result<()> {
    match execv(c"/bin/true", &[c"true"]) {
        // A container without it tells as much: whether the kernel looked for it at all.
        Err(errno) => Err(errno.into()),
    }
}

#[expect(
    unsafe_code,
    reason = "the checked fork looks into /proc, which may be denied as well"
)]
fn another() -> io::Result<()> {
    // SAFETY: this process has one thread, and the copy ends at once.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => exit_now(0),
        ForkResult::Parent { child } => {
            waitpid(child, None)?;
            Ok(())
        }
    }
}

#[expect(unsafe_code, reason = "std maps no memory")]
fn map_code() -> io::Result<()> {
    // SAFETY: a new anonymous page at an address of the kernel's choice touches no memory in use; the process ends
    // without using it.
    let page = unsafe {
        // Not through the C library: musl's tells of ENOMEM when it is EPERM.
        libc::syscall(
            libc::SYS_mmap,
            std::ptr::null_mut::<libc::c_void>(),
            4096usize,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0usize,
        )
    };
    Errno::result(page)?;
    Ok(())
}

fn netlink() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Ended, in_child, run};
    use super::super::user::{Identity, is_root};
    use super::*;

    fn needs() -> Needs {
        Needs {
            connect: Ports::from_iter([1, 3000]),
            ..Needs::default()
        }
    }

    fn told(tried: &[Tried]) -> String {
        tried
            .iter()
            .map(|tried| format!("{}: {}\n", tried.action, tried.outcome))
            .collect()
    }

    #[test]
    fn nothing_works_under_the_sandbox() {
        let user = match is_root() {
            true => Identity::lookup("12345:54321").unwrap(),
            false => Identity::current(),
        };
        let told = in_child(|| Ok(told(&trial(&needs(), Lesser::User(&user))?)));
        let killed = "denied (killed by SIGSYS)";
        let expected = [
            format!("become root (setresuid): {killed}"),
            format!("gain capabilities (capset): {killed}"),
            format!("gain them in a new user namespace (unshare): {killed}"),
            format!("start a program (execve): {killed}"),
            "start a process (fork): denied (EPERM)".to_owned(),
            format!("trace a process (ptrace): {killed}"),
            "run code that it wrote (mmap PROT_EXEC): denied (EPERM)".to_owned(),
            "open /: denied (EPERM)".to_owned(),
            "open /etc/passwd: denied (EPERM)".to_owned(),
            "open /etc/shadow: denied (EPERM)".to_owned(),
            "open /proc/self/mem: denied (EPERM)".to_owned(),
            "talk to the kernel (socket AF_NETLINK): denied (EPERM)".to_owned(),
            "bind port 81: denied (EPERM)".to_owned(),
            "connect to port 2 on loopback: denied (EACCES)".to_owned(),
        ];
        assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_needed_is_not_tried() {
        let needs = Needs {
            read: vec!["/etc".into()],
            bind: Ports::Any,
            connect: Ports::Any,
            ..Needs::default()
        };
        let told = in_child(|| Ok(told(&trial(&needs, Lesser::Keeping(&[]))?)));
        for not in ["/etc/passwd", "bind port", "connect to"] {
            assert!(!told.contains(not), "{told}");
        }
        // It may open files now, so it is Landlock that says no; here as there for a file that is not dumpable's.
        assert!(
            told.contains("open /proc/self/mem: denied (EACCES)"),
            "{told}"
        );
    }

    #[test]
    fn the_attempts_work_where_there_is_no_sandbox() {
        let mut outcomes = Vec::new();
        for Attempt { action, make, .. } in attempts(&needs()) {
            let (told, ended) = run(|| Ok(outcome(number(make())).unwrap().to_string()));
            let told = if told.is_empty() && ended == Ended::Returned {
                Outcome::Allowed.to_string()
            } else {
                told
            };
            outcomes.push((action, told));
        }
        // What also a bare process of an ordinary user, or of a container's root, may be denied.
        let may_fail = [
            "setresuid",
            "capset",
            "unshare",
            "ptrace",
            "bind port",
            "shadow",
        ];
        for (action, told) in outcomes {
            if !may_fail.iter().any(|name| action.contains(name)) {
                assert!(told.starts_with("ALLOWED"), "{action}: {told}");
            }
        }
    }

    #[test]
    fn a_sandbox_that_cannot_be_put_on_is_an_error() {
        let needs = Needs {
            read: vec!["/nowhere/at/all".into()],
            ..Needs::default()
        };
        let told = in_child(|| Ok(trial(&needs, Lesser::Keeping(&[])).unwrap_err().to_string()));
        assert!(told.contains("could not be tried"), "{told}");
        assert!(told.contains("/nowhere/at/all"), "{told}");
    }

    #[test]
    fn an_unexpected_end_proves_nothing() {
        let pid = nix::unistd::getpid();
        assert_eq!(
            last_outcome(WaitStatus::Signaled(pid, Signal::SIGSYS, false)),
            Outcome::Killed
        );
        for ended in [
            WaitStatus::Signaled(pid, Signal::SIGALRM, false),
            WaitStatus::Signaled(pid, Signal::SIGKILL, false),
            WaitStatus::Exited(pid, 1),
        ] {
            assert_eq!(last_outcome(ended), Outcome::Unknown);
        }
        assert!(!Outcome::Unknown.is_denied());
        let outcome = |number| outcome(number).unwrap();
        let refused = outcome(libc::ECONNREFUSED as u8);
        assert_eq!(refused, Outcome::LetThrough(Errno::ECONNREFUSED));
        assert!(!refused.is_denied() && !outcome(0).is_denied());
        for errno in [libc::EPERM, libc::EACCES, libc::EAFNOSUPPORT] {
            assert!(outcome(errno as u8).is_denied());
        }
        let no_number = number(Err(io::Error::other("a text")));
        assert_eq!(outcome(no_number), Outcome::Unknown);
    }
}
