//! Hosts of routes.

use std::net::Ipv6Addr;

use super::super::HostMatch;
use super::Wrong;

/// A host, `*.` and a domain, or an IPv6 address in brackets; as [`HostMatch`] keeps them.
pub(crate) fn host(text: &str) -> Result<HostMatch, Wrong> {
    if text == "*" {
        return Err(Wrong::new(
            "this would be any host",
            "leave `host` out: then any host matches",
        ));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let name = rest.split(['/', ':']).next().unwrap_or(rest);
        return Err(Wrong::new(
            "a host has no scheme",
            format!("write \"{name}\""),
        ));
    }
    if let Some((name, path)) = text.split_once('/') {
        let help = format!("write host = \"{name}\" and path = \"/{path}\"");
        return Err(Wrong::new("a host has no path", help));
    }
    if text.starts_with('[') || text.parse::<Ipv6Addr>().is_ok() {
        return ipv6(text);
    }
    if let Some((name, _)) = text.split_once(':') {
        let help = format!("write \"{name}\": it matches at every port that is listened on");
        return Err(Wrong::new("a host has no port", help));
    }
    if !text.is_ascii() {
        return Err(Wrong::new(
            "clients send such names in their ASCII form",
            "write that: it begins with \"xn--\"",
        ));
    }
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let (wildcard, name) = match lower.strip_prefix("*.") {
        Some(name) => (true, name.to_owned()),
        None => (false, lower),
    };
    if name.contains('*') {
        return Err(Wrong::new(
            "`*` can only stand for everything before a domain",
            "write \"*.example.com\"",
        ));
    }
    let label = |label: &str| {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=63).contains(&label.len()) && label.bytes().all(valid)
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(Wrong::new(
            "this is no host name",
            "write \"example.com\", \"*.example.com\", \"127.0.0.1\" or \"[::1]\"",
        ));
    }
    Ok(match wildcard {
        true => HostMatch::Wildcard(name),
        false => HostMatch::Exact(name),
    })
}

/// The form that browsers send (RFC 5952), in brackets.
fn ipv6(text: &str) -> Result<HostMatch, Wrong> {
    let inside = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(Ok(ip)) = inside.map(str::parse::<Ipv6Addr>) {
        return Ok(HostMatch::Exact(format!("[{ip}]")));
    }
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        let help = format!("write \"[{ip}]\"");
        return Err(Wrong::new("an IPv6 address as a host has brackets", help));
    }
    Err(match text.split_once("]:") {
        Some((name, _)) => Wrong::new("a host has no port", format!("write \"{name}]\"")),
        None => Wrong::new("this is no IPv6 address", "write \"[::1]\""),
    })
}

#[cfg(test)]
mod tests {
    use super::super::refuses;
    use super::*;

    #[test]
    fn hosts() {
        let exact = |name: &str| Ok(HostMatch::Exact(name.into()));
        assert_eq!(host("Example.COM"), exact("example.com"));
        assert_eq!(host("example.com."), exact("example.com"));
        assert_eq!(host("localhost"), exact("localhost"));
        assert_eq!(host("a_b.example"), exact("a_b.example"));
        assert_eq!(host("127.0.0.1"), exact("127.0.0.1"));
        assert_eq!(host("[0:0::1]"), exact("[::1]"));
        assert_eq!(
            host("*.Example.com"),
            Ok(HostMatch::Wildcard("example.com".into()))
        );
        refuses(
            host,
            &[
                ("", "no host name"),
                ("*", "leave `host` out"),
                ("https://example.com/x", "no scheme; write \"example.com\""),
                (
                    "example.com/api",
                    "write host = \"example.com\" and path = \"/api\"",
                ),
                ("example.com:443", "no port; write \"example.com\""),
                ("[::1]:80", "no port; write \"[::1]\""),
                ("::1", "brackets; write \"[::1]\""),
                ("[::1", "no IPv6 address"),
                ("a.*.com", "`*` can only stand"),
                ("*example.com", "`*` can only stand"),
                ("*.*.com", "`*` can only stand"),
                ("*.", "write \"*.example.com\""),
                ("a..b", "no host name"),
                (".a", "no host name"),
                ("a b", "no host name"),
                ("user@host", "no host name"),
                ("bücher.example", "xn--"),
            ],
        );
        assert!(host(&"a".repeat(64)).is_err());
    }
}
