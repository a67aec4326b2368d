//! What a process with the sandbox on cannot do, found out by trying it in throwaway processes.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Uid, alarm, execv, setresuid};

use super::drop::become_user;
use super::fork::{Fork, OneThread, exit_now, fork};
use super::needs::{Needs, Ports};
use super::user::Identity;
use super::{landlock, seccomp};

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
    /// Refused: EPERM (by seccomp or for want of a capability) or EACCES (by Landlock or the file's mode)
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

type Attempt = Box<dyn Fn() -> io::Result<()>>;

/// Tries what must not be possible, each in a process of its own that first becomes `user`, unless that happened
/// already (`None`), and puts on the sandbox for `needs` just as this process will.
///
/// Takes some milliseconds, and a second at most. What `needs` allows is not tried.
///
/// # Errors
/// When there is more than one thread, no process can be made, or the drop or the sandbox failed in one.
pub fn trial(needs: &Needs, user: Option<&Identity>) -> io::Result<Vec<Tried>> {
    let mut running = Vec::new();
    for (action, attempt) in attempts(needs) {
        match fork()? {
            Fork::Parent(pid) => running.push((action, pid)),
            Fork::Child => exit_now(tell(needs, user, &attempt)),
        }
    }
    // Every child is waited for, whatever became of the others.
    let ended: Vec<_> = running
        .into_iter()
        .map(|(action, pid)| (action, waitpid(pid, None)))
        .collect();
    ended
        .into_iter()
        .map(|(action, ended)| {
            let outcome = outcome(ended?)?;
            Ok(Tried { action, outcome })
        })
        .collect()
}

/// The drop or the sandbox failed. No error number is that large.
const NO_SANDBOX: u8 = 255;
/// A kind of failure without a number.
const NO_NUMBER: u8 = 254;

/// An attempt's exit code: 0, the error's number, or one of the two above.
fn tell(needs: &Needs, user: Option<&Identity>, attempt: &Attempt) -> u8 {
    // Sends SIGALRM, which ends the process.
    alarm::set(1);
    let sandboxed = || -> io::Result<()> {
        // Being killed would leave one.
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        if let Some(user) = user {
            become_user(user)?;
        }
        let alone = OneThread::check()?;
        landlock::restrict(needs, &alone)?;
        seccomp::confine(needs, &alone)?;
        Ok(())
    };
    if sandboxed().is_err() {
        return NO_SANDBOX;
    }
    match attempt() {
        Ok(()) => 0,
        Err(error) => error
            .raw_os_error()
            .and_then(|number| u8::try_from(number).ok())
            .unwrap_or(NO_NUMBER),
    }
}

fn outcome(ended: WaitStatus) -> io::Result<Outcome> {
    Ok(match ended {
        WaitStatus::Exited(_, 0) => Outcome::Allowed,
        WaitStatus::Exited(_, code) if code == i32::from(NO_SANDBOX) => {
            return Err(io::Error::other("the sandbox could not be tried out"));
        }
        WaitStatus::Exited(_, code) if code == i32::from(NO_NUMBER) => Outcome::Unknown,
        WaitStatus::Exited(_, code) => match Errno::from_raw(code) {
            errno @ (Errno::EPERM | Errno::EACCES) => Outcome::Denied(errno),
            errno => Outcome::LetThrough(errno),
        },
        WaitStatus::Signaled(_, Signal::SIGSYS, _) => Outcome::Killed,
        _ => Outcome::Unknown,
    })
}

fn attempts(needs: &Needs) -> Vec<(String, Attempt)> {
    let mut attempts: Vec<(String, Attempt)> = Vec::new();
    let mut add = |action: &str, attempt: Attempt| attempts.push((action.to_owned(), attempt));
    let root = Uid::from_raw(0);
    add(
        "become root (setresuid)",
        Box::new(move || Ok(setresuid(root, root, root)?)),
    );
    add("gain capabilities (capset)", Box::new(capset));
    add(
        "gain them in a new user namespace (unshare)",
        Box::new(|| Ok(unshare(CloneFlags::CLONE_NEWUSER)?)),
    );
    add("start a program (execve)", Box::new(exec));
    add(
        "trace a process (ptrace)",
        Box::new(|| Ok(ptrace::traceme()?)),
    );
    add(
        "run code that it wrote (mmap PROT_EXEC)",
        Box::new(map_code),
    );
    for path in ["/etc/passwd", "/proc/self/mem"] {
        if needs
            .read
            .iter()
            .any(|folder| Path::new(path).starts_with(folder))
        {
            continue;
        }
        add(
            &format!("open {path}"),
            Box::new(move || File::open(path).map(drop)),
        );
    }
    if let Some(port) = not_in(&needs.bind, 81) {
        add(
            &format!("bind port {port}"),
            Box::new(move || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop)),
        );
    }
    if let Some(port) = not_in(&needs.connect, 1) {
        add(
            &format!("connect to port {port} on loopback"),
            Box::new(move || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop)),
        );
    }
    add("talk to the kernel (socket AF_NETLINK)", Box::new(netlink));
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

