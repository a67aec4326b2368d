//! What an upstream gets to see of a request: one host, no hop-by-hop fields, no claims of strangers, nothing unclean.

use super::{BOTH, exchange, statuses};
use crate::support::Lowport;
use crate::support::recorder::Recorder;

#[test]
fn heads_that_are_unclean_are_refused() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        for head in [
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7f\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX y: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX\x01: a\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET /#fragment HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\rHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            let answer = exchange(&lowport, over, head);
            assert_eq!(statuses(&answer), [400], "{over:?} {head:?}: {answer}");
        }
    }
    assert_eq!(recorder.bytes(), b"");
}

#[test]
fn there_is_one_host_and_it_is_valid() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        for hosts in [
            "",
            "Host: a\r\nHost: a\r\n",
            "Host: a\r\nHost: b\r\n",
            "Host: a, b\r\n",
            "Host: a b\r\n",
            "Host: user@a\r\n",
            "Host: a/b\r\n",
            "Host: a?b\r\n",
            "Host: a#b\r\n",
            "Host: a:b\r\n",
            "Host: a:99999\r\n",
            "Host: a:80:80\r\n",
            "Host: [::1\r\n",
            "Host: ::1\r\n",
            "Host: [::1]x\r\n",
            "Host: http://a\r\n",
            "Host: \"a\"\r\n",
            "Host: a%00\r\n",
            "Host: a\\b\r\n",
        ] {
            let answer = exchange(&lowport, over, format!("GET / HTTP/1.1\r\n{hosts}\r\n"));
            assert_eq!(statuses(&answer), [400], "{over:?} {hosts:?}: {answer}");
        }
        assert_eq!(recorder.bytes(), b"");
    }
    for over in BOTH {
        for (target, host, arrives) in [
            ("/", "a.example:8080", "a.example:8080"),
            ("/", "[::1]:8080", "[::1]:8080"),
            (
                "http://Target.example:81/",
                "other.example",
                "Target.example:81",
            ),
            (
                "http://target.example/?q",
                "target.example",
                "target.example",
            ),
        ] {
            let before = recorder.requests().len();
            let answer = exchange(
                &lowport,
                over,
                format!("GET {target} HTTP/1.1\r\nConnection: close\r\nHost: {host}\r\n\r\n"),
            );
            assert_eq!(statuses(&answer), [200], "{target} {host}: {answer}");
            let request = &recorder.requests()[before];
            assert_eq!(request.values("host"), [arrives], "{request:?}");
        }
    }
}

#[test]
fn a_client_cannot_strip_what_is_ours_or_say_who_it_is() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        for upgrade in [
            "",
            "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
        ] {
            let before = recorder.requests().len();
            let token = if upgrade.is_empty() {
                "close"
            } else {
                "close, upgrade"
            };
            let answer = exchange(
                &lowport,
                over,
                format!(
                    "GET / HTTP/1.1\r\nHost: a\r\n{upgrade}\
                     Connection: {token}, X-Forwarded-For, x-forwarded-proto, x-real-ip, host, via, content-length, cookie, x-mine\r\n\
                     X-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nCookie: a=b\r\n\
                     X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Server: evil\r\n\
                     X-Forwarded-Anything: evil\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nProxy: http://evil\r\n\
                     X_Forwarded_For: 6.6.6.6\r\nx-forwarded_for: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\n\r\n"
                ),
            );
            assert_eq!(statuses(&answer), [200], "{answer}");
            let request = &recorder.requests()[before];
            let proto = if over == super::Over::Tls {
                "https"
            } else {
                "http"
            };
            for (name, values) in [
                ("x-forwarded-for", &["127.0.0.1"][..]),
                ("x-real-ip", &["127.0.0.1"]),
                ("x-forwarded-proto", &[proto]),
                ("x-forwarded-host", &["a"]),
                ("host", &["a"]),
                ("via", &["1.1 lowport"]),
                ("x-forwarded-server", &[]),
                ("x-forwarded-anything", &[]),
                ("forwarded", &[]),
                ("proxy", &[]),
                ("x_forwarded_for", &[]),
                ("x-forwarded_for", &[]),
                ("x_real_ip", &[]),
                ("x-mine", &[]),
                ("keep-alive", &[]),
                ("proxy-connection", &[]),
                ("te", &[]),
            ] {
                assert_eq!(request.values(name), values, "{over:?} {name}: {request:?}");
            }
        }
    }
}

#[test]
fn options_are_counted_and_other_methods_pass_or_are_refused() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        let ask = |line: &str, fields: &str| {
            exchange(
                &lowport,
                over,
                format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n"),
            )
        };
        let before = recorder.requests().len();
        let answer = ask("OPTIONS *", "");
        assert_eq!(statuses(&answer), [200], "{answer}");
        let answer = ask("OPTIONS /a", "Max-Forwards: 3\r\n");
        assert_eq!(statuses(&answer), [200], "{answer}");
        let heads: Vec<_> = recorder.requests()[before..]
            .iter()
            .map(|request| {
                (
                    request.head.split(" HTTP").next().map(str::to_owned),
                    request.values("max-forwards").join(""),
                )
            })
            .collect();
        assert_eq!(
            heads,
            [
                (Some("OPTIONS *".to_owned()), String::new()),
                (Some("OPTIONS /a".to_owned()), "2".to_owned())
            ]
        );
        let answer = ask("OPTIONS /a", "Max-Forwards: 0\r\n");
        assert_eq!(statuses(&answer), [200], "{answer}");
        assert!(answer.contains("allow: GET, "), "{answer}");
        assert_eq!(recorder.requests().len(), before + 2, "it went on");
        for refused in ["TRACE /", "CONNECT a:80"] {
            assert_eq!(statuses(&ask(refused, "")), [405], "{refused}");
        }
        assert_eq!(recorder.requests().len(), before + 2);
        assert_eq!(statuses(&ask("PROPFIND /", "")), [200]);
    }
}

#[test]
fn bytes_after_a_connect_are_no_request() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        let answer = exchange(
            &lowport,
            over,
            "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        );
        assert_eq!(statuses(&answer), [405], "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(recorder.bytes(), b"");
}
