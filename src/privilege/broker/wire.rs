//! What the broker and the worker tell each other: one message a packet, with descriptors beside it.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    CmsgIterator, ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg,
};

use crate::config::{Given, wipe};

/// Descriptors in one packet; the kernel takes at most 253.
pub(super) const MOST_FDS: usize = 128;
/// Bytes of one packet.
const MOST_BYTES: usize = 64 * 1024;

/// From the worker to the broker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Read everything again. The addresses are those that are bound already, which only saves work
    Reload(Vec<(SocketAddr, bool)>),
    /// Open the access log again
    Log,
    /// Read back what the kernel says of the worker's threads, which cannot open that themselves
    Tasks,
    /// Read what the kernel says of another process
    Process(u32),
}

/// From the broker to the worker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tell {
    /// It is there, with a sandbox on; [`Up`], in a file beside it, says which. The very first packet, unless it is
    /// [`Tell::Refused`]
    Up,
    /// A file has changed
    Changed,
    /// What was asked for cannot be had; the text, in a file beside it, says why
    Refused,
    /// The configuration and its files, in a file beside it; this many [`Tell::Listener`] packets follow
    Loaded(usize),
    /// Sockets of one address; `more` when another packet has the rest
    Listener {
        addr: SocketAddr,
        tls: bool,
        more: bool,
    },
    /// The access log
    Log,
    /// The states of the worker's threads, in a file beside it
    Tasks,
    /// The state of a process as `/proc` has it, see [`essence`](crate::privilege::status::essence); empty when it
    /// cannot be read
    Process(String),
}

/// Which sandbox the broker has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Up {
    /// The version of Landlock, or why that is off
    pub(super) landlock: Result<u32, String>,
    /// How many filters there are, or why there are none
    pub(super) seccomp: Result<u32, String>,
}

impl Up {
    pub(super) fn to_text(&self) -> String {
        let line = |layer: &Result<u32, String>| match layer {
            Ok(number) => format!("+{number}"),
            Err(why) => format!("-{}", why.replace('\n', " ")),
        };
        format!("{}\n{}", line(&self.landlock), line(&self.seccomp))
    }

    pub(super) fn from_text(text: &str) -> Option<Self> {
        let layer = |line: &str| match line.split_at_checked(1)? {
            ("+", number) => Some(Ok(number.parse().ok()?)),
            ("-", why) => Some(Err(why.to_owned())),
            _ => None,
        };
        let (landlock, seccomp) = text.split_once('\n')?;
        Some(Self {
            landlock: layer(landlock)?,
            seccomp: layer(seccomp)?,
        })
    }
}

impl Ask {
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Log => "log".to_owned(),
            Self::Tasks => "tasks".to_owned(),
            Self::Process(pid) => format!("process {pid}"),
            Self::Reload(bound) => {
                let bound: Vec<String> = bound
                    .iter()
                    .map(|(addr, tls)| format!(" {}{addr}", if *tls { "tls:" } else { "tcp:" }))
                    .collect();
                format!("reload{}", bound.concat())
            }
        }
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        match words.next()? {
            "log" => Some(Self::Log),
            "tasks" => Some(Self::Tasks),
            "process" => Some(Self::Process(words.next()?.parse().ok()?)),
            "reload" => words
                .map(|word| {
                    let (kind, addr) = word.split_at_checked(4)?;
                    Some((addr.parse().ok()?, kind == "tls:"))
                })
                .collect::<Option<_>>()
                .map(Self::Reload),
            _ => None,
        }
    }
}

impl Tell {
    pub(super) fn encode(&self) -> String {
        match self {
            Self::Up => "up".to_owned(),
            Self::Changed => "changed".to_owned(),
            Self::Refused => "refused".to_owned(),
            Self::Log => "log".to_owned(),
            Self::Tasks => "tasks".to_owned(),
            Self::Process(state) => format!("process {state}"),
            Self::Loaded(listeners) => format!("loaded {listeners}"),
            Self::Listener { addr, tls, more } => format!("listener {addr} {tls} {more}"),
        }
    }

