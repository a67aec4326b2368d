//! One certificate with its key: read, and checked for what would make clients refuse it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::pem::Pem;
use crate::config::{CertificateFiles, Mistake, Mistakes};

/// A certificate that expires sooner should have been renewed: those of 90 days are renewed after 60.
const SOON: Duration = Duration::days(14);

/// A certificate that clients can be shown.
#[derive(Debug)]
pub struct Certificate {
    /// Its subject alternative names: DNS names in lower case, `*.example.com`, IP addresses; at least one
    pub names: Vec<String>,
    /// When it stops being good
    pub not_after: OffsetDateTime,
    /// The file that it is from
    pub file: PathBuf,
    /// Chain and key
    pub(super) certified: Arc<CertifiedKey>,
}

impl Certificate {
    /// Reads `files` and says all that is wrong with them as of `now`.
    pub(super) fn load(
        files: &CertificateFiles,
        now: OffsetDateTime,
        mistakes: &Mistakes,
    ) -> Option<Self> {
        let report = |mistake: Mistake| mistakes.push(mistake);
        let given = &mistakes.source().files;
        let chain =
            Pem::read(&files.cert, &files.cert_span, given).and_then(|pem| pem.certificates());
        let key = Pem::read(&files.key, &files.key_span, given).and_then(|pem| pem.key());
        let (chain, key) = (chain.map_err(report).ok(), key.map_err(report).ok());
        let chain = chain?;
        let Some(leaf) = parse(&chain[0]) else {
            report(
                Mistake::new(
                    files.cert_span.clone(),
                    format!(
                        "{} holds something else than an X.509 certificate",
                        files.cert.display()
                    ),
                )
                .help("copy it again, whole"),
            );
            return None;
        };
        let mistake = in_date(&leaf, files, now);
        let dated = mistake.map(report).is_none();
        let names = names(&leaf);
        if names.is_empty() {
            report(nameless(files));
        }
        let not_after = leaf.validity().not_after.to_datetime();
        let key = key?;
        if let Some(mistake) = foreign(&chain, &key, files) {
            report(mistake);
            return None;
        }
        (dated && !names.is_empty()).then(|| Self {
            names,
            not_after,
            file: files.cert.clone(),
            certified: Arc::new(CertifiedKey::new(chain, key)),
        })
    }

    /// Whether it is good for less than 14 days more.
    pub fn expires_soon(&self) -> bool {
        self.not_after - OffsetDateTime::now_utc() < SOON
    }
}

/// The names that a certificate is for. Its common name is none: no browser has looked at it for years.
fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else {
        return Vec::new();
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    extension
        .value
        .general_names
        .iter()
        .filter_map(name)
        .collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).to_string());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|octets| Ipv6Addr::from(octets).to_string())
}

fn nameless(files: &CertificateFiles) -> Mistake {
    Mistake::new(files.cert_span.clone(), format!("{} is for no host", files.cert.display()))
        .label("it has no subject alternative name, and browsers look at nothing else")
        .help("ask for one with names, as in: openssl req -x509 ... -addext subjectAltName=DNS:example.com")
}

fn in_date(
    leaf: &X509Certificate<'_>,
    files: &CertificateFiles,
    now: OffsetDateTime,
) -> Option<Mistake> {
    let validity = leaf.validity();
    let (from, to) = (
        validity.not_before.to_datetime(),
        validity.not_after.to_datetime(),
    );
    let mistake = |what: String| {
        Some(Mistake::new(
            files.cert_span.clone(),
            format!("{} {what}", files.cert.display()),
        ))
    };
    if now > to {
        mistake(format!("expired at {}", minute(to))).map(|mistake| {
            mistake.help("renew it (certbot: `certbot renew`), and have the renewal reload lowport")
        })
    } else if now < from {
        mistake(format!("is not valid before {}", minute(from)))
            .map(|mistake| mistake.help(format!("is the clock right? It says {}", minute(now))))
    } else {
        None
    }
}

/// Why the key is not the first certificate's.
fn foreign(
    chain: &[CertificateDer<'static>],
    key: &Arc<dyn SigningKey>,
    files: &CertificateFiles,
) -> Option<Mistake> {
    let public = key.public_key()?;
    let fits = |der: &CertificateDer<'_>| {
        parse(der).is_some_and(|certificate| {
            certificate.tbs_certificate.subject_pki.raw == public.as_ref()
        })
    };
    let (key, cert) = (files.key.display(), files.cert.display());
    match chain.iter().position(fits) {
        Some(0) => None,
        Some(at) => Some(
            Mistake::new(
                files.cert_span.clone(),
                format!("{cert} begins with another certificate than the key's"),
            )
            .label(format!(
                "the key belongs to certificate {} of {}",
                at + 1,
                chain.len()
            ))
            .help(
                "put that one first, then those that signed it, each after the one that it signed",
            ),
        ),
        None => Some(
            Mistake::new(
                files.key_span.clone(),
                format!("{key} is not the key of {cert}"),
            )
            .other(
                files.cert_span.clone(),
                "the certificate was made for another key",
            )
            .help("name the key that this certificate was requested with"),
        ),
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der)
        .ok()
        .map(|(_, certificate)| certificate)
}

