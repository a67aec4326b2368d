//! What a process can do with the broker's capabilities and sandbox, and what it cannot.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::libc;
use nix::sys::signal::Signal;

use super::{Broker, reach};
use crate::config::{Mistakes, Sandbox, Source, parse};
use crate::privilege::status::{essence, texts};
use crate::privilege::testing::{Ended, in_child, run};
use crate::privilege::{Lesser, Needs, Walls, seccomp};

/// A folder with a configuration, and what reading that again takes.
fn scene() -> (tempfile::TempDir, Needs) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lowport.toml");
    let text = "[server]\nhttp = \"127.0.0.1:18080\"\n[log]\naccess = \"./a.log\"\n[[route]]\nrespond = \"\"\n";
    fs::write(&path, text).unwrap();
    let source = std::sync::Arc::new(Source {
        path: Some(path),
        ..std::sync::Arc::try_unwrap(Source::of_text("t", text)).unwrap()
    });
    let mistakes = Mistakes::new(std::sync::Arc::clone(&source));
    let config = parse(&source, &mistakes);
    let needs = reach::needs(&source, &config, &mistakes);
    assert!(mistakes.is_empty(), "{mistakes}");
    (folder, needs)
}

/// Becomes the broker as it is when it answers.
fn wall_in(needs: &Needs) -> io::Result<()> {
    Lesser::Keeping(Broker::KEPT).now()?;
    let walls = Walls::put_on(needs.clone(), Vec::new(), &Sandbox::default())?;
    assert!(walls.landlock.is_ok() && walls.seccomp.is_ok());
    Ok(())
}

fn denied<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)))
}

#[test]
fn it_is_left_few_calls() {
    let (_folder, needs) = scene();
    let calls = seccomp::allowed(&needs);
    assert!(calls.len() <= 28, "{}: {calls:?}", calls.len());
    for never in [
        "connect", "accept", "sendto", "exec", "clone", "fork", "kill", "ioctl", "fcntl", "prctl",
        "unlink", "rename", "chmod", "chown", "link", "mkdir",
    ] {
        assert!(
            !calls.iter().any(|call| call.contains(never)),
            "{never}: {calls:?}"
        );
    }
}

#[test]
fn nothing_that_it_does_not_need_works() {
    let (_folder, needs) = scene();
    let told = in_child(|| {
        let tried = Walls::try_out(&needs, Lesser::Keeping(Broker::KEPT), &Sandbox::default())?;
        Ok(tried.into_iter().map(|tried| tried.action + "\n").collect())
    });
    for action in [
        "become root",
        "capset",
        "unshare",
        "execve",
        "fork",
        "ptrace",
        "mmap PROT_EXEC",
        "open /\n",
        "bind port 81",
        "connect to port 1",
        "AF_NETLINK",
    ] {
        assert!(told.contains(action), "{action} in {told}");
    }
    if Path::new("/etc/shadow").exists() {
        assert!(told.contains("/etc/shadow"), "{told}");
    }
}

#[test]
fn it_reads_and_binds_what_was_named_and_nothing_else() {
    let (folder, needs) = scene();
    let open = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let reachable = open.local_addr().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let secret = elsewhere.path().join("secret");
    fs::write(&secret, "").unwrap();
    let socket = elsewhere.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let at = |name: &str| folder.path().join(name);
    let parent = std::process::id();
    let told = in_child(|| {
        wall_in(&needs)?;
        assert!(fs::read_to_string(at("lowport.toml"))?.contains("18080"));
        File::open("/etc/passwd")?;
        super::super::open_log(&at("a.log"))?;
        assert!(!texts(parent)?.is_empty() && essence(parent)?.contains("CapEff"));
        // It may bind this one; somebody else may have it.
        assert!(!denied(TcpListener::bind((Ipv4Addr::LOCALHOST, 18080))));
        let append = |path: &Path| OpenOptions::new().append(true).open(path);
        let refused = [
            denied(File::open(&secret)),
            denied(append(&secret)),
            denied(fs::read_dir(elsewhere.path())),
            denied(fs::read_dir("/etc")),
            denied(File::create(elsewhere.path().join("new"))),
            denied(File::create(at("lowport.toml"))),
            denied(fs::remove_file(at("lowport.toml"))),
            denied(fs::rename(at("a.log"), at("b.log"))),
            // Of a process outside, what takes the right to trace it
            denied(File::open(format!("/proc/{parent}/environ"))),
            denied(File::open(format!("/proc/{parent}/mem"))),
            denied(File::open(format!("/proc/{parent}/fd/0"))),
            denied(append(Path::new("/proc/self/comm"))),
            denied(TcpListener::bind((Ipv4Addr::LOCALHOST, 81))),
            denied(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))),
            denied(TcpStream::connect(reachable)),
            denied(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))),
            denied(UnixStream::connect(&socket)),
        ];
        // Nor can it panic in the usual way.
        Ok(format!("{refused:?}"))
    });
    assert_eq!(told, format!("{:?}", [true; 17]));
    assert_eq!(fs::read_to_string(at("a.log")).unwrap(), "");
}

#[test]
fn a_program_that_it_starts_ends_it() {
    let (_folder, needs) = scene();
    let (told, ended) = run(|| {
        wall_in(&needs)?;
        let error = nix::unistd::execv(c"/bin/true", &[c"true"]).unwrap_err();
        Ok(error.to_string())
    });
    assert_eq!(ended, Ended::By(Signal::SIGSYS), "{told}");
}

/// Without the right to signal itself it has to fall over in another way, and not to go round in circles.
#[test]
fn a_crash_ends_it() {
    let (_folder, needs) = scene();
    let (told, ended) = run(|| {
        wall_in(&needs)?;
        std::process::abort()
    });
    assert_eq!(ended, Ended::By(Signal::SIGSEGV), "{told}");
}
