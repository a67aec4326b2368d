//! Who holds the other end of a local connection: what `ss` asks the kernel, one socket at a time.
//!
//! NETLINK_SOCK_DIAG (sock_diag(7)) with requests for exactly one socket, never a dump, so that the cost does not grow
//! with the number of connections. Opened before the sandbox; from then on it takes `sendto` and `recvfrom`.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::proc_net::Tables;

/// How long an answer may take. The kernel has it ready when `sendto` returns, so this only bounds the unexpected.
const PATIENCE_MS: i64 = 50;
/// Bytes of the longest answer to a request for one socket, with room to spare.
const ANSWER: usize = 1024;
/// Answers to earlier requests that are skipped, after one that came too late.
const STALE: usize = 4;

const HEADER: usize = 16;
/// `struct inet_diag_msg` (linux/inet_diag.h)
const INET_MESSAGE: usize = 72;
/// `struct unix_diag_msg` (linux/unix_diag.h)
const UNIX_MESSAGE: usize = 16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const ANY_STATE: u32 = u32::MAX;
const NO_COOKIE: [u8; 8] = [0xff; 8];
pub(super) const LISTEN: u8 = 10;
const UDIAG_SHOW_PEER: u32 = 0x04;
const UDIAG_SHOW_UID: u32 = 0x40;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_UID: u16 = 7;

/// Asks who owns sockets of this network namespace. One a thread.
#[derive(Debug)]
pub struct SockDiag {
    source: Source,
    overflow: u32,
}

#[derive(Debug)]
enum Source {
    Netlink { fd: OwnedFd, sequence: Cell<u32> },
    Tables(Tables),
}

/// A row of the kernel's table of TCP sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// `TCP_ESTABLISHED` is 1, `TCP_LISTEN` is 10 (net/tcp_states.h)
    pub(super) state: u8,
    /// Its own address
    pub(super) local: IpAddr,
    /// Its owner, as seen from the user namespace of who opened the table
    pub(super) uid: u32,
    /// 0 as long as no process holds it: before accept(2), and after close(2)
    pub(super) inode: u32,
}

impl Row {
    /// A row that nobody holds says 0 whoever accepts it, and on kernels before 6.17 also after its owner has closed it.
    fn owner(&self) -> Option<u32> {
        (self.state != LISTEN && (self.inode != 0 || self.uid != 0)).then_some(self.uid)
    }
}

impl SockDiag {
    /// Opens the netlink socket, or where that is refused the tables in /proc, which take milliseconds instead of
    /// microseconds. To be called before a sandbox takes both away.
    ///
    /// # Errors
    /// When neither is to be had.
    pub fn open() -> io::Result<Self> {
        let source = match netlink() {
            Ok(source) => source,
            Err(refused) => Source::Tables(Tables::open().map_err(|error| {
                io::Error::other(format!("sock_diag: {refused}; /proc/self/net/tcp: {error}"))
            })?),
        };
        Ok(Self {
            source,
            overflow: overflow_uid(),
        })
    }

    /// The user number that stands for all that this user namespace has none for: 65534 unless the machine says
    /// otherwise.
    pub fn overflow_uid(&self) -> u32 {
        self.overflow
    }

    /// The user who holds the socket at `local` that is connected to `peer`: the upstream's side of a connection of ours.
    /// It is the user that accept(2) was called as. Before that and after close(2) the kernel names who listened or held it
    /// last, or nobody, by root's number: that is `None`, so that nobody is taken for root.
    ///
    /// # Errors
    /// When the kernel does not answer within 50 ms, or not in the form that it should.
    pub fn owner(&self, local: SocketAddr, peer: SocketAddr) -> io::Result<Option<u32>> {
        Ok(self.row(local, peer)?.and_then(|row| row.owner()))
    }

