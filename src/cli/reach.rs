//! Whether anybody listens where upstreams are.

use std::time::Duration;

use tokio::net::UnixStream;

use super::probe::{Target, connect, within};
use crate::config::{PeerAddr, Upstream};

/// Whether of each upstream some peer takes a connection, which is closed again: no request is sent.
///
/// # Errors
/// Of one none does, or not all of them within `timeout`; why.
pub(super) fn reach(upstreams: &[Upstream], timeout: Duration) -> Result<(), String> {
    let late = format!("not every upstream takes a connection within {timeout:?}");
    within(timeout, late, async {
        for upstream in upstreams {
            any(upstream).await?;
        }
        Ok(())
    })
}

async fn any(upstream: &Upstream) -> Result<(), String> {
    let mut last = String::new();
    for peer in &upstream.peers {
        match taken(&peer.addr).await {
            Ok(()) => return Ok(()),
            Err(why) => last = why,
        }
    }
    Err(format!("{last} (upstream {})", upstream.name))
}

async fn taken(addr: &PeerAddr) -> Result<(), String> {
    let target = match addr {
        PeerAddr::Ip(addr) => Target::Addr(*addr),
        PeerAddr::Name(name, port) => Target::Name(name.clone(), *port),
        PeerAddr::Unix(path) => {
            let stream = UnixStream::connect(path).await;
            return stream
                .map(drop)
                .map_err(|error| format!("{addr} cannot be reached: {error}"));
        }
    };
    connect(&target).await.map(drop)
}
