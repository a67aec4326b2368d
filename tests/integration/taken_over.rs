//! What somebody can do who has taken the serving process over: its own threads are made to try, in every mode.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::process::ExitStatusExt;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;

use crate::support::client::curl;
use crate::support::inject::{Called, Stopped};
use crate::support::lowport::Setup;
use crate::support::mode::Mode;
use crate::support::{Lowport, is_root, skipped};

/// Two listeners: the one that lowport is to reach, and another one.
struct Scene {
    upstream: TcpListener,
    other: TcpListener,
}

impl Scene {
    fn new() -> Self {
        let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
        Self {
            upstream: listener(),
            other: listener(),
        }
    }

    fn lowport(&self, mode: Mode, args: &[&str]) -> Lowport {
        let port = port(&self.upstream);
        let rest = format!(
            "[[route]]\nrespond = \"x\"\n[[route]]\npath = \"/app\"\nto = \"http://127.0.0.1:{port}\"\n"
        );
        Lowport::in_mode(
            mode,
            &Setup {
                server: "redirect_to_https = false",
                rest: &rest,
                args,
            },
        )
    }
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("an address").port()
}

/// One of the threads that serve; `None`, loudly, where it may not be traced.
fn stopped(lowport: &Lowport, test: &str) -> Option<Stopped> {
    match Stopped::thread(lowport.pid(), "worker-0") {
        Ok(stopped) => Some(stopped),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            skipped(test, "needs root with CAP_SYS_PTRACE");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// `struct sockaddr_in` of ip(7).
fn address(port: u16) -> Vec<u8> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let mut bytes = (libc::AF_INET as u16).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&address.port().to_be_bytes());
    bytes.extend_from_slice(&address.ip().octets());
    bytes.resize(16, 0);
    bytes
}

const CURRENT: u64 = libc::AT_FDCWD as u64;

/// Each attempt that leaves the process alive, and what became of it.
fn attempts(stopped: &mut Stopped, scene: &Scene) -> Vec<(&'static str, Called)> {
    let mut tried = Vec::new();
    let passwd = stopped.put(b"/etc/passwd\0");
    let memory = stopped.put(b"/proc/self/mem\0");
    let open = |stopped: &mut Stopped, path, flags| {
        stopped.call(libc::SYS_openat, [CURRENT, path, flags as u64])
    };
    tried.push(("open /etc/passwd", open(stopped, passwd, libc::O_RDONLY)));
    tried.push(("write its own code", open(stopped, memory, libc::O_RDWR)));
    let code = (libc::PROT_READ | libc::PROT_EXEC) as u64;
    let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let map = [0, 4096, code, private, u64::MAX, 0];
    tried.push(("map memory to run", stopped.call(libc::SYS_mmap, map)));
    let name = stopped.put(b"x\0");
    let file = stopped.call(libc::SYS_memfd_create, [name, 0]);
    tried.push(("make a file in memory", file));
    let dumpable = [libc::PR_SET_DUMPABLE as u64, 1];
    let dumpable = stopped.call(libc::SYS_prctl, dumpable);
    tried.push(("let itself be looked into", dumpable));
    let fork = stopped.call(libc::SYS_clone, [libc::SIGCHLD as u64 | FORK_NOWHERE]);
    tried.push(("make a process", fork));
    let tester = u64::from(std::process::id());
    let signal = stopped.call(libc::SYS_kill, [tester, 0]);
    tried.push(("signal another process", signal));

    let kind = (libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u64;
    let raw = (libc::SOCK_RAW | libc::SOCK_CLOEXEC) as u64;
    let netlink = stopped.call(libc::SYS_socket, [libc::AF_NETLINK as u64, raw, 0]);
    tried.push(("talk to the kernel", netlink));
    let low = stopped.put(&address(81));
    let any = stopped.put(&address(0));
    let upstream = stopped.put(&address(port(&scene.upstream)));
    let other = stopped.put(&address(port(&scene.other)));
    for (what, number, address) in [
        ("bind port 81", libc::SYS_bind, low),
        ("bind any port", libc::SYS_bind, any),
        ("connect elsewhere", libc::SYS_connect, other),
        ("connect to the upstream", libc::SYS_connect, upstream),
    ] {
        let socket = stopped.call(libc::SYS_socket, [libc::AF_INET as u64, kind, 0]);
        let Called::Done(socket) = socket else {
            panic!("a socket can be made: {socket:?}");
        };
        tried.push((what, stopped.call(number, [socket as u64, address, 16])));
        stopped.call(libc::SYS_close, [socket as u64]);
    }
    tried
}

/// Two flags that no kernel takes together: without a sandbox, too, no second lowport is made.
const FORK_NOWHERE: u64 = (libc::CLONE_FS | libc::CLONE_NEWNS) as u64;

/// What came of connecting without waiting for it.
fn connected(called: Called) -> bool {
    matches!(called, Called::Done(0) | Called::Failed(Errno::EINPROGRESS))
}

/// What ends the process, by name: the call and its arguments.
type Ending = (&'static str, fn(&mut Stopped) -> Called);

const ENDINGS: [Ending; 5] = [
    ("become root", |stopped| {
        stopped.call(libc::SYS_setresuid, [0, 0, 0])
    }),
    ("gain capabilities", |stopped| {
        // Version 3 of linux/capability.h, of the calling thread: CAP_NET_BIND_SERVICE.
        let words = |words: &[u32]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_ne_bytes()).collect()
        };
        let header = stopped.put(&words(&[0x2008_0522, 0]));
        let sets = stopped.put(&words(&[1 << 10, 1 << 10, 0, 0, 0, 0]));
        stopped.call(libc::SYS_capset, [header, sets])
    }),
    ("gain them in a new user namespace", |stopped| {
        stopped.call(libc::SYS_unshare, [libc::CLONE_NEWUSER as u64])
    }),
    ("start a program", |stopped| {
        // One that there is not, so that nothing is started without a sandbox either.
        let path = stopped.put(b"/nowhere/at/all\0");
        stopped.call(libc::SYS_execve, [path, 0, 0])
    }),
    ("trace a process", |stopped| {
        let parent = u64::from(std::process::id());
        stopped.call(libc::SYS_ptrace, [libc::PTRACE_ATTACH as u64, parent])
    }),
];