    /// The address that whoever takes connections to `local` listens on, such as 0.0.0.0; `None` if nobody does.
    ///
    /// # Errors
    /// As [`owner`](Self::owner).
    pub fn listens_on(&self, local: SocketAddr) -> io::Result<Option<IpAddr>> {
        // Nobody is connected to port 0, so that what is found is who would answer.
        let nobody = match local.ip().to_canonical() {
            IpAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
            IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let row = self.row(local, nobody)?;
        Ok(row
            .filter(|row| row.state == LISTEN)
            .map(|row| row.local.to_canonical()))
    }

    /// The user who accepted the Unix connection whose other side is ours, with this [`socket_inode`]. `None` while nobody
    /// holds it, and where the kernel does not tell (before 5.3, or without unix_diag).
    ///
    /// # Errors
    /// As [`owner`](Self::owner).
    pub fn unix_owner(&self, ours: u32) -> io::Result<Option<u32>> {
        let Source::Netlink { fd, sequence } = &self.source else {
            return Ok(None);
        };
        let ask = |inode: u32, show: u32| {
            let mut request = vec![libc::AF_UNIX as u8, 0, 0, 0];
            request.extend(ANY_STATE.to_ne_bytes());
            request.extend(inode.to_ne_bytes());
            request.extend(show.to_ne_bytes());
            request.extend(NO_COOKIE);
            exchange(fd, sequence, &request)
        };
        let Some(answer) = ask(ours, UDIAG_SHOW_PEER)? else {
            return Ok(None);
        };
        let theirs = match attribute(&answer, UNIX_MESSAGE, UNIX_DIAG_PEER)? {
            None | Some(0) => return Ok(None),
            Some(inode) => inode,
        };
        match ask(theirs, UDIAG_SHOW_UID)? {
            Some(answer) => attribute(&answer, UNIX_MESSAGE, UNIX_DIAG_UID),
            None => Ok(None),
        }
    }

    fn row(&self, local: SocketAddr, peer: SocketAddr) -> io::Result<Option<Row>> {
        // The kernel keeps IPv4 connections of an IPv6 socket under their IPv4 addresses as well.
        let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
        let (local, peer) = (canonical(local), canonical(peer));
        match &self.source {
            Source::Netlink { fd, sequence } => exchange(fd, sequence, &inet(local, peer))?
                .map(|answer| row(&answer))
                .transpose(),
            Source::Tables(tables) => tables.find(local, peer),
        }
    }
}

/// Opens the socket and asks it once: the kernel may have to load a module, which a sandbox would forbid.
fn netlink() -> io::Result<Source> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    // Connected to the kernel: nobody else can send to it.
    connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    setsockopt(
        &fd,
        sockopt::ReceiveTimeout,
        &TimeVal::milliseconds(PATIENCE_MS),
    )?;
    let sequence = Cell::new(0);
    let nobody = SocketAddr::from(([127, 0, 0, 1], 0));
    exchange(&fd, &sequence, &inet(nobody, nobody))?;
    Ok(Source::Netlink { fd, sequence })
}

/// `struct inet_diag_req_v2` for one TCP socket.
fn inet(local: SocketAddr, peer: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let mut request = vec![family as u8, libc::IPPROTO_TCP as u8, 0, 0];
    request.extend(ANY_STATE.to_ne_bytes());
    request.extend(local.port().to_be_bytes());
    request.extend(peer.port().to_be_bytes());
    for addr in [local.ip(), peer.ip()] {
        match addr {
            IpAddr::V4(addr) => {
                request.extend(addr.octets());
                request.extend([0; 12]);
            }
            IpAddr::V6(addr) => request.extend(addr.octets()),
        }
    }
    let any_interface = 0u32;
    request.extend(any_interface.to_ne_bytes());
    request.extend(NO_COOKIE);
    request
}

