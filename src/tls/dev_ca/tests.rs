//! With real files, a real handshake, and OpenSSL where it is installed.

use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};
use std::thread;

use super::super::config::server_config;
use super::super::testing::{self, handshake};
use super::super::{Store, Ticketer, client_config};
use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn load(files: &CertificateFiles) -> Certificate {
    let mistakes = testing::mistakes();
    let loaded = Certificate::load(files, now(), &mistakes);
    assert!(mistakes.is_empty(), "{mistakes}");
    loaded.unwrap()
}

/// Whether a client that trusts nothing but the authority talks to a server with `files`.
fn accepted(ca: &DevCa, files: &CertificateFiles, host: &str) -> Result<(), rustls::Error> {
    let mistakes = testing::mistakes();
    let store = Arc::new(Store::load(std::slice::from_ref(files), &mistakes));
    let client = client_config(Some(&(ca.path(), None)), &mistakes);
    assert!(mistakes.is_empty(), "{mistakes}");
    handshake(
        &server_config(store, &Ticketer::new()),
        &client.unwrap(),
        host,
    )
    .map(drop)
}

/// Signed by the authority as by a thief of its key.
fn stolen(ca: &DevCa, name: &str) -> CertificateFiles {
    let files = CertificateFiles {
        cert: ca.dir.join("stolen.pem"),
        key: ca.dir.join("stolen-key.pem"),
        cert_span: None,
        key_span: None,
    };
    ca.make_leaf(&files, vec![name.to_owned()], now()).unwrap();
    files
}

#[test]
fn clients_that_trust_it_accept_names_of_this_machine_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let ca = DevCa::open(folder.path()).unwrap();
    let [leaf, named] = ca.leaves("app.localhost").unwrap();
    for host in ["localhost", "127.0.0.1", "::1"] {
        accepted(&ca, &leaf, host).unwrap();
    }
    for host in ["app.localhost", "x.app.localhost"] {
        accepted(&ca, &named, host).unwrap();
    }
    accepted(&ca, &named, "other.localhost").unwrap_err();
    accepted(&ca, &leaf, "other.localhost").unwrap_err();
    accepted(&ca, &leaf, "example.com").unwrap_err();
    for name in [
        "example.com",
        "localhost.example.com",
        "notlocalhost",
        "10.0.0.1",
        "::2",
    ] {
        let error = accepted(&ca, &stolen(&ca, name), name).unwrap_err();
        assert!(
            format!("{error:?}").contains("NameConstraintViolation"),
            "{name}: {error:?}"
        );
    }
    accepted(&ca, &stolen(&ca, "fine.localhost"), "fine.localhost").unwrap();
}

#[test]
fn openssl_agrees() {
    let available = Command::new("openssl")
        .arg("version")
        .stdout(Stdio::null())
        .status();
    if !available.is_ok_and(|status| status.success()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let ca = DevCa::open(folder.path()).unwrap();
    let verify = |files: &CertificateFiles, host: &str| {
        let output = Command::new("openssl")
            .args([
                "verify",
                "-x509_strict",
                "-no-CApath",
                "-purpose",
                "sslserver",
                "-verify_hostname",
                host,
            ])
            .arg("-CAfile")
            .args([ca.path(), files.cert.clone()])
            .output()
            .unwrap();
        (output.status.success(), format!("{output:?}"))
    };
    let [leaf, _] = ca.leaves("app.localhost").unwrap();
    let (good, said) = verify(&leaf, "localhost");
    assert!(good, "{said}");
    let (good, said) = verify(&stolen(&ca, "example.com"), "example.com");
    assert!(
        !good && said.contains("permitted subtree violation"),
        "{said}"
    );
}

#[test]
fn the_authority_and_its_leaf_are_kept_and_private() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new/folder");
    let first = DevCa::open(&dir).unwrap();
    let [leaf, _] = first.leaves("app.localhost").unwrap();
    assert_eq!(mode(&dir.join(CA_KEY)), 0o600);
    assert_eq!(mode(&leaf.key), 0o600);
    let before = load(&leaf);
    let again = DevCa::open(&dir).unwrap();
    assert_eq!(again.certificate, first.certificate);
    let same = load(&again.leaves("app.localhost").unwrap()[0]);
    assert_eq!(same.certified.cert, before.certified.cert);
    fs::set_permissions(dir.join(CA_KEY), Permissions::from_mode(0o644)).unwrap();
    DevCa::open(&dir).unwrap();
    assert_eq!(mode(&dir.join(CA_KEY)), 0o600);
    let names: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 7, "nothing is left behind: {names:?}");
}

