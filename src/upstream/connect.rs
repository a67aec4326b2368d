//! Opening a connection to a peer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::peer::Peer;
use crate::config::{PeerAddr, PeerProtocol};
use crate::error::ProxyError;
use crate::stream::Stream;

/// Connects to a peer within `limit`, TLS handshake included.
pub(super) async fn connect(
    peer: &Peer,
    tls: Option<&Arc<ClientConfig>>,
    limit: Duration,
) -> Result<Stream, ProxyError> {
    match tokio::time::timeout(limit, dial(peer, tls)).await {
        Ok(Ok(stream)) => {
            peer.works();
            Ok(stream)
        }
        Ok(Err(error)) if exhausted(&error) => Err(ProxyError::OutOfDescriptors(error)),
        Ok(Err(error)) => {
            peer.failed();
            Err(ProxyError::Connect(error))
        }
        Err(_) => {
            peer.failed();
            Err(ProxyError::ConnectTimeout(limit))
        }
    }
}

/// Whether it is this process, or this machine, that has no descriptor left. The peer has no part in it.
fn exhausted(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE))
}

async fn dial(peer: &Peer, tls: Option<&Arc<ClientConfig>>) -> io::Result<Stream> {
    let stream = match &peer.addr {
        PeerAddr::Ip(addr) => tcp(*addr).await?,
        PeerAddr::Name(name, port) => by_name(name, *port).await?,
        PeerAddr::Unix(path) => return Ok(Stream::Unix(UnixStream::connect(path).await?)),
    };
    match (peer.protocol, tls) {
        (PeerProtocol::Https, Some(config)) => {
            let name = server_name(&peer.addr)?;
            let connector = TlsConnector::from(Arc::clone(config));
            Ok(Stream::TlsClient(Box::new(
                connector.connect(name, stream).await?,
            )))
        }
        _ => Ok(Stream::Tcp(stream)),
    }
}

async fn tcp(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Resolved at each connect, so that a name that moves is followed and one that does not resolve yet is no reason to
/// refuse to start. Addresses are tried one after the other, in the resolver's order.
async fn by_name(name: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{name} has no address"));
    for addr in tokio::net::lookup_host((name, port)).await? {
        match tcp(addr).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn server_name(addr: &PeerAddr) -> io::Result<ServerName<'static>> {
    match addr {
        PeerAddr::Ip(addr) => Ok(ServerName::IpAddress(addr.ip().into())),
        PeerAddr::Name(name, _) => ServerName::try_from(name.clone()).map_err(io::Error::other),
        PeerAddr::Unix(_) => Err(io::Error::other("TLS over a Unix socket is not supported")),
    }
}
