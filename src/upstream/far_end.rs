//! The other end of a connection to a peer, and who holds it.

use std::fmt;
use std::net::SocketAddr;

use tokio::net::{TcpStream, UnixStream};

use crate::privilege::status::TaskState;
use crate::privilege::{SockDiag, socket_inode};
use crate::stream::Stream;

/// The other end of a connection, as noted when it was made.
#[derive(Debug, Clone, Copy)]
pub(super) enum FarEnd {
    /// On this machine
    Tcp {
        theirs: SocketAddr,
        ours: SocketAddr,
    },
    /// A Unix socket; who called listen(2), and the number of our own socket
    Unix {
        inode: Option<u32>,
        listener: Option<u32>,
        pid: Option<i32>,
    },
    /// On another machine, or gone already
    Remote,
}

/// Who holds the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Uid(u32, By),
    Unknown(Why),
}

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The kernel, for the accepted socket
    Accepted,
    /// /proc, for the process that called listen(2)
    Process,
    /// SO_PEERCRED, for whoever called listen(2), as it was then
    Listened,
}

/// Why nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is on another machine
    Remote,
    /// It belongs to a user whom this user namespace has no number for
    OtherNamespace,
    /// The kernel does not tell
    NotTold,
    /// It was closed before it could be looked at
    Closed,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "the owner of the accepted socket",
            Self::Process => "the process that listens",
            Self::Listened => "who began to listen (it may have become somebody else since)",
        })
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Remote => "it is on another machine",
            Self::OtherNamespace => {
                "it belongs to a user of another user namespace, or to the one that stands for all of them"
            }
            Self::NotTold => "the kernel does not tell: neither sock_diag nor /proc can be asked",
            Self::Closed => "it had closed the connection before it could be looked at",
        })
    }
}

impl FarEnd {
    pub(super) fn of(stream: &Stream) -> Self {
        match stream {
            Stream::Tcp(stream) => tcp(stream),
            Stream::TlsClient(stream) => tcp(stream.get_ref().0),
            Stream::Unix(stream) => unix(stream),
            Stream::TlsServer(_) => Self::Remote,
        }
    }

    /// Who has accepted the connection; `None` as long as nobody has.
    pub(super) fn accepted_by(&self, sockets: Option<&SockDiag>) -> Option<Owner> {
        let (uid, sockets) = match (self, sockets) {
            (Self::Remote, _) => return Some(Owner::Unknown(Why::Remote)),
            (_, None) => return Some(Owner::Unknown(Why::NotTold)),
            (Self::Tcp { theirs, ours }, Some(sockets)) => (sockets.owner(*theirs, *ours), sockets),
            (Self::Unix { inode: None, .. }, _) => return Some(Owner::Unknown(Why::NotTold)),
            (
                Self::Unix {
                    inode: Some(inode), ..
                },
                Some(sockets),
            ) => (sockets.unix_owner(*inode), sockets),
        };
        match uid {
            Ok(uid) => uid.map(|uid| known(uid, By::Accepted, Some(sockets))),
            Err(error) => {
                tracing::debug!(%error, "sock_diag");
                Some(Owner::Unknown(Why::NotTold))
            }
        }
    }

    /// Who holds it, after it has answered. For a Unix socket also by what is known of its listener, which may be somebody
    /// else: systemd listens for the services that it starts.
    pub(super) fn owner(&self, sockets: Option<&SockDiag>) -> Owner {
        let accepted = self.accepted_by(sockets);
        if let Some(owner @ Owner::Uid(..)) = accepted {
            return owner;
        }
        if let Self::Unix { listener, .. } = self {
            if let Some(process) = self.process().and_then(Process::read) {
                return known(process.uid, By::Process, sockets);
            }
            if let Some(uid) = listener {
                return known(*uid, By::Listened, sockets);
            }
        }
        accepted.unwrap_or(Owner::Unknown(Why::Closed))
    }

    /// The process behind a Unix socket.
    pub(super) fn process(&self) -> Option<u32> {
        match self {
            Self::Unix { pid: Some(pid), .. } => u32::try_from(*pid).ok(),
            _ => None,
        }
    }
}

/// The overflow uid stands for all users that have no number here, root of another namespace among them.
fn known(uid: u32, by: By, sockets: Option<&SockDiag>) -> Owner {
    const USUAL_OVERFLOW: u32 = 65534;
    if uid == sockets.map_or(USUAL_OVERFLOW, SockDiag::overflow_uid) {
        Owner::Unknown(Why::OtherNamespace)
    } else {
        Owner::Uid(uid, by)
    }
}

