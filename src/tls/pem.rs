//! Reading PEM files, and saying what is in them instead of what was looked for.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use nix::unistd::{User, geteuid};
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;

use super::base64;
use super::config::provider;
use crate::config::{Files, MAX_FILE, Mistake, Span, wipe};

/// A PEM file's contents (RFC 7468), wiped from memory when it drops: there may be a key in it.
pub(super) struct Pem<'a> {
    path: &'a Path,
    span: &'a Span,
    bytes: Vec<u8>,
}

impl<'a> Pem<'a> {
    /// Reads the file named at `span`.
    pub(super) fn read(path: &'a Path, span: &'a Span, files: &Files) -> Result<Self, Mistake> {
        let bytes = files
            .read(path)
            .map_err(|error| unreadable(path, span, &error))?;
        let pem = Self { path, span, bytes };
        if pem.bytes.len() as u64 > MAX_FILE {
            return Err(pem
                .mistake("is larger than 1 MiB")
                .help("it should be a PEM file of a few KiB"));
        }
        Ok(pem)
    }

    /// The certificates, at least one, in the order of the file.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Mistake> {
        let mut certificates = Vec::new();
        for (kind, der) in self.public()? {
            if kind == SectionKind::Certificate {
                certificates.push(der.into());
            }
        }
        if !certificates.is_empty() {
            return Ok(certificates);
        }
        let what = self.mistake("holds no certificate");
        Err(
            if !self.split().keys.is_empty() || self.has("ENCRYPTED PRIVATE KEY") {
                self.mistake("holds a private key, not a certificate")
                    .help("are cert and key swapped?")
            } else if self.has("CERTIFICATE REQUEST") {
                what.label("this is a signing request")
                    .help("name the file that the certificate authority sent back for it")
            } else if self.is_der() {
                what.label("this is DER, not PEM").help(format!(
                    "convert it: openssl x509 -inform der -in {0} -out {0}.pem",
                    self.path.display()
                ))
            } else {
                what.help("it should have a line -----BEGIN CERTIFICATE-----")
            },
        )
    }

    /// The first private key, fit for signing.
    pub(super) fn key(&self) -> Result<Arc<dyn SigningKey>, Mistake> {
        if self.has("ENCRYPTED") {
            return Err(self
                .mistake("is encrypted")
                .label("nobody could type its passphrase when lowport restarts")
                .help(format!(
                    "decrypt it: openssl pkey -in {0} -out {0}.plain",
                    self.path.display()
                )));
        }
        if let Some((kind, text)) = self.split().keys.first() {
            let text = text.ok_or_else(|| self.damaged("its private key has no end"))?;
            let der =
                base64::decode(text).ok_or_else(|| self.damaged("its private key is no base64"))?;
            if let Some(key) = PrivateKeyDer::from_pem(*kind, der) {
                // Wipes what it is given.
                return provider().key_provider.load_private_key(key).map_err(|_| {
                    self.mistake("holds a key of a kind that cannot be used")
                        .help("RSA of 2048 to 8192 bits, ECDSA over P-256, P-384 or P-521, and Ed25519 can")
                });
            }
        }
        let certificate = self
            .public()?
            .iter()
            .any(|(kind, _)| *kind == SectionKind::Certificate);
        let what = self.mistake("holds no private key");
        Err(if certificate {
            self.mistake("holds a certificate, not a private key")
                .help("are cert and key swapped?")
        } else if self.has("OPENSSH PRIVATE KEY") {
            what.label("this is a key for SSH")
                .help("name the key that the certificate was requested with")
        } else if self.is_der() {
            what.label("this is DER, not PEM").help(format!(
                "convert it: openssl pkey -inform der -in {0} -out {0}.pem",
                self.path.display()
            ))
        } else {
            what.help("it should have a line -----BEGIN PRIVATE KEY-----")
        })
    }

    /// What is not about private keys, in the order of the file.
    fn public(&self) -> Result<Vec<(SectionKind, Vec<u8>)>, Mistake> {
        <(SectionKind, Vec<u8>)>::pem_slice_iter(&self.split().public)
            .collect::<Result<_, _>>()
            .map_err(|error| self.damaged(error.to_string()))
    }

    /// Takes the private keys out, so that only code that wipes what it copies gets to see them.
    fn split(&self) -> Split<'_> {
        let mut split = Split::default();
        let (mut open, mut end) = (None, 0);
        for line in self.bytes.split_inclusive(|byte| LINE_ENDS.contains(byte)) {
            let start = end;
            end += line.len();
            if let Some(kind) = key_kind(line) {
                split.keys.push((kind, None));
                open = Some(end);
                continue;
            }
            if line.starts_with(b"-----")
                && let (Some(from), Some(key)) = (open.take(), split.keys.last_mut())
                && line.starts_with(b"-----END ")
            {
                key.1 = self.bytes.get(from..start);
            } else if open.is_none() {
                split.public.extend_from_slice(line);
            }
        }
        split
    }

    fn damaged(&self, how: impl Into<String>) -> Mistake {
        self.mistake("is damaged")
            .label(how)
            .help("copy it again, whole")
    }

    fn has(&self, words: &str) -> bool {
        self.bytes
            .windows(words.len())
            .any(|window| window == words.as_bytes())
    }

    fn is_der(&self) -> bool {
        // A SEQUENCE with a length of two bytes, as all but the tiniest have.
        self.bytes.starts_with(&[0x30, 0x82])
    }

    fn mistake(&self, what: &str) -> Mistake {
        Mistake::new(self.span.clone(), format!("{} {what}", self.path.display()))
    }
}

