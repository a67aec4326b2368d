//! seccomp: which system calls this process makes from now on, kept by the kernel.

use std::collections::BTreeMap;
use std::io;

use nix::libc::{ENOSYS, EPERM, c_long};
use nix::unistd::getppid;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use super::calls::{self, CLONE3, never};
use super::fork::OneThread;
use super::needs::Needs;

/// What seccomp keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeccompState {
    /// How many filters this process put on
    pub filters: usize,
    /// The calls that are let through, some only with certain arguments, in alphabetical order
    pub calls: Vec<&'static str>,
}

/// Leaves to this process, and to every thread to come, only the system calls that `needs` takes.
///
/// Three filters, of which the strictest wins: clone3(2) does not exist; what a proxy never does ends the process
/// (SIGSYS); and what is not on the list is answered EPERM. That one comes last, since it lets no filter on after it.
/// Nothing that starts a program, becomes somebody or makes memory executable is ever on the list. Sets no_new_privs.
///
/// # Errors
/// When the kernel has no seccomp filters, or does not follow them. The process may have some of them on by then: it should
/// end.
pub(super) fn confine(needs: &Needs, _alone: &OneThread) -> io::Result<SeccompState> {
    let filters = filters(needs).map_err(io::Error::other)?;
    for filter in &filters {
        apply_filter(filter).map_err(io::Error::other)?;
    }
    // Not on the list, and of no consequence. An emulated kernel may take a filter and not follow it.
    if getppid().as_raw() >= 0 {
        return Err(io::Error::other(
            "the kernel took the filters for system calls and does not follow them",
        ));
    }
    Ok(SeccompState {
        filters: filters.len(),
        calls: allowed(needs),
    })
}

/// The names of the calls that [`confine`] lets through for `needs`, in alphabetical order.
pub(super) fn allowed(needs: &Needs) -> Vec<&'static str> {
    let calls = calls::allowed(needs).unwrap_or_default();
    let mut names: Vec<_> = calls.iter().map(|call| call.name).collect();
    names.sort_unstable();
    names
}

