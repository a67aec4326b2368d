//! Requests over HTTP/2, field by field: what is malformed is refused for its stream alone, and what is not arrives whole.

use super::{BOTH, Over};
use crate::support::frames::{self, END_HEADERS, END_STREAM, Frames, HEADERS, Outcome};
use crate::support::recorder::Recorder;
use crate::support::{Lowport, until};

pub(super) type Fields<'a> = Vec<(&'a str, &'a str)>;

/// A request to `/p`, with `more` behind its pseudo-fields.
pub(super) fn with<'a>(method: &'a str, more: &[(&'a str, &'a str)]) -> Fields<'a> {
    let mut fields = frames::get("/p").to_vec();
    fields[0].1 = method;
    fields.extend_from_slice(more);
    fields
}

/// A request to `/p` with another value for the pseudo-field `name`.
pub(super) fn but<'a>(name: &'a str, value: &'a str) -> Fields<'a> {
    let mut fields = frames::get("/p").to_vec();
    for field in &mut fields {
        if field.0 == name {
            field.1 = value;
        }
    }
    fields
}

fn without(name: &str) -> Fields<'static> {
    let mut fields = frames::get("/p").to_vec();
    fields.retain(|field| field.0 != name);
    fields
}

fn malformed<'a>() -> Vec<Fields<'a>> {
    let mut cases: Vec<Fields<'_>> = Vec::new();
    // Fields that speak of one connection (RFC 9113 section 8.2.2).
    for field in [
        ("connection", "close"),
        ("connection", "x-other"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("upgrade", "websocket"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("transfer-encoding", ""),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        // White space around a value (section 8.2.1).
        ("x", " a"),
        ("x", "a "),
        ("x", "\ta"),
        ("x", "a\t"),
        ("cookie", " a=1"),
        // Lengths that are none, or not that of a request without a body.
        ("content-length", ""),
        ("content-length", "+0"),
        ("content-length", "-0"),
        ("content-length", "0x0"),
        ("content-length", "0, 0"),
        ("content-length", "99999999999999999999999"),
        ("content-length", "9999999999999999999"),
        ("content-length", "5"),
        // Pseudo-fields that are not a request's, come late, or again.
        (":status", "200"),
        (":protocol", "websocket"),
        (":path", "/other"),
        (":method", "GET"),
    ] {
        cases.push(with("GET", &[field]));
    }
    cases.push(with("GET", &[("content-length", "0"); 2]));
    cases.push(with(
        "GET",
        &[("content-length", "0"), ("content-length", "1")],
    ));
    cases.push(with("GET", &[("host", "a.test"), ("host", "a.test")]));
    for at in 0..4 {
        let all = frames::get("/p").to_vec();
        let mut late = all.clone();
        let field = late.remove(at);
        late.extend([("x", "1"), field]);
        cases.push(late);
        let mut twice = all.clone();
        twice.insert(at, all[at]);
        cases.push(twice);
        cases.push(without(all[at].0));
    }
    // Without a path, whoever names the host.
    let mut hosted = without(":path");
    hosted.retain(|field| field.0 != ":authority");
    hosted.push(("host", "a.test"));
    cases.push(hosted.clone());
    hosted.push((":method", "OPTIONS"));
    cases.push(hosted);
    for path in [
        "",
        "p",
        "*",
        "?q",
        "/p q",
        "/p\tq",
        "/p\0",
        "/p\r\nx: y",
        "/p\u{7f}",
        "http://a.test/p",
        "/<>",
    ] {
        cases.push(but(":path", path));
    }
    for authority in [
        "",
        "u@a.test",
        "u:p@a.test",
        "a test",
        "a.test,b.test",
        "a.test/x",
        "a.test:x",
        "a.test:99999",
        "[::1",
        "::1",
        "a\u{e9}.test",
        "?x",
        "a#b",
        "a.test\r\nx: y",
        "a%2etest",
        ":80",
    ] {
        cases.push(but(":authority", authority));
    }
    for scheme in ["", "h ttp", "http\r", "ftp", "javascript"] {
        cases.push(but(":scheme", scheme));
    }
    // What only RFC 8441 allows, and what nothing does.
    cases.push(but(":method", "CONNECT"));
    cases.push(but(":method", "TRACE"));
    cases.push(vec![(":method", "CONNECT"), (":authority", "a.test:443")]);
    cases.push(vec![(":method", "CONNECT")]);
    let mut other = with("CONNECT", &[]);
    other.insert(1, (":protocol", "connect-udp"));
    cases.push(other);
    cases
}

#[test]
fn what_is_malformed_is_refused_for_its_stream_alone() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        for case in malformed() {
            let mut client = Frames::open(&lowport, over, &[]);
            let mut upload = frames::get("/upload");
            upload[0].1 = "POST";
            let before = client.request(&upload, false);
            let bad = client.request(&case, true);
            let outcome = client.outcome(bad);
            assert!(outcome.is_stream_refusal(), "{over:?} {outcome:?} {case:?}");
            client.data(before, b"whole", true);
            assert_eq!(client.outcome(before), Outcome::Status(200), "{case:?}");
            let after = client.get("/after");
            assert_eq!(client.outcome(after), Outcome::Status(200), "{case:?}");
        }
    }
    let seen = recorder.requests();
    assert_eq!(seen.len(), malformed().len() * BOTH.len() * 2);
    for request in seen {
        let (upload, after) = ("POST /upload HTTP/1.1\r\n", "GET /after HTTP/1.1\r\n");
        assert!(request.head.starts_with(upload) || request.head.starts_with(after));
        assert!(request.head.starts_with(after) || request.body.as_deref() == Some(b"whole"));
    }
}

