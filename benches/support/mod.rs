//! What the end-to-end benches share: an upstream, processes in front of it, and clients. All of it on loopback.

#![allow(
    clippy::expect_used,
    reason = "a bench that cannot be set up has failed"
)]

pub(crate) mod proxy;
pub(crate) mod site;

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use proxy::Proxy;
use site::{Site, Via};

/// Bytes of each response's body.
const BODY: usize = 1024;
/// What each request over HTTP/1.1 is.
pub(crate) const REQUEST: &[u8] =
    b"GET /x HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\naccept: */*\r\n\r\n";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A connection of any kind; of HTTP/2, clones share it.
pub(crate) enum Client {
    /// See [`Via::Http1`]
    Http1(TcpStream),
    /// See [`Via::Tls`]
    Tls(Box<TlsStream<TcpStream>>),
    /// See [`Via::Http2`]
    Http2(h2::client::SendRequest<Bytes>),
}

impl Client {
    /// A connection in this manner, ready to be asked.
    pub(crate) async fn connect(site: &Site, via: Via) -> Self {
        let stream = site.tcp(via).await.expect("connected");
        if via == Via::Http1 {
            return Self::Http1(stream);
        }
        let stream = site.handshake(stream, via).await.expect("a handshake");
        if via == Via::Tls {
            return Self::Tls(Box::new(stream));
        }
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self::Http2(client)
    }

    /// One request and its whole response.
    pub(crate) async fn ask(&mut self) {
        match self {
            Self::Http1(stream) => exchange(stream).await,
            Self::Tls(stream) => exchange(stream).await,
            Self::Http2(client) => {
                let request = http::Request::get("https://localhost/x")
                    .header("user-agent", "bench")
                    .header("accept", "*/*")
                    .body(())
                    .expect("a request");
                let mut ready = client.clone().ready().await.expect("ready");
                let (response, _) = ready.send_request(request, true).expect("sent");
                let response = response.await.expect("a response");
                assert_eq!(response.status(), 200);
                let (mut body, mut length) = (response.into_body(), 0);
                while let Some(data) = body.data().await {
                    let data = data.expect("data");
                    length += data.len();
                    let released = body.flow_control().release_capacity(data.len());
                    released.expect("released");
                }
                assert_eq!(length, BODY);
            }
        }
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let mut buf = [0; 4096];
    let (mut read, mut whole) = (0, None);
    stream.write_all(REQUEST).await.expect("sent");
    while whole.is_none_or(|whole| read < whole) {
        let count = stream.read(&mut buf[read..]).await.expect("an answer");
        assert!(count > 0, "closed in mid-response");
        read += count;
        if whole.is_none() {
            let head = buf[..read].windows(HEAD_END.len());
            whole = head
                .enumerate()
                .find_map(|(at, end)| (end == HEAD_END).then_some(at + HEAD_END.len() + BODY));
        }
    }
    assert!(buf.starts_with(b"HTTP/1.1 200"));
}

/// Starts an upstream on a thread that ends with the process, and returns its port. It parses nothing: whatever ends
/// with an empty line is answered.
pub(crate) fn upstream() -> u16 {
    upstream_on(|| {})
}

/// An [`upstream`], on a thread that is prepared like this.
pub(crate) fn upstream_on(prepared: impl FnOnce() + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    listener.set_nonblocking(true).expect("non-blocking");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        prepared();
        runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("listening");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
                // Else a crowd is let in before anybody who is there already is answered.
                tokio::task::yield_now().await;
            }
        });
    });
    port
}

async fn answer(mut stream: TcpStream) {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {BODY}\r\nConnection: keep-alive\r\n\
         Keep-Alive: timeout=60\r\n\r\n"
    );
    let response = [head.as_bytes(), &[b'x'; BODY]].concat();
    let (mut buf, mut read) = ([0; 4096], 0);
    stream.set_nodelay(true).expect("set");
    while let Ok(count @ 1..) = stream.read(&mut buf[read..]).await {
        read += count;
        if buf[..read].ends_with(HEAD_END) {
            read = 0;
            if stream.write_all(&response).await.is_err() {
                return;
            }
        }
    }
}

/// A runtime on the thread that asks for it.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// How a lowport is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// What runs instead of lowport; `None` for that itself
    pub(crate) program: Option<&'a Path>,
    /// Arguments
    pub(crate) args: &'a [&'a str],
    /// Where access records go
    pub(crate) log: &'a str,
    /// Keys of the upstream
    pub(crate) guard: &'a str,
    /// Tables besides
    pub(crate) tables: &'a str,
}

/// No log, and any upstream: here it may be root's.
pub(crate) const SETUP: Setup<'static> = Setup {
    program: None,
    args: &[],
    log: "off",
    guard: "expect_user = \"any\"",
    tables: "",
};

/// lowport with one worker in front of the upstream at this port.
pub(crate) fn lowport(upstream: u16, setup: Setup<'_>) -> Proxy {
    let site = Site::new();
    let Setup {
        program,
        args,
        log,
        guard,
        tables,
    } = setup;
    let config = format!(
        "[server]\nhttp = \"127.0.0.1:{}\"\nhttps = \"127.0.0.1:{}\"\nredirect_to_https = false\nworkers = 1\n\
         user = \"65534:65534\"\n[log]\naccess = \"{log}\"\n[[certificate]]\ncert = \"site.pem\"\nkey = \"site.key\"\n\
         {tables}[upstream.bench]\npeers = [\"127.0.0.1:{upstream}\"]\n{guard}\n[[route]]\nupstream = \"bench\"\n",
        site.http, site.https
    );
    let program = program.map_or_else(proxy::lowport, |program| program.as_os_str().to_owned());
    Proxy::lowport(&program, site, &config, args)
}
