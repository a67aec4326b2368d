//! The whole sandbox: what works under it, and what does not.

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use nix::libc;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncReadExt;

use super::testing::in_child;
use super::{Fork, Needs, OneThread, Ports, Walls, confine_app, exit_now, fork, landlock, seccomp};
use crate::config::Sandbox;

/// Puts this process under the sandbox for `needs`, drop excluded.
fn sandbox(needs: &Needs) -> io::Result<()> {
    let alone = OneThread::check()?;
    landlock::restrict(needs, &alone)?;
    seccomp::confine(needs, &alone)?;
    Ok(())
}

/// Whether `result` is one of the sandbox's two errors.
fn denied<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)))
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

#[test]
fn a_runtime_with_threads_serves_and_reaches_its_upstream_only() {
    let ((listener, proxy), (upstream, allowed), (_open, forbidden)) =
        (listener(), listener(), listener());
    let app = thread::spawn(move || upstream.accept().unwrap().0.write_all(b"from the app"));
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(proxy).unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .unwrap();
        io::read_to_string(stream).unwrap()
    });

    let told = in_child(move || {
        sandbox(&Needs {
            connect: Ports::from_iter([allowed.port()]),
            ..Needs::default()
        })?;
        let second = thread::Builder::new()
            .name("second".to_owned())
            .spawn(move || {
                let attempt = async { tokio::net::TcpStream::connect(forbidden).await };
                runtime()?.block_on(attempt).map(drop)
            })?;
        runtime()?.block_on(serve(listener, allowed))?;
        let refused = second.join().unwrap().unwrap_err();
        Ok(format!("{:?}", refused.raw_os_error()))
    });

    assert_eq!(told, format!("{:?}", Some(libc::EACCES)));
    let answer = client.join().unwrap();
    assert!(answer.ends_with("\r\n\r\nfrom the app"), "{answer}");
    app.join().unwrap().unwrap();
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Answers one connection with what `upstream` says.
async fn serve(listener: TcpListener, upstream: SocketAddr) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    // As the proxy does; it takes a socket pair.
    let _signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    let (stream, _) = tokio::net::TcpListener::from_std(listener)?
        .accept()
        .await?;
    stream.set_nodelay(true)?;
    let answer = service_fn(|_: Request<Incoming>| async move {
        let mut said = String::new();
        let mut app = tokio::net::TcpStream::connect(upstream).await.unwrap();
        app.read_to_string(&mut said).await.unwrap();
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(said))))
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await
        .map_err(io::Error::other)
}

#[test]
fn names_are_resolved_with_no_other_file_open() {
    let told = in_child(|| {
        sandbox(&Needs {
            resolve: true,
            ..Needs::default()
        })?;
        let found = ("localhost", 80).to_socket_addrs()?.count();
        assert!(found > 0);
        File::open("/etc/hosts")?;
        assert!(denied(File::open("/etc/passwd")));
        assert!(denied(fs::read_dir("/etc")));
        assert!(denied(File::create("/tmp/lowport-sandbox")));
        // glibc's resolver does not bind its socket.
        let bound = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        assert!(cfg!(target_env = "musl") || denied(bound));
        Ok("done".to_owned())
    });
    assert_eq!(told, "done");
}

#[test]
fn a_name_server_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("resolv.conf");
    fs::write(
        &conf,
        "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n",
    )
    .unwrap();
    let told = in_child(|| {
        if let Err(error) = own_network(&conf) {
            return Ok(format!("SKIPPED: no network namespace of its own: {error}"));
        }
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53))?;
        server.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        if let Fork::Child = fork()? {
            exit_now(u8::from(name_server(&server).is_err()));
        }
        sandbox(&Needs {
            resolve: true,
            ..Needs::default()
        })?;
        let found: Vec<_> = ("app.test", 80).to_socket_addrs()?.collect();
        Ok(format!("{found:?}"))
    });
    if told.starts_with("SKIPPED") {
        eprintln!("{told}");
    } else {
        assert_eq!(told, "[192.0.2.7:80]");
    }
}

