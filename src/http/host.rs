//! The host that a request is for.

use std::borrow::Cow;

use http::{HeaderValue, Request, Version, header};

/// The host of a request, checked (RFC 9110 section 7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host<'a> {
    /// As the client wrote it, with its port: what the app sees
    pub raw: &'a str,
    /// Lower case, without port and trailing dot: what routes see. Empty when the client named none (HTTP/1.0)
    pub name: Cow<'a, str>,
    /// The port, if it was written
    pub port: Option<u16>,
}

/// The host that `request` is for: of an absolute target or `:authority` if there is one, else of the one Host field.
/// HTTP/1.1 has that field in any case, and it must be valid even where it does not count (RFC 9112 section 3.2).
///
/// # Errors
/// What to tell the client: none where HTTP/1.1 needs one, several, or one that is no host.
pub fn of<B>(request: &Request<B>) -> Result<Host<'_>, &'static str> {
    let mut fields = request.headers().get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err("The request has several Host fields.");
    }
    let field = field
        .map(HeaderValue::to_str)
        .transpose()
        .map_err(|_| BAD_HOST)?;
    let field = field.map(parse).transpose()?;
    match (request.uri().authority(), field) {
        (Some(_), None) if request.version() == Version::HTTP_11 => Err(NO_HOST),
        (Some(authority), _) => parse(authority.as_str()),
        (None, Some(field)) => Ok(field),
        (None, None) if request.version() < Version::HTTP_11 => parse(""),
        (None, None) => Err(NO_HOST),
    }
}

const NO_HOST: &str = "The request has no Host field.";

const BAD_HOST: &str = "The request's host is not valid.";

/// Reads a host with or without port. An empty one stands for none.
///
/// # Errors
/// What to tell the client when it is no host.
pub fn parse(raw: &str) -> Result<Host<'_>, &'static str> {
    let (name, port) = split_port(raw).ok_or(BAD_HOST)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    };
    Ok(Host { raw, name, port })
}

/// Splits `name[:port]`; `None` when a character cannot be part of it. IPv6 addresses keep their brackets.
fn split_port(raw: &str) -> Option<(&str, Option<u16>)> {
    if raw.is_empty() {
        return Some((raw, None));
    }
    let (name, port) = if raw.starts_with('[') {
        let end = raw.find(']')?;
        raw[1..end].parse::<std::net::Ipv6Addr>().ok()?;
        let (name, rest) = raw.split_at(end + 1);
        match rest.strip_prefix(':') {
            Some(port) => (name, Some(port)),
            None if rest.is_empty() => (name, None),
            None => return None,
        }
    } else {
        let end = name_length(raw.as_bytes())?;
        (&raw[..end], raw.get(end + 1..))
    };
    match port {
        None | Some("") => Some((name, None)),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((name, Some(digits.parse().ok()?)))
        }
        Some(_) => None,
    }
}

/// How long the name is that `raw` begins with: to the colon of a port, or to its end. `None` where it is no name.
fn name_length(raw: &[u8]) -> Option<usize> {
    // An empty label is no label; only a dot at the end stands for the root.
    let mut label_begins = true;
    for (at, byte) in raw.iter().enumerate() {
        match byte {
            b':' => return (at > 0).then_some(at),
            b'.' if label_begins => return None,
            b'.' => label_begins = true,
            // Letters, digits, and what names in the wild have; no user information, no percent-encoding.
            b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => label_begins = false,
            _ => return None,
        }
    }
    Some(raw.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, hosts: &[&str], version: Version) -> Request<()> {
        let mut builder = Request::builder().uri(uri).version(version);
        for host in hosts {
            builder = builder.header(header::HOST, *host);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn the_target_wins_over_the_field() {
        let request = request("http://A.example:8080/x", &["b.example"], Version::HTTP_11);
        let host = of(&request).unwrap();
        assert_eq!(
            (host.raw, &*host.name, host.port),
            ("A.example:8080", "a.example", Some(8080))
        );
    }

    #[test]
    fn names_are_normalised_and_kept() {
        for (raw, name, port) in [
            ("Example.COM.", "example.com", None),
            ("localhost:8443", "localhost", Some(8443)),
            ("[::1]:80", "[::1]", Some(80)),
            ("[2001:DB8::1]", "[2001:db8::1]", None),
            ("a_b.example:", "a_b.example", None),
        ] {
            let host = parse(raw).unwrap();
            assert_eq!((host.raw, &*host.name, host.port), (raw, name, port));
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for raw in [
            "a b",
            "a/b",
            "user@host",
            "a:b",
            "a:99999",
            "[::1",
            "[::1]x",
            "[zz]",
            ":80",
            "a,b",
            "a:80:90",
            "a%2e",
            "é",
            ".",
            ".a",
            "a..",
            "a..b:80",
        ] {
            assert!(parse(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn one_host_exactly() {
        assert!(of(&request("/", &["a", "b"], Version::HTTP_11)).is_err());
        assert!(of(&request("/", &["a", "a"], Version::HTTP_11)).is_err());
        assert!(of(&request("/", &[], Version::HTTP_11)).is_err());
        assert_eq!(of(&request("/", &[], Version::HTTP_10)).unwrap().name, "");
        // A target with a host of its own does not make up for a field that is missing or wrong.
        for (version, fields, fine) in [
            (Version::HTTP_11, &[][..], false),
            (Version::HTTP_11, &["a b"], false),
            (Version::HTTP_11, &["b.example"], true),
            (Version::HTTP_10, &[], true),
            (Version::HTTP_2, &[], true),
        ] {
            let request = request("http://a.example/", fields, version);
            assert_eq!(of(&request).is_ok(), fine, "{version:?} {fields:?}");
        }
    }
}
