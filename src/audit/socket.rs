//! Who listens where, as /proc/net shows it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

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
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Every address of the machine leads there.
    pub(super) fn is_everywhere(&self) -> bool {
        matches!(self, Self::Tcp(address) if address.ip().to_canonical().is_unspecified())
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

/// Every listening socket of the network that a process is in, by inode. `process` is a folder of /proc.
pub(super) fn listeners(process: &Path) -> HashMap<u64, Listener> {
    let table = |name: &str| {
        let bytes = std::fs::read(process.join("net").join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (tcp, tcp6, unix) = (table("tcp"), table("tcp6"), table("unix"));
    tcp.lines()
        .chain(tcp6.lines())
        .filter_map(tcp_row)
        .chain(unix.lines().filter_map(unix_row))
        .collect()
}

/// Ports below this take privilege.
pub(super) fn first_unprivileged_port() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024)
}

fn tcp_row(row: &str) -> Option<(u64, Listener)> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = row.split_ascii_whitespace().collect();
    let [_, local, _, state, _, _, _, uid, _, inode, ..] = fields[..] else {
        return None;
    };
    if state != LISTEN {
        return None;
    }
    let (ip, port) = local.rsplit_once(':')?;
    let address = SocketAddr::new(ip_of(ip)?, u16::from_str_radix(port, 16).ok()?);
    let listener = Listener {
        at: Address::Tcp(address),
        uid: uid.parse().ok(),
    };
    Some((inode.parse().ok()?, listener))
}

/// Words of 32 bits, each as this machine keeps it in memory.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(8 * at..8 * at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

fn unix_row(row: &str) -> Option<(u64, Listener)> {
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
    fn rows_are_read() {
        let header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(tcp_row(header), None);
        let v4 = "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 4711 1 0";
        let (inode, listener) = tcp_row(v4).unwrap();
        assert_eq!((inode, listener.uid), (4711, Some(998)));
        assert_eq!(listener.at.to_string(), "127.0.0.1:3000");
        assert!(listener.at.is_local() && !listener.at.is_everywhere());
        assert_eq!(tcp_row(&v4.replace(" 0A ", " 01 ")), None);
        let v6 = "   1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 12 1";
        let (_, listener) = tcp_row(v6).unwrap();
        assert_eq!(
            (
                listener.at.to_string().as_str(),
                listener.at.is_everywhere()
            ),
            ("[::]:80", true)
        );
        let mapped = v6.replacen(&"0".repeat(32), "0000000000000000FFFF00000100007F", 1);
        assert!(tcp_row(&mapped).unwrap().1.at.is_local());
        let unix = "0000000000000000: 00000002 00000000 00010000 0001 01 19 /run/app.sock";
        assert_eq!(
            unix_row(unix).unwrap().1.at.to_string(),
            "unix:/run/app.sock"
        );
        assert_eq!(unix_row(&unix.replace("00010000", "00000000")), None);
        for row in ["", "a b c", "0: zz:zz x 0A a a a a a 1"] {
            assert_eq!((tcp_row(row), unix_row(row)), (None, None), "{row}");
        }
    }

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let found = listeners(Path::new("/proc/self"));
        assert!(found.values().any(|listener| listener.at == address));
    }
}
