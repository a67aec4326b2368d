//! Where a proxy listens, for benches. All of it on loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

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

    /// A TCP connection to the port for this manner, and nothing said on it yet.
    pub(crate) async fn tcp(&self, via: Via) -> std::io::Result<TcpStream> {
        let port = match via {
            Via::Http1 => self.http,
            Via::Tls | Via::Http2 => self.https,
        };
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// TLS 1.3 on such a connection, with the protocol that the manner wants.
    pub(crate) async fn handshake(
        &self,
        stream: TcpStream,
        via: Via,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(self.tls(via)))
            .connect(name, stream)
            .await
    }

    /// What a client needs for that; it has no session to resume.
    pub(crate) fn tls(&self, via: Via) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let alpn = if via == Via::Http2 { "h2" } else { "http/1.1" };
        config.alpn_protocols = vec![alpn.into()];
        config
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

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpListener::bind(any).expect("bound");
    listener.local_addr().expect("an address").port()
}
