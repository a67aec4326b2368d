//! Clients: curl, hyper over HTTP/1.1 and HTTP/2, and a WebSocket client.

use std::process::{Command, Stdio};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;

use super::{Lowport, certs};

/// A request body of any kind.
pub(crate) type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) fn empty() -> Body {
    full("")
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Runs curl, which must succeed, and returns what it printed. `/x` in `url` stands for lowport's own https address.
pub(crate) fn curl(lowport: &Lowport, url: &str, args: &[&str]) -> String {
    let url = match url.strip_prefix('/') {
        Some(path) => format!("https://localhost:{}/{path}", lowport.https),
        None => url.to_owned(),
    };
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "30", "--cacert"])
        .arg(lowport.folder().join("ca.pem"))
        .args(args)
        .arg(url)
        .stdin(Stdio::null())
        .output()
        .expect("curl is installed");
    assert!(
        output.status.success(),
        "curl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

pub(crate) async fn tcp(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("connected")
}

/// A TLS connection for `name` that offers `alpn`.
pub(crate) async fn tls(
    port: u16,
    name: &str,
    alpn: &[&[u8]],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    TlsConnector::from(certs::client(alpn))
        .connect(name, tcp(port).await)
        .await
        .expect("a handshake")
}

/// HTTP/1.1 in plaintext.
pub(crate) async fn h1(port: u16) -> http1::SendRequest<Body> {
    let (sender, connection) = http1::handshake(TokioIo::new(tcp(port).await))
        .await
        .expect("a handshake");
    tokio::spawn(connection.with_upgrades());
    sender
}

/// HTTP/2 over TLS, chosen by ALPN.
pub(crate) async fn h2(port: u16) -> http2::SendRequest<Body> {
    let stream = tls(port, "localhost", &[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    h2_over(stream).await
}

/// HTTP/2 over any stream.
pub(crate) async fn h2_over<S>(stream: S) -> http2::SendRequest<Body>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("a handshake");
    tokio::spawn(connection);
    sender
}

/// A GET for `path` on localhost.
pub(crate) fn get(path: &str) -> http::Request<Body> {
    request("GET", path, empty())
}

/// A request on localhost in origin form, as HTTP/1.1 sends it.
pub(crate) fn request(method: &str, path: &str, body: Body) -> http::Request<Body> {
    http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .body(body)
        .expect("a request")
}

/// The same with the whole URL, as HTTP/2 needs it.
pub(crate) fn request_h2(method: &str, path: &str, body: Body) -> http::Request<Body> {
    let uri = format!("https://localhost{path}");
    http::Request::builder()
        .method(method)
        .uri(uri)
        .body(body)
        .expect("a request")
}

/// The whole body as text.
pub(crate) async fn text(response: http::Response<Incoming>) -> String {
    let bytes = response
        .into_body()
        .collect()
        .await
        .expect("a whole body")
        .to_bytes();
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// The whole body as JSON.
pub(crate) async fn json(response: http::Response<Incoming>) -> serde_json::Value {
    let text = text(response).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A WebSocket in plaintext.
pub(crate) async fn websocket(port: u16, path: &str) -> WebSocketStream<TcpStream> {
    let url = format!("ws://localhost:{port}{path}");
    let (socket, _) = tokio_tungstenite::client_async(url, tcp(port).await)
        .await
        .expect("an upgrade");
    socket
}