#[expect(unsafe_code, reason = "nix has no call for capability sets")]
fn capset() -> io::Result<()> {
    // CAP_NET_BIND_SERVICE, effective and permitted, of this thread; version 3 takes two sets of 32.
    let header: [u32; 2] = [0x2008_0522, 0];
    let sets: [u32; 6] = [1 << 10, 1 << 10, 0, 0, 0, 0];
    // SAFETY: the header and the sets have version 3's layout, live until the call returns, and are only read.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) })?;
    Ok(())
}

#[expect(unsafe_code, reason = "std maps no memory")]
fn map_code() -> io::Result<()> {
    // SAFETY: a new anonymous page at an address of the kernel's choice touches no memory in use; the process ends
    // without using it.
    let page = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
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
    use super::super::testing::in_child;
    use super::super::user::is_root;
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
        let user = is_root().then(|| Identity::lookup("12345:54321").unwrap());
        let told = in_child(|| Ok(told(&trial(&needs(), user.as_ref())?)));
        let killed = "denied (killed by SIGSYS)";
        let expected = [
            format!("become root (setresuid): {killed}"),
            format!("gain capabilities (capset): {killed}"),
            format!("gain them in a new user namespace (unshare): {killed}"),
            format!("start a program (execve): {killed}"),
            format!("trace a process (ptrace): {killed}"),
            "run code that it wrote (mmap PROT_EXEC): denied (EPERM)".to_owned(),
            "open /etc/passwd: denied (EPERM)".to_owned(),
            "open /proc/self/mem: denied (EPERM)".to_owned(),
            "bind port 81: denied (EPERM)".to_owned(),
            "connect to port 2 on loopback: denied (EACCES)".to_owned(),
            "talk to the kernel (socket AF_NETLINK): denied (EPERM)".to_owned(),
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
        let told = in_child(|| Ok(told(&trial(&needs, None)?)));
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
        for (action, attempt) in attempts(&needs()) {
            let told = in_child(|| {
                let pid = match fork()? {
                    Fork::Parent(pid) => pid,
                    Fork::Child => exit_now(match attempt() {
                        Ok(()) => 0,
                        Err(error) => error.raw_os_error().unwrap().try_into().unwrap(),
                    }),
                };
                Ok(outcome(waitpid(pid, None)?)?.to_string())
            });
            outcomes.push((action, told));
        }
        // What also a bare process of an ordinary user, or of a container's root, may be denied.
        let may_fail = ["setresuid", "capset", "unshare", "ptrace", "bind port"];
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
        let told = in_child(|| Ok(trial(&needs, None).unwrap_err().to_string()));
        assert!(told.contains("could not be tried"), "{told}");
    }

    #[test]
    fn an_unexpected_end_proves_nothing() {
        let pid = nix::unistd::getpid();
        for (ended, expected) in [
            (WaitStatus::Exited(pid, 0), Outcome::Allowed),
            (
                WaitStatus::Exited(pid, libc::EPERM),
                Outcome::Denied(Errno::EPERM),
            ),
            (
                WaitStatus::Exited(pid, libc::ECONNREFUSED),
                Outcome::LetThrough(Errno::ECONNREFUSED),
            ),
            (WaitStatus::Exited(pid, 254), Outcome::Unknown),
            (
                WaitStatus::Signaled(pid, Signal::SIGSYS, false),
                Outcome::Killed,
            ),
            (
                WaitStatus::Signaled(pid, Signal::SIGALRM, false),
                Outcome::Unknown,
            ),
        ] {
            let outcome = outcome(ended).unwrap();
            assert_eq!(outcome, expected);
            assert_eq!(
                outcome.is_denied(),
                matches!(outcome, Outcome::Denied(_) | Outcome::Killed)
            );
        }
    }
}
