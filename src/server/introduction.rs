//! How a connection begins that a trusted proxy opens: with a word on whose it is.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tracing::{debug, info};

use super::clients::Client;
use super::conn::{Newcomer, drained};
use crate::ctx::Worker;
use crate::observe::Count;
use crate::proxy_header::{self, Header};

/// Reads the PROXY header that the connection has to begin with. It has the time of the TLS handshake, or of the request's
/// head in plaintext, and what is to follow begins within what is left. `None` where there is nobody to serve: that is
/// counted and logged, unless the proxy said nothing at all and left, as for a health check that only connects.
pub(super) async fn hear(
    worker: &Worker,
    client: &Client,
    newcomer: &mut Newcomer,
) -> Option<Header> {
    let (key, limit) = {
        let timeouts = &worker.live.load().config.timeouts;
        match newcomer.tls {
            true => ("timeouts.tls_handshake", timeouts.tls_handshake),
            false => ("timeouts.request_head", timeouts.request_head),
        }
    };
    let heard = tokio::select! {
        biased;
        heard = timeout_at(newcomer.since + limit, read(&mut newcomer.stream)) => heard,
        () = drained(client) => return None,
        () = client.unheard() => return None,
    };
    client.hear();
    let reason = match heard {
        Ok(Ok(heard)) => return heard,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the PROXY header did not arrive within {key}"),
    };
    worker.counters.add(Count::RefusedIntroduction);
    let proxy = newcomer.endpoints.peer;
    // Most probably all connections of a proxy, or none.
    if worker.load.unintroduced.begins() {
        info!(%proxy, reason, "connection of a trusted proxy closed (server.proxy_protocol)");
    } else {
        debug!(%proxy, reason, "connection of a trusted proxy closed (server.proxy_protocol)");
    }
    None
}

/// The header, and not a byte of what follows it: that stays with the kernel, for whoever reads next. `None` when the
/// connection ended before it began.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Header>> {
    let mut bytes = [0; proxy_header::MOST];
    let mut taken = 0;
    loop {
        let there = match stream.peek(&mut bytes[taken..]).await {
            Ok(0) if taken == 0 => return Ok(None),
            Err(_) if taken == 0 => return Ok(None),
            Ok(0) => return Err(broken("it ended within the PROXY header")),
            there => taken + there?,
        };
        let header = proxy_header::parse(&bytes[..there]).map_err(|error| broken(error.why()))?;
        // What is there is all of the header's while that is not whole. Peeking at it again would not wait for more.
        let end = header.map_or(there, |header| header.length);
        stream.read_exact(&mut bytes[taken..end]).await?;
        taken = end;
        if header.is_some() {
            return Ok(header);
        }
    }
}

fn broken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
