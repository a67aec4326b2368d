//! The tables of TCP sockets in /proc: all that listen, and for where netlink is refused, single ones.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::sock_diag::{LISTEN, Row};

/// Bytes read at once: the kernel makes whole rows only, and at most a page of them.
const CHUNK: usize = 4096;
/// No more of a table is read than this: about 28,000 rows.
const MAX_TABLE: u64 = 4 << 20;

/// `/proc/self/net/tcp` and `tcp6`. Open descriptors can be read again from the start, also in a sandbox.
#[derive(Debug)]
pub(super) struct Tables {
    v4: File,
    /// `None` where the machine has no IPv6
    v6: Option<File>,
}

impl Tables {
    /// Opens both. `/proc/net` is a link to this process's own, and missing under systemd's `ProcSubset=pid`.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            v4: File::open("/proc/self/net/tcp")?,
            v6: File::open("/proc/self/net/tcp6").ok(),
        })
    }

    /// The socket at `local` that is connected to `peer`; with port 0 for a peer, whoever listens at `local`. Addresses
    /// are in their canonical form.
    pub(super) fn find(&self, local: SocketAddr, peer: SocketAddr) -> io::Result<Option<Row>> {
        let wanted = |entry: &Entry| {
            let at = entry.local.ip();
            let here = at == local.ip() || (peer.port() == 0 && at.is_unspecified());
            let there = entry.peer == peer || (peer.port() == 0 && entry.peer.port() == 0);
            here && entry.local.port() == local.port() && there
        };
        for table in [Some(&self.v4), self.v6.as_ref()].into_iter().flatten() {
            let text = read(table)?;
            if let Some(entry) = text.lines().skip(1).filter_map(parse).find(wanted) {
                return Ok(Some(entry.row));
            }
        }
        Ok(None)
    }
}

fn read(table: &File) -> io::Result<String> {
    let mut text = Vec::new();
    let mut chunk = [0; CHUNK];
    loop {
        let at = text.len() as u64;
        match table.read_at(&mut chunk, at)? {
            0 => break,
            count => text.extend_from_slice(&chunk[..count]),
        }
        if at > MAX_TABLE {
            return Err(io::Error::other("the table of sockets is too long to read"));
        }
    }
    String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A TCP socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// Where, in its canonical form: an IPv4 address is one in the table for IPv6, too
    pub at: SocketAddr,
    /// Whose it was when it was made
    pub uid: u32,
    /// What it is called in the descriptors of who holds it
    pub inode: u32,
}

/// Those of the network that a process is in; `process` is its folder in /proc.
pub fn listening(process: &Path) -> Vec<Listening> {
    let rows = |table: &str| -> Vec<Listening> {
        let bytes = fs::read(process.join("net").join(table)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.lines()
            .filter_map(parse)
            .filter(|entry| entry.row.state == LISTEN)
            .map(|entry| Listening {
                at: entry.local,
                uid: entry.row.uid,
                inode: entry.row.inode,
            })
            .collect()
    };
    [rows("tcp"), rows("tcp6")].concat()
}

struct Entry {
    local: SocketAddr,
    peer: SocketAddr,
    row: Row,
}

/// `sl local_address rem_address st queues timer retrnsmt uid timeout inode ...` (proc_net_tcp in the kernel's own words)
fn parse(line: &str) -> Option<Entry> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let peer = address(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    let row = Row {
        state,
        local: local.ip(),
        uid,
        inode,
    };
    Some(Entry { local, peer, row })
}

/// `0100007F:0BB8`: words of the machine's own byte order in hexadecimal, then the port.
fn address(field: &str) -> Option<SocketAddr> {
    let (ip, port) = field.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = ip.get(at..at + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match ip.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let mut octets = [0; 16];
            for (number, place) in octets.chunks_exact_mut(4).enumerate() {
                place.copy_from_slice(&word(number * 8)?);
            }
            IpAddr::from(octets)
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read() {
        let line = "   1: 0100007F:0BB8 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000  1000        0 177055 1 0";
        let entry = parse(line).unwrap();
        assert_eq!(entry.local, "127.0.0.1:3000".parse().unwrap());
        assert_eq!(entry.peer, "127.0.0.1:54000".parse().unwrap());
        assert_eq!(
            (entry.row.state, entry.row.uid, entry.row.inode),
            (1, 1000, 177_055)
        );
        let mapped = address("0000000000000000FFFF00000100007F:0050").unwrap();
        assert_eq!(mapped, "127.0.0.1:80".parse().unwrap());
        let loopback = address("00000000000000000000000001000000:0050").unwrap();
        assert_eq!(loopback, "[::1]:80".parse().unwrap());
    }

    #[test]
    fn what_is_no_row_is_passed_over() {
        for line in [
            "",
            "1:",
            "1: x y",
            "1: 0100007F:0BB8 0100007F:D2F0 01",
            "1: é:1 é:2 01 a b c 1 2 3",
        ] {
            assert!(parse(line).is_none(), "{line}");
        }
        assert!(address("01000é7F:1").is_none());
    }

    #[test]
    fn a_listener_of_this_process_is_found_and_no_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let _connection = std::net::TcpStream::connect(at).unwrap();
        let rows = listening(Path::new("/proc/self"));
        let found: Vec<_> = rows.iter().filter(|row| row.at == at).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].uid, nix::unistd::geteuid().as_raw());
        assert!(listening(Path::new("/nowhere")).is_empty());
    }
}
