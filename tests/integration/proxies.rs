//! Programs that speak the PROXY protocol, in front of lowport.

use serde_json::Value;

use crate::support::client::curl;
use crate::support::haproxy::Haproxy;
use crate::support::lowport::Setup;
use crate::support::over::{BOTH, Over};
use crate::support::recorder::Recorder;
use crate::support::{Lowport, Node, raw};

const SERVER: &str =
    "redirect_to_https = false\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[test]
fn haproxy_tells_of_its_clients_and_of_itself() {
    let name = "haproxy_tells_of_its_clients_and_of_itself";
    let recorder = Recorder::start();
    for words in ["send-proxy", "send-proxy-v2"] {
        let lowport = Lowport::with(&Setup {
            server: SERVER,
            rest: &recorder.route(),
            args: &["-v"],
        });
        for over in BOTH {
            let before = recorder.requests().len();
            // It looks whether lowport is there with a header of its own, and for less than one.
            for check in [
                "",
                " check inter 50ms",
                " check check-send-proxy inter 50ms",
            ] {
                let to = over.port(&lowport);
                let Some(haproxy) = Haproxy::start(name, to, &format!("{words}{check}")) else {
                    return;
                };
                let stream = raw::connect_from_elsewhere(haproxy.port);
                let mut stream = over.behind(stream, b"http/1.1");
                stream.write_all(GET.as_bytes()).unwrap();
                let told = raw::read_all(&mut stream);
                assert!(told.starts_with("HTTP/1.1 200 OK\r\n"), "{words}: {told}");
            }
            let requests = recorder.requests();
            assert_eq!(requests.len(), before + 3);
            for request in &requests[before..] {
                assert_eq!(request.values("x-forwarded-for"), ["127.0.0.2"]);
            }
        }
        let lines = lowport.output();
        let refused = lines.iter().find(|line| line.contains("trusted proxy"));
        assert_eq!(refused, None, "{words}");
    }
}

#[test]
fn an_haproxy_that_does_not_tell_is_not_served() {
    let name = "an_haproxy_that_does_not_tell_is_not_served";
    let recorder = Recorder::start();
    let lowport = Lowport::with(&Setup {
        server: SERVER,
        rest: &recorder.route(),
        args: &[],
    });
    for over in [Over::Plain, Over::Tls] {
        let Some(haproxy) = Haproxy::start(name, over.port(&lowport), "") else {
            return;
        };
        let mut stream = over.behind(raw::connect_from_elsewhere(haproxy.port), b"http/1.1");
        let _ = stream.write_all(GET.as_bytes());
        let mut told = Vec::new();
        let _ = stream.read_to_end(&mut told);
        assert_eq!(String::from_utf8_lossy(&told), "", "{over:?}");
    }
    // Said without being asked.
    let line = lowport.wait_for("connection of a trusted proxy closed (server.proxy_protocol)");
    assert!(
        line.contains("does not begin with a PROXY header"),
        "{line}"
    );
    assert!(recorder.requests().is_empty());
}

#[test]
fn curl_is_served_behind_its_own_header() {
    let node = Node::start();
    let lowport = Lowport::with(&Setup {
        server: SERVER,
        rest: &node.route(),
        args: &[],
    });
    let plain = format!("http://localhost:{}/echo", lowport.http);
    for (url, version) in [
        (plain.as_str(), "--http1.1"),
        (&plain, "--http2-prior-knowledge"),
        ("/echo", "--http1.1"),
        ("/echo", "--http2"),
    ] {
        let args = [
            version,
            "-4",
            "--haproxy-protocol",
            "-HX-Forwarded-For: 6.6.6.6",
        ];
        let echo: Value = serde_json::from_str(&curl(&lowport, url, &args)).unwrap();
        // curl says that it is where it is: a trusted proxy.
        let chain = echo["headers"]["x-forwarded-for"].as_str();
        assert_eq!(chain, Some("6.6.6.6, 127.0.0.1"), "{url} {version}");
    }
}
