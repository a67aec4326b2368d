//! Whether anybody listens where upstreams are.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::config::{PeerAddr, Upstream};

/// Whether some peer of `upstream` takes a connection, which is closed again: no request is sent.
///
/// # Errors
/// None does within `timeout`; why the last one did not.
pub(super) fn reach(upstream: &Upstream, timeout: Duration) -> Result<(), String> {
    let deadline = Instant::now() + timeout;
    let mut why = String::new();
    for peer in &upstream.peers {
        match connect(&peer.addr, deadline) {
            Ok(()) => return Ok(()),
            Err(error) => why = format!("{} (upstream {}): {error}", peer.addr, upstream.name),
        }
    }
    Err(why)
}

fn connect(addr: &PeerAddr, deadline: Instant) -> io::Result<()> {
    match addr {
        PeerAddr::Ip(addr) => tcp(*addr, deadline),
        PeerAddr::Name(name, port) => {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for addr in (name.as_str(), *port).to_socket_addrs()? {
                match tcp(addr, deadline) {
                    Ok(()) => return Ok(()),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        // Never waits: a socket whose queue is full says so.
        PeerAddr::Unix(path) => UnixStream::connect(path).map(drop),
    }
}

fn tcp(addr: SocketAddr, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    TcpStream::connect_timeout(&addr, left).map(drop)
}
