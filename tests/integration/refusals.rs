//! What lowport refuses to serve with: it ends with a failure and the remedy, and has not accepted a connection by then.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::lowport::USER;
use crate::support::mode::{activated, as_somebody, scene};
use crate::support::{Lowport, certs, is_root, open_to_all, raw, skipped};

/// Starts lowport with a listening socket on which somebody waits already, by `wrapper`, which runs the command in its last
/// arguments in its own place. It ends with this code and tells all of `remedies`, and whoever waits is waiting still. Returns
/// the line with the first of them.
pub(crate) fn refused(folder: &Path, wrapper: &str, code: i32, remedies: &[&str]) -> String {
    let socket = TcpListener::bind(("127.0.0.1", 0)).expect("bound");
    let mut client = TcpStream::connect(socket.local_addr().expect("an address")).expect("queued");
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .expect("written");
    let passed = OwnedFd::from(socket.try_clone().expect("a descriptor"));
    let mut lowport = Lowport::spawn_with_stdin(&mut activated(folder, passed, "http", wrapper));
    assert_eq!(lowport.ended().code(), Some(code), "{wrapper}");
    let lines: Vec<String> = remedies
        .iter()
        .map(|remedy| lowport.wait_for(remedy))
        .collect();
    let output = lowport.output();
    assert!(
        !output.iter().any(|line| line.contains(" ready ")),
        "{output:?}"
    );
    socket.set_nonblocking(true).expect("set");
    let (_, waiting) = socket.accept().expect("nobody has accepted it");
    assert_eq!(waiting, client.local_addr().expect("an address"));
    lines[0].clone()
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
    let mut command = activated(folder.path(), socket.into(), "http", "");
    let _lowport = Lowport::spawn_with_stdin(&mut command);
    let answer = raw::read_all(&mut client);
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
    refused(unknown.path(), "", 78, &remedy);
    for root in ["root", "0", "0:65532"] {
        let remedy = ["nothing here runs as root", "useradd --system lowport"];
        refused(scene(&toml(root)).path(), "", 78, &remedy);
    }
}

#[test]
fn a_key_that_may_not_be_read() {
    let certificate = "[[certificate]]\ncert = \"a.pem\"\nkey = \"a.key\"\n";
    let folder = scene(&format!("{}{certificate}", toml(USER)));
    let (_, key) = certs::write(folder.path(), "a", &["a.test"]);
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o000)).unwrap();
    let wrapper = if is_root() {
        as_somebody("")
    } else {
        String::new()
    };
    let remedy = ["a.key may not be read by ", "namei -l"];
    refused(folder.path(), &wrapper, 78, &remedy);
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
    let gcc = Command::new("gcc").arg("--version").output();
    if !gcc.is_ok_and(|output| output.status.success()) {
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
    let wrapper = format!("env LD_PRELOAD={}", library.display());
    let remedy = ["not started: ", "there are 2 threads", "LD_PRELOAD"];
    refused(folder.path(), &wrapper, 1, &remedy);
}
