//! How TLS is spoken with clients and with peers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig, SupportedCipherSuite};

use super::pem::Pem;
use super::store::Store;
use crate::config::{Files, Mistake, Mistakes, Span};

/// The cryptography for everything, passed on by hand: no global default can change it.
pub(super) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let mut provider = aws_lc_rs::default_provider();
        // AES-256 comes first otherwise. What is equal stays in its order.
        let rank = |suite: &SupportedCipherSuite| match suite.suite() {
            suite if is_chacha(suite) => 2,
            suite => u8::from(!suite.as_str().is_some_and(|name| name.contains("AES_128"))),
        };
        provider.cipher_suites.sort_by_key(rank);
        Arc::new(provider)
    })
}

/// Makes and reads session tickets, so that a client that comes back needs no full handshake. All that is to be known is
/// in the ticket, encrypted: there is no memory for sessions that could fill up. The keys change every 6 hours, the ones
/// before stay good for as long again. Clones have the same keys.
#[derive(Debug, Clone)]
pub struct Ticketer(Arc<dyn ProducesTickets>);

impl Ticketer {
    /// One with fresh random keys. Tickets from before a restart are good for nothing.
    #[expect(clippy::new_without_default, reason = "each is different")]
    pub fn new() -> Self {
        let ticketer = aws_lc_rs::Ticketer::new();
        Self(
            ticketer.expect(
                "it fails only where there are no random numbers, and then aws-lc has aborted",
            ),
        )
    }
}

/// Bytes of a record at most, without what encrypting it adds (24): all of it fits a block of 8 KiB. Records of the full
/// 16 KiB take turns in so many larger blocks of the allocator's that none of those is in the processor's cache any more.
const RECORD: usize = 8 * 1024 - 24;

/// How TLS is spoken with clients: versions 1.2 and 1.3, HTTP/2 before HTTP/1.1.
///
/// A client whose favourite is ChaCha20 gets that: it is most likely a phone without AES in hardware. All others get
/// AES-128-GCM if they can, as from Go's and Google's servers, though OpenSSL and what is built on it prefer AES-256-GCM
/// wherever both are there: no attack on either is known that makes a difference, and with AES-256 comes SHA-384, which
/// takes a third of a handshake.
#[derive(Debug, Clone)]
pub struct Terms {
    ours: Arc<ServerConfig>,
    theirs: Arc<ServerConfig>,
}

impl Terms {
    /// With certificates out of `store`.
    pub fn new(store: &Arc<Store>, ticketer: &Ticketer) -> Self {
        let theirs = server_config(Arc::clone(store), ticketer);
        let mut ours = (*theirs).clone();
        ours.ignore_client_order = true;
        Self {
            ours: Arc::new(ours),
            theirs,
        }
    }

    /// Those for a client that begins like this.
    pub fn for_client(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let known = &provider().cipher_suites;
        let mut offered = hello.cipher_suites().iter();
        let favourite =
            offered.find(|offered| known.iter().any(|suite| suite.suite() == **offered));
        let terms = match favourite {
            Some(favourite) if is_chacha(*favourite) => &self.theirs,
            _ => &self.ours,
        };
        Arc::clone(terms)
    }
}