#[test]
fn dates_are_such_as_browsers_accept_and_what_expires_is_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let made = now();
    let ca = DevCa::open_at(dir, made).unwrap();
    assert!(
        ca.not_after > made + Duration::days(3649) && ca.not_after < made + Duration::days(3653)
    );
    let [leaf, _] = ca.leaves_at("app.localhost", made).unwrap();
    let first = load(&leaf);
    let (_, parsed) = X509Certificate::from_der(&first.certified.cert[0]).unwrap();
    let validity = parsed.validity();
    let good_for = validity.not_after.to_datetime() - validity.not_before.to_datetime();
    assert!(
        good_for <= Duration::days(397) && good_for > Duration::days(390),
        "{good_for}"
    );

    let current = || fs::read(&leaf.cert).unwrap();
    let before = current();
    ca.leaves_at("app.localhost", made + Duration::days(397 - 32))
        .unwrap();
    assert_eq!(current(), before, "enough left");
    ca.leaves_at("app.localhost", made + Duration::days(397 - 29))
        .unwrap();
    assert_ne!(current(), before, "less than 30 days left");

    let late = ca.not_after - Duration::days(10);
    let same = DevCa::open_at(dir, late).unwrap();
    assert_eq!(same.certificate, ca.certificate);
    same.leaves_at("app.localhost", late).unwrap();
    let pem = CertificateDer::from_pem_file(&leaf.cert).unwrap();
    let (_, parsed) = X509Certificate::from_der(&pem).unwrap();
    assert!(
        parsed.validity().not_after.to_datetime() <= ca.not_after,
        "no longer than the authority"
    );

    let renewed = DevCa::open_at(dir, ca.not_after + Duration::seconds(1)).unwrap();
    assert_ne!(renewed.certificate, ca.certificate);
    let before = current();
    renewed
        .leaves_at("app.localhost", ca.not_after + Duration::seconds(2))
        .unwrap();
    assert_ne!(current(), before, "of the new authority");
}

#[test]
fn what_is_damaged_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let ca = DevCa::open(dir).unwrap();
    let other = tempfile::tempdir().unwrap();
    DevCa::open(other.path()).unwrap();
    fs::copy(other.path().join(CA_KEY), dir.join(CA_KEY)).unwrap();
    let next = DevCa::open(dir).unwrap();
    assert_ne!(next.certificate, ca.certificate, "the key was another's");
    for name in [CA_CERT, CA_KEY] {
        let before = DevCa::open(dir).unwrap();
        fs::write(dir.join(name), b"\xff nonsense").unwrap();
        assert_ne!(DevCa::open(dir).unwrap().certificate, before.certificate);
        fs::remove_file(dir.join(name)).unwrap();
        DevCa::open(dir).unwrap();
    }
    let ca = DevCa::open(dir).unwrap();
    let [leaf, _] = ca.leaves("app.localhost").unwrap();
    fs::write(&leaf.key, "nonsense").unwrap();
    // Left by a process that died in the middle of it.
    fs::write(dir.join("localhost-key.new"), "half").unwrap();
    accepted(&ca, &ca.leaves("app.localhost").unwrap()[0], "localhost").unwrap();
}

#[test]
fn a_folder_that_cannot_be_is_an_error_that_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = DevCa::open(&file.path().join("sub")).unwrap_err();
    assert!(
        error.to_string().starts_with(file.path().to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn several_at_once_have_the_same_authority() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let barrier = Barrier::new(8);
    let open = || {
        barrier.wait();
        let ca = DevCa::open(dir).unwrap();
        let [leaf, _] = ca.leaves("app.localhost").unwrap();
        accepted(&ca, &leaf, "localhost").unwrap();
        ca.certificate
    };
    let all: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(all.iter().all(|certificate| *certificate == all[0]));
}

#[test]
fn the_name_fits_a_certificate() {
    let name = name();
    assert!(
        name.starts_with("lowport development CA (") && name.contains('@'),
        "{name}"
    );
    assert!(name.chars().count() <= NAME_LENGTH);
}