fn filters(needs: &Needs) -> Result<[BpfProgram; 3], BackendError> {
    let any = |numbers: &mut dyn Iterator<Item = c_long>| {
        numbers
            .map(|number| (number, Vec::new()))
            .collect::<BTreeMap<c_long, Vec<SeccompRule>>>()
    };
    let no_clone3 = any(&mut [CLONE3].into_iter());
    let never = any(&mut never().map(|(_, number)| number));
    // The last filter decides between two errors, so clone3 passes it to be answered by the first.
    let mut allowed = no_clone3.clone();
    allowed.extend(
        calls::allowed(needs)?
            .into_iter()
            .map(|call| (call.number, call.rules)),
    );
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let compile = |rules, otherwise, matching| {
        SeccompFilter::new(rules, otherwise, matching, arch)?.try_into()
    };
    let errno = |number: i32| SeccompAction::Errno(number.unsigned_abs());
    Ok([
        compile(no_clone3, SeccompAction::Allow, errno(ENOSYS))?,
        compile(never, SeccompAction::Allow, SeccompAction::KillProcess)?,
        compile(allowed, errno(EPERM), SeccompAction::Allow)?,
    ])
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use nix::libc::{self, c_int};
    use nix::sys::signal::Signal;

    use super::super::needs::{Ports, Work};
    use super::super::testing::{Ended, in_child, run};
    use super::*;

    fn proxy() -> Needs {
        Needs {
            connect: Ports::from_iter([3000]),
            ..Needs::default()
        }
    }

    /// A system call with these arguments and zeros for the rest.
    #[expect(unsafe_code, reason = "calls that no crate offers")]
    fn call<const N: usize>(number: c_long, arguments: [c_long; N]) -> Result<c_long, Errno> {
        let mut all = [0; 6];
        all[..N].copy_from_slice(&arguments);
        let [a, b, c, d, e, f] = all;
        // SAFETY: every call in these tests is refused before it looks at its arguments, or takes no pointer.
        Errno::result(unsafe { libc::syscall(number, a, b, c, d, e, f) })
    }

    /// The error that each call gets under the filters for `needs`; what is let through counts as none.
    fn refused<const N: usize>(needs: &Needs, calls: &[(c_long, [c_long; N])]) -> Vec<bool> {
        let told = in_child(|| {
            confine(needs, &OneThread::check()?)?;
            Ok(calls
                .iter()
                .map(|(number, arguments)| match call(*number, *arguments) {
                    Err(Errno::EPERM) => 'x',
                    _ => '.',
                })
                .collect())
        });
        told.chars().map(|letter| letter == 'x').collect()
    }

    fn everything() -> Needs {
        Needs {
            work: Work::Serving,
            read: vec!["/a".into()],
            write: vec!["/b".into()],
            bind: Ports::Any,
            connect: Ports::Any,
            connect_unix: vec!["/c".into()],
            resolve: true,
            descriptors: true,
            wait: true,
            splice: true,
        }
    }

    #[test]
    fn a_proxy_is_left_few_calls_and_none_that_opens_or_binds() {
        let calls = allowed(&proxy());
        assert!(calls.len() <= 55, "{}: {calls:?}", calls.len());
        for never in [
            "open", "stat", "bind", "listen", "exec", "fork", "kill", "mount",
        ] {
            let found: Vec<_> = calls.iter().filter(|call| call.contains(never)).collect();
            assert!(found.is_empty() || never == "kill" && found == [&"tgkill"]);
        }
        assert!(!calls.contains(&"recvmsg") && !calls.contains(&"wait4"));
        // Without an upstream not even a socket is made.
        let nothing = allowed(&Needs::default());
        assert!(!nothing.contains(&"socket") && !nothing.contains(&"connect"));
    }

    #[test]
    fn each_need_adds_its_calls_and_each_call_stands_once() {
        let added = |needs: Needs| {
            let base = allowed(&proxy());
            let mut calls = allowed(&needs);
            calls.windows(2).for_each(|two| assert_ne!(two[0], two[1]));
            calls.retain(|call| !base.contains(call));
            calls
        };
        assert_eq!(
            added(Needs {
                bind: Ports::from_iter([80]),
                ..proxy()
            }),
            ["bind", "listen"]
        );
        assert_eq!(
            added(Needs {
                descriptors: true,
                wait: true,
                ..proxy()
            }),
            ["recvmsg", "sendmsg", "wait4"]
        );
        assert_eq!(
            added(Needs {
                splice: true,
                ..proxy()
            }),
            ["pipe2", "splice"]
        );
        let all = added(everything());
        for call in ["openat", "newfstatat", "sendmmsg", "bind"] {
            assert!(all.contains(&call), "{call}");
        }
    }

    #[test]
    fn what_is_never_done_ends_the_process() {
        for (name, number) in never() {
            let (told, ended) = run(|| {
                confine(&proxy(), &OneThread::check()?)?;
                Ok(format!("{:?}", call(number, [])))
            });
            assert_eq!(ended, Ended::By(Signal::SIGSYS), "{name}: {told}");
        }
    }

    /// Rust's handler of this signal puts the kernel's own back, and goes round in circles where it may not.
    #[test]
    #[expect(unsafe_code, reason = "a crash")]
    fn a_crash_ends_whoever_has_the_filters() {
        for work in [Work::Serving, Work::Answering] {
            let needs = Needs {
                work,
                ..Needs::default()
            };
            let (told, ended) = run(|| {
                confine(&needs, &OneThread::check()?)?;
                // SAFETY: none; the first page is never mapped, so this ends the process.
                unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(0) };
                Ok(String::new())
            });
            assert_eq!(ended, Ended::By(Signal::SIGSEGV), "{work:?}: {told}");
        }
    }

    #[test]
    fn nothing_that_is_never_done_is_on_the_list() {
        for call in calls::allowed(&everything()).unwrap() {
            assert!(!never().any(|(_, number)| number == call.number));
        }
    }

    #[test]
    fn the_c_library_falls_back_from_clone3() {
        let told = in_child(|| {
            confine(&proxy(), &OneThread::check()?)?;
            assert_eq!(call(libc::SYS_clone3, [0, 0]), Err(Errno::ENOSYS));
            let thread = std::thread::Builder::new().name("named".to_owned());
            let said = thread.spawn(|| "from a thread")?.join().unwrap();
            // A process of its own is another matter.
            let fork = call(libc::SYS_clone, [c_long::from(libc::SIGCHLD)]);
            assert_eq!(fork, Err(Errno::EPERM));
            Ok(said.to_owned())
        });
        assert_eq!(told, "from a thread");
    }

    #[test]
    fn sockets_are_tcp_unless_something_else_is_needed() {
        let socket = |domain: c_int, kind: c_int, protocol: c_int| {
            let arguments = [domain, kind | libc::SOCK_CLOEXEC, protocol];
            (libc::SYS_socket, arguments.map(c_long::from))
        };
        let (stream, datagram) = (libc::SOCK_STREAM, libc::SOCK_DGRAM);
        let sockets = [
            socket(libc::AF_INET, stream, 0),
            socket(libc::AF_INET6, stream, libc::IPPROTO_TCP),
            socket(libc::AF_INET, datagram, 0),
            socket(libc::AF_INET6, datagram, libc::IPPROTO_UDP),
            socket(libc::AF_UNIX, stream, 0),
            // Landlock looks at neither of these two.
            socket(libc::AF_INET, stream, libc::IPPROTO_MPTCP),
            socket(libc::AF_INET, stream, libc::IPPROTO_SCTP),
            socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
            socket(libc::AF_UNIX, datagram, 0),
            socket(libc::AF_NETLINK, libc::SOCK_RAW, 0),
            socket(libc::AF_PACKET, libc::SOCK_RAW, 0),
            socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
            socket(libc::AF_VSOCK, stream, 0),
        ];
        let refused = |needs: Needs| -> Vec<usize> {
            let refused = refused(&needs, &sockets);
            (0..sockets.len()).filter(|at| !refused[*at]).collect()
        };
        assert_eq!(refused(proxy()), [0, 1]);
        assert_eq!(
            refused(Needs {
                resolve: true,
                ..proxy()
            }),
            [0, 1, 2, 3]
        );
        assert_eq!(
            refused(Needs {
                connect_unix: vec!["/a".into()],
                ..Needs::default()
            }),
            [4]
        );
        assert!(refused(Needs::default()).is_empty());
    }

    #[test]
    fn arguments_that_would_open_a_way_are_refused() {
        let (exec, read) = (
            c_long::from(libc::PROT_EXEC | libc::PROT_READ),
            c_long::from(libc::PROT_READ),
        );
        let private = c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let socket = c_long::from(libc::SOL_SOCKET);
        let parent = c_long::from(nix::unistd::getpid().as_raw());
        let thread = c_long::from(libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND);
        let calls: &[(c_long, [c_long; 5])] = &[
            (libc::SYS_mmap, [0, 4096, exec, private, -1]),
            (libc::SYS_mprotect, [0, 4096, exec, 0, 0]),
            (
                libc::SYS_prctl,
                [c_long::from(libc::PR_SET_DUMPABLE), 1, 0, 0, 0],
            ),
            (
                libc::SYS_socketpair,
                [c_long::from(libc::AF_INET), 1, 0, 0, 0],
            ),
            (libc::SYS_tgkill, [parent, parent, 0, 0, 0]),
            (
                libc::SYS_fcntl,
                [0, c_long::from(libc::F_SETOWN), parent, 0, 0],
            ),
            (
                libc::SYS_ioctl,
                [0, c_long::try_from(libc::TIOCSTI).unwrap(), 0, 0, 0],
            ),
            (
                libc::SYS_setsockopt,
                [0, socket, c_long::from(libc::SO_ATTACH_FILTER), 0, 0],
            ),
            (
                libc::SYS_setsockopt,
                [0, socket, c_long::from(libc::SO_ATTACH_BPF), 0, 0],
            ),
            (
                libc::SYS_setsockopt,
                [0, c_long::from(libc::IPPROTO_IP), 1, 0, 0],
            ),
            (
                libc::SYS_sendto,
                [0, 0, 0, c_long::from(libc::MSG_FASTOPEN), 0],
            ),
            (
                libc::SYS_clone,
                [thread | c_long::from(libc::CLONE_NEWNET), 0, 0, 0, 0],
            ),
            // Another filter, another sandbox, another limit
            (libc::SYS_seccomp, [0; 5]),
            (libc::SYS_landlock_create_ruleset, [0; 5]),
            (libc::SYS_prlimit64, [0; 5]),
            (libc::SYS_memfd_create, [0; 5]),
            (libc::SYS_kill, [parent, 0, 0, 0, 0]),
        ];
        assert_eq!(refused(&proxy(), calls), vec![true; calls.len()]);
        let harmless: &[(c_long, [c_long; 5])] = &[
            (libc::SYS_mmap, [0, 4096, read, private, -1]),
            (libc::SYS_fcntl, [0, c_long::from(libc::F_GETFL), 0, 0, 0]),
            (
                libc::SYS_sendto,
                [0, 0, 0, c_long::from(libc::MSG_NOSIGNAL), 0],
            ),
            (
                libc::SYS_setsockopt,
                [0, socket, c_long::from(libc::SO_KEEPALIVE), 0, 0],
            ),
        ];
        assert_eq!(refused(&proxy(), harmless), vec![false; harmless.len()]);
    }
}
