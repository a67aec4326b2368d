//! Which certificate a client is shown.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use time::OffsetDateTime;

use super::certificate::Certificate;
use crate::config::{CertificateFiles, Mistakes};

/// The certificates by name.
#[derive(Debug, Default)]
pub struct Store {
    certificates: Vec<Certificate>,
    /// By DNS name in lower case; `.example.com` for `*.example.com`
    names: HashMap<String, Choice>,
    /// For clients that name no host, or one that there is no certificate for
    default: Choice,
}

impl Store {
    /// Reads all the files. What is wrong with one is added to `mistakes`, and it is left out.
    pub fn load(files: &[CertificateFiles], mistakes: &Mistakes) -> Self {
        let now = OffsetDateTime::now_utc();
        let load = |files| Certificate::load(files, now, mistakes);
        Self::new(files.iter().filter_map(load).collect())
    }

    /// All of them, in the order of the file.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.certificates.iter()
    }

    fn new(certificates: Vec<Certificate>) -> Self {
        let mut names: HashMap<String, Choice> = HashMap::new();
        let mut default = Choice::default();
        for certificate in &certificates {
            for name in &certificate.names {
                let name = name.strip_prefix('*').unwrap_or(name);
                names
                    .entry(name.to_owned())
                    .or_default()
                    .add(&certificate.certified);
            }
            // The first one, and its twins with another kind of key.
            if certificate.names == certificates[0].names {
                default.add(&certificate.certified);
            }
        }
        Self {
            certificates,
            names,
            default,
        }
    }

    /// For a host in lower case: its own, then the wildcard's of one label (RFC 6125 section 6.4.3), then the default.
    fn choice(&self, host: Option<&str>) -> &Choice {
        let named = |host: &str| {
            let wildcard = || host.find('.').and_then(|dot| self.names.get(&host[dot..]));
            self.names.get(host).or_else(wildcard)
        };
        host.and_then(named).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choice(hello.server_name())
            .best(hello.signature_schemes())
    }
}

/// Certificates for the same name, each with another kind of key; the ones that cost least first.
#[derive(Debug, Default)]
struct Choice(Vec<Arc<CertifiedKey>>);

impl Choice {
    /// Adds one, unless there is one with that kind of key already: the first in the file wins.
    fn add(&mut self, certified: &Arc<CertifiedKey>) {
        let kind = |certified: &Arc<CertifiedKey>| certified.key.algorithm();
        if !self.0.iter().any(|other| kind(other) == kind(certified)) {
            self.0.push(Arc::clone(certified));
            self.0.sort_by_key(|certified| cost(kind(certified)));
        }
    }

    /// The first that the client can check, else the first: it may say less than it can.
    fn best(&self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let checked =
            |certified: &&Arc<CertifiedKey>| certified.key.choose_scheme(schemes).is_some();
        let best = match self.0.as_slice() {
            [] | [_] => self.0.first(),
            several => several.iter().find(checked).or_else(|| several.first()),
        };
        best.cloned()
    }
}

/// A signature with RSA takes some twenty times as long as one with ECDSA.
fn cost(algorithm: SignatureAlgorithm) -> u8 {
    match algorithm {
        SignatureAlgorithm::ECDSA => 0,
        SignatureAlgorithm::RSA => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Kind, Made};
    use super::*;

    fn store(made: &[&Made]) -> Store {
        let mistakes = testing::mistakes();
        let files: Vec<_> = made.iter().map(|made| made.files.clone()).collect();
        let store = Store::load(&files, &mistakes);
        assert!(mistakes.is_empty(), "{mistakes}");
        store
    }

    fn shown<'a>(store: &Store, made: &[&'a Made], host: Option<&str>) -> &'a [String] {
        let key = store.choice(host).best(&[]).unwrap();
        &made
            .iter()
            .find(|made| made.der == key.cert[0])
            .unwrap()
            .names
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard_and_the_first_is_the_default() {
        let first = testing::made(Kind::Ecdsa, &["first.test"]);
        let wild = testing::made(Kind::Ecdsa, &["*.a.test", "a.test"]);
        let exact = testing::made(Kind::Ecdsa, &["www.a.test", "192.0.2.1"]);
        let made = [&first, &wild, &exact];
        let store = store(&made);
        let shown = |host| shown(&store, &made, host)[0].as_str();
        assert_eq!(shown(Some("www.a.test")), "www.a.test");
        assert_eq!(shown(Some("other.a.test")), "*.a.test");
        assert_eq!(shown(Some("a.test")), "*.a.test");
        assert_eq!(shown(Some("two.labels.a.test")), "first.test");
        assert_eq!(shown(Some("unknown")), "first.test");
        assert_eq!(shown(None), "first.test");
        let names: Vec<_> = store
            .certificates()
            .map(|certificate| certificate.names[0].as_str())
            .collect();
        assert_eq!(names, ["first.test", "*.a.test", "www.a.test"]);
    }

    #[test]
    fn of_two_for_one_name_the_first_wins() {
        let first = testing::made(Kind::Ecdsa, &["a.test"]);
        let second = testing::made(Kind::Ecdsa, &["a.test"]);
        let store = store(&[&first, &second]);
        assert_eq!(
            store.choice(Some("a.test")).best(&[]).unwrap().cert[0],
            first.der
        );
    }

    #[test]
    fn of_two_kinds_of_key_the_client_gets_the_cheaper_one_that_it_can_check() {
        let rsa = testing::made(Kind::Rsa, &["a.test"]);
        let ecdsa = testing::made(Kind::Ecdsa, &["a.test"]);
        let store = store(&[&rsa, &ecdsa]);
        let (old, new) = (
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::ECDSA_NISTP256_SHA256,
        );
        for host in [Some("a.test"), None] {
            let shown = |schemes: &[_]| store.choice(host).best(schemes).unwrap().cert[0].clone();
            assert_eq!(shown(&[old]), rsa.der);
            assert_eq!(shown(&[old, new]), ecdsa.der);
            assert_eq!(shown(&[]), ecdsa.der);
        }
    }

    #[test]
    fn without_certificates_there_is_nothing_to_show() {
        assert!(store(&[]).choice(Some("a.test")).best(&[]).is_none());
    }
}
