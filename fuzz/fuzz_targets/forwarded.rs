//! Nobody but a trusted peer has a say in what the app is told about the client.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use lowport::http::forwarded::{self, Client};
use lowport_fuzz::fields::{fields, values};

fuzz_target!(|text: &[u8]| {
    let sent = fields(text);
    let client = Client::new([192, 0, 2, 7].into(), true, 443);
    let host = HeaderValue::from_static("a.example");

    let mut headers = sent.clone();
    forwarded::set(&mut headers, &client, Some(&host), false);
    for (name, value) in [
        ("x-forwarded-for", "192.0.2.7"),
        ("x-real-ip", "192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-host", "a.example"),
    ] {
        assert_eq!(values(&headers, name), [value.as_bytes()], "{name}");
        headers.remove(name);
    }
    for name in headers.keys() {
        let name = name.as_str();
        assert!(
            !name.starts_with("x-forwarded-") && !name.contains('_'),
            "{name}"
        );
        assert!(
            !["forwarded", "proxy", "x-real-ip"].contains(&name),
            "{name}"
        );
    }
    unchanged(&sent, &headers);

    let mut headers = sent.clone();
    forwarded::set(&mut headers, &client, Some(&host), true);
    let chain = values(&headers, "x-forwarded-for");
    assert!(chain.len() == 1 && chain[0].ends_with(b"192.0.2.7"));
    headers.remove("x-forwarded-for");
    for name in sent.keys().filter(|name| *name != "x-forwarded-for") {
        assert_eq!(
            values(&headers, name.as_str()),
            values(&sent, name.as_str())
        );
    }
});

/// Whatever is left is as it was sent.
fn unchanged(sent: &HeaderMap, left: &HeaderMap) {
    for name in left.keys() {
        assert_eq!(values(left, name.as_str()), values(sent, name.as_str()));
    }
}
