//! The local certificate authority of `lowport dev`.
//!
//! Its key lies in a developer's home folder, so what it may sign is limited by the authority's certificate itself: names
//! that only ever mean this machine (RFC 5280 section 4.2.1.10). Who steals the key can impersonate nobody else.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::Ipv6Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{User, gethostname, getuid};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
    PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use time::{Duration, OffsetDateTime};
use tracing::warn;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::Certificate;
use super::config::provider;
use crate::config::{CertificateFiles, Mistakes, Source};

const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Whoever changes the files holds it.
const LOCK: &str = "lock";

const CA_DAYS: i64 = 3650;
/// Chrome and Safari refuse certificates that are good for longer than 398 days.
const LEAF_DAYS: i64 = 397;
/// A leaf is made anew when it has no more than this left.
const LEAF_LEFT: Duration = Duration::days(30);
/// Clocks differ.
const SKEW: Duration = Duration::hours(1);
/// What RFC 5280 allows a common name.
const NAME_LENGTH: usize = 64;

/// The authority.
pub struct DevCa {
    dir: PathBuf,
    certificate: CertificateDer<'static>,
    not_after: OffsetDateTime,
    issuer: Issuer<'static, KeyPair>,
}

impl DevCa {
    /// Reads the authority in the folder `dir`, or makes it where there is none, or one that has expired or is damaged.
    /// Several processes may do so at the same time and will have the same one.
    ///
    /// # Errors
    /// Where the folder or a file in it cannot be read or written.
    pub fn open(dir: &Path) -> Result<Self, DevCaError> {
        Self::open_at(dir, OffsetDateTime::now_utc())
    }

    /// The certificates to serve with, each with its key: the first for `localhost`, 127.0.0.1 and ::1, the second for `host`,
    /// which ends with `.localhost`, and one label below it. They are made anew when they have less than 30 days left or
    /// are not of this authority.
    ///
    /// There is none for `*.localhost`: Chromium, Firefox, OpenSSL and rustls all want two labels after an asterisk.
    ///
    /// # Errors
    /// Where the folder or a file in it cannot be read or written.
    pub fn leaves(&self, host: &str) -> Result<[CertificateFiles; 2], DevCaError> {
        self.leaves_at(host, OffsetDateTime::now_utc())
    }

    /// Where those files are, in the folder `dir` of an authority. Each host has files of its own, so that one app's
    /// start does not change what another's is served with.
    pub fn leaves_in(dir: &Path, host: &str) -> [CertificateFiles; 2] {
        ["localhost", host].map(|name| CertificateFiles {
            cert: dir.join(format!("{name}.pem")),
            cert_span: None,
            key: dir.join(format!("{name}-key.pem")),
            key_span: None,
        })
    }

    /// The file that clients must trust, in the folder `dir` of an authority.
    pub fn path_in(dir: &Path) -> PathBuf {
        dir.join(CA_CERT)
    }

    /// The file that clients must trust.
    pub fn path(&self) -> PathBuf {
        Self::path_in(&self.dir)
    }

    fn open_at(dir: &Path, now: OffsetDateTime) -> Result<Self, DevCaError> {
        // Others may enter: the app, who is somebody else under root, must read the authority's certificate.
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .map_err(|error| DevCaError::File(dir.to_owned(), error))?;
        let _lock = lock(dir)?;
        match Self::read(dir, now)? {
            Some(ca) => Ok(ca),
            None => Self::make(dir, now),
        }
    }

