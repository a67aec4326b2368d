use super::*;

const BOUNDS: Bounds = Bounds {
    head: 512,
    target: 100,
    fields: 8,
};

/// Looks at `text` in one piece, in two at every place, and byte by byte: the verdict must not depend on that.
fn look(text: &str) -> Result<Inspector, Refused> {
    let bytes = text.as_bytes();
    let mut whole = Inspector::new(BOUNDS);
    let verdict = whole.look(bytes);
    for cut in 1..bytes.len() {
        let mut split = Inspector::new(BOUNDS);
        let looked = split
            .look(&bytes[..cut])
            .and_then(|()| split.look(&bytes[cut..]));
        let why = |verdict: Result<(), Refused>| verdict.map_err(|refused| refused.why);
        assert_eq!(why(looked), why(verdict), "{text:?} cut at {cut}");
        assert_eq!(split.heads, whole.heads, "{text:?} cut at {cut}");
    }
    let mut bytewise = Inspector::new(BOUNDS);
    let looked = bytes.iter().try_for_each(|byte| bytewise.look(&[*byte]));
    assert_eq!(
        looked.map_err(|refused| refused.why),
        verdict.map_err(|refused| refused.why),
        "{text:?} byte by byte"
    );
    verdict.map(|()| whole)
}

fn heads(text: &str) -> u32 {
    look(text)
        .unwrap_or_else(|refused| panic!("{text:?}: {refused:?}"))
        .heads()
}

fn refusal(text: &str) -> Refusal {
    match look(text) {
        Ok(_) => panic!("{text:?} passed"),
        Err(refused) => refused.why,
    }
}

#[test]
fn requests_end_where_they_say() {
    for (text, count) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 1),
        ("\r\n\r\nGET / HTTP/1.0\r\n\r\n", 1),
        ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n", 2),
        (
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n\n\n\nGET / HTTP/1.1\r\n\r\n",
            2,
        ),
        (
            "POST / HTTP/1.1\r\ncontent-length:\t0 \r\n\r\nGET / HTTP/1.1\r\n\r\n",
            2,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\n\n\n\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            2,
        ),
        (
            "GET / HTTP/1.1\r\nUpgrade: h2c\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            2,
        ),
        (
            "POST / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n\n",
            1,
        ),
    ] {
        assert_eq!(heads(text), count, "{text:?}");
    }
}

#[test]
fn what_follows_a_request_for_a_websocket_is_not_looked_at() {
    let mut inspector =
        look("GET / HTTP/1.1\r\nUpgrade: foo, WebSocket\r\n\r\n\n\0\n").expect("passed");
    assert!(inspector.is_opaque());
    inspector.resume();
    assert_eq!(
        inspector.look(b"\n").map_err(|refused| refused.why),
        Err(Refusal::BareLineFeed)
    );
}

#[test]
fn framing_has_one_reading() {
    let head = |fields: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n");
    for (fields, why) in [
        (
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            Refusal::LengthAndCoding,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
            Refusal::LengthAndCoding,
        ),
        (
            "Content-Length: 1\r\nContent-Length: 1",
            Refusal::RepeatedLength,
        ),
        (
            "Content-Length: 1\r\ncontent-length: 2",
            Refusal::RepeatedLength,
        ),
        ("Content-Length: 1, 1", Refusal::BadLength),
        ("Content-Length: +1", Refusal::BadLength),
        ("Content-Length: -1", Refusal::BadLength),
        ("Content-Length: 0x1", Refusal::BadLength),
        ("Content-Length: 1 1", Refusal::BadLength),
        ("Content-Length:", Refusal::BadLength),
        ("Content-Length: 9223372036854775808", Refusal::BadLength),
        ("Content-Length: 18446744073709551617", Refusal::BadLength),
        ("Transfer-Encoding: gzip, chunked", Refusal::UnknownCoding),
        ("Transfer-Encoding: chunked, gzip", Refusal::BadCoding),
        ("Transfer-Encoding: chunked, chunked", Refusal::BadCoding),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            Refusal::BadCoding,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            Refusal::BadCoding,
        ),
        ("Transfer-Encoding: identity", Refusal::BadCoding),
        ("Transfer-Encoding: xchunked", Refusal::BadCoding),
        ("Transfer-Encoding: \"chunked\"", Refusal::BadCoding),
        ("Transfer-Encoding: chunked;a=b", Refusal::BadCoding),
        ("Transfer-Encoding: ,chunked", Refusal::BadCoding),
        ("Transfer-Encoding: \x0bchunked", Refusal::BadCoding),
        ("Transfer-Encoding:", Refusal::BadCoding),
    ] {
        assert_eq!(refusal(&head(fields)), why, "{fields:?}");
    }
    let upgrade = "GET / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n";
    assert_eq!(refusal(upgrade), Refusal::UpgradeWithBody);
    let connect = "CONNECT a:80 HTTP/1.1\r\nContent-Length: 1\r\n\r\n";
    assert_eq!(refusal(connect), Refusal::UpgradeWithBody);
    let connect = "CONNECT a:80 HTTP/1.0\r\n\r\n\n";
    assert!(look(connect).expect("passed").is_opaque());
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refusal(old), Refusal::CodingInHttp10);
}

#[test]
fn lines_end_in_both_characters_and_are_not_folded() {
    for text in [
        "\nGET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\n\r\n",
        "GET / HTTP/1.1\r\nA: b\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n\n",
    ] {
        assert_eq!(refusal(text), Refusal::BareLineFeed, "{text:?}");
    }
    for text in [
        "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\n\tA: b\r\n\r\n",
    ] {
        assert_eq!(refusal(text), Refusal::FoldedField, "{text:?}");
    }
}

#[test]
fn request_lines_have_three_parts() {
    for (line, why) in [
        ("GET /", Refusal::RequestLine),
        ("GET", Refusal::RequestLine),
        ("GET HTTP/1.1", Refusal::RequestLine),
        ("GET / HTTP/2.0", Refusal::Version),
        ("GET / HTTP/1.2", Refusal::Version),
        ("GET / HTTP/01.1", Refusal::Version),
        ("GET / http/1.1", Refusal::RequestLine),
        ("GET /#a HTTP/1.1", Refusal::Fragment),
    ] {
        assert_eq!(refusal(&format!("{line}\r\n\r\n")), why, "{line:?}");
    }
}

#[test]
fn heads_have_bounds() {
    let target = |length: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(length));
    assert_eq!(heads(&target(BOUNDS.target - 1)), 1);
    assert_eq!(refusal(&target(BOUNDS.target)), Refusal::TargetTooLong);
    assert_eq!(refusal(&"x".repeat(300)), Refusal::TargetTooLong);
    let fields = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
    assert_eq!(heads(&fields(BOUNDS.fields)), 1);
    assert_eq!(refusal(&fields(BOUNDS.fields + 1)), Refusal::TooManyFields);
    let field = |length: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(length));
    let rest = field(0).len();
    assert_eq!(heads(&field(BOUNDS.head - rest)), 1);
    assert_eq!(
        refusal(&field(BOUNDS.head - rest + 1)),
        Refusal::HeadTooLarge
    );
    assert_eq!(refusal(&"\r\n".repeat(300)), Refusal::HeadTooLarge);
}

#[test]
fn what_came_before_is_passed_on() {
    let good = "GET / HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n";
    let bad = format!("{good} folded\r\n");
    let refused = Inspector::new(BOUNDS).look(bad.as_bytes());
    assert_eq!(
        refused,
        Err(Refused {
            after: good.len(),
            why: Refusal::FoldedField
        })
    );
}