/// Leaves for a network with nothing but loopback, where `conf` is /etc/resolv.conf.
#[expect(unsafe_code, reason = "no crate here brings an interface up")]
fn own_network(conf: &Path) -> io::Result<()> {
    let user = if super::is_root() {
        CloneFlags::empty()
    } else {
        CloneFlags::CLONE_NEWUSER
    };
    unshare(user | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    let mount = |from: Option<&Path>, at: &Path, flags| {
        nix::mount::mount(from, at, None::<&str>, flags, None::<&str>)
    };
    mount(None, Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    let real = fs::canonicalize("/etc/resolv.conf")?;
    mount(Some(conf), &real, MsFlags::MS_BIND)?;

    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: an all-zero ifreq is one with an empty name; the call below reads its name and flags only.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request lives until the call returns.
    let up = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as libc::Ioctl,
            &request,
        )
    };
    nix::errno::Errno::result(up)?;
    Ok(())
}

/// Answers a query for A and one for AAAA (RFC 1035 section 4): 192.0.2.7, and nothing.
fn name_server(server: &UdpSocket) -> io::Result<()> {
    for _ in 0..2 {
        let mut message = [0; 512];
        let (length, from) = server.recv_from(&mut message)?;
        // The name ends with an empty label; its type and class follow.
        let name = message[12..]
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(0);
        let question = 12 + name + 1 + 4;
        let is_a = message[question - 3] == 1;
        assert!(question <= length);
        // A response with one question, and as many answers.
        let mut answer = vec![
            message[0],
            message[1],
            0x81,
            0x80,
            0,
            1,
            0,
            is_a.into(),
            0,
            0,
            0,
            0,
        ];
        answer.extend_from_slice(&message[12..question]);
        if is_a {
            // The name above, A, IN, for a minute, four bytes.
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
        }
        server.send_to(&answer, from)?;
    }
    Ok(())
}

#[test]
fn files_are_appended_to_where_logs_are_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let (logs, other) = (dir.path().join("logs"), dir.path().join("other"));
    fs::create_dir(&logs).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(logs.join("old.log"), "one\n").unwrap();
    fs::write(other.join("file"), "text").unwrap();
    let append = |path: &Path| OpenOptions::new().append(true).create(true).open(path);
    in_child(|| {
        sandbox(&Needs {
            write: vec![logs.clone()],
            ..Needs::default()
        })?;
        append(&logs.join("old.log"))?.write_all(b"two\n")?;
        append(&logs.join("new.log"))?.write_all(b"one\n")?;
        let refused = [
            denied(append(&other.join("new.log"))),
            denied(append(&other.join("file"))),
            denied(File::open(logs.join("old.log"))),
            denied(File::open(other.join("file"))),
            denied(File::create(logs.join("old.log"))),
            denied(fs::remove_file(logs.join("old.log"))),
            denied(fs::rename(logs.join("old.log"), logs.join("older.log"))),
            denied(fs::create_dir(logs.join("folder"))),
            denied(std::os::unix::fs::symlink("/", logs.join("link"))),
        ];
        assert_eq!(refused, [true; 9]);
        Ok(String::new())
    });
    assert_eq!(
        fs::read_to_string(logs.join("old.log")).unwrap(),
        "one\ntwo\n"
    );
    assert_eq!(fs::read_to_string(logs.join("new.log")).unwrap(), "one\n");
}