/// Sends a request and returns what comes after the header of its answer; `None` where there is no such socket.
fn exchange(fd: &OwnedFd, sequence: &Cell<u32>, body: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let number = sequence.get().wrapping_add(1);
    sequence.set(number);
    let length = HEADER + body.len();
    let mut request = Vec::with_capacity(length);
    request.extend((length as u32).to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request.extend(number.to_ne_bytes());
    request.extend(0u32.to_ne_bytes());
    request.extend(body);
    send(fd.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut buffer = [0; ANSWER];
    for _ in 0..=STALE {
        let count = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let (kind, answers, body) = message(&buffer[..count])?;
        if answers == number {
            return outcome(kind, body);
        }
    }
    Err(malformed())
}

/// Kind, sequence number and body of a netlink message.
fn message(bytes: &[u8]) -> io::Result<(u16, u32, &[u8])> {
    let length = u32_at(bytes, 0)? as usize;
    let kind = u16_at(bytes, 4)?;
    let number = u32_at(bytes, 8)?;
    let body = bytes.get(HEADER..length).ok_or_else(malformed)?;
    Ok((kind, number, body))
}

fn outcome(kind: u16, body: &[u8]) -> io::Result<Option<Vec<u8>>> {
    match kind {
        SOCK_DIAG_BY_FAMILY => Ok(Some(body.to_vec())),
        kind if kind == libc::NLMSG_ERROR as u16 => match (u32_at(body, 0)? as i32).checked_neg() {
            Some(libc::ENOENT) => Ok(None),
            Some(errno) if errno > 0 => Err(io::Error::from_raw_os_error(errno)),
            _ => Err(malformed()),
        },
        _ => Err(malformed()),
    }
}

/// Reads a `struct inet_diag_msg`.
fn row(answer: &[u8]) -> io::Result<Row> {
    let message: &[u8; INET_MESSAGE] = answer.first_chunk().ok_or_else(malformed)?;
    let source: [u8; 16] = message[8..24].try_into().map_err(|_| malformed())?;
    let local = match i32::from(message[0]) {
        libc::AF_INET => IpAddr::from([source[0], source[1], source[2], source[3]]),
        libc::AF_INET6 => IpAddr::from(source),
        _ => return Err(malformed()),
    };
    Ok(Row {
        state: message[1],
        local,
        uid: u32_at(message, 64)?,
        inode: u32_at(message, 68)?,
    })
}

/// The number in the first attribute of this kind, after a message of `skip` bytes.
fn attribute(answer: &[u8], skip: usize, kind: u16) -> io::Result<Option<u32>> {
    let mut rest = answer.get(skip..).ok_or_else(malformed)?;
    while !rest.is_empty() {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..length).ok_or_else(malformed)?;
        if u16_at(rest, 2)? == kind {
            return u32_at(value, 0).map(Some);
        }
        // Attributes begin at multiples of four.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(None)
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.copied().map(u16::from_ne_bytes).ok_or_else(malformed)
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.copied().map(u32::from_ne_bytes).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not an answer of sock_diag")
}

fn overflow_uid() -> u32 {
    const USUAL: u32 = 65534;
    std::fs::read_to_string("/proc/sys/kernel/overflowuid")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(USUAL)
}

/// The number of an open socket, by fstat(2) itself: glibc's goes by way of newfstatat(2), which a sandbox has reason to
/// forbid since it takes paths.
///
/// # Errors
/// Where a sandbox forbids fstat(2), too.
#[expect(unsafe_code, reason = "a system call that libc does not make as it is")]
pub fn socket_inode(socket: impl AsFd) -> io::Result<u32> {
    let mut status = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the descriptor is open for as long as it is borrowed, and `status` has room for what fstat(2) writes: on the
    // 64-bit systems that lowport is made for, the kernel's layout is libc's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fstat,
            socket.as_fd().as_raw_fd(),
            status.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero bytes are a valid `stat`, and fstat(2) has only written over them.
    let status = unsafe { status.assume_init() };
    u32::try_from(status.st_ino).map_err(io::Error::other)
}

#[cfg(test)]
#[path = "sock_diag/tests.rs"]
mod tests;
