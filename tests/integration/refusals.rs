//! What lowport refuses to serve with: it ends with a failure and the remedy, and has not accepted a connection by then.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::lowport::{BINARY, USER};
use crate::support::{Lowport, certs, copy_program, folder, is_root, open_to_all, skipped};

/// Somebody in particular, who needs no account.
const UID: &str = "61234";

/// A configuration, the binary, and whatever a test adds.
fn scene(toml: &str) -> tempfile::TempDir {
    let folder = folder();
    let file = folder.path().join("lowport.toml");
    std::fs::write(&file, toml).expect("written");
    open_to_all(&file);
    copy_program(BINARY, folder.path().join("lowport"));
    folder
}

/// Starts lowport with a listening socket on which somebody waits already; `before` comes before it in a shell's line.
/// Returns the exit code once it has ended, after whoever waits was found to be waiting still.
fn refused(folder: &Path, before: &str, remedies: &[&str]) -> i32 {
    let socket = TcpListener::bind(("127.0.0.1", 0)).expect("bound");
    let mut client = TcpStream::connect(socket.local_addr().expect("an address")).expect("queued");
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .expect("written");
    let passed = OwnedFd::from(socket.try_clone().expect("a descriptor"));
    let script = format!(
        "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http; {before} \"$@\""
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &script, "sh"])
        .arg(folder.join("lowport"))
        .args(["run", "-c"])
        .arg(folder.join("lowport.toml"))
        .stdin(passed);
    let mut lowport = Lowport::spawn_with_stdin(&mut command);
    let code = lowport.ended().code().expect("not killed");
    for remedy in remedies {
        lowport.wait_for(remedy);
    }
    let output = lowport.output();
    assert!(
        !output.iter().any(|line| line.contains(" ready ")),
        "{output:?}"
    );
    socket.set_nonblocking(true).expect("set");
    let (_, waiting) = socket.accept().expect("nobody has accepted it");
    assert_eq!(waiting, client.local_addr().expect("an address"));
    code
}

fn toml(user: &str) -> String {
    format!("[server]\nuser = \"{user}\"\n[[route]]\nto = \"http://127.0.0.1:3999\"\n")
}

/// What such a lowport does when nothing is wrong: it serves whoever has waited.
#[test]
fn whoever_waits_is_served_when_nothing_is_wrong() {
    let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    write!(
        client,
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let folder = scene(&toml(USER));
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=http exec \"$@\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "sh"])
        .arg(folder.path().join("lowport"))
        .args(["run", "-c"])
        .arg(folder.path().join("lowport.toml"))
        .stdin(Stdio::from(OwnedFd::from(socket)));
    let _lowport = Lowport::spawn_with_stdin(&mut command);
    let answer = crate::support::raw::read_all(&mut client);
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
}

#[test]
fn a_user_that_is_not_there_and_root() {
    if !is_root() {
        return skipped("a_user_that_is_not_there_and_root", "needs root");
    }
    let unknown = scene(&toml("no-such-user-here"));
    let remedy = [
        "there is no user \"no-such-user-here\"",
        "useradd --system --no-create-home --shell /usr/sbin/nologin no-such-user-here",
    ];
    assert_eq!(refused(unknown.path(), "exec", &remedy), 78);
    for root in ["root", "0", "0:65532"] {
        let remedy = ["nothing here runs as root", "useradd --system lowport"];
        assert_eq!(
            refused(scene(&toml(root)).path(), "exec", &remedy),
            78,
            "{root}"
        );
    }
}

#[test]
fn a_key_that_may_not_be_read() {
    let certificate = "[[certificate]]\ncert = \"a.pem\"\nkey = \"a.key\"\n";
    let folder = scene(&format!("{}{certificate}", toml(USER)));
    let (_, key) = certs::write(folder.path(), "a", &["a.test"]);
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o000)).unwrap();
    let before = if is_root() {
        format!("exec setpriv --reuid {UID} --regid {UID} --clear-groups")
    } else {
        "exec".to_owned()
    };
    let remedy = ["a.key may not be read by ", "namei -l"];
    assert_eq!(refused(folder.path(), &before, &remedy), 78);
}

/// Whether a tool is there and does this.
fn does(tool: &str, args: &[&str]) -> bool {
    let mut command = Command::new(tool);
    command
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn a_kernel_without_landlock_or_seccomp() {
    if !does("strace", &["-D", "-f", "-qq", "-o", "/dev/null", "true"]) {
        return skipped(
            "a_kernel_without_landlock_or_seccomp",
            "needs strace(1), and to be allowed to trace",
        );
    }
    let folder = scene(&toml(USER));
    for (inject, layer, why) in [
        (
            "landlock_create_ruleset:error=ENOSYS",
            "landlock",
            "Linux 5.13",
        ),
        (
            "landlock_create_ruleset:error=EOPNOTSUPP",
            "landlock",
            "switched off",
        ),
        (
            "landlock_restrict_self:error=EPERM",
            "landlock",
            "landlock cannot be had here",
        ),
        ("seccomp:error=ENOSYS", "seccomp", "not implemented"),
        ("seccomp:error=EINVAL", "seccomp", "Invalid argument"),
        ("seccomp:error=EPERM", "seccomp", "Operation not permitted"),
    ] {
        // -D keeps lowport the process that the sockets are passed to.
        let before = format!("exec strace -D -f -qq -o /dev/null -e inject={inject}");
        let remedy = format!("to serve without it: [sandbox] allow_degraded = [\"{layer}\"]");
        assert_eq!(
            refused(folder.path(), &before, &[why, &remedy]),
            1,
            "{inject}"
        );
    }
    // What was tried out before the drop and then cannot be had is no better.
    let allows = |layer: &str| format!("{}[sandbox]\nallow_degraded = \"{layer}\"\n", toml(USER));
    for (inject, missing, other) in [
        (
            "landlock_create_ruleset:error=ENOSYS",
            "landlock",
            "seccomp",
        ),
        ("seccomp:error=EINVAL", "seccomp", "landlock"),
    ] {
        let folder = scene(&allows(other));
        let before = format!("exec strace -D -f -qq -o /dev/null -e inject={inject}");
        let remedy = format!("to serve without it: [sandbox] allow_degraded = [\"{missing}\"]");
        assert_eq!(refused(folder.path(), &before, &[&remedy]), 1, "{inject}");
    }
}

/// Starts a thread before main() begins.
const THREAD: &str = "
#include <pthread.h>
#include <unistd.h>
static void *stay(void *nothing) { for (;;) pause(); return nothing; }
__attribute__((constructor)) static void begin(void) {
    pthread_t thread;
    pthread_create(&thread, 0, stay, 0);
}
";

#[test]
fn a_second_thread_before_anything_is_given_up() {
    if !does("gcc", &["--version"]) {
        return skipped(
            "a_second_thread_before_anything_is_given_up",
            "there is no gcc(1)",
        );
    }
    let folder = scene(&toml(USER));
    let (source, library) = (
        folder.path().join("thread.c"),
        folder.path().join("thread.so"),
    );
    std::fs::write(&source, THREAD).unwrap();
    let compiled = Command::new("gcc")
        .args(["-shared", "-fPIC", "-pthread", "-o"])
        .args([&library, &source])
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{compiled:?}");
    open_to_all(&library);
    let before = format!("LD_PRELOAD={} exec", library.display());
    let remedy = ["not started: ", "there are 2 threads", "LD_PRELOAD"];
    assert_eq!(refused(folder.path(), &before, &remedy), 1);
}