impl Drop for Pem<'_> {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

impl fmt::Debug for Pem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

const LINE_ENDS: [u8; 2] = *b"\r\n";

/// A file's sections.
#[derive(Default)]
struct Split<'a> {
    /// All but the private keys
    public: Vec<u8>,
    /// The private keys: the kind, and what is between the first line and the last one; `None` where that is missing
    keys: Vec<(SectionKind, Option<&'a [u8]>)>,
}

/// The kind of private key that begins with this line.
fn key_kind(line: &[u8]) -> Option<SectionKind> {
    let label = line.strip_prefix(b"-----BEGIN ")?;
    let end = label.windows(5).position(|window| window == b"-----")?;
    let kind = SectionKind::try_from(&label[..end]).ok()?;
    matches!(
        kind,
        SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey
    )
    .then_some(kind)
}

fn unreadable(path: &Path, span: &Span, error: &io::Error) -> Mistake {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Mistake::new(span.clone(), format!("{path} does not exist"))
            .help("a relative path counts from the folder that the configuration file is in"),
        io::ErrorKind::PermissionDenied => {
            Mistake::new(span.clone(), format!("{path} may not be read by {}", me())).help(format!(
                "`namei -l {path}` shows which folder or file refuses"
            ))
        }
        _ => Mistake::new(span.clone(), format!("{path} cannot be read: {error}")),
    }
}

