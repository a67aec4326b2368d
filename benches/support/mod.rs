//! What the end-to-end benches share: an upstream, processes in front of it, and clients. All of it on loopback.

#![allow(
    clippy::expect_used,
    reason = "a bench that cannot be set up has failed"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Bytes of each response's body.
const BODY: usize = 1024;
const REQUEST: &[u8] =
    b"GET /x HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\naccept: */*\r\n\r\n";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// HTTP/1.1 in plaintext, kept alive
    Http1,
    /// The same over TLS 1.3
    Tls,
    /// HTTP/2 over TLS 1.3
    Http2,
}

impl Via {
    /// All there are.
    pub(crate) const ALL: [Self; 3] = [Self::Http1, Self::Tls, Self::Http2];

    /// What it is called in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "h1",
            Self::Tls => "tls",
            Self::Http2 => "h2",
        }
    }
}

/// Where a proxy listens, and the folder with its configuration and `site.pem`.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    certificate: CertificateDer<'static>,
    /// The port for plaintext
    pub(crate) http: u16,
    /// The port for TLS
    pub(crate) https: u16,
}

impl Site {
    /// Two free ports, and a certificate for localhost.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        write(folder.path(), "site.pem", &made.cert.pem());
        write(folder.path(), "site.key", &made.signing_key.serialize_pem());
        Self {
            folder,
            certificate: made.cert.der().clone(),
            http: free_port(),
            https: free_port(),
        }
    }

    /// Its folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A connection in this manner, ready to be asked.
    pub(crate) async fn connect(&self, via: Via) -> Client {
        let port = if via == Via::Http1 {
            self.http
        } else {
            self.https
        };
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .expect("connected");
        stream.set_nodelay(true).expect("set");
        match via {
            Via::Http1 => Client::Http1(stream),
            Via::Tls => Client::Tls(Box::new(self.handshake(stream, b"http/1.1").await)),
            Via::Http2 => {
                let stream = self.handshake(stream, b"h2").await;
                let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
                tokio::spawn(connection);
                Client::Http2(client)
            }
        }
    }

    async fn handshake(&self, stream: TcpStream, alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .expect("a handshake")
    }
}

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
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    listener.set_nonblocking(true).expect("non-blocking");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("listening");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
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

/// What a proxy writes to its standard error, in its folder.
pub(crate) const LOG: &str = "stderr";

/// A proxy. Ended when dropped.
pub(crate) struct Proxy {
    /// Its process
    pub(crate) child: Child,
    /// Where it listens
    pub(crate) site: Site,
}

impl Proxy {
    /// Runs lowport with one worker in front of the upstream at this port, and with these arguments.
    pub(crate) fn lowport(upstream: u16, args: &[&str]) -> Self {
        let site = Site::new();
        let config = format!(
            "[server]\nhttp = \"127.0.0.1:{}\"\nhttps = \"127.0.0.1:{}\"\nredirect_to_https = false\nworkers = 1\n\
             user = \"65534:65534\"\n[log]\naccess = \"off\"\n[[certificate]]\ncert = \"site.pem\"\nkey = \"site.key\"\n\
             [upstream.bench]\npeers = [\"127.0.0.1:{upstream}\"]\nexpect_user = \"any\"\n[[route]]\nupstream = \"bench\"\n",
            site.http, site.https
        );
        write(site.path(), "lowport.toml", &config);
        let mut command = Command::new(env!("CARGO_BIN_EXE_lowport"));
        command
            .args(["run", "-c"])
            .arg(site.path().join("lowport.toml"))
            .args(args);
        Self::start(command, site)
    }

    /// Runs `command`, which must listen where `site` says.
    pub(crate) fn start(mut command: Command, site: Site) -> Self {
        let log = site.path().join(LOG);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("made"))
            .spawn()
            .expect("started");
        let mut proxy = Self { child, site };
        let patience = Instant::now() + Duration::from_secs(10);
        for port in [proxy.site.http, proxy.site.https] {
            while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                let ended = proxy.child.try_wait().expect("waited");
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                assert!(ended.is_none(), "it ended: {log}");
                assert!(Instant::now() < patience, "it does not listen");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM, so that one with children ends those.
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let patience = Instant::now() + Duration::from_secs(3);
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() > patience {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Writes a file that every user can read: a proxy may give its own user up before it does.
pub(crate) fn write(folder: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let file = folder.join(name);
    std::fs::write(&file, text).expect("written");
    for (path, mode) in [(folder, 0o755), (&file, 0o644)] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).expect("permissions");
    }
}

fn free_port() -> u16 {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpListener::bind(any).expect("bound");
    listener.local_addr().expect("an address").port()
}