fn minute(time: OffsetDateTime) -> String {
    let (date, hour, minute) = (time.date(), time.hour(), time.minute());
    format!(
        "{}-{:02}-{:02} {hour:02}:{minute:02} UTC",
        date.year(),
        u8::from(date.month()),
        date.day()
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Kind, Made};
    use super::*;

    fn load(made: &Made, now: OffsetDateTime) -> Result<Certificate, String> {
        let mistakes = testing::mistakes();
        let loaded = Certificate::load(&made.files, now, &mistakes);
        assert_eq!(loaded.is_some(), mistakes.is_empty());
        loaded.ok_or_else(|| mistakes.to_string())
    }

    #[test]
    fn names_dates_and_file_are_told() {
        let made = testing::made(
            Kind::Ecdsa,
            &["Example.com", "*.example.com", "192.0.2.1", "2001:db8::1"],
        );
        let now = OffsetDateTime::now_utc();
        let certificate = load(&made, now).unwrap();
        assert_eq!(
            certificate.names,
            ["example.com", "*.example.com", "192.0.2.1", "2001:db8::1"]
        );
        assert_eq!(certificate.file, made.files.cert);
        assert!(certificate.not_after > now + Duration::days(29));
        assert!(!certificate.expires_soon());
    }

    #[test]
    fn a_certificate_near_its_end_is_good_but_said_to_be() {
        let now = OffsetDateTime::now_utc();
        let made = testing::made_with(Kind::Ecdsa, &["a.test"], |params| {
            params.not_after = now + Duration::days(13)
        });
        assert!(load(&made, now).unwrap().expires_soon());
    }

    #[test]
    fn dates_are_minded() {
        let made = testing::made(Kind::Ecdsa, &["a.test"]);
        let now = OffsetDateTime::now_utc();
        let error = load(&made, now + Duration::days(31)).unwrap_err();
        assert!(error.contains("cert.pem expired at 2"), "{error}");
        let error = load(&made, now - Duration::days(2)).unwrap_err();
        assert!(
            error.contains("cert.pem is not valid before 2")
                && error.contains("is the clock right?"),
            "{error}"
        );
    }

    #[test]
    fn a_certificate_needs_names() {
        let made = testing::made(Kind::Ecdsa, &[]);
        let error = load(&made, OffsetDateTime::now_utc()).unwrap_err();
        assert!(error.contains("is for no host"), "{error}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_and_both_places_are_shown() {
        let mut made = testing::made(Kind::Ecdsa, &["a.test"]);
        let other = testing::made(Kind::Ecdsa, &["a.test"]);
        made.files.key = other.files.key;
        made.files.cert_span = Some(0..2);
        made.files.key_span = Some(3..5);
        let error = load(&made, OffsetDateTime::now_utc()).unwrap_err();
        assert!(
            error.contains("is not the key of") && error.contains("made for another key"),
            "{error}"
        );
    }

    #[test]
    fn a_chain_begins_with_the_leaf() {
        let made = testing::made(Kind::Ecdsa, &["a.test"]);
        let other = testing::made(Kind::Ecdsa, &["authority.test"]);
        let read = |made: &Made| std::fs::read_to_string(&made.files.cert).unwrap();
        let (leaf, authority) = (read(&made), read(&other));
        std::fs::write(&made.files.cert, format!("{leaf}{authority}")).unwrap();
        assert_eq!(
            load(&made, OffsetDateTime::now_utc())
                .unwrap()
                .certified
                .cert
                .len(),
            2
        );
        std::fs::write(&made.files.cert, format!("{authority}{leaf}")).unwrap();
        let error = load(&made, OffsetDateTime::now_utc()).unwrap_err();
        assert!(error.contains("begins with another certificate"), "{error}");
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let mut made = testing::made(Kind::Ecdsa, &[]);
        made.files.key = "/nonexistent/key.pem".into();
        let error = load(&made, OffsetDateTime::now_utc() + Duration::days(40)).unwrap_err();
        for part in [
            "expired at",
            "is for no host",
            "/nonexistent/key.pem does not exist",
            "3 mistakes",
        ] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }
}