/// Who lowport runs as, for people.
fn me() -> String {
    let uid = geteuid();
    match User::from_uid(uid) {
        Ok(Some(user)) => format!("user {} (uid {uid})", user.name),
        _ => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Kind};
    use super::*;
    use std::fs;

    fn said<T: fmt::Debug>(contents: &[u8], read: fn(&Pem<'_>) -> Result<T, Mistake>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pem");
        fs::write(&path, contents).unwrap();
        let span = Some(3..7);
        let mistake = Pem::read(&path, &span, &Files::OnDisk)
            .and_then(|pem| read(&pem).map(|_| ()))
            .unwrap_err();
        assert_eq!(mistake.span, span);
        let message = mistake.message.replace(path.to_str().unwrap(), "FILE");
        format!(
            "{message}; {}; {}",
            mistake.label,
            mistake.help.unwrap_or_default()
        )
    }

    #[test]
    fn keys_are_read_in_all_three_encodings() {
        let folder = tempfile::tempdir().unwrap();
        for (kind, encoding) in [
            (Kind::Rsa, "RSA PRIVATE KEY"),
            (Kind::Ecdsa, "EC PRIVATE KEY"),
        ] {
            let key = testing::key(kind);
            let inner = testing::inside_pkcs8(&key.serialize_der());
            for pem in [key.serialize_pem(), testing::pem(encoding, &inner)] {
                let path = folder.path().join("key.pem");
                fs::write(&path, pem).unwrap();
                let read = Pem::read(&path, &None, &Files::OnDisk)
                    .unwrap()
                    .key()
                    .unwrap();
                let public = read.public_key().unwrap();
                assert_eq!(
                    public.as_ref(),
                    rcgen::PublicKeyData::subject_public_key_info(&key)
                );
            }
        }
    }

    #[test]
    fn a_file_may_hold_both() {
        let key = testing::key(Kind::Ecdsa).serialize_pem();
        let [first, second] = [b"first", b"other"].map(|der| testing::pem("CERTIFICATE", der));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("both.pem");
        let parameters = testing::pem("EC PARAMETERS", b"x");
        let text = format!("a word before\n{first}{parameters}{key}\n{second}");
        for text in [text.replace('\n', "\r\n"), text] {
            fs::write(&path, text).unwrap();
            let pem = Pem::read(&path, &None, &Files::OnDisk).unwrap();
            let certificates = pem.certificates().unwrap();
            assert_eq!(
                certificates.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
                [b"first", b"other"]
            );
            pem.key().unwrap();
            assert!(!contains(&pem.split().public, b"PRIVATE"));
        }
    }

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn what_is_not_a_certificate_is_called_by_its_name() {
        let key = testing::key(Kind::Ecdsa).serialize_pem();
        let said = |contents: &[u8]| said(contents, |pem| pem.certificates());
        assert_eq!(
            said(b""),
            "FILE holds no certificate; ; it should have a line -----BEGIN CERTIFICATE-----"
        );
        assert_eq!(
            said(key.as_bytes()),
            "FILE holds a private key, not a certificate; ; are cert and key swapped?"
        );
        let request = testing::pem("CERTIFICATE REQUEST", b"x");
        assert!(said(request.as_bytes()).contains("signing request"));
        assert!(said(&[0x30, 0x82, 1, 1]).contains("DER, not PEM"));
        let cut_off = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(said(cut_off.as_bytes()).starts_with("FILE is damaged; "));
        assert!(said(&vec![b'x'; 1024 * 1024 + 1]).starts_with("FILE is larger than 1 MiB"));
    }

    #[test]
    fn what_is_not_a_key_is_called_by_its_name() {
        let said = |contents: &str| said(contents.as_bytes(), |pem| pem.key());
        let certificate = testing::pem("CERTIFICATE", b"x");
        assert_eq!(
            said(&certificate),
            "FILE holds a certificate, not a private key; ; are cert and key swapped?"
        );
        let encrypted = testing::pem("ENCRYPTED PRIVATE KEY", b"x");
        assert!(said(&encrypted).starts_with("FILE is encrypted; "));
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AA\n\nAAAA\n\
                   -----END RSA PRIVATE KEY-----\n";
        assert!(said(old).starts_with("FILE is encrypted; "));
        assert!(said(&testing::pem("OPENSSH PRIVATE KEY", b"x")).contains("for SSH"));
        assert!(said(&testing::pem("PRIVATE KEY", b"x")).contains("of a kind that cannot be used"));
        assert!(said("hello").contains("holds no private key"));
        let key = testing::key(Kind::Ecdsa).serialize_pem();
        let cut_off = &key[..key.len() / 2];
        assert!(said(cut_off).starts_with("FILE is damaged; its private key has no end;"));
        assert!(
            said(&format!("{cut_off}\n{certificate}"))
                .starts_with("FILE is damaged; its private key has no end;")
        );
        assert!(
            said(&key.replacen('\n', "\n!", 1))
                .starts_with("FILE is damaged; its private key is no base64;")
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let span = Some(1..2);
        let missing = Pem::read(&folder.path().join("missing"), &span, &Files::OnDisk).unwrap_err();
        assert!(missing.message.ends_with("missing does not exist"));
        let directory = Pem::read(folder.path(), &span, &Files::OnDisk).unwrap_err();
        assert!(
            directory.message.contains("cannot be read: "),
            "{}",
            directory.message
        );
        let refused = unreadable(
            Path::new("/k"),
            &span,
            &io::ErrorKind::PermissionDenied.into(),
        );
        assert!(
            refused.message.contains(&format!("uid {}", geteuid())),
            "{}",
            refused.message
        );
        assert_eq!(
            refused.help.as_deref(),
            Some("`namei -l /k` shows which folder or file refuses")
        );
    }
}
