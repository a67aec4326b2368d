//! Where ports 80 and 443 come from: passed sockets, root, a capability, or nothing at all.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn};

use crate::support::mode::{activated, as_somebody, scene, started};
use crate::support::{Lowport, is_root, low_port, raw, skipped, until};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

#[test]
fn passed_sockets_take_the_place_of_the_default_ones() {
    let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let folder = scene("[server]\nuser = \"65532:65532\"\n[[route]]\nrespond = \"passed\"\n");
    let lowport =
        Lowport::spawn_with_stdin(&mut activated(folder.path(), socket.into(), "http", ""));
    let ready = lowport.wait_for(" ready ");
    assert!(
        ready.contains(&format!("listening=http://127.0.0.1:{port} ")),
        "{ready}"
    );
    lowport.wait_for(if is_root() {
        "mode=root"
    } else {
        "mode=activated"
    });
    for _ in 0..8 {
        assert!(raw::exchange(port, GET).ends_with("passed"));
    }
    // A reload neither closes it nor binds what the file does not write.
    let seen = lowport.output().len();
    lowport.signal(Signal::SIGHUP);
    lowport.wait_for_after(seen, " reloaded");
    assert!(raw::exchange(port, GET).ends_with("passed"));
}

#[test]
fn passed_sockets_without_a_purpose_are_refused_with_the_remedy() {
    let route = "[server]\nuser = \"65532:65532\"\n[[route]]\nrespond = \"x\"\n";
    let listening = || OwnedFd::from(TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let datagram = OwnedFd::from(UnixDatagram::unbound().unwrap());
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let bound = nix::sys::socket::socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    nix::sys::socket::bind(bound.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    for (socket, name, expected) in [
        (listening(), "web", "FileDescriptorName=http"),
        (listening(), "https", "there is no [[certificate]]"),
        (datagram, "http", "does not listen"),
        (bound, "http", "does not listen"),
        (file, "http", "is no socket"),
    ] {
        let folder = scene(route);
        let mut lowport =
            Lowport::spawn_with_stdin(&mut activated(folder.path(), socket, name, ""));
        assert_eq!(lowport.ended().code(), Some(1), "{name}");
        let told = lowport.wait_for(expected);
        if name == "http" {
            assert!(told.contains("ListenStream= in the .socket unit"), "{told}");
        }
    }
}

#[test]
fn without_any_right_a_low_port_is_refused_with_the_remedy() {
    if !is_root() {
        return skipped(
            "without_any_right_a_low_port_is_refused_with_the_remedy",
            "needs root to become somebody",
        );
    }
    let port = low_port();
    let folder = scene(&format!(
        "[server]\nhttp = \"127.0.0.1:{port}\"\n[[route]]\nrespond = \"x\"\n"
    ));
    let somebody = as_somebody("--inh-caps=-all --bounding-set=-all");
    let script = format!("exec {somebody} \"$@\"");
    let mut lowport = Lowport::spawn(&mut started(folder.path(), &script, Stdio::null()));
    assert_eq!(lowport.ended().code(), Some(78));
    lowport.wait_for("may not be bound by this user");
    lowport.wait_for("ip_unprivileged_port_start");
}

#[test]
fn the_service_manager_is_told() {
    let folder = scene(&format!(
        "[server]\nhttp = \"127.0.0.1:{}\"\nuser = \"65532:65532\"\n[[route]]\nrespond = \"x\"\n",
        crate::support::port()
    ));
    let path = folder.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager
        .set_read_timeout(Some(crate::support::PATIENCE))
        .unwrap();
    let heard = || {
        let mut buffer = [0; 256];
        let count = manager.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let script = format!(
        "NOTIFY_SOCKET={} WATCHDOG_USEC=100000 WATCHDOG_PID=$$ exec \"$@\"",
        path.display()
    );
    let mut lowport = Lowport::spawn(&mut started(folder.path(), &script, Stdio::null()));
    assert_eq!(heard(), "READY=1");
    until("a heartbeat", || (heard() == "WATCHDOG=1").then_some(()));
    lowport.signal(Signal::SIGHUP);
    until("word of the reload", || {
        heard()
            .starts_with("RELOADING=1\nMONOTONIC_USEC=")
            .then_some(())
    });
    until("its end", || (heard() == "READY=1").then_some(()));
    lowport.signal(Signal::SIGTERM);
    until("word of the stop", || {
        (heard() == "STOPPING=1").then_some(())
    });
    assert!(lowport.ended().success());
}
