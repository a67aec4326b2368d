use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use super::*;

fn me() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Netlink and, unless they are longer than is read of them, the tables: whoever has just ended tens of thousands of
/// connections on this machine has left that many rows for a minute.
fn both() -> Vec<SockDiag> {
    let rows = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let tables = SockDiag {
        source: Source::Tables(Tables::open().unwrap()),
        overflow: overflow_uid(),
    };
    let netlink = SockDiag::open().unwrap();
    assert!(matches!(netlink.source, Source::Netlink { .. }));
    if rows.lines().count() > 25_000 {
        eprintln!("\n*** NOT RUN on /proc/self/net/tcp, which is too long at the moment ***\n");
        return vec![netlink];
    }
    vec![netlink, tables]
}

/// Listens on one address, connects to another, and looks at the row at each step.
fn follow(diag: &SockDiag, listen: &str, to: IpAddr) {
    let listener = TcpListener::bind((listen, 0)).unwrap();
    let theirs = SocketAddr::new(to, listener.local_addr().unwrap().port());
    let mut ours = TcpStream::connect(theirs).unwrap();
    let from = ours.local_addr().unwrap();
    // Not accepted yet: who listens, unless that is root, whose number also stands for nobody.
    let listens = Some(me()).filter(|uid| *uid != 0);
    assert_eq!(diag.owner(theirs, from).unwrap(), listens);
    let (mut accepted, _) = listener.accept().unwrap();
    assert_eq!(diag.owner(theirs, from).unwrap(), Some(me()));
    accepted.shutdown(std::net::Shutdown::Write).unwrap();
    ours.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(diag.owner(theirs, from).unwrap(), Some(me()), "half closed");
    ours.write_all(b"x").unwrap();
    accepted.read_exact(&mut [0]).unwrap();
    assert_eq!(
        diag.listens_on(theirs).unwrap(),
        Some(listen.parse().unwrap())
    );
    // Who listens there after this is not looked at: another test may have been given the port.
    drop((listener, accepted, ours));
    let owner = diag.owner(theirs, from).unwrap();
    assert!(owner.is_none() || owner == Some(me()), "{owner:?}");
}

#[test]
fn the_accepted_row_tells_who_accepted_it() {
    for diag in both() {
        follow(&diag, "127.0.0.1", [127, 0, 0, 1].into());
        follow(&diag, "0.0.0.0", [127, 0, 0, 1].into());
        if TcpListener::bind("[::1]:0").is_ok() {
            follow(&diag, "::1", Ipv6Addr::LOCALHOST.into());
            // As Node listens when it is told no address: IPv4 comes in mapped.
            follow(&diag, "::", [127, 0, 0, 1].into());
            follow(&diag, "::", Ipv6Addr::LOCALHOST.into());
        }
    }
}

#[test]
fn a_mapped_address_is_what_it_stands_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = listener.local_addr().unwrap();
    let ours = TcpStream::connect(theirs).unwrap();
    let _accepted = listener.accept().unwrap();
    let mapped = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::from((ip.to_ipv6_mapped(), addr.port())),
        IpAddr::V6(_) => addr,
    };
    let owner = SockDiag::open()
        .unwrap()
        .owner(mapped(theirs), mapped(ours.local_addr().unwrap()));
    assert_eq!(owner.unwrap(), Some(me()));
}

#[test]
fn the_other_side_of_a_unix_connection_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let ours = UnixStream::connect(&path).unwrap();
    let diag = SockDiag::open().unwrap();
    let inode = socket_inode(&ours).unwrap();
    assert_eq!(diag.unix_owner(inode).unwrap(), None, "not accepted yet");
    let (_accepted, _) = listener.accept().unwrap();
    assert_eq!(diag.unix_owner(inode).unwrap(), Some(me()));
}

/// Not a promise about a loaded machine, but a dump of all sockets or a lost answer would show.
#[test]
fn it_takes_less_than_a_millisecond() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = listener.local_addr().unwrap();
    let ours = TcpStream::connect(theirs).unwrap();
    let from = ours.local_addr().unwrap();
    let _accepted = listener.accept().unwrap();
    let diag = SockDiag::open().unwrap();
    let mut times: Vec<Duration> = (0..2000)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(diag.owner(theirs, from).unwrap(), Some(me()));
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let (median, most) = (times[1000], times[1980]);
    println!("owner of a connection: p50 {median:?}, p99 {most:?}");
    assert!(median < Duration::from_millis(1), "{median:?}");
}

#[test]
fn malformed_answers_are_errors() {
    let good = {
        let mut body = vec![0; INET_MESSAGE];
        body[0] = libc::AF_INET as u8;
        body
    };
    assert!(row(&good).is_ok());
    for length in 0..INET_MESSAGE {
        assert!(row(&good[..length]).is_err(), "{length}");
    }
    assert!(row(&[9; INET_MESSAGE]).is_err(), "no such family");
    for bytes in [
        &[][..],
        &[0; 15],
        // A length of 15, of 17 with 16 there, of 2^32 - 1.
        &[15, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        &[17, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        &[255, 255, 255, 255, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
    ] {
        assert!(message(bytes).is_err(), "{bytes:?}");
    }
    let error = |number: i32| outcome(libc::NLMSG_ERROR as u16, &number.to_ne_bytes());
    assert!(error(-libc::ENOENT).unwrap().is_none());
    assert_eq!(
        error(-libc::EPERM).unwrap_err().raw_os_error(),
        Some(libc::EPERM)
    );
    assert!(error(0).is_err() && error(1).is_err() && error(i32::MIN).is_err());
    assert!(outcome(libc::NLMSG_ERROR as u16, &[0]).is_err());
    assert!(outcome(99, &[]).is_err());
    for attributes in [
        &[0; 1][..],
        &[0, 0, 2, 0],
        &[3, 0, 2, 0],
        &[9, 0, 2, 0, 1, 0, 0, 0],
        &[5, 0, 2, 0, 1],
    ] {
        assert!(
            attribute(attributes, 0, UNIX_DIAG_PEER).is_err(),
            "{attributes:?}"
        );
    }
    assert_eq!(attribute(&[], 0, UNIX_DIAG_PEER).unwrap(), None);
    assert!(attribute(&[], 1, UNIX_DIAG_PEER).is_err());
    let two = [
        &[5, 0, 1, 0, 7, 0, 0, 0][..],
        &[8, 0, 2, 0],
        &77u32.to_ne_bytes(),
    ]
    .concat();
    assert_eq!(attribute(&two, 0, UNIX_DIAG_PEER).unwrap(), Some(77));
}