#[test]
fn what_cannot_be_decoded_never_goes_upstream() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        for field in [
            ("X-Upper", "1"),
            ("x y", "1"),
            ("x\t", "1"),
            ("x:y", "1"),
            ("", "1"),
            ("x\0", "1"),
            ("x\r\ny", "1"),
            ("x\u{e9}", "1"),
            ("x", "a\rb"),
            ("x", "a\nb"),
            ("x", "a\r\nhost: b"),
            ("x", "a\0b"),
            ("x", "a\u{1}b"),
            ("x", "a\u{7f}b"),
            (":unknown", "1"),
            (":method", ""),
            (":method", "G T"),
            (":method", "GET\r"),
        ] {
            let mut client = Frames::open(&lowport, over, &[]);
            let fields = match field.0 {
                ":method" => but(field.0, field.1),
                _ => with("GET", &[field]),
            };
            let bad = client.request(&fields, true);
            let outcome = client.outcome(bad);
            // The library calls these errors of the connection, as RFC 9113 section 5.4 lets it.
            let refused = outcome.is_stream_refusal() || outcome == Outcome::GoAway(1);
            assert!(refused, "{over:?} {outcome:?} {field:?}");
        }
    }
    assert_eq!(recorder.bytes(), b"");
    lowport.wait_for("HTTP/2.0\" 400 ");
}