    /// `None` if it must be made.
    fn read(dir: &Path, now: OffsetDateTime) -> Result<Option<Self>, DevCaError> {
        let key_path = dir.join(CA_KEY);
        let (Some(pem), Some(key)) = (read(&dir.join(CA_CERT))?, read(&key_path)?) else {
            return Ok(None);
        };
        let (Ok(certificate), Ok(key)) = (
            CertificateDer::from_pem_slice(pem.as_bytes()),
            KeyPair::from_pem(&key),
        ) else {
            return Ok(None);
        };
        let Ok((_, parsed)) = X509Certificate::from_der(&certificate) else {
            return Ok(None);
        };
        let not_after = parsed.validity().not_after.to_datetime();
        let fits = parsed.tbs_certificate.subject_pki.raw == key.subject_public_key_info();
        if now >= not_after || !fits {
            return Ok(None);
        }
        keep_private(&key_path)?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Some(Self {
            dir: dir.to_owned(),
            certificate,
            not_after,
            issuer,
        }))
    }

    fn make(dir: &Path, now: OffsetDateTime) -> Result<Self, DevCaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let not_after = now + Duration::days(CA_DAYS);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name());
        params
            .distinguished_name
            .push(DnType::OrganizationName, "lowport");
        params.not_before = now - SKEW;
        params.not_after = not_after;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![
                GeneralSubtree::DnsName("localhost".into()),
                GeneralSubtree::IpAddress(CidrSubnet::V4([127, 0, 0, 0], [255, 0, 0, 0])),
                GeneralSubtree::IpAddress(CidrSubnet::V6(Ipv6Addr::LOCALHOST.octets(), [255; 16])),
            ],
            excluded_subtrees: Vec::new(),
        });
        let certificate = params.self_signed(&key)?;
        // The key first: without its certificate it is made anew, and nobody trusts it yet.
        write(&dir.join(CA_KEY), &key.serialize_pem(), 0o600)?;
        write(&dir.join(CA_CERT), &certificate.pem(), 0o644)?;
        Ok(Self {
            dir: dir.to_owned(),
            certificate: certificate.into(),
            not_after,
            issuer: Issuer::new(params, key),
        })
    }

    fn leaves_at(
        &self,
        host: &str,
        now: OffsetDateTime,
    ) -> Result<[CertificateFiles; 2], DevCaError> {
        let leaves = Self::leaves_in(&self.dir, host);
        let names = [
            LOOPBACK.map(str::to_owned).to_vec(),
            vec![host.to_owned(), format!("*.{host}")],
        ];
        let _lock = lock(&self.dir)?;
        for (files, names) in leaves.iter().zip(names) {
            if !self.usable(files, now) {
                self.make_leaf(files, names, now)?;
            }
            keep_private(&files.key)?;
        }
        Ok(leaves)
    }

    fn usable(&self, files: &CertificateFiles, now: OffsetDateTime) -> bool {
        let Some(leaf) = quietly(files, now) else {
            return false;
        };
        let der = &leaf.certified.cert[0];
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).is_ok()
            && ParsedCertificate::try_from(der)
                .is_ok_and(|leaf| is_good(&leaf, &roots, now + LEAF_LEFT))
    }

    fn make_leaf(
        &self,
        files: &CertificateFiles,
        names: Vec<String>,
        now: OffsetDateTime,
    ) -> Result<(), DevCaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names)?;
        params
            .distinguished_name
            .push(DnType::CommonName, "localhost");
        params.not_before = now - SKEW;
        params.not_after = (params.not_before + Duration::days(LEAF_DAYS)).min(self.not_after);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        write(&files.key, &key.serialize_pem(), 0o600)?;
        write(&files.cert, &certificate.pem(), 0o644)
    }
}

impl fmt::Debug for DevCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevCa")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Why there is no local certificate authority.
#[derive(Debug)]
pub enum DevCaError {
    /// A file or folder of it cannot be read or written
    File(PathBuf, io::Error),
    /// Making a key or a certificate failed
    Certificate(rcgen::Error),
}

impl fmt::Display for DevCaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Certificate(error) => write!(f, "cannot make a certificate: {error}"),
        }
    }
}

impl std::error::Error for DevCaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(_, error) => Some(error),
            Self::Certificate(error) => Some(error),
        }
    }
}

impl From<rcgen::Error> for DevCaError {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error)
    }
}

/// Loads a leaf. Whatever is wrong with it, the remedy is a new one.
fn quietly(files: &CertificateFiles, now: OffsetDateTime) -> Option<Certificate> {
    let nowhere = Mistakes::new(Source::of_text("", ""));
    Certificate::load(files, now, &nowhere)
}

fn is_good(leaf: &ParsedCertificate<'_>, roots: &RootCertStore, at: OffsetDateTime) -> bool {
    let seconds = u64::try_from(at.unix_timestamp()).unwrap_or_default();
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let algorithms = provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(leaf, roots, &[], at, algorithms).is_ok()
}

/// `lowport development CA (user@host)`, so that it can be told apart in a browser's list.
fn name() -> String {
    let uid = getuid();
    let user = User::from_uid(uid)
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name);
    let host = gethostname().unwrap_or_default();
    let name = format!("lowport development CA ({user}@{})", host.to_string_lossy());
    name.chars().take(NAME_LENGTH).collect()
}

/// Held until it drops. The kernel lets go of it when a process dies.
fn lock(dir: &Path) -> Result<File, DevCaError> {
    let path = dir.join(LOCK);
    let open = || {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(|error| DevCaError::File(path.clone(), error))
}

/// `None` if there is none.
fn read(path: &Path) -> Result<Option<String>, DevCaError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DevCaError::File(path.to_owned(), error)),
    }
}

/// Whole or not at all, and at no moment readable for more than `mode` says. Call it with the lock held.
fn write(path: &Path, contents: &str, mode: u32) -> Result<(), DevCaError> {
    let new = path.with_extension("new");
    let write = || {
        // Left behind by a process that died.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(contents.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|error| DevCaError::File(path.to_owned(), error))
}

fn keep_private(path: &Path) -> Result<(), DevCaError> {
    let keep = || {
        if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
            warn!(file = %path.display(), "others could read this key: taking that from them");
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
        }
        Ok(())
    };
    keep().map_err(|error| DevCaError::File(path.to_owned(), error))
}

#[cfg(test)]
mod tests;
