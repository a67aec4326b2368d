//! Certificates for tests, made anew each time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;

/// The authority that signs all of them.
fn authority() -> &'static CertifiedIssuer<'static, KeyPair> {
    static AUTHORITY: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "lowport test authority");
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"))
            .expect("an authority")
    })
}

/// Writes `NAME.pem`, `NAME.key` and `ca.pem` into `folder`. The key is for root alone where root runs the tests.
pub(crate) fn write(folder: &Path, name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
    write_for(folder, name, names, &KeyPair::generate().expect("a key"))
}

/// As [`write`], with this key.
pub(crate) fn write_for(
    folder: &Path,
    name: &str,
    names: &[&str],
    key: &KeyPair,
) -> (PathBuf, PathBuf) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let params = CertificateParams::new(names).expect("parameters");
    let cert = params.signed_by(key, authority()).expect("signed");
    let paths = (
        folder.join(format!("{name}.pem")),
        folder.join(format!("{name}.key")),
    );
    std::fs::write(&paths.0, cert.pem()).expect("written");
    std::fs::write(&paths.1, key.serialize_pem()).expect("written");
    std::fs::write(folder.join("ca.pem"), authority().pem()).expect("written");
    paths
}

/// As [`write`], expired long ago.
pub(crate) fn write_expired(folder: &Path, name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
    let (cert, key) = write(folder, name, names);
    let pair = std::fs::read_to_string(&key).expect("a key");
    let pair = KeyPair::from_pem(&pair).expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("parameters");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 2, 3);
    let expired = params.signed_by(&pair, authority()).expect("signed");
    std::fs::write(&cert, expired.pem()).expect("written");
    (cert, key)
}

/// A client that trusts only the test authority.
pub(crate) fn client(alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
    Arc::new(client_speaking(rustls::DEFAULT_VERSIONS, alpn))
}

/// The same, of these versions of TLS only.
pub(crate) fn client_speaking(
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from(authority().der().to_vec()))
        .expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}