    pub(super) fn decode(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        Some(match words.next()? {
            "up" => Self::Up,
            "changed" => Self::Changed,
            "refused" => Self::Refused,
            "log" => Self::Log,
            "tasks" => Self::Tasks,
            "process" => Self::Process(text.split_once(' ')?.1.to_owned()),
            "loaded" => Self::Loaded(words.next()?.parse().ok()?),
            "listener" => Self::Listener {
                addr: words.next()?.parse().ok()?,
                tls: words.next()?.parse().ok()?,
                more: words.next()?.parse().ok()?,
            },
            _ => return None,
        })
    }
}

/// Sends one packet.
pub(super) fn send(socket: BorrowedFd<'_>, text: &str, fds: &[RawFd]) -> io::Result<()> {
    let bytes = [IoSlice::new(text.as_bytes())];
    let rights = [ControlMessage::ScmRights(fds)];
    let rights: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    sendmsg::<()>(
        socket.as_raw_fd(),
        &bytes,
        rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Receives one packet; `None` when the other side is gone.
pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(String, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MOST_BYTES];
    let mut space = cmsg_space!([RawFd; MOST_FDS]);
    let (count, fds) = {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        (message.bytes, message.cmsgs().map(owned))
    };
    if count == 0 {
        return Ok(None);
    }
    bytes.truncate(count);
    let text = String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a packet that is no text"))?;
    Ok(Some((text, fds?)))
}

/// Takes over what came beside a packet.
#[expect(unsafe_code, reason = "nix hands received descriptors over as numbers")]
fn owned(messages: CmsgIterator<'_>) -> Vec<OwnedFd> {
    let rights = messages.filter_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => Some(fds),
        _ => None,
    });
    // SAFETY: the kernel has just made these descriptors for us, and nobody else knows of them.
    rights
        .flatten()
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect()
}

/// What travels in a file in memory, since it may be larger than a packet: a text, and the contents of files.
#[derive(Debug, Default)]
pub(super) struct Payload {
    pub(super) text: String,
    pub(super) files: Vec<Given>,
}

/// Bytes of an error number.
const ERRNO: usize = size_of::<i32>();
/// Bytes of a length.
const LENGTH: usize = size_of::<u32>();

impl Payload {
    /// A file in memory that holds it, at its beginning.
    pub(super) fn into_file(self) -> io::Result<File> {
        let mut file = File::from(memfd_create(c"lowport-reload", MFdFlags::MFD_CLOEXEC)?);
        let length = |bytes: &[u8]| LENGTH + bytes.len();
        let files = self.files.iter().map(|given| match &given.0 {
            Ok(bytes) => ERRNO + length(bytes),
            Err(_) => ERRNO + length(&[]),
        });
        let whole = length(self.text.as_bytes()) + files.sum::<usize>();
        file.write_all(
            &u64::try_from(whole)
                .map_err(io::Error::other)?
                .to_le_bytes(),
        )?;
        let chunk = |file: &mut File, bytes: &[u8]| {
            let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            file.write_all(&length.to_le_bytes())?;
            file.write_all(bytes)
        };
        chunk(&mut file, self.text.as_bytes())?;
        for given in &self.files {
            let (errno, bytes) = match &given.0 {
                Ok(bytes) => (0, bytes.as_slice()),
                Err(errno) => (*errno, &[][..]),
            };
            file.write_all(&errno.to_le_bytes())?;
            chunk(&mut file, bytes)?;
        }
        file.rewind()?;
        Ok(file)
    }

    /// Reads it back.
    pub(super) fn from_file(file: &mut File) -> io::Result<Self> {
        // The file's size may not be asked for in the sandbox, and a buffer that grows leaves copies of keys behind.
        let mut whole = [0; 8];
        file.read_exact(&mut whole)?;
        let whole = usize::try_from(u64::from_le_bytes(whole)).map_err(io::Error::other)?;
        let mut bytes = vec![0; whole];
        file.read_exact(&mut bytes)?;
        let payload = Self::parse(&bytes);
        wipe(&mut bytes);
        payload.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a damaged payload"))
    }