#[test]
fn nothing_that_matters_is_left_to_do_in_any_mode() {
    let test = "nothing_that_matters_is_left_to_do_in_any_mode";
    if !is_root() {
        return skipped(test, "needs root to trace an undumpable process");
    }
    let scene = Scene::new();
    for mode in Mode::all() {
        let lowport = scene.lowport(*mode, &[]);
        let Some(mut stopped) = stopped(&lowport, test) else {
            return;
        };
        assert_eq!(
            stopped.call(libc::SYS_getpid, []),
            Called::Done(lowport.pid().into()),
            "the process itself it is"
        );
        for (what, called) in attempts(&mut stopped, &scene) {
            match what {
                "connect elsewhere" => {
                    assert_eq!(called, Called::Failed(Errno::EACCES), "{mode:?}")
                }
                "connect to the upstream" => assert!(connected(called), "{mode:?}: {called:?}"),
                _ => assert_eq!(called, Called::Failed(Errno::EPERM), "{mode:?}: {what}"),
            }
        }
        drop(stopped);
        // And it serves as if nothing had been.
        for _ in 0..8 {
            assert_eq!(curl(&lowport, "/", &[]), "x");
        }
    }
}

#[test]
fn what_a_proxy_never_does_ends_the_process_in_every_mode() {
    let test = "what_a_proxy_never_does_ends_the_process_in_every_mode";
    if !is_root() {
        return skipped(test, "needs root to trace an undumpable process");
    }
    let scene = Scene::new();
    for mode in Mode::all() {
        for (what, end) in ENDINGS {
            let mut lowport = scene.lowport(*mode, &[]);
            let Some(mut stopped) = stopped(&lowport, test) else {
                return;
            };
            let called = end(&mut stopped);
            assert_eq!(called, Called::Killed(Signal::SIGSYS), "{mode:?}: {what}");
            drop(stopped);
            // All of it, not the thread alone.
            let signal = lowport.ended().signal();
            assert_eq!(signal, Some(Signal::SIGSYS as i32), "{mode:?}: {what}");
        }
    }
}

/// The drop alone keeps root and the low ports away, and nothing else; or the tests above would prove little.
#[test]
fn without_the_sandbox_the_same_attempts_succeed() {
    let test = "without_the_sandbox_the_same_attempts_succeed";
    if !is_root() {
        return skipped(test, "needs root to trace an undumpable process");
    }
    let scene = Scene::new();
    let lowport = scene.lowport(Mode::Root, &["--no-sandbox"]);
    let Some(mut stopped) = stopped(&lowport, test) else {
        return;
    };
    for (what, called) in attempts(&mut stopped, &scene) {
        let expected = match what {
            // Undumpable, or without the capability.
            "write its own code" | "bind port 81" => Called::Failed(Errno::EACCES),
            "signal another process" => Called::Failed(Errno::EPERM),
            "make a process" => Called::Failed(Errno::EINVAL),
            _ => {
                let succeeded = matches!(called, Called::Done(0..)) || connected(called);
                assert!(succeeded, "{what}: {called:?}");
                continue;
            }
        };
        assert_eq!(called, expected, "{what}");
    }
    for (what, end) in ENDINGS {
        let expected = match what {
            // The kernel takes this from a process with one thread only.
            "gain them in a new user namespace" => Errno::EINVAL,
            "start a program" => Errno::ENOENT,
            _ => Errno::EPERM,
        };
        assert_eq!(end(&mut stopped), Called::Failed(expected), "{what}");
    }
    drop(stopped);
    assert_eq!(curl(&lowport, "/", &[]), "x");
}
