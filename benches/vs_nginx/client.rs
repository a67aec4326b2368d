//! One client's connection, over which it asks for one thing after another.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::site::{Site, Via};

/// Bytes of a buffer for small answers, and for large ones.
const SMALL: usize = 8 << 10;
const LARGE: usize = 256 << 10;

/// What uploads are made of.
static FILLING: [u8; 128 << 10] = [b'x'; 128 << 10];

/// A request for this path that ends with these fields, each with its line's end.
pub(crate) fn request(path: &str, fields: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\naccept: */*\r\n{fields}\r\n"
    )
    .into_bytes()
}

/// Bytes, with TLS around them or without.
trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

/// A connection with HTTP/1.1 on it.
pub(crate) struct Client {
    wire: Box<dyn Wire>,
    buf: Vec<u8>,
}

impl Client {
    /// One that is kept.
    pub(crate) async fn connect(site: &Site, via: Via) -> io::Result<Self> {
        let stream = site.tcp(via).await?;
        let wire: Box<dyn Wire> = match via {
            Via::Http1 => Box::new(stream),
            Via::Tls | Via::Http2 => Box::new(site.handshake(stream, via).await?),
        };
        let buf = vec![0; SMALL];
        Ok(Self { wire, buf })
    }

    /// One over TLS with this configuration, and whether it resumed what an earlier one with the same had begun.
    pub(crate) async fn secure(site: &Site, tls: &Arc<ClientConfig>) -> io::Result<(Self, bool)> {
        let stream = site.tcp(Via::Tls).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
        let stream = stream.await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let (wire, buf) = (Box::new(stream), vec![0; SMALL]);
        Ok((Self { wire, buf }, resumed))
    }

    /// The same with a buffer for large answers.
    pub(crate) fn for_large(mut self) -> Self {
        self.buf = vec![0; LARGE];
        self
    }

    /// One request and its whole answer; `moved` is told how many bytes have come, as they do.
    pub(crate) async fn ask(&mut self, request: &[u8], moved: impl Fn(usize)) -> io::Result<()> {
        self.wire.write_all(request).await?;
        let (mut missing, early) = self.head(200).await?;
        moved(early);
        while missing > 0 {
            let most = missing.min(self.buf.len());
            let count = some(self.wire.read(&mut self.buf[..most]).await?)?;
            missing -= count;
            moved(count);
        }
        Ok(())
    }

    /// Waits until the other end has closed.
    pub(crate) async fn until_closed(mut self) {
        // A TLS connection that is cut is as closed as one that is not.
        while let Ok(1..) = self.wire.read(&mut self.buf).await {}
    }

    /// Sends this many bytes, and has them answered; `moved` is told how many have gone, as they do.
    pub(crate) async fn upload(&mut self, bytes: usize, moved: impl Fn(usize)) -> io::Result<()> {
        let head = format!(
            "POST /up HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\ncontent-length: {bytes}\r\n\r\n"
        );
        self.wire.write_all(head.as_bytes()).await?;
        let mut missing = bytes;
        while missing > 0 {
            let most = missing.min(FILLING.len());
            let count = some(self.wire.write(&FILLING[..most]).await?)?;
            missing -= count;
            moved(count);
        }
        self.wire.flush().await?;
        let (mut missing, _) = self.head(200).await?;
        while missing > 0 {
            missing -= some(self.wire.read(&mut self.buf[..missing.min(SMALL)]).await?)?;
        }
        Ok(())
    }

    /// Makes a tunnel of the connection, and reads from it until it ends, which is an error.
    pub(crate) async fn tunnel(mut self, moved: impl Fn(usize)) -> io::Result<()> {
        // The key is the example of RFC 6455 section 1.3.
        let fields = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                      sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        self.wire.write_all(&request("/ws", fields)).await?;
        let (_, early) = self.head(101).await?;
        moved(early);
        loop {
            moved(some(self.wire.read(&mut self.buf).await?)?);
        }
    }

    /// Reads the head of an answer, which must have this status: how many bytes of its body are still to come, and how
    /// many came with it.
    async fn head(&mut self, status: u16) -> io::Result<(usize, usize)> {
        let mut read = 0;
        loop {
            read += some(self.wire.read(&mut self.buf[read..]).await?)?;
            let Some((head, length)) = answer(&self.buf[..read], status)? else {
                continue;
            };
            let early = read - head;
            return Ok((length.saturating_sub(early), early));
        }
    }
}

/// The lengths of an answer's head, which must have this status, and of its body; `None` while the head is not there yet.
pub(crate) fn answer(bytes: &[u8], status: u16) -> io::Result<Option<(usize, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut fields);
    let parsed = answer.parse(bytes).map_err(io::Error::other)?;
    let httparse::Status::Complete(head) = parsed else {
        return Ok(None);
    };
    if answer.code != Some(status) {
        let code = answer.code.unwrap_or_default();
        return Err(io::Error::other(format!("answered with {code}")));
    }
    let length = answer
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"))
        .and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
    Ok(Some((head, length.unwrap_or_default())))
}

/// A count of bytes that is none at the end of a connection, which is too early here.
pub(crate) fn some(count: usize) -> io::Result<usize> {
    match count {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}

/// A connection with HTTP/2 on it; clones share it.
#[derive(Clone)]
pub(crate) struct Multiplexed(h2::client::SendRequest<Bytes>);

impl Multiplexed {
    /// One that is kept.
    pub(crate) async fn connect(site: &Site) -> io::Result<Self> {
        let stream = site.tcp(Via::Http2).await?;
        let stream = site.handshake(stream, Via::Http2).await?;
        let (client, connection) = h2::client::handshake(stream)
            .await
            .map_err(io::Error::other)?;
        tokio::task::spawn_local(connection);
        Ok(Self(client))
    }

    /// One request and its whole answer.
    pub(crate) async fn ask(&mut self) -> io::Result<()> {
        self.exchange().await.map_err(io::Error::other)
    }

    async fn exchange(&mut self) -> Result<(), h2::Error> {
        let request = http::Request::get("https://localhost/x")
            .header("user-agent", "bench")
            .header("accept", "*/*")
            .body(())
            .expect("a request");
        let mut ready = self.0.clone().ready().await?;
        let (response, _) = ready.send_request(request, true)?;
        let response = response.await?;
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let length = data?.len();
            body.flow_control().release_capacity(length)?;
        }
        Ok(())
    }
}
