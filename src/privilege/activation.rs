//! Sockets that were bound before this process began: systemd's socket activation.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockType, getsockopt, sockopt};

use crate::config::{Config, Listener};

/// The first descriptor that is passed (sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// A listening socket that was passed to this process.
#[derive(Debug)]
pub struct Inherited {
    /// Where it listens
    pub addr: SocketAddr,
    /// What `FileDescriptorName=` calls it
    name: Option<String>,
    /// Whether an IPv6 socket takes IPv4 too
    dual: bool,
    socket: TcpListener,
}

/// Why a passed descriptor is of no use.
#[derive(Debug)]
pub struct InheritError(String);

impl fmt::Display for InheritError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InheritError {}

/// The sockets that `LISTEN_FDS` counts, if `LISTEN_PID` is this process. To be called once, before anything else opens a
/// descriptor.
///
/// # Errors
/// Where one of them is no listening TCP socket.
pub fn inherited() -> Result<Vec<Inherited>, InheritError> {
    let var = |name| std::env::var(name).ok();
    let ours = var("LISTEN_PID").is_some_and(|pid| pid == std::process::id().to_string());
    let Some(count) = var("LISTEN_FDS").filter(|_| ours) else {
        return Ok(Vec::new());
    };
    let count: RawFd = count
        .parse()
        .ok()
        .filter(|count| (0..1024).contains(count))
        .ok_or_else(|| InheritError(format!("LISTEN_FDS={count} is no number of descriptors")))?;
    let names = var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    (FIRST..FIRST + count)
        .map(|fd| {
            let name = names.next().filter(|name| !name.is_empty());
            take(fd, name.map(str::to_owned)).map_err(|why| {
                let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
                InheritError(format!(
                    "descriptor {fd}{name}, passed by LISTEN_FDS, {why}: lowport takes listening TCP sockets \
                     (ListenStream= in the .socket unit)"
                ))
            })
        })
        .collect()
}

#[expect(unsafe_code, reason = "a descriptor that is known by its number alone")]
fn take(fd: RawFd, name: Option<String>) -> Result<Inherited, String> {
    // SAFETY: only a look at whether the number stands for a descriptor at all; nothing is owned yet.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|_| "is not open".to_owned())?;
    // SAFETY: it is open, was passed to this process, and nobody else here knows its number.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let kind = getsockopt(&socket, sockopt::SockType).map_err(|_| "is no socket".to_owned())?;
    let listens = getsockopt(&socket, sockopt::AcceptConn).unwrap_or(false);
    if kind != SockType::Stream || !listens {
        return Err("does not listen".to_owned());
    }
    let socket = TcpListener::from(socket);
    let addr = socket
        .local_addr()
        .map_err(|_| "is not of the internet".to_owned())?;
    socket
        .set_nonblocking(true)
        .map_err(|error| error.to_string())?;
    let dual = addr.is_ipv6()
        && addr.ip().is_unspecified()
        && !getsockopt(&socket, sockopt::Ipv6V6Only).unwrap_or(true);
    Ok(Inherited {
        addr,
        name,
        dual,
        socket,
    })
}

impl Inherited {
    /// Whether TLS is spoken there: what `config` says of the address, else the socket's name, `http` or `https`.
    fn tls(&self, config: &Config) -> Option<bool> {
        let listed = config
            .listeners()
            .find(|(listener, _)| listener.addr == self.addr);
        if let Some((_, tls)) = listed {
            return Some(tls);
        }
        match self.name.as_deref()? {
            name if name.starts_with("https") => Some(true),
            name if name.starts_with("http") => Some(false),
            _ => None,
        }
    }

    /// What it is for, in `config`.
    ///
    /// # Errors
    /// Neither its address nor its name says.
    pub fn purpose(&self, config: &Config) -> Result<Adopted, InheritError> {
        match self.tls(config) {
            Some(true) if config.certificates.is_empty() => Err(InheritError(format!(
                "the passed socket {} is for https, and there is no [[certificate]]",
                self.addr
            ))),
            Some(tls) => Ok(Adopted {
                addr: self.addr,
                tls,
                dual: self.dual,
            }),
            None => Err(InheritError(format!(
                "the passed socket {} is neither in server.http nor in server.https, nor named http or https: \
                 say FileDescriptorName=http or FileDescriptorName=https in the .socket unit",
                self.addr
            ))),
        }
    }

    /// A descriptor of the same socket for each of `workers` workers.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn sockets(&self, workers: usize) -> io::Result<Vec<TcpListener>> {
        (0..workers).map(|_| self.socket.try_clone()).collect()
    }
}

/// A passed socket in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adopted {
    /// Where it listens
    pub addr: SocketAddr,
    /// Whether TLS is spoken there
    pub tls: bool,
    /// Whether it takes IPv4 too, on all addresses
    pub dual: bool,
}

impl Adopted {
    fn covers(&self, addr: SocketAddr) -> bool {
        let also = self.dual && addr.is_ipv4() && addr.port() == self.addr.port();
        addr == self.addr || also
    }

    /// Puts passed sockets into `config`: in the place of its default listeners, and beside those that were written.
    pub fn adopt(all: &[Self], config: &mut Config) {
        if all.is_empty() {
            return;
        }
        let server = &mut config.server;
        for (listeners, tls) in [(&mut server.http, false), (&mut server.https, true)] {
            listeners.retain(|listener| {
                listener.span.is_some() && !all.iter().any(|adopted| adopted.covers(listener.addr))
            });
            listeners.extend(
                all.iter()
                    .filter(|adopted| adopted.tls == tls)
                    .map(|adopted| Listener {
                        addr: adopted.addr,
                        span: None,
                    }),
            );
        }
    }
}
