//! Binding listeners.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

use super::mode::remedy;
use crate::config::{Listener, Mistake, Mistakes};

/// Connections that the kernel may hold ready for us to accept, per socket.
const BACKLOG: i32 = 4096;

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
/// a default is left out, with no mistake, where the machine has no IPv6.
pub fn bind(listener: &Listener, tls: bool, workers: usize, mistakes: &Mistakes) -> Option<Bound> {
    let addr = listener.addr;
    match sockets(addr, workers) {
        Ok(sockets) => Some(Bound { addr, tls, sockets }),
        Err(error) if addr.is_ipv6() && listener.span.is_none() && no_ipv6(&error) => None,
        Err(error) => {
            mistakes.push(mistake(listener, tls, &error));
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

fn mistake(listener: &Listener, tls: bool, error: &io::Error) -> Mistake {
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
    let rows: Vec<Row> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            let rows = table.lines().skip(1);
            rows.filter_map(|row| Row::listening(row, port))
                .collect::<Vec<_>>()
        })
        .collect();
    let processes: Vec<PathBuf> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        // `self` is one, too, under another name.
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit)
        })
        .map(|entry| entry.path())
        .collect();
    let find = |is: fn(&Row, &Path) -> bool| {
        let holds = |process: &&PathBuf| rows.iter().any(|row| is(row, process));
        processes.iter().find(holds)
    };
    let Some(process) = find(Row::is_held_by) else {
        // One of them, if there are several: which, nobody may look.
        find(Row::may_be_held_by)?;
        return Some("lowport (pid not to be seen by this user)".to_owned());
    };
    let name = fs::read_to_string(process.join("comm")).ok()?;
    let pid = process.file_name()?.to_str()?;
    Some(format!("{} (pid {pid})", name.trim()))
}

/// A listening socket, in the kernel's table.
#[derive(Debug)]
struct Row {
    inode: String,
    uid: String,
}

impl Row {
    fn listening(row: &str, port: u16) -> Option<Self> {
        const LISTEN: &str = "0A";
        let mut fields = row.split_ascii_whitespace();
        let local = fields.nth(1)?.rsplit_once(':')?.1;
        let state = fields.nth(1)?;
        let (uid, inode) = (fields.nth(3)?, fields.nth(1)?);
        (state == LISTEN && u16::from_str_radix(local, 16) == Ok(port)).then(|| Self {
            inode: inode.to_owned(),
            uid: uid.to_owned(),
        })
    }

    /// Whether a process has it open, as far as this user may see that.
    fn is_held_by(&self, process: &Path) -> bool {
        let link = format!("socket:[{}]", self.inode);
        let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten();
        descriptors.flatten().any(|fd| {
            fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == link.as_str())
        })
    }

    /// Whether a process is a lowport, which lets nobody look, of the user who bound it, or of somebody whom root became.
    fn may_be_held_by(&self, process: &Path) -> bool {
        let Ok(status) = fs::read_to_string(process.join("status")) else {
            return false;
        };
        let field = |name| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_default()
        };
        let uid = field("Uid:").split_ascii_whitespace().next();
        field("Name:").trim() == "lowport" && (self.uid == "0" || uid == Some(self.uid.as_str()))
    }
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
        let bound = bind(&listener, false, 3, &first).unwrap();
        assert_eq!((bound.sockets.len(), first.len()), (3, 0));
        let second = mistakes();
        assert!(bind(&listener, false, 1, &second).is_none());
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
        assert!(bind(&listener, true, 1, &mistakes).is_none());
        assert!(
            mistakes
                .render(false)
                .contains("server.https: 192.0.2.1:8080 is no address of this machine")
        );
    }
}
