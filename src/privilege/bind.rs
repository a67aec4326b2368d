//! Binding listeners.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;

use socket2::{Domain, Protocol, Socket, Type};

use super::mode::remedy;
use super::proc_net::listening;
use super::process;
use super::status::Status;
use crate::config::{Listener, Mistake, Mistakes};

/// Connections that the kernel may hold ready for us to accept, per socket.
const BACKLOG: i32 = 4096;

/// Finds out which process listens on a port: [`holder`], for a process that may look into /proc.
pub type Holder = fn(u16) -> Option<String>;

/// A listener with a socket of its own for each worker, between which the kernel spreads connections (SO_REUSEPORT).
#[derive(Debug)]
pub struct Bound {
    /// Where
    pub addr: SocketAddr,
    /// Whether TLS is spoken
    pub tls: bool,
    /// One a worker
    pub sockets: Vec<TcpListener>,
}

/// Binds `listener` for `workers` workers, or says in `mistakes` why not and what to do. An IPv6 address that is only
/// a default is left out, with no mistake, where the machine has no IPv6. Who has taken a port, `holder` tells.
pub fn bind(
    listener: &Listener,
    tls: bool,
    workers: usize,
    holder: Holder,
    mistakes: &Mistakes,
) -> Option<Bound> {
    let addr = listener.addr;
    match sockets(addr, workers) {
        Ok(sockets) => Some(Bound { addr, tls, sockets }),
        Err(error) if addr.is_ipv6() && listener.span.is_none() && no_ipv6(&error) => None,
        Err(error) => {
            mistakes.push(mistake(listener, tls, holder, &error));
            None
        }
    }
}

fn sockets(addr: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // SO_REUSEPORT would let a second proxy of the same user share the port unnoticed. A socket without it finds out.
    drop(socket(addr, false)?);
    (0..workers)
        .map(|_| {
            let socket = socket(addr, true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

fn socket(addr: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if addr.is_ipv6() {
        // IPv4 has listeners of its own.
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(nix::libc::EAFNOSUPPORT | nix::libc::EADDRNOTAVAIL)
    )
}

/// Whether this machine has IPv6 at all.
pub fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

fn mistake(listener: &Listener, tls: bool, holder: Holder, error: &io::Error) -> Mistake {
    let addr = listener.addr;
    let key = if tls { "server.https" } else { "server.http" };
    let mistake =
        |message: String| Mistake::new(listener.span.clone(), message).label(error.to_string());
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            mistake(format!("{key}: {addr} is in use")).help(match holder(addr.port()) {
                Some(holder) => format!("{holder} holds it: stop that, or choose another port"),
                None => format!(
                    "`ss -ltnp 'sport = :{}'` as root tells who holds it",
                    addr.port()
                ),
            })
        }
        io::ErrorKind::PermissionDenied => {
            mistake(format!("{key}: {addr} may not be bound by this user"))
                .help(remedy(addr.port()))
        }
        io::ErrorKind::AddrNotAvailable => {
            mistake(format!("{key}: {addr} is no address of this machine"))
                .help("`ip addr` lists them; 0.0.0.0 and [::] stand for all")
        }
        _ => mistake(format!("{key}: {addr} cannot be bound")),
    }
}

/// Which process listens on a port, as far as /proc lets this user see it.
pub fn holder(port: u16) -> Option<String> {
    let mut sockets = listening(Path::new("/proc/self"));
    sockets.retain(|socket| socket.at.port() == port);
    if sockets.is_empty() {
        return None;
    }
    let pids = process::pids();
    let holds = |pid: &u32| {
        let held = process::sockets(*pid).unwrap_or_default();
        sockets.iter().any(|socket| held.contains(&socket.inode))
    };
    if let Some(pid) = pids.iter().copied().find(holds) {
        let name = Status::read(pid).ok()?.name;
        return Some(format!("{name} (pid {pid})"));
    }
    // A lowport lets nobody look. One of the user who bound it, or of somebody whom root became: which one, if there are
    // several, nobody can tell.
    let may_hold = |pid: &u32| {
        Status::read(*pid).is_ok_and(|status| {
            let by = |uid| uid == 0 || uid == status.state.uids[0];
            status.name == "lowport" && sockets.iter().any(|socket| by(socket.uid))
        })
    };
    pids.iter().find(|pid| may_hold(pid))?;
    Some("lowport (pid not to be seen by this user)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn mistakes() -> Mistakes {
        Mistakes::new(Source::of_text("t", ""))
    }

    #[test]
    fn workers_share_a_port_and_others_are_told_who_has_it() {
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = Listener {
            addr: probe.local_addr().unwrap(),
            span: Some(0..0),
        };
        drop(probe);
        let first = mistakes();
        let bound = bind(&listener, false, 3, holder, &first).unwrap();
        assert_eq!((bound.sockets.len(), first.len()), (3, 0));
        let second = mistakes();
        assert!(bind(&listener, false, 1, holder, &second).is_none());
        let text = second.render(false);
        assert!(
            text.contains("is in use") && text.contains(&format!("(pid {})", std::process::id())),
            "{text}"
        );
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let listener = Listener {
            addr: "192.0.2.1:8080".parse().unwrap(),
            span: Some(0..0),
        };
        let mistakes = mistakes();
        assert!(bind(&listener, true, 1, holder, &mistakes).is_none());
        assert!(
            mistakes
                .render(false)
                .contains("server.https: 192.0.2.1:8080 is no address of this machine")
        );
    }
}
