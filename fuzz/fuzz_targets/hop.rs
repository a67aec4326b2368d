//! What speaks of one connection goes, what `Connection` names too, and nothing else.
#![no_main]

use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use lowport::http::hop;
use lowport_fuzz::fields::{fields, items, values};

/// Of one connection by their names (RFC 9110 section 7.6.1).
const KNOWN: [&str; 5] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];
/// What a client's `Connection` has no power over, and what is an option and no field.
const KEPT: [&str; 3] = ["content-length", "host", "close"];

fuzz_target!(|text: &[u8]| {
    let sent = fields(text);
    let mut left = sent.clone();
    hop::strip(&mut left);
    let named = items(&sent, "connection");
    for name in sent.keys().map(|name| name.as_str()) {
        let named = named.contains(&name.as_bytes().to_vec()) && !KEPT.contains(&name);
        let wanted = if name == "te" {
            let trailers = items(&sent, name).contains(&b"trailers".to_vec());
            Vec::from_iter(trailers.then_some(&b"trailers"[..]))
        } else if named || KNOWN.contains(&name) {
            Vec::new()
        } else {
            values(&sent, name)
        };
        assert_eq!(values(&left, name), wanted, "{name}");
    }
    assert!(left.keys().all(|name| sent.contains_key(name)));
    let again = |mut headers: HeaderMap| {
        hop::strip(&mut headers);
        headers
    };
    assert_eq!(again(left.clone()), left);
    let _ = hop::keep_alive_timeout(&sent);
});
