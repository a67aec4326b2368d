//! Schemes: who asks for https:// in plaintext is told that this is not the place (RFC 9110 section 7.4).

use super::overload::exchange;
use super::{BOTH, Over, Wire, statuses};
use crate::support::frames::{self, Frames, Outcome};
use crate::support::lowport::Setup;
use crate::support::recorder::Recorder;
use crate::support::{Lowport, raw};

fn lowport(server: &str, recorder: &Recorder) -> Lowport {
    Lowport::with(&Setup {
        server,
        rest: &recorder.route(),
        args: &[],
    })
}

/// The status of a GET for a whole address.
fn over_http1(lowport: &Lowport, over: Over, target: &str) -> u16 {
    let mut wire = Wire::connect(lowport, over);
    wire.send(format!(
        "GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
    ));
    statuses(&wire.rest())[0]
}

fn over_http2(lowport: &Lowport, over: Over, scheme: &str) -> Outcome {
    let mut client = Frames::open(lowport, over, &[]);
    let mut fields = frames::get("/");
    fields[1].1 = scheme;
    let stream = client.request(&fields, true);
    client.outcome(stream)
}

#[test]
fn https_in_plaintext_is_421() {
    let recorder = Recorder::start();
    let lowport = lowport("redirect_to_https = false", &recorder);
    for target in ["https://a.test/", "HTTPS://a.test", "https://a.test:443/x"] {
        let told = over_http1(&lowport, Over::Plain, target);
        assert_eq!(told, 421, "{target}");
    }
    let told = over_http2(&lowport, Over::Plain, "https");
    assert_eq!(told, Outcome::Status(421));
    assert_eq!(recorder.bytes(), b"", "nothing of it went upstream");
    let line = lowport.wait_for("\"GET / HTTP/2.0\" 421 ");
    assert!(
        line.contains(
            "reason=\"https:// asked for in plaintext, by none of server.trusted_proxies\""
        ),
        "{line}"
    );
    // Nothing is wrong with the connection.
    let mut stream = raw::connect(lowport.http);
    for (target, status) in [("https://a.test/", 421), ("http://a.test/", 200)] {
        let head = format!("GET {target} HTTP/1.1\r\nhost: a.test\r\n\r\n");
        std::io::Write::write_all(&mut stream, head.as_bytes()).expect("sent");
        let told = super::overload::answered(&mut stream);
        assert_eq!(statuses(&told), [status], "{target}");
        if status == 421 {
            let length = told
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length = length.expect("a length").parse().expect("a number");
            let mut page = vec![0; length];
            std::io::Read::read_exact(&mut stream, &mut page).expect("a page");
            let page = String::from_utf8_lossy(&page).into_owned();
            assert!(page.contains("for an https:// address"), "{page}");
        }
    }
}

#[test]
fn whatever_else_is_asked_for_is_served() {
    let recorder = Recorder::start();
    let lowport = lowport("redirect_to_https = false", &recorder);
    for over in BOTH {
        for (target, scheme) in [("http://a.test/", "http"), ("https://a.test/", "https")] {
            if (over, scheme) == (Over::Plain, "https") {
                continue;
            }
            assert_eq!(over_http1(&lowport, over, target), 200, "{over:?} {target}");
            let told = over_http2(&lowport, over, scheme);
            assert_eq!(told, Outcome::Status(200), "{over:?} {scheme}");
        }
    }
}

#[test]
fn proxies_that_are_trusted_have_spoken_tls_themselves() {
    let recorder = Recorder::start();
    let trusted = "redirect_to_https = false\ntrusted_proxies = [\"127.0.0.0/8\"]";
    let lowport = lowport(trusted, &recorder);
    assert_eq!(over_http1(&lowport, Over::Plain, "https://a.test/"), 200);
    let told = over_http2(&lowport, Over::Plain, "https");
    assert_eq!(told, Outcome::Status(200));
    // It is the path alone that goes on.
    assert!(
        recorder.requests()[0]
            .head
            .starts_with("GET / HTTP/1.1\r\n")
    );
}

#[test]
fn nor_is_it_redirected_to_where_it_should_have_been_asked() {
    let recorder = Recorder::start();
    let lowport = lowport("redirect_to_https = true", &recorder);
    assert_eq!(over_http1(&lowport, Over::Plain, "https://a.test/"), 421);
    assert_eq!(over_http1(&lowport, Over::Plain, "http://a.test/"), 308);
    assert_eq!(statuses(&exchange(&lowport, "/")), [308]);
}