#[test]
fn what_may_be_read_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let (certs, other) = (dir.path().join("certs"), dir.path().join("other"));
    fs::create_dir(&certs).unwrap();
    fs::write(certs.join("a.pem"), "pem").unwrap();
    fs::write(&other, "other").unwrap();
    in_child(|| {
        sandbox(&Needs {
            read: vec![certs.clone()],
            ..Needs::default()
        })?;
        assert_eq!(fs::read_to_string(certs.join("a.pem"))?, "pem");
        assert_eq!(fs::read_dir(&certs)?.count(), 1);
        fs::canonicalize(certs.join("a.pem"))?;
        let refused = [
            denied(OpenOptions::new().append(true).open(certs.join("a.pem"))),
            denied(File::create(certs.join("b.pem"))),
            denied(File::open(&other)),
            denied(fs::remove_file(certs.join("a.pem"))),
        ];
        assert_eq!(refused, [true; 4]);
        Ok(String::new())
    });
    assert_eq!(fs::read_to_string(certs.join("a.pem")).unwrap(), "pem");
}

#[test]
fn ports_are_bound_only_where_that_is_needed() {
    // A free port, and one that is not.
    let (free, port) = listener();
    drop(free);
    in_child(|| {
        sandbox(&Needs {
            bind: Ports::from_iter([port.port()]),
            ..Needs::default()
        })?;
        TcpListener::bind(port)?;
        assert!(denied(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))));
        assert!(denied(TcpStream::connect(port)), "it may only listen");
        Ok(String::new())
    });
    in_child(|| {
        sandbox(&Needs {
            connect: Ports::Any,
            ..Needs::default()
        })?;
        let bound = TcpListener::bind(port).unwrap_err();
        assert_eq!(bound.raw_os_error(), Some(libc::EPERM));
        let refused = TcpStream::connect(port).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        Ok(String::new())
    });
}

/// Landlock on its own lets both through, on Linux 6.18.
#[test]
fn no_port_is_reached_around_landlock() {
    let (listener, addr) = listener();
    let refused = |needs: &Needs| {
        in_child(|| {
            sandbox(needs)?;
            let multipath = Some(socket2::Protocol::MPTCP);
            let multipath = Socket::new(Domain::IPV4, Type::STREAM, multipath)
                .and_then(|socket| socket.connect(&addr.into()));
            assert!(denied(multipath));
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            let fast_open = socket.send_to_with_flags(b"x", &addr.into(), libc::MSG_FASTOPEN);
            assert!(denied(fast_open));
            let datagram = [io::IoSlice::new(b"x")];
            let fast_open =
                socket.send_to_vectored_with_flags(&datagram, &addr.into(), libc::MSG_FASTOPEN);
            assert!(denied(fast_open));
            Ok(String::new())
        })
    };
    let proxy = Needs {
        connect: Ports::from_iter([1]),
        ..Needs::default()
    };
    refused(&proxy);
    refused(&Needs {
        resolve: true,
        descriptors: true,
        ..proxy
    });
    listener.set_nonblocking(true).unwrap();
    let reached = listener.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(reached, Err(io::ErrorKind::WouldBlock));
}

#[test]
fn unix_sockets_are_connected_to_only_where_that_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("app.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let app = thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello").unwrap());
    let told = in_child(|| {
        sandbox(&Needs {
            connect_unix: vec![socket.clone()],
            ..Needs::default()
        })?;
        assert!(denied(TcpStream::connect((Ipv4Addr::LOCALHOST, 1))));
        let mut said = String::new();
        UnixStream::connect(&socket)?.read_to_string(&mut said)?;
        Ok(said)
    });
    assert_eq!(told, "hello");
    app.join().unwrap();
    in_child(|| {
        sandbox(&Needs::default())?;
        assert!(denied(UnixStream::connect(&socket)));
        Ok(String::new())
    });
}

#[test]
fn a_process_with_threads_is_not_sandboxed() {
    // The test harness always has more than one.
    let sandbox = Sandbox::default();
    let refused = [
        Walls::put_on(Needs::default(), Vec::new(), &sandbox).map(drop),
        confine_app(&sandbox).map(drop),
    ];
    for error in refused.map(Result::unwrap_err) {
        assert!(error.to_string().contains("threads"), "{error}");
    }
}
