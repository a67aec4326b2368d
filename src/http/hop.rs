//! Hop-by-hop fields: those that speak of one connection and must not be passed on (RFC 9110 section 7.6.1).

use bytes::Bytes;
use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What a head says of whether the connection that it came over persists (RFC 9112 section 9.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Persistence {
    close: bool,
    keep_alive: bool,
}

impl Persistence {
    /// Whether the connection ends after this message, of this version: its sender sends no other.
    pub fn ends(self, version: Version) -> bool {
        self.close || version < Version::HTTP_11 && !self.keep_alive
    }

    /// Takes note of a token of `Connection`.
    pub fn note(&mut self, token: &[u8]) {
        self.close |= token.eq_ignore_ascii_case(b"close");
        self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
    }
}

/// Takes off what is hop-by-hop by name and what `Connection` names; returns what that field said of the connection itself.
///
/// `TE: trailers` stays, since lowport passes trailers on. Framing is not stripped on `Connection`'s word: the body is
/// framed anew by hyper, which needs `Content-Length` to keep its meaning. Call it before adding any field of our own, so
/// that a client cannot have those stripped.
pub fn strip(headers: &mut HeaderMap) -> Persistence {
    // One look at the names costs less than one lookup, and most heads have few of these.
    let mut found = Found::default();
    for name in headers.keys() {
        found.note(name);
    }
    let persistence = if found.connection {
        strip_named(headers)
    } else {
        Persistence::default()
    };
    if found.framing {
        headers.remove(header::TRANSFER_ENCODING);
    }
    if found.upgrade {
        headers.remove(header::UPGRADE);
    }
    if found.keep_alive {
        headers.remove(KEEP_ALIVE);
        headers.remove(PROXY_CONNECTION);
    }
    if found.te {
        let trailers = has_token(headers, &header::TE, "trailers");
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    persistence
}

/// Which of the hop-by-hop fields a head has.
#[derive(Debug, Default)]
struct Found {
    connection: bool,
    framing: bool,
    upgrade: bool,
    te: bool,
    /// Or the one that proxies were once sent instead
    keep_alive: bool,
}

impl Found {
    fn note(&mut self, name: &HeaderName) {
        match *name {
            header::CONNECTION => self.connection = true,
            header::TRANSFER_ENCODING => self.framing = true,
            header::UPGRADE => self.upgrade = true,
            header::TE => self.te = true,
            _ => self.keep_alive |= *name == KEEP_ALIVE || *name == PROXY_CONNECTION,
        }
    }
}

fn strip_named(headers: &mut HeaderMap) -> Persistence {
    let mut persistence = Persistence::default();
    let header::Entry::Occupied(entry) = headers.entry(header::CONNECTION) else {
        return persistence;
    };
    let (_, values) = entry.remove_entry_mult();
    // The usual values name nothing but themselves; only others cost a list.
    let mut named = Vec::new();
    for value in values {
        for token in tokens(&value) {
            persistence.note(token);
            named.extend(unusual(token));
        }
    }
    for name in named {
        if !KEPT.contains(&name) {
            headers.remove(name);
        }
    }
    persistence
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

/// Says that the request went through here, as a gateway has to (RFC 9110 section 7.6.3).
pub fn add_via(headers: &mut HeaderMap, version: Version) {
    let ours = match version {
        Version::HTTP_10 => "1.0 lowport",
        Version::HTTP_2 => "2.0 lowport",
        _ => "1.1 lowport",
    };
    let value = HeaderValue::from_static(ours);
    match headers.entry(header::VIA) {
        header::Entry::Vacant(entry) => {
            entry.insert(value);
        }
        header::Entry::Occupied(_) => {
            let before = joined(headers, &header::VIA).unwrap_or_default();
            let all = [&before[..], b", ", ours.as_bytes()].concat();
            let all = HeaderValue::from_maybe_shared(Bytes::from(all));
            headers.insert(header::VIA, all.unwrap_or(value));
        }
    }
}

/// All values of a list's field as one.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut values = headers.get_all(name).iter();
    let mut joined = values.next()?.as_bytes().to_vec();
    for value in values {
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(value.as_bytes());
    }
    Some(joined)
}

/// Counts down how often an OPTIONS may still be forwarded (RFC 9110 section 7.6.2). Whether it may be now; what is no number
/// is ignored.
pub fn may_forward(headers: &mut HeaderMap) -> bool {
    let rest = headers.get(header::MAX_FORWARDS).and_then(|value| {
        let digits = value.to_str().ok()?;
        let fine = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        fine.then(|| digits.parse::<u64>().unwrap_or(u64::MAX))
    });
    match rest {
        None => true,
        Some(0) => false,
        Some(rest) => {
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(rest - 1));
            true
        }
    }
}

/// The tokens of a comma-separated value. Bytes, since one that is no ASCII must not hide those beside it.
pub fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
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
    tokens(headers.get(KEEP_ALIVE)?).find_map(|item| {
        let equals = item.iter().position(|byte| *byte == b'=')?;
        let (name, seconds) = (&item[..equals], &item[equals + 1..]);
        if name.trim_ascii_end().eq_ignore_ascii_case(b"timeout") {
            let seconds = std::str::from_utf8(seconds.trim_ascii_start());
            seconds.ok()?.parse().ok()
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
    fn a_request_is_the_last_where_its_connection_ends() {
        for (said, version, last) in [
            (None, Version::HTTP_11, false),
            (None, Version::HTTP_10, true),
            (Some("keep-alive"), Version::HTTP_10, false),
            (Some("keep-alive, x"), Version::HTTP_11, false),
            (Some("x,Close"), Version::HTTP_11, true),
            (Some("close, keep-alive"), Version::HTTP_10, true),
        ] {
            let mut headers = map(&[("x", "1")]);
            headers.extend(said.map(|said| (header::CONNECTION, HeaderValue::from_static(said))));
            let persistence = strip(&mut headers);
            assert_eq!(persistence.ends(version), last, "{said:?} {version:?}");
        }
    }

    #[test]
    fn te_without_trailers_goes() {
        let mut headers = map(&[("te", "gzip")]);
        strip(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn each_gateway_adds_itself_to_via() {
        let mut headers = HeaderMap::new();
        add_via(&mut headers, Version::HTTP_2);
        assert_eq!(headers[header::VIA], "2.0 lowport");
        let mut headers = map(&[("via", "1.0 a"), ("via", "1.1 b")]);
        add_via(&mut headers, Version::HTTP_11);
        assert_eq!(headers, map(&[("via", "1.0 a, 1.1 b, 1.1 lowport")]));
    }

    #[test]
    fn forwards_are_counted_down() {
        for (before, may, after) in [
            ("0", false, "0"),
            ("1", true, "0"),
            ("010", true, "9"),
            ("99999999999999999999", true, "18446744073709551614"),
            ("+1", true, "+1"),
            ("", true, ""),
        ] {
            let mut headers = map(&[("max-forwards", before)]);
            assert_eq!(may_forward(&mut headers), may, "{before}");
            assert_eq!(headers[header::MAX_FORWARDS], after);
        }
        assert!(may_forward(&mut HeaderMap::new()));
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
