//! How connections begin and end: TLS, versions of HTTP, sessions, times, limits.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, HandshakeKind, ProtocolVersion};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::client::{self, curl, empty, get, h1, h2, h2_over, request_h2, tcp, text, tls};
use crate::support::frames::{Frames, GOAWAY, PING, SETTINGS};
use crate::support::{Lowport, PATIENCE, certs, folder, raw};

const HELLO: &str = "[[route]]\nrespond = \"hello\"\n";

async fn connect(
    port: u16,
    name: &str,
    config: ClientConfig,
) -> Result<TlsStream<tokio::net::TcpStream>, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connected = TlsConnector::from(Arc::new(config))
        .connect(name, tcp(port).await)
        .await;
    connected.map_err(|error| {
        let error = error.into_inner().expect("an error of rustls");
        *error.downcast().expect("an error of rustls")
    })
}

#[tokio::test]
async fn both_versions_of_tls_and_each_protocol_of_http() {
    let lowport = Lowport::start(HELLO);
    for (version, spoken) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        for (offered, chosen) in [
            (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
            (&[b"http/1.1", b"h2"], Some(b"h2")),
            (&[b"http/1.1"], Some(b"http/1.1")),
            (&[b"unknown", b"http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ] {
            let config = certs::client_speaking(&[version], offered);
            let stream = connect(lowport.https, "localhost", config).await.unwrap();
            let (_, session) = stream.get_ref();
            assert_eq!(session.protocol_version(), Some(spoken));
            assert_eq!(session.alpn_protocol(), chosen, "{offered:?}");
            let answer = if chosen == Some(b"h2") {
                let request = request_h2("GET", "/", empty());
                h2_over(stream).await.send_request(request).await
            } else {
                client::h1_over(stream).await.send_request(get("/")).await
            };
            assert_eq!(text(answer.unwrap()).await, "hello");
        }
        // Nothing in common is said so, as RFC 7301 section 3.2 wants it.
        let config = certs::client_speaking(&[version], &[b"unknown"]);
        let refused = connect(lowport.https, "localhost", config).await;
        assert_eq!(
            refused.err(),
            Some(rustls::Error::AlertReceived(
                AlertDescription::NoApplicationProtocol
            ))
        );
    }
}

#[tokio::test]
async fn the_certificate_is_the_one_for_the_name() {
    let folder = folder();
    let mut rest = String::new();
    for (file, names) in [
        ("exact", &["a.wild.test"][..]),
        ("wild", &["*.wild.test", "wild.test"]),
    ] {
        let (cert, key) = certs::write(folder.path(), file, names);
        rest += &format!(
            "[[certificate]]\ncert = \"{}\"\nkey = \"{}\"\n",
            cert.display(),
            key.display()
        );
    }
    let lowport = Lowport::start(&(rest + HELLO));
    let shown = async |name: &str, sni: bool| {
        let mut config = certs::client_speaking(rustls::DEFAULT_VERSIONS, &[]);
        config.enable_sni = sni;
        connect(lowport.https, name, config)
            .await
            .map(|stream| stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
    };
    let is = |file: &str| {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let folder = if file == "site" {
            lowport.folder()
        } else {
            folder.path()
        };
        let path = folder.join(file).with_extension("pem");
        CertificateDer::from_pem_file(path).unwrap().to_vec()
    };
    for (name, file) in [
        ("localhost", "site"),
        ("shop.example.test", "site"),
        ("a.wild.test", "exact"),
        ("A.Wild.TEST", "exact"),
        ("b.wild.test", "wild"),
        ("wild.test", "wild"),
        // No name is sent for an address.
        ("127.0.0.1", "site"),
    ] {
        assert!(shown(name, true).await.unwrap() == is(file), "{name}");
    }
    assert!(shown("localhost", false).await.unwrap() == is("site"));
    for unknown in ["unknown.test", "x.b.wild.test", "shop.localhost"] {
        let told = shown(unknown, true).await.unwrap_err().to_string();
        assert!(
            told.contains("shop") || told.contains("localhost"),
            "{unknown}: {told}"
        );
    }
}

#[tokio::test]
async fn a_client_that_comes_back_resumes_on_any_worker_and_after_a_reload() {
    let lowport = Lowport::start(HELLO);
    for version in [&TLS12, &TLS13] {
        let config = certs::client_speaking(&[version], &[b"http/1.1"]);
        let visit = async || {
            let stream = connect(lowport.https, "localhost", config.clone())
                .await
                .unwrap();
            let kind = stream.get_ref().1.handshake_kind();
            let answer = client::h1_over(stream).await.send_request(get("/")).await;
            assert_eq!(text(answer.unwrap()).await, "hello");
            kind
        };
        assert_eq!(visit().await, Some(HandshakeKind::Full));
        // The kernel spreads connections over the two workers by their ports: 32 of them on one alone is a matter of
        // one in two thousand million.
        for number in 0..32 {
            if number == 16 {
                let seen = lowport.output().len();
                lowport.signal(Signal::SIGHUP);
                lowport.wait_for_after(seen, " reloaded");
            }
            assert_eq!(
                visit().await,
                Some(HandshakeKind::Resumed),
                "{version:?} {number}"
            );
        }
    }
}

#[test]
fn plaintext_where_tls_is_spoken_gets_a_readable_answer() {
    let lowport = Lowport::start(HELLO);
    for request in [
        "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "nonsense\r\n",
    ] {
        let answer = raw::exchange(lowport.https, request);
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{head} {body}"
        );
        assert!(
            body.contains("https://") && !body.contains(" \n"),
            "{body:?}"
        );
    }
    // Others are served as ever.
    assert_eq!(curl(&lowport, "/", &[]), "hello");
}

#[test]
fn a_handshake_that_stalls_is_ended() {
    let lowport = Lowport::start(&format!("[timeouts]\ntls_handshake = \"300ms\"\n{HELLO}"));
    // Nothing at all, and the beginning of a hello that never ends.
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let start = Instant::now();
        let mut stream = raw::connect(lowport.https);
        stream.write_all(sent).unwrap();
        assert_eq!(raw::read_all(&mut stream), "");
        assert!(start.elapsed() >= Duration::from_millis(300));
    }
    assert_eq!(curl(&lowport, "/", &[]), "hello");
}

#[tokio::test]
async fn connections_are_kept_in_both_versions() {
    let lowport = Lowport::start(HELLO);
    let mut one = h1(lowport.http).await;
    let mut two = h2(lowport.https).await;
    // With prior knowledge, in plaintext (RFC 9113 section 3.3).
    let mut plain = h2_over(tcp(lowport.http).await).await;
    for _ in 0..5 {
        let answer = one.send_request(get("/")).await.unwrap();
        assert_eq!(answer.version(), http::Version::HTTP_11);
        assert_eq!(text(answer).await, "hello");
        one.ready().await.unwrap();
        for (sender, scheme) in [(&mut two, "https"), (&mut plain, "http")] {
            let mut request = get("/");
            *request.uri_mut() = format!("{scheme}://localhost/").parse().unwrap();
            let answer = sender.send_request(request).await.unwrap();
            assert_eq!(answer.version(), http::Version::HTTP_2);
            assert_eq!(text(answer).await, "hello");
        }
    }
    // HTTP/1.0 keeps them only when asked to, and `close` means it.
    for (head, kept) in [
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", true),
        (
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            false,
        ),
    ] {
        let answer = if kept {
            let mut stream = raw::connect(lowport.http);
            stream.write_all(head.as_bytes()).unwrap();
            let head = raw::read_head(&mut stream).unwrap();
            String::from_utf8(head).unwrap().to_ascii_lowercase()
        } else {
            raw::exchange(lowport.http, head)
        };
        assert_eq!(
            answer.contains("connection: keep-alive\r\n"),
            kept,
            "{answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_says_goaway_and_finishes_what_is_in_flight() {
    let (answer, wait) = std::sync::mpsc::channel();
    let wait = Mutex::new(wait);
    let upstream = raw::RawUpstream::handling(move |_, stream| {
        wait.lock().unwrap().recv().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\ndone");
    });
    let mut lowport = Lowport::start(&format!(
        "{}[[route]]\npath = \"/hello\"\nrespond = \"hello\"\n",
        upstream.route()
    ));
    let mut sender = h2(lowport.https).await;
    let in_flight = tokio::spawn(sender.send_request(request_h2("GET", "/", empty())));
    upstream.first();
    let mut idle = Frames::connect(lowport.http);
    idle.until(SETTINGS);
    lowport.signal(Signal::SIGTERM);
    let goaway = idle.until(GOAWAY);
    assert_eq!(goaway[4..8], [0; 4], "no error");
    idle.ended();
    // The other one is told as well, and its client sends no more.
    let refused = async {
        let hello = || request_h2("GET", "/hello", empty());
        while sender.send_request(hello()).await.is_ok() {}
    };
    tokio::time::timeout(PATIENCE, refused)
        .await
        .expect("a goodbye");
    assert!(!in_flight.is_finished());
    answer.send(()).unwrap();
    let answer = in_flight.await.unwrap().unwrap();
    assert_eq!(text(answer).await, "done");
    assert!(lowport.ended().success());
}

#[test]
fn a_head_that_drips_is_408_and_a_silent_connection_just_ends() {
    let lowport = Lowport::start(&format!("[timeouts]\nrequest_head = \"400ms\"\n{HELLO}"));
    let start = Instant::now();
    let mut stream = raw::connect(lowport.http);
    let dripped = drip(&mut stream, "GET / HTTP/1.1\r\nhost: localhost\r\nx: ");
    assert!(
        dripped.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{dripped}"
    );
    assert!(start.elapsed() >= Duration::from_millis(400));
    // So is the second one of a connection.
    let mut stream = raw::connect(lowport.http);
    write!(stream, "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    raw::read_head(&mut stream).unwrap();
    stream.read_exact(&mut [0; 5]).unwrap();
    let dripped = drip(&mut stream, "GET /");
    assert!(dripped.starts_with("HTTP/1.1 408 "), "{dripped}");
    // Browsers connect ahead of need: a 408 would be taken for the answer to what they ask later.
    assert_eq!(raw::read_all(&mut raw::connect(lowport.http)), "");
}

#[tokio::test]
async fn over_tls_a_silent_connection_just_ends_as_well() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let lowport = Lowport::start(&format!("[timeouts]\nrequest_head = \"300ms\"\n{HELLO}"));
    for (sent, told) in [("", ""), ("GET /", "HTTP/1.1 408 ")] {
        let mut stream = tls(lowport.https, "localhost", &[b"http/1.1"]).await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // An end without close_notify would be an error.
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.get(..told.len()), Some(told), "{answer}");
        assert_eq!(answer.is_empty(), told.is_empty());
    }
}

#[test]
fn an_idle_connection_is_let_go() {
    let lowport = Lowport::start(&format!("[timeouts]\nkeepalive_idle = \"300ms\"\n{HELLO}"));
    let mut stream = raw::connect(lowport.http);
    // Used for longer than that, it stays.
    let start = Instant::now();
    let mut last = start;
    while start.elapsed() < Duration::from_millis(600) {
        last = Instant::now();
        write!(stream, "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        raw::read_head(&mut stream).unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
    }
    assert_eq!(raw::read_all(&mut stream), "");
    // The timer is not one of another phase, such as the 10 s that a head may take.
    let right = Duration::from_millis(290)..Duration::from_secs(8);
    assert!(right.contains(&last.elapsed()), "{:?}", last.elapsed());
    // HTTP/2 says goodbye. A ping is no use of a connection.
    let start = Instant::now();
    let mut frames = Frames::connect(lowport.http);
    frames.until(SETTINGS);
    frames.frame(PING, 0, 0, &[0; 8]);
    let goaway = frames.until(GOAWAY);
    assert_eq!(goaway[4..8], [0; 4], "no error");
    assert!(right.contains(&start.elapsed()), "{:?}", start.elapsed());
    frames.ended();
}

#[test]
fn what_is_no_request_is_refused() {
    let lowport = Lowport::start(HELLO);
    for (garbage, status) in [
        ("nonsense\r\n\r\n", 400),
        ("\0\u{1}\u{2}\u{3}\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/3.7\r\nhost: a\r\n\r\n", 505),
        ("GET  / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\nhost: a\r\n\r\n", 505),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\r\n\r\n", 400),
    ] {
        let answer = raw::exchange(lowport.http, garbage);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{garbage:?}: {answer:?}"
        );
    }
}

#[test]
fn a_head_over_the_limit_is_431() {
    let lowport = Lowport::start(&format!(
        "[limits]\nrequest_head = \"8KiB\"\nrequest_headers = 50\n{HELLO}"
    ));
    let url = format!("http://localhost:{}/", lowport.http);
    let field = |length: usize| format!("-Hx: {}", "x".repeat(length));
    let ask = |version: &str, field: &str| {
        let args = [version, field, "-o/dev/null", "-w", "%{http_code}"];
        curl(&lowport, &url, &args)
    };
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        assert_eq!(ask(version, &field(7 << 10)), "200", "{version}");
        for length in [9 << 10, 100 << 10] {
            // What is far too much may end an HTTP/2 connection.
            if version == "--http1.1" || length < 16 << 10 {
                assert_eq!(ask(version, &field(length)), "431", "{version} {length}");
            }
        }
    }
    let fields = |count| "x: y\r\n".repeat(count);
    for (count, status) in [(40, "200"), (60, "431")] {
        let request = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{}\r\n",
            fields(count)
        );
        let answer = raw::exchange(lowport.http, request);
        assert_eq!(answer.get(9..12), Some(status), "{answer}");
    }
}

/// Sends `text` one byte at a time, then more of the same letter, until an answer comes.
fn drip(stream: &mut TcpStream, text: &str) -> String {
    stream
        .set_read_timeout(Some(Duration::from_millis(10)))
        .expect("a timeout");
    let mut byte = [0];
    for letter in text.bytes().chain(std::iter::repeat(b'x')) {
        let _ = stream.write_all(&[letter]);
        match stream.read(&mut byte) {
            Ok(1) => break,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => panic!("{other:?}"),
        }
    }
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    format!("{}{}", char::from(byte[0]), raw::read_all(stream))
}
