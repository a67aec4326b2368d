//! Who listens where, as /proc/net shows it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::process::Process;
use crate::privilege::listening;
use crate::privilege::process::sockets;

/// Where a socket listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) at: Address,
    /// Whose it was when it was made
    pub(super) uid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(String),
}

impl Address {
    pub(super) fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }

    /// Only this machine gets there.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Every address of the machine leads there.
    pub(super) fn is_everywhere(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.ip().is_unspecified())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// The listening sockets of every network that a process looked at is in, by inode.
#[derive(Debug)]
pub(super) struct Listeners {
    all: HashMap<u32, Listener>,
    /// This audit's own
    here: Option<PathBuf>,
    networks: HashSet<PathBuf>,
}

impl Listeners {
    /// Those of the network that this audit is in.
    pub(super) fn here() -> Self {
        let here = std::fs::read_link("/proc/self/ns/net").ok();
        Self {
            all: of_network(Path::new("/proc/self")),
            networks: here.clone().into_iter().collect(),
            here,
        }
    }

    /// Whether a process is in the network that this audit is in, as far as can be seen.
    pub(super) fn is_here(&self, process: &Process) -> bool {
        let network = process.network();
        network.is_none() || network == self.here
    }

    /// Where a process listens, each with the socket's inode. Containers have networks, and so tables, of their own, which
    /// are read with the first process in them.
    ///
    /// # Errors
    /// When this user may not look at its sockets.
    pub(super) fn held_by(&mut self, process: &Process) -> io::Result<Vec<(u32, Listener)>> {
        if let Some(network) = process.network()
            && self.networks.insert(network)
        {
            self.all.extend(of_network(&process.folder()));
        }
        let held = sockets(process.pid)?.into_iter();
        Ok(held
            .filter_map(|inode| Some((inode, self.all.get(&inode)?.clone())))
            .collect())
    }
}

/// The addresses of listeners, each once, by port.
pub(super) fn addresses<'a>(listeners: impl IntoIterator<Item = &'a Listener>) -> Vec<Address> {
    let mut addresses: Vec<Address> = listeners
        .into_iter()
        .map(|listener| listener.at.clone())
        .collect();
    addresses.sort_by_key(|address| (address.port(), address.to_string()));
    // Each worker has a socket of its own.
    addresses.dedup();
    addresses
}

/// As people read them.
pub(super) fn list(addresses: &[Address]) -> String {
    let texts: Vec<String> = addresses.iter().map(Address::to_string).collect();
    texts.join(", ")
}

/// Every listening socket of the network that a process is in, by inode. `process` is a folder of /proc.
pub(super) fn of_network(process: &Path) -> HashMap<u32, Listener> {
    let unix = std::fs::read(process.join("net/unix")).unwrap_or_default();
    let unix = String::from_utf8_lossy(&unix);
    let tcp = listening(process).into_iter().map(|socket| {
        let listener = Listener {
            at: Address::Tcp(socket.at),
            uid: Some(socket.uid),
        };
        (socket.inode, listener)
    });
    tcp.chain(unix.lines().filter_map(unix_row)).collect()
}

/// Ports below this take privilege.
pub(super) fn first_unprivileged_port() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024)
}

fn unix_row(row: &str) -> Option<(u32, Listener)> {
    /// `__SO_ACCEPTCON` of the kernel's net.h: it listens.
    const LISTENS: u32 = 1 << 16;
    let fields: Vec<&str> = row.split_ascii_whitespace().collect();
    let [_, _, _, flags, _, _, inode, path, ..] = fields[..] else {
        return None;
    };
    if u32::from_str_radix(flags, 16).ok()? & LISTENS == 0 {
        return None;
    }
    let listener = Listener {
        at: Address::Unix(path.to_owned()),
        uid: None,
    };
    Some((inode.parse().ok()?, listener))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_near_or_everywhere() {
        for (at, local, everywhere) in [
            ("127.0.0.1:3000", true, false),
            ("[::1]:3000", true, false),
            ("0.0.0.0:80", false, true),
            ("[::]:80", false, true),
            ("192.0.2.1:80", false, false),
        ] {
            let address = Address::Tcp(at.parse().unwrap());
            assert_eq!(
                (address.is_local(), address.is_everywhere()),
                (local, everywhere),
                "{at}"
            );
            assert_eq!(address.to_string(), at);
        }
    }

    #[test]
    fn a_row_of_a_unix_socket_is_read() {
        let unix = "0000000000000000: 00000002 00000000 00010000 0001 01 19 /run/app.sock";
        let (inode, listener) = unix_row(unix).unwrap();
        assert_eq!(
            (inode, listener.at.to_string().as_str()),
            (19, "unix:/run/app.sock")
        );
        assert!(listener.at.is_local() && listener.at.port().is_none());
        assert_eq!(unix_row(&unix.replace("00010000", "00000000")), None);
        for row in ["", "a b c", "0: 0 0 zz 0 0 19 /x"] {
            assert_eq!(unix_row(row), None, "{row}");
        }
    }

    #[test]
    fn the_listeners_of_this_process_are_found_each_address_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let mut listeners = Listeners::here();
        let this = Process::read(std::process::id()).unwrap();
        assert!(listeners.is_here(&this));
        let held = listeners.held_by(&this).unwrap();
        let twice = held.iter().chain(&held).map(|(_, listener)| listener);
        let found = addresses(twice);
        assert_eq!(found.iter().filter(|at| **at == address).count(), 1);
    }
}