    fn parse(mut rest: &[u8]) -> Option<Self> {
        let text = String::from_utf8(chunk(&mut rest)?.to_vec()).ok()?;
        let mut files = Vec::new();
        while !rest.is_empty() {
            let errno = i32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?);
            let bytes = chunk(&mut rest)?;
            files.push(Given(match errno {
                0 => Ok(bytes.to_vec()),
                errno => Err(errno),
            }));
        }
        Some(Self { text, files })
    }
}

fn chunk<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_le_bytes(*rest.split_off(..4)?.first_chunk()?);
    rest.split_off(..usize::try_from(length).ok()?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    #[test]
    fn packets_come_back_as_they_were_sent() {
        let addr: SocketAddr = "[::1]:443".parse().unwrap();
        for ask in [
            Ask::Log,
            Ask::Process(7),
            Ask::Reload(vec![]),
            Ask::Reload(vec![(addr, true), (addr, false)]),
        ] {
            assert_eq!(Ask::decode(&ask.encode()), Some(ask));
        }
        let listener = Tell::Listener {
            addr,
            tls: true,
            more: false,
        };
        for tell in [
            Tell::Changed,
            Tell::Refused,
            Tell::Log,
            Tell::Tasks,
            Tell::Up,
            Tell::Process(String::new()),
            Tell::Process("Uid:\t0 0\nGid:\t0".to_owned()),
            Tell::Loaded(3),
            listener,
        ] {
            assert_eq!(Tell::decode(&tell.encode()), Some(tell));
        }
        for junk in [
            "",
            "reload x",
            "reload tcp:",
            "process",
            "loaded",
            "listener ::1 true",
            "é",
        ] {
            assert!(
                Ask::decode(junk).is_none() && Tell::decode(junk).is_none(),
                "{junk}"
            );
        }
    }

    #[test]
    fn a_sandbox_is_told_with_the_reason_why_it_is_not_whole() {
        for up in [
            Up {
                landlock: Ok(7),
                seccomp: Ok(3),
            },
            Up {
                landlock: Err("+no such kernel".into()),
                seccomp: Err(String::new()),
            },
        ] {
            assert_eq!(Up::from_text(&up.to_text()), Some(up));
        }
        for junk in ["", "+7", "+7\n", "+x\n+3", "7\n3"] {
            assert_eq!(Up::from_text(junk), None, "{junk:?}");
        }
    }

    #[test]
    fn payloads_and_descriptors_travel() {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        let files = vec![
            Given(Ok(b"key".to_vec())),
            Given(Err(13)),
            Given(Ok(Vec::new())),
        ];
        let file = Payload {
            text: "toml \u{e9}".into(),
            files,
        }
        .into_file()
        .unwrap();
        send(ours.as_fd(), "loaded 0", &[file.as_raw_fd()]).unwrap();
        let (text, fds) = receive(theirs.as_fd()).unwrap().unwrap();
        assert_eq!((text.as_str(), fds.len()), ("loaded 0", 1));
        let mut file = File::from(fds.into_iter().next().unwrap());
        let payload = Payload::from_file(&mut file).unwrap();
        assert_eq!(payload.text, "toml é");
        let files: Vec<_> = payload.files.iter().map(|given| given.0.clone()).collect();
        assert_eq!(files, [Ok(b"key".to_vec()), Err(13), Ok(Vec::new())]);
        drop(ours);
        assert!(receive(theirs.as_fd()).unwrap().is_none());
    }

    #[test]
    fn damaged_payloads_are_refused() {
        for junk in [
            &b""[..],
            b"\x01",
            b"\xff\xff\xff\xff",
            b"\x01\0\0\0\xff",
            b"\0\0\0\0\0\0\0\0\x01\0\0\0",
        ] {
            assert!(Payload::parse(junk).is_none(), "{junk:?}");
        }
    }
}