#[test]
fn a_body_is_as_long_as_it_says() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    let trailers = frames::block(&[("x", "1")]);
    for over in BOTH {
        for (chunks, end) in [
            (&[&b"abcd"[..]][..], true),
            (&[b"abcd"], false),
            (&[b"ab"], true),
            (&[b"ab", b"cd"], true),
            (&[b"ab", b""], true),
        ] {
            let mut client = Frames::open(&lowport, over, &[]);
            let bad = client.request(&with("POST", &[("content-length", "3")]), false);
            for (at, chunk) in chunks.iter().enumerate() {
                client.data(bad, chunk, end && at + 1 == chunks.len());
            }
            let outcome = client.outcome(bad);
            assert!(outcome.is_stream_refusal(), "{outcome:?} {chunks:?}");
            let after = client.get("/after");
            assert_eq!(client.outcome(after), Outcome::Status(200));
        }
        let mut client = Frames::open(&lowport, over, &[]);
        let bad = client.request(&with("POST", &[("content-length", "3")]), false);
        client.data(bad, b"ab", false);
        client.frame(HEADERS, END_HEADERS | END_STREAM, bad, &trailers);
        assert!(client.outcome(bad).is_stream_refusal());
        let good = client.request(&with("POST", &[("content-length", "3")]), false);
        client.data(good, b"ab", false);
        client.data(good, b"c", false);
        client.data(good, b"", true);
        assert_eq!(client.outcome(good), Outcome::Status(200));
    }
    let uploads: Vec<_> = recorder.requests();
    let whole = uploads
        .iter()
        .filter(|seen| seen.head.starts_with("POST") && seen.body.is_some());
    let whole: Vec<_> = whole.map(|seen| seen.body.clone().unwrap()).collect();
    assert_eq!(whole, [b"abc", b"abc"], "only what was whole looks whole");
}

#[test]
fn an_upload_that_breaks_off_never_looks_whole() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    let mut count = 0;
    let mut begin = |client: &mut Frames, field| {
        let stream = client.request(&with("POST", &[field]), false);
        client.data(stream, b"half", false);
        count += 1;
        until("half of it upstream", || {
            let bytes = recorder.bytes();
            let found = bytes.windows(4).filter(|window| window == b"half").count();
            (found == count).then_some(())
        });
        (stream, count)
    };
    let ended = |count| {
        until("the end upstream", || {
            let uploads = recorder.requests().into_iter();
            let ended = uploads.filter(|seen| seen.head.starts_with("POST")).count();
            (ended == count).then_some(())
        });
    };
    for over in BOTH {
        for field in [("content-length", "10"), ("x", "chunked then")] {
            let mut client = Frames::open(&lowport, over, &[]);
            let (reset, count) = begin(&mut client, field);
            client.reset(reset, frames::CANCEL);
            ended(count);
            let mut gone = Frames::open(&lowport, over, &[]);
            let (_, count) = begin(&mut gone, field);
            drop(gone);
            ended(count);
            let after = client.get("/after");
            assert_eq!(client.outcome(after), Outcome::Status(200));
        }
    }
    let mut uploads = recorder.requests();
    uploads.retain(|seen| seen.head.starts_with("POST"));
    assert!(uploads.len() == 8 && uploads.iter().all(|seen| seen.body.is_none()));
}

