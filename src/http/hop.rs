//! Hop-by-hop fields: those that speak of one connection and must not be passed on (RFC 9110 section 7.6.1).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Takes off what is hop-by-hop by name and what `Connection` names.
///
/// `TE: trailers` stays, since lowport passes trailers on. Framing is not stripped on `Connection`'s word: the body is
/// framed anew by hyper, which needs `Content-Length` to keep its meaning. Call it before adding any field of our own, so
/// that a client cannot have those stripped.
pub fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        strip_named(headers);
    }
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::UPGRADE);
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    if headers.contains_key(header::TE) {
        let trailers = has_token(headers, &header::TE, "trailers");
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
}

fn strip_named(headers: &mut HeaderMap) {
    let header::Entry::Occupied(entry) = headers.entry(header::CONNECTION) else {
        return;
    };
    let (_, values) = entry.remove_entry_mult();
    // The usual values name nothing but themselves; only others cost a list.
    let named: Vec<HeaderName> = values
        .flat_map(|value| {
            let tokens = tokens(&value).filter_map(unusual);
            tokens.collect::<Vec<_>>()
        })
        .collect();
    for name in named {
        if !KEPT.contains(&name) {
            headers.remove(name);
        }
    }
}

const KEPT: [HeaderName; 4] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
];

fn unusual(token: &[u8]) -> Option<HeaderName> {
    let usual = [&b"keep-alive"[..], b"close", b"upgrade", b""]
        .iter()
        .any(|usual| token.eq_ignore_ascii_case(usual));
    if usual {
        None
    } else {
        HeaderName::from_bytes(token).ok()
    }
}

/// The tokens of a comma-separated value. Bytes, since one that is no ASCII must not hide those beside it.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let items = value.as_bytes().split(|byte| *byte == b',');
    items.map(<[u8]>::trim_ascii)
}

/// Whether a comma-separated field has this token, in any case.
pub fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values.any(|value| tokens(value).any(|item| item.eq_ignore_ascii_case(token.as_bytes())))
}

/// The `timeout` of a `Keep-Alive` field, in seconds: how long the peer keeps an idle connection.
pub fn keep_alive_timeout(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    value.split(',').find_map(|item| {
        let (name, seconds) = item.trim().split_once('=')?;
        if name.trim().eq_ignore_ascii_case("timeout") {
            seconds.trim().parse().ok()
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn named_and_known_fields_go() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Secret"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip, trailers"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("x-kept", "3"),
        ]);
        strip(&mut headers);
        assert_eq!(headers, map(&[("te", "trailers"), ("x-kept", "3")]));
    }

    #[test]
    fn what_is_no_ascii_hides_no_token() {
        let mut headers = map(&[("x-secret", "1"), ("x-kept", "2")]);
        for (name, value) in [
            ("connection", "x-secret, \u{e9}"),
            ("te", "\u{e9},trailers"),
        ] {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.insert(HeaderName::from_static(name), value);
        }
        strip(&mut headers);
        assert_eq!(headers, map(&[("te", "trailers"), ("x-kept", "2")]));
    }

    #[test]
    fn connection_cannot_strip_framing_or_host() {
        let mut headers = map(&[
            ("connection", "content-length, host, TE"),
            ("content-length", "3"),
            ("host", "a"),
        ]);
        strip(&mut headers);
        assert_eq!(headers, map(&[("content-length", "3"), ("host", "a")]));
    }

    #[test]
    fn te_without_trailers_goes() {
        let mut headers = map(&[("te", "gzip")]);
        strip(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn keep_alive_hints_are_read() {
        assert_eq!(
            keep_alive_timeout(&map(&[("keep-alive", "timeout=5")])),
            Some(5)
        );
        assert_eq!(
            keep_alive_timeout(&map(&[("keep-alive", "max=100, Timeout = 72")])),
            Some(72)
        );
        assert_eq!(
            keep_alive_timeout(&map(&[("keep-alive", "timeout=x")])),
            None
        );
        assert_eq!(keep_alive_timeout(&map(&[])), None);
    }
}
