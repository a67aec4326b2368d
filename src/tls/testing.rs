//! Certificates to test with, and handshakes in memory.

use std::fs;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, Error, ServerConfig, ServerConnection};
use time::{Duration, OffsetDateTime};

use crate::config::{CertificateFiles, Mistakes, Source};

/// A kind of key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Ecdsa,
    Rsa,
}

/// A certificate that signed itself, in files that last as long as this.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) files: CertificateFiles,
    pub(super) der: CertificateDer<'static>,
    pub(super) names: Vec<String>,
    _folder: tempfile::TempDir,
}

pub(super) fn key(kind: Kind) -> KeyPair {
    KeyPair::generate_for(match kind {
        Kind::Ecdsa => &PKCS_ECDSA_P256_SHA256,
        Kind::Rsa => &PKCS_RSA_SHA256,
    })
    .unwrap()
}

/// One that is good since yesterday, for 30 days.
pub(super) fn made(kind: Kind, names: &[&str]) -> Made {
    made_with(kind, names, |_| {})
}

pub(super) fn made_with(
    kind: Kind,
    names: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) -> Made {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::new(names.clone()).unwrap();
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(30);
    change(&mut params);
    let key = key(kind);
    let certificate = params.self_signed(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = CertificateFiles {
        cert: folder.path().join("cert.pem"),
        cert_span: None,
        key: folder.path().join("key.pem"),
        key_span: None,
    };
    fs::write(&files.cert, certificate.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    Made {
        files,
        der: certificate.der().clone(),
        names,
        _folder: folder,
    }
}

pub(super) fn mistakes() -> Mistakes {
    Mistakes::new(Source::of_text("test.toml", "cert key\n"))
}

/// Both ends after a handshake and what the server sends after it (tickets).
pub(super) fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    host: &str,
) -> Result<(ClientConnection, ServerConnection), Error> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = Connection::Client(ClientConnection::new(Arc::clone(client), name).unwrap());
    let mut server = Connection::Server(ServerConnection::new(Arc::clone(server)).unwrap());
    while client.wants_write() || server.wants_write() {
        carry(&mut client, &mut server)?;
        carry(&mut server, &mut client)?;
    }
    match (client, server) {
        (Connection::Client(client), Connection::Server(server)) => Ok((client, server)),
        _ => unreachable!(),
    }
}

fn carry(from: &mut Connection, to: &mut Connection) -> Result<(), Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// The PKCS#1 or SEC1 key inside a PKCS#8 one (RFC 5958: version, algorithm, key).
pub(super) fn inside_pkcs8(der: &[u8]) -> Vec<u8> {
    let (fields, _) = value(der);
    let (_version, rest) = value(fields);
    let (_algorithm, rest) = value(rest);
    value(rest).0.to_vec()
}

/// The contents of the first DER value, and what follows it.
fn value(der: &[u8]) -> (&[u8], &[u8]) {
    let (mut length, mut from) = (usize::from(der[1]), 2);
    if length >= 0x80 {
        from += length & 0x7f;
        length = der[2..from]
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
    }
    der[from..].split_at(length)
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for block in der.chunks(48) {
        for three in block.chunks(3) {
            let bits = three
                .iter()
                .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
                << (8 * (3 - three.len()));
            for at in 0..4 {
                let six = ALPHABET[(bits >> (18 - 6 * at) & 63) as usize];
                text.push(if at <= three.len() {
                    char::from(six)
                } else {
                    '='
                });
            }
        }
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}