#[test]
fn what_is_not_malformed_arrives_as_it_is() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        let mut client = Frames::open(&lowport, over, &[]);
        let mut ask = |fields: &[(&str, &str)]| {
            let stream = client.request(fields, true);
            assert_eq!(client.outcome(stream), Outcome::Status(200), "{fields:?}");
            recorder.requests().pop().expect("a request")
        };
        for path in [
            "//p",
            "/%2F;x?y=%00&z",
            "/a/../b",
            "/p?",
            "/\u{e9}",
            "/a?b?c",
            "/p\\q",
        ] {
            let seen = ask(&but(":path", path));
            assert!(
                seen.head.starts_with(&format!("GET {path} HTTP/1.1\r\n")),
                "{}",
                seen.head
            );
        }
        let seen = ask(&but(":authority", "A.test:8080"));
        assert_eq!(seen.values("host"), ["A.test:8080"]);
        // The authority wins over the field, and only one is sent on.
        let seen = ask(&with("GET", &[("host", "b.test")]));
        assert_eq!(seen.values("host"), ["a.test"]);
        assert_eq!(seen.values("x-forwarded-host"), ["a.test"]);
        let mut hosted = without(":authority");
        hosted.push(("host", "b.test"));
        assert_eq!(ask(&hosted).values("host"), ["b.test"]);
        let seen = ask(&with("OPTIONS", &[])
            .iter()
            .map(|field| {
                if field.0 == ":path" {
                    (":path", "*")
                } else {
                    *field
                }
            })
            .collect::<Vec<_>>());
        assert!(
            seen.head.starts_with("OPTIONS * HTTP/1.1\r\n"),
            "{}",
            seen.head
        );
        let seen = ask(&with(
            "get",
            &[("te", "trailers"), ("x", ""), ("y", "\u{e9}")],
        ));
        assert!(
            seen.head.starts_with("get /p HTTP/1.1\r\n"),
            "{}",
            seen.head
        );
        assert_eq!(
            (seen.values("te"), seen.values("x"), seen.values("y")),
            (vec!["trailers"], vec![""], vec!["\u{e9}"])
        );
        // Crumbs are joined (RFC 9113 section 8.2.3); other fields stay as many as they are.
        let crumbs = [
            ("cookie", "a=1"),
            ("x", "1"),
            ("cookie", "b=2"),
            ("x", "2"),
            ("cookie", "c=3"),
        ];
        let seen = ask(&with("GET", &crumbs));
        assert_eq!(seen.values("cookie"), ["a=1; b=2; c=3"]);
        assert_eq!(seen.values("x"), ["1", "2"]);
        // Browsers split every cookie off: all of them are one field, as they would be over HTTP/1.1.
        let seen = ask(&with("GET", &[("cookie", "a=1"); 150]));
        assert_eq!(seen.values("cookie"), [["a=1"; 150].join("; ")]);
        // What a client says of others is not believed.
        let claims = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "ftp"),
            ("x-forwarded-server", "s"),
            ("forwarded", "for=1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("proxy", "http://e.test"),
            ("x_forwarded_for", "1.1.1.1"),
        ];
        let seen = ask(&with("GET", &claims));
        let proto = if over == Over::Tls { "https" } else { "http" };
        assert_eq!(seen.values("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(seen.values("x-forwarded-proto"), [proto]);
        assert_eq!(seen.values("x-real-ip"), ["127.0.0.1"]);
        for gone in [
            "x-forwarded-server",
            "forwarded",
            "proxy",
            "x_forwarded_for",
        ] {
            assert!(seen.values(gone).is_empty(), "{gone}");
        }
    }
}

#[test]
fn trailers_are_carried_and_stay_trailers() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    let flags = END_HEADERS | END_STREAM;
    for over in BOTH {
        let mut client = Frames::open(&lowport, over, &[]);
        let mut upload = |trailers: &[(&str, &str)], flags| {
            let stream = client.request(
                &with("POST", &[("trailer", "x-sum, host, content-length")]),
                false,
            );
            client.data(stream, b"abc", false);
            client.frame(HEADERS, flags, stream, &frames::block(trailers));
            client.outcome(stream)
        };
        let claims = [("x-sum", "1"), ("host", "b.test"), ("content-length", "9")];
        assert_eq!(upload(&claims, flags), Outcome::Status(200));
        let seen = recorder.requests().pop().expect("a request");
        assert_eq!(seen.trailers.to_lowercase(), "x-sum: 1\r\n");
        assert_eq!(seen.body.as_deref(), Some(&b"abc"[..]));
        assert_eq!(
            (seen.values("host"), seen.values("x-sum")),
            (vec!["a.test"], vec![])
        );
        // Malformed ones, and those that are not the end.
        for (trailers, flags) in [
            (("connection", "close"), flags),
            (("transfer-encoding", "chunked"), flags),
            (("x-sum", "1"), END_HEADERS),
        ] {
            let outcome = upload(&[trailers], flags);
            assert!(outcome.is_stream_refusal(), "{outcome:?} {trailers:?}");
        }
        // The library drops pseudo-fields here without a word; at least nothing of them goes upstream.
        let outcome = upload(&[(":path", "/other"), ("x-sum", "2")], flags);
        assert_eq!(outcome, Outcome::Status(200));
        let seen = recorder.requests().pop().expect("a request");
        assert_eq!(seen.trailers.to_lowercase(), "x-sum: 2\r\n");
        assert!(seen.head.starts_with("POST /p HTTP/1.1\r\n"));
    }
}
