//! One question over HTTP/1.1, and what was answered.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::proxy_header;
use crate::tls;

/// Bytes of an answer that are looked at for its reason.
const MOST: usize = 4096;
/// Characters of a reason.
const LONGEST: usize = 200;

/// A question.
pub(super) struct Probe<'a, F> {
    pub(super) target: Target,
    /// Whether TLS is spoken. Certificates are not verified: this machine asks itself, and no secret is sent
    pub(super) tls: bool,
    /// Whether a connection from there must begin with a header of the PROXY protocol
    pub(super) introduces: F,
    pub(super) method: Method,
    /// With the query; `*` for the server itself
    pub(super) path: &'a str,
    pub(super) host: &'a str,
}

/// Who is asked.
pub(super) enum Target {
    /// This address
    Addr(SocketAddr),
    /// The first that takes a connection of this name's, or of this address'
    Name(String, u16),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => write!(f, "{addr}"),
            Self::Name(name, port) if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// What was answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The first words of the body that say more than the status; may be empty
    reason: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answered {}", self.status)?;
        match self.reason.as_str() {
            "" => Ok(()),
            reason => write!(f, ": {reason}"),
        }
    }
}

impl<F: FnOnce(IpAddr) -> bool> Probe<'_, F> {
    /// Asks, and waits for so long at most.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub(super) fn answer(self, timeout: Duration) -> Result<Answer, String> {
        let late = format!("no answer from {} within {timeout:?}", self.target);
        within(timeout, late, self.ask())
    }

    async fn ask(self) -> Result<Answer, String> {
        let place = self.target.to_string();
        let mut stream = connect(&self.target).await?;
        let failed = |error: io::Error| format!("{place}: {error}");
        let local = stream.local_addr().map_err(failed)?.ip();
        if (self.introduces)(local) {
            stream
                .write_all(&proxy_header::LOCAL)
                .await
                .map_err(failed)?;
        }
        let request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header(header::HOST, self.host)
            .header(header::MAX_FORWARDS, 0)
            .header(header::ACCEPT, "text/plain, */*;q=0.5")
            .header(header::USER_AGENT, AGENT)
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| format!("this cannot be asked for: {error}"))?;
        if !self.tls {
            return exchange(&place, stream, request).await;
        }
        let name = match &self.target {
            Target::Addr(addr) => ServerName::IpAddress(addr.ip().into()),
            Target::Name(name, _) => ServerName::try_from(name.clone())
                .map_err(|error| format!("{name} is no name: {error}"))?,
        };
        let connector = TlsConnector::from(tls::unverified());
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|error| format!("no TLS with {place}: {error}"))?;
        exchange(&place, stream, request).await
    }
}

/// What comes of `question` within `timeout`, else `late`.
pub(super) fn within<T>(
    timeout: Duration,
    late: String,
    question: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("nothing can be asked: {error}"))?;
    let answer = runtime.block_on(async {
        let asked = tokio::time::timeout(timeout, question);
        asked.await.unwrap_or(Err(late))
    });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    answer
}

/// Who asks, as access logs have it.
const AGENT: &str = concat!("lowport-health/", env!("CARGO_PKG_VERSION"));

/// A connection; or in words why there is none.
pub(super) async fn connect(target: &Target) -> Result<TcpStream, String> {
    let addrs: Vec<SocketAddr> = match target {
        Target::Addr(addr) => vec![*addr],
        Target::Name(name, port) => tokio::net::lookup_host((name.as_str(), *port))
            .await
            .map_err(|error| format!("{name} has no address: {error}"))?
            .collect(),
    };
    let mut last = format!("{target} has no address");
    for addr in addrs {
        match TcpStream::connect(addr).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                last = format!("nobody listens on {addr}");
            }
            Err(error) => last = format!("{addr} cannot be reached: {error}"),
        }
    }
    Err(last)
}

async fn exchange<S>(
    place: &str,
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |error: hyper::Error| {
        if error.is_incomplete_message() {
            format!("{place} closed the connection without an answer")
        } else if error.is_parse() {
            format!("what {place} answered is not HTTP")
        } else {
            format!("{place}: {error}")
        }
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        // What its body says is wanted of a failure alone, and it is one even where the body breaks off.
        let reason = if status.is_client_error() || status.is_server_error() {
            let body = Limited::new(response.into_body(), MOST).collect().await;
            let bytes = body.map(|body| body.to_bytes()).unwrap_or_default();
            reason(status, &String::from_utf8_lossy(&bytes))
        } else {
            String::new()
        };
        Ok(Answer { status, reason })
    };
    // The connection moves the bytes of the exchange, and has an end of its own.
    tokio::pin!(connection);
    tokio::pin!(answered);
    let answer = tokio::select! {
        biased;
        answer = &mut answered => answer,
        _ = &mut connection => answered.await,
    };
    answer.map_err(failed)
}

/// The first line of a body that says more than the status, with nothing in it that a terminal obeys.
fn reason(status: StatusCode, body: &str) -> String {
    let mut lines = body.lines().map(str::trim);
    let line = lines.find(|line| !line.is_empty() && !line.starts_with(status.as_str()));
    line.unwrap_or_default()
        .chars()
        .filter(|character| !character.is_control())
        .take(LONGEST)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_harmless_line() {
        let told = |body| reason(StatusCode::SERVICE_UNAVAILABLE, body);
        let page = "503 Service Unavailable\nThe server is busy.\n\nrequest id: x\n";
        assert_eq!(told(page), "The server is busy.");
        assert_eq!(told(""), "");
        assert_eq!(told("\n  a\u{1b}[31mb\n"), "a[31mb");
        assert_eq!(told(&"x".repeat(1000)).len(), LONGEST);
    }

    #[test]
    fn an_address_is_shown_as_it_is_written() {
        let shown = |name: &str| Target::Name(name.to_owned(), 80).to_string();
        assert_eq!(shown("::1"), "[::1]:80");
        assert_eq!(shown("localhost"), "localhost:80");
    }
}