/// A peer on this machine is at loopback, or at the address that we reach it from.
fn tcp(stream: &TcpStream) -> FarEnd {
    match (stream.peer_addr(), stream.local_addr()) {
        (Ok(theirs), Ok(ours)) if is_local(theirs, ours) => FarEnd::Tcp { theirs, ours },
        _ => FarEnd::Remote,
    }
}

fn is_local(theirs: SocketAddr, ours: SocketAddr) -> bool {
    let ip = theirs.ip().to_canonical();
    ip.is_loopback() || ip == ours.ip().to_canonical()
}

fn unix(stream: &UnixStream) -> FarEnd {
    let listener = stream.peer_cred().ok();
    FarEnd::Unix {
        inode: socket_inode(stream).ok(),
        listener: listener.map(|listener| listener.uid()),
        pid: listener.and_then(|listener| listener.pid()),
    }
}

/// What /proc tells of a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Who it acts as
    uid: u32,
    /// Whether it can act as root again, by its real or its saved uid
    was_root: bool,
    /// Its effective capabilities
    capabilities: u64,
}

impl Process {
    /// `None` in a sandbox, and where the process has a pid namespace of its own.
    pub(super) fn read(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    /// The same, told by somebody who may read it.
    pub(super) fn of(state: &TaskState) -> Self {
        let [real, effective, saved, _] = state.uids;
        Self {
            uid: effective,
            was_root: real == 0 || saved == 0,
            capabilities: state.capabilities.effective,
        }
    }

    /// How it could be more than `uid`, which it acts as; `None` too if it does not.
    pub(super) fn more_than(&self, uid: u32) -> Option<String> {
        if self.uid != uid {
            return None;
        }
        if self.was_root && uid != 0 {
            return Some("can become root again".to_owned());
        }
        (self.capabilities != 0).then(|| format!("has capabilities {:#x}", self.capabilities))
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
        let mut uids = field("Uid:")?.split_ascii_whitespace();
        let mut uid = || uids.next()?.parse::<u32>().ok();
        let (real, effective, saved) = (uid()?, uid()?, uid()?);
        Some(Self {
            uid: effective,
            was_root: real == 0 || saved == 0,
            capabilities: u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read() {
        let status = "Name:\tnode\nUid:\t0\t1000\t0\t1000\nCapInh:\t0\nCapEff:\t0000000000000400\n";
        let expected = Process {
            uid: 1000,
            was_root: true,
            capabilities: 0x400,
        };
        assert_eq!(Process::parse(status), Some(expected));
        for broken in [
            "",
            "Uid:\t0\n",
            "Uid:\t1\t1\t1\t1\nCapEff:\tx\n",
            "Uid:\tx\nCapEff:\t0\n",
        ] {
            assert_eq!(Process::parse(broken), None, "{broken}");
        }
        let own = Process::read(std::process::id()).unwrap();
        assert_eq!(own.uid, nix::unistd::geteuid().as_raw());
    }

    #[test]
    fn what_is_local() {
        let local =
            |theirs: &str, ours: &str| is_local(theirs.parse().unwrap(), ours.parse().unwrap());
        assert!(local("127.0.0.1:1", "127.0.0.1:2"));
        assert!(local("127.0.0.2:1", "127.0.0.1:2"));
        assert!(local("[::1]:1", "[::1]:2"));
        assert!(local("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:2"));
        assert!(local("10.0.0.1:1", "10.0.0.1:2"));
        assert!(!local("10.0.0.1:1", "10.0.0.2:2"));
    }

    #[test]
    fn who_cannot_be_asked_for_is_unknown() {
        assert_eq!(FarEnd::Remote.owner(None), Owner::Unknown(Why::Remote));
        let addr = "127.0.0.1:1".parse().unwrap();
        let local = FarEnd::Tcp {
            theirs: addr,
            ours: addr,
        };
        assert_eq!(local.owner(None), Owner::Unknown(Why::NotTold));
        let unix = |listener| FarEnd::Unix {
            inode: None,
            listener,
            pid: None,
        };
        assert_eq!(unix(None).owner(None), Owner::Unknown(Why::NotTold));
        assert_eq!(unix(Some(7)).owner(None), Owner::Uid(7, By::Listened));
        assert_eq!(
            unix(Some(65534)).owner(None),
            Owner::Unknown(Why::OtherNamespace)
        );
    }
}
