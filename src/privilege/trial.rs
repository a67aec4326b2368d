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
use nix::unistd::{Uid, alarm, execv, pipe2, setresuid};

use super::drop::become_user;
use super::fork::{Fork, OneThread, exit_now, fork};
use super::landlock::{self, LandlockState};
use super::needs::{Needs, Ports};
use super::seccomp;
use super::user::Identity;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// What was tried, for people
    pub action: String,
    /// How it went
    pub outcome: Outcome,
    /// Whether the sandbox that this kernel has should deny it
    pub promised: bool,
}

/// Why nothing could be tried.
#[derive(Debug)]
pub enum TrialError {
    /// Landlock cannot be had, and why
    Landlock(String),
    /// Filters for system calls cannot be had, and why
    Seccomp(String),
    /// No process could be made, or it did not become who it should
    Other(io::Error),
}

impl<E: Into<io::Error>> From<E> for TrialError {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
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

/// Something to try.
struct Attempt {
    action: String,
    /// Whether nothing but Landlock's rules for ports denies it, which not every version has
    ports_only: bool,
    run: Box<dyn Fn() -> io::Result<()>>,
}

impl Attempt {
    fn new(action: impl Into<String>, run: impl Fn() -> io::Result<()> + 'static) -> Self {
        Self {
            action: action.into(),
            ports_only: false,
            run: Box::new(run),
        }
    }
}

/// Tries what must not be possible, in throwaway processes that first become `user`, unless that happened already
/// (`None`), and put on the sandbox for `needs` just as this process will.
///
/// One process tries on until it is killed, and then the next one goes on from there; each may take a second. What
/// `needs` allows is not tried. The kernel's audit log gets a line for each kill.
///
/// # Errors
/// When there is more than one thread, no process can be made, or the drop or the sandbox failed in one.
pub fn trial(needs: &Needs, user: Option<&Identity>) -> Result<Vec<Tried>, TrialError> {
    let attempts = attempts(needs);
    let mut outcomes = Vec::new();
    let mut keeps_ports = true;
    while outcomes.len() < attempts.len() {
        let left = &attempts[outcomes.len()..];
        let (from, to) = pipe2(OFlag::O_CLOEXEC)?;
        let pid = match fork()? {
            Fork::Parent(pid) => pid,
            Fork::Child => exit_now(try_all(needs, user, left, File::from(to))),
        };
        drop(to);
        let mut told = Vec::new();
        let read = File::from(from).read_to_end(&mut told);
        let ended = waitpid(pid, None)?;
        read?;
        let why = || String::from_utf8_lossy(&told).into_owned();
        match ended {
            WaitStatus::Exited(_, NO_LANDLOCK) => return Err(TrialError::Landlock(why())),
            WaitStatus::Exited(_, NO_SECCOMP) => return Err(TrialError::Seccomp(why())),
            WaitStatus::Exited(_, NO_DROP) => return Err(io::Error::other(why()).into()),
            _ => {}
        }
        let told = told.split_first().map_or(&[][..], |(kept, told)| {
            keeps_ports &= *kept == KEEPS_PORTS;
            told
        });
        outcomes.extend(told.iter().take(left.len()).map(|told| outcome(*told)));
        if told.len() < left.len() {
            outcomes.push(last_outcome(ended));
        }
    }
    let tried = attempts.into_iter().zip(outcomes);
    Ok(tried
        .map(|(attempt, outcome)| Tried {
            promised: keeps_ports || !attempt.ports_only,
            action: attempt.action,
            outcome,
        })
        .collect())
}

/// The exit codes for when there was nothing to try; what was told is the reason then.
const NO_LANDLOCK: i32 = 253;
const NO_SECCOMP: i32 = 254;
const NO_DROP: i32 = 255;
/// What is told first once the sandbox is on.
const KEEPS_PORTS: u8 = 1;
/// Told of a failure that has no number; no error has a number that large.
const NO_NUMBER: u8 = 254;

/// Puts the sandbox on, tells whether it keeps ports, and then how each attempt went: 0, or the error's number. The exit
/// code.
fn try_all(needs: &Needs, user: Option<&Identity>, attempts: &[Attempt], mut told: File) -> u8 {
    // Sends SIGALRM, which ends the process.
    alarm::set(1);
    let keeps_ports = match sandboxed(needs, user) {
        Ok(landlock) => landlock.keeps_ports(),
        Err(error) => {
            let (code, why) = match error {
                TrialError::Landlock(why) => (NO_LANDLOCK, why),
                TrialError::Seccomp(why) => (NO_SECCOMP, why),
                TrialError::Other(error) => (NO_DROP, error.to_string()),
            };
            // The exit code alone tells enough.
            let _ = told.write_all(why.as_bytes());
            return code as u8;
        }
    };
    if told.write_all(&[u8::from(keeps_ports)]).is_err() {
        return 1;
    }
    for attempt in attempts {
        if told.write_all(&[number((attempt.run)())]).is_err() {
            return 1;
        }
    }
    0
}

/// Does to this process what will be done to the one that serves.
fn sandboxed(needs: &Needs, user: Option<&Identity>) -> Result<LandlockState, TrialError> {
    // Being killed would leave one.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    if let Some(user) = user {
        become_user(user)?;
    }
    let alone = OneThread::check()?;
    let landlock = landlock::restrict(needs, &alone)
        .map_err(|error| TrialError::Landlock(error.to_string()))?;
    if let Some(why) = landlock.missing() {
        return Err(TrialError::Landlock(why.to_owned()));
    }
    seccomp::confine(needs, &alone).map_err(|error| TrialError::Seccomp(error.to_string()))?;
    Ok(landlock)
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

/// Of an attempt that was told of.
fn outcome(told: u8) -> Outcome {
    match told {
        0 => Outcome::Allowed,
        NO_NUMBER => Outcome::Unknown,
        number => match Errno::from_raw(number.into()) {
            errno @ (Errno::EPERM | Errno::EACCES) => Outcome::Denied(errno),
            errno => Outcome::LetThrough(errno),
        },
    }
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
    let root = Uid::from_raw(0);
    let mut attempts = vec![
        Attempt::new("become root (setresuid)", move || {
            Ok(setresuid(root, root, root)?)
        }),
        Attempt::new("gain capabilities (capset)", capset),
        Attempt::new("gain them in a new user namespace (unshare)", || {
            Ok(unshare(CloneFlags::CLONE_NEWUSER)?)
        }),
        Attempt::new("start a program (execve)", exec),
        Attempt::new("trace a process (ptrace)", || Ok(ptrace::traceme()?)),
        Attempt::new("run code that it wrote (mmap PROT_EXEC)", map_code),
    ];
    let read = |path: &str| {
        needs
            .read
            .iter()
            .any(|folder| Path::new(path).starts_with(folder))
    };
    for path in ["/etc/passwd", "/proc/self/mem"] {
        if !read(path) {
            let open = move || File::open(path).map(drop);
            attempts.push(Attempt::new(format!("open {path}"), open));
        }
    }
    if let Some(port) = not_in(&needs.bind, 81) {
        let bind = move || TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop);
        attempts.push(Attempt {
            // Where nothing is bound, seccomp denies it, too.
            ports_only: !needs.bind.is_none(),
            ..Attempt::new(format!("bind port {port}"), bind)
        });
    }
    if let Some(port) = not_in(&needs.connect, 1) {
        let connect = move || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop);
        attempts.push(Attempt {
            ports_only: true,
            ..Attempt::new(format!("connect to port {port} on loopback"), connect)
        });
    }
    attempts.push(Attempt::new(
        "talk to the kernel (socket AF_NETLINK)",
        netlink,
    ));
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
    use super::super::user::is_root;
    use super::*;

    fn needs() -> Needs {
        Needs {
            connect: Ports::from_iter([1, 3000]),
            ..Needs::default()
        }
    }

    fn told(tried: Result<Vec<Tried>, TrialError>) -> String {
        tried
            .unwrap()
            .iter()
            .map(|tried| format!("{}: {}\n", tried.action, tried.outcome))
            .collect()
    }

    #[test]
    fn nothing_works_under_the_sandbox() {
        let user = is_root().then(|| Identity::lookup("12345:54321").unwrap());
        let told = in_child(|| Ok(told(trial(&needs(), user.as_ref()))));
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
        let told = in_child(|| Ok(told(trial(&needs, None))));
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
        for Attempt {
            action,
            run: try_it,
            ..
        } in attempts(&needs())
        {
            let (told, ended) = run(|| Ok(outcome(number(try_it())).to_string()));
            let told = if told.is_empty() && ended == Ended::Returned {
                Outcome::Allowed.to_string()
            } else {
                told
            };
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
        let told = in_child(|| Ok(format!("{:?}", trial(&needs, None).unwrap_err())));
        assert!(told.starts_with("Landlock("), "{told}");
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
        let refused = outcome(libc::ECONNREFUSED as u8);
        assert_eq!(refused, Outcome::LetThrough(Errno::ECONNREFUSED));
        assert!(!refused.is_denied() && !outcome(0).is_denied());
        assert!(outcome(libc::EACCES as u8).is_denied());
        let no_number = number(Err(io::Error::other("a text")));
        assert_eq!(outcome(no_number), Outcome::Unknown);
    }
}