fn is_chacha(suite: CipherSuite) -> bool {
    use CipherSuite::*;
    matches!(
        suite,
        TLS13_CHACHA20_POLY1305_SHA256
            | TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

/// There is no early data (RFC 8446 section 8): it can be replayed.
pub(super) fn server_config(store: Arc<Store>, ticketer: &Ticketer) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has cipher suites for both versions")
        .with_no_client_auth()
        .with_cert_resolver(store);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = Arc::clone(&ticketer.0);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    config.max_fragment_size = Some(RECORD);
    Arc::new(config)
}

/// For `https://` peers: HTTP/1.1, checked against the authorities in the PEM file `ca`, or against the system's. The
/// latter are read once in the process's life, while it may still read them. `None` where there are none, which is
/// added to `mistakes`.
pub fn client_config(
    ca: Option<&(PathBuf, Span)>,
    mistakes: &Mistakes,
) -> Option<Arc<ClientConfig>> {
    let config = match ca {
        Some((path, span)) => private(path, span, &mistakes.source().files),
        None => system(),
    };
    config.map_err(|mistake| mistakes.push(mistake)).ok()
}

fn private(path: &Path, span: &Span, files: &Files) -> Result<Arc<ClientConfig>, Mistake> {
    let certificates = Pem::read(path, span, files)?.certificates()?;
    trusting(certificates).ok_or_else(|| {
        Mistake::new(
            span.clone(),
            format!(
                "{} holds something else than X.509 certificates",
                path.display()
            ),
        )
    })
}

fn system() -> Result<Arc<ClientConfig>, Mistake> {
    static SYSTEM: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = SYSTEM.get() {
        return Ok(Arc::clone(config));
    }
    let found = rustls_native_certs::load_native_certs();
    match trusting(found.certs) {
        Some(config) => Ok(Arc::clone(SYSTEM.get_or_init(|| config))),
        None => {
            let why = found
                .errors
                .first()
                .map_or_else(String::new, |error| format!(" ({error})"));
            Err(Mistake::new(
                None,
                format!(
                    "the system has no certificate authorities to check https:// peers against{why}"
                ),
            )
            .help(
                "install the package ca-certificates, or name a PEM file with `ca` in the upstream",
            ))
        }
    }
}

/// Trusts those of `authorities` that can be read; `None` if there is not one.
fn trusting(authorities: Vec<CertificateDer<'static>>) -> Option<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(authorities);
    if good == 0 {
        return None;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider has cipher suites for both versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.max_fragment_size = Some(RECORD);
    Some(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::testing::{self, Kind, Made, handshake};
    use super::*;
    use rustls::{HandshakeKind, ProtocolVersion, SupportedProtocolVersion};

    fn server(made: &[&Made], ticketer: &Ticketer) -> Arc<ServerConfig> {
        let mistakes = testing::mistakes();
        let files: Vec<_> = made.iter().map(|made| made.files.clone()).collect();
        let store = Arc::new(Store::load(&files, &mistakes));
        assert!(mistakes.is_empty(), "{mistakes}");
        server_config(store, ticketer)
    }

    fn browser(
        made: &[&Made],
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(made.iter().map(|made| made.der.clone()));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    #[test]
    fn both_versions_are_spoken_and_http2_is_preferred() {
        let made = testing::made(Kind::Ecdsa, &["a.test"]);
        let server = server(&[&made], &Ticketer::new());
        for (version, expected) in [
            (&TLS12, ProtocolVersion::TLSv1_2),
            (&TLS13, ProtocolVersion::TLSv1_3),
        ] {
            let client = browser(&[&made], &[version], &[b"http/1.1", b"h2"]);
            let (client, _) = handshake(&server, &client, "a.test").unwrap();
            assert_eq!(client.protocol_version(), Some(expected));
            assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
        }
        let client = browser(&[&made], &[&TLS13], &[b"http/1.1"]);
        let (client, _) = handshake(&server, &client, "a.test").unwrap();
        assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
    }

    /// The suite that a client with these ones, in this order, gets.
    fn agreed(made: &Made, offers: &[CipherSuite]) -> CipherSuite {
        let mistakes = testing::mistakes();
        let store = Store::load(std::slice::from_ref(&made.files), &mistakes);
        let terms = Terms::new(&Arc::new(store), &Ticketer::new());
        let mut mine = (**provider()).clone();
        let suites = offers.iter().map(|offer| {
            let mut known = provider().cipher_suites.iter();
            *known.find(|suite| suite.suite() == *offer).unwrap()
        });
        mine.cipher_suites = suites.collect();
        let versions = ClientConfig::builder_with_provider(Arc::new(mine));
        let versions = match offers[0].as_str().unwrap().starts_with("TLS13") {
            true => versions.with_protocol_versions(&[&TLS13]),
            false => versions.with_protocol_versions(&[&TLS12]),
        };
        let mut roots = RootCertStore::empty();
        roots.add(made.der.clone()).unwrap();
        let config = versions
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut hello = Vec::new();
        let name = "a.test".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        client.write_tls(&mut hello).unwrap();
        let mut acceptor = rustls::server::Acceptor::default();
        acceptor.read_tls(&mut hello.as_slice()).unwrap();
        let accepted = acceptor.accept().unwrap().unwrap();
        let terms = terms.for_client(&accepted.client_hello());
        let server = accepted.into_connection(terms).unwrap();
        server.negotiated_cipher_suite().unwrap().suite()
    }

    #[test]
    fn aes_128_is_preferred_to_aes_256_and_chacha_where_the_client_prefers_it() {
        use CipherSuite::*;
        let made = testing::made(Kind::Ecdsa, &["a.test"]);
        let new = [
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
            TLS13_AES_128_GCM_SHA256,
        ];
        let old = [
            TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ];
        for [aes_256, chacha, aes_128] in [new, old] {
            for (offers, expected) in [
                (&[aes_256, chacha, aes_128][..], aes_128),
                (&[aes_128, aes_256], aes_128),
                (&[chacha, aes_256, aes_128], chacha),
                (&[aes_256, chacha], aes_256),
                (&[aes_256], aes_256),
            ] {
                assert_eq!(agreed(&made, offers), expected, "{offers:?}");
            }
        }
    }

    #[test]
    fn every_record_fits_a_block_of_8_kib() {
        let made = testing::made(Kind::Ecdsa, &["a.test"]);
        let server = server(&[&made], &Ticketer::new());
        for version in [&TLS12, &TLS13] {
            let client = browser(&[&made], &[version], &[]);
            let (_, mut server) = handshake(&server, &client, "a.test").unwrap();
            server.writer().write_all(&[b'x'; 50_000]).unwrap();
            let mut sent = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut sent).unwrap();
            }
            let (mut rest, mut longest) = (&sent[..], 0);
            while let [_, _, _, high, low, ..] = rest {
                let length = 5 + usize::from(u16::from_be_bytes([*high, *low]));
                longest = longest.max(length);
                rest = &rest[length..];
            }
            assert!((8_100..=8_192).contains(&longest), "{longest}");
        }
    }

    #[test]
    fn the_certificate_follows_the_name_and_the_key_what_the_client_can_check() {
        let first = testing::made(Kind::Ecdsa, &["first.test"]);
        let rsa = testing::made(Kind::Rsa, &["a.test", "*.a.test"]);
        let ecdsa = testing::made(Kind::Ecdsa, &["a.test", "*.a.test"]);
        let made = [&first, &rsa, &ecdsa];
        let server = server(&made, &Ticketer::new());
        let client = browser(&made, &[&TLS13, &TLS12], &[]);
        let shown = |client: &Arc<ClientConfig>, host: &str| {
            let (client, _) = handshake(&server, client, host).unwrap();
            client.peer_certificates().unwrap()[0].clone()
        };
        assert_eq!(shown(&client, "first.test"), first.der);
        assert_eq!(shown(&client, "WWW.a.test"), ecdsa.der);
        let mut old = (**provider()).clone();
        old.cipher_suites
            .retain(|suite| format!("{:?}", suite.suite()).contains("ECDHE_RSA"));
        let mut old = ClientConfig::builder_with_provider(Arc::new(old))
            .with_protocol_versions(&[&TLS12])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let mut roots = RootCertStore::empty();
        roots.add(rsa.der.clone()).unwrap();
        old.dangerous().set_certificate_verifier(
            rustls::client::WebPkiServerVerifier::builder_with_provider(
                Arc::new(roots),
                Arc::clone(provider()),
            )
            .build()
            .unwrap(),
        );
        assert_eq!(shown(&Arc::new(old), "a.test"), rsa.der);
    }

    #[test]
    fn a_client_that_comes_back_resumes_also_after_a_reload() {
        let made = testing::made(Kind::Ecdsa, &["a.test"]);
        let ticketer = Ticketer::new();
        for version in [&TLS12, &TLS13] {
            let client = browser(&[&made], &[version], &[]);
            let before = server(&[&made], &ticketer);
            let (_, first) = handshake(&before, &client, "a.test").unwrap();
            assert_ne!(first.handshake_kind(), Some(HandshakeKind::Resumed));
            let after = server(&[&made], &ticketer.clone());
            let (_, second) = handshake(&after, &client, "a.test").unwrap();
            assert_eq!(
                second.handshake_kind(),
                Some(HandshakeKind::Resumed),
                "{version:?}"
            );
            let restarted = server(&[&made], &Ticketer::new());
            let (_, third) = handshake(&restarted, &client, "a.test").unwrap();
            assert_ne!(
                third.handshake_kind(),
                Some(HandshakeKind::Resumed),
                "{version:?}"
            );
        }
    }

    #[test]
    fn a_peer_is_checked_against_the_authorities_of_the_file_only() {
        let made = testing::made(Kind::Ecdsa, &["app.test", "127.0.0.1"]);
        let other = testing::made(Kind::Ecdsa, &["app.test", "127.0.0.1"]);
        let server = server(&[&made], &Ticketer::new());
        let mistakes = testing::mistakes();
        let trusting =
            |made: &Made| client_config(Some(&(made.files.cert.clone(), None)), &mistakes).unwrap();
        for host in ["app.test", "127.0.0.1"] {
            let (client, _) = handshake(&server, &trusting(&made), host).unwrap();
            assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
        }
        assert!(handshake(&server, &trusting(&made), "other.test").is_err());
        assert!(handshake(&server, &trusting(&other), "app.test").is_err());
        assert!(mistakes.is_empty());
    }

    #[test]
    fn authorities_that_cannot_be_read_are_a_mistake_where_they_were_named() {
        let mistakes = testing::mistakes();
        let missing = ("/nonexistent/ca.pem".into(), Some(0..2));
        assert!(client_config(Some(&missing), &mistakes).is_none());
        assert!(
            mistakes
                .to_string()
                .contains("/nonexistent/ca.pem does not exist"),
            "{mistakes}"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, testing::pem("CERTIFICATE", b"nonsense")).unwrap();
        assert!(client_config(Some(&(path, None)), &mistakes).is_none());
        assert_eq!(mistakes.len(), 2);
    }

    #[test]
    fn the_systems_authorities_are_read_once() {
        let mistakes = testing::mistakes();
        let there_are = !rustls_native_certs::load_native_certs().certs.is_empty();
        let first = client_config(None, &mistakes);
        assert_eq!(first.is_some(), there_are);
        assert_eq!(mistakes.is_empty(), there_are);
        if let (Some(first), Some(second)) = (first, client_config(None, &mistakes)) {
            assert!(Arc::ptr_eq(&first, &second));
        }
    }
}
