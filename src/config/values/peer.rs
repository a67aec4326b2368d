//! Peers of upstreams.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use super::super::{PeerAddr, PeerProtocol};
use super::Wrong;

/// Bytes of a Unix socket's path at most: what `sockaddr_un` holds, less the zero at its end.
const UNIX_MAX: usize = 107;

/// A peer: `host:port`, `http://host:port`, `https://host[:443]`, `h2c://host:port` or `unix:/path`.
pub(crate) fn peer(text: &str) -> Result<(PeerAddr, PeerProtocol), Wrong> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path).map(|addr| (addr, PeerProtocol::Http1));
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => ("http".to_owned(), text),
    };
    let before = text.len() - rest.len();
    let protocol = match scheme.as_str() {
        "http" => PeerProtocol::Http1,
        "https" => PeerProtocol::Https,
        "h2c" => PeerProtocol::H2c,
        "ws" | "wss" => {
            let help = format!("websockets go through \"http{}://{rest}\"", &scheme[2..]);
            return Err(Wrong::new("upstreams are named by HTTP schemes", help));
        }
        _ => {
            let help = "there are http://, https://, h2c:// (HTTP/2 without TLS) and unix:/";
            return Err(Wrong::new("this scheme is unknown", help));
        }
    };
    if let Some(at) = rest.find(['/', '?', '#']) {
        let help = format!(
            "write \"{}\": requests keep their own path; `strip_prefix` takes a prefix off it",
            &text[..before + at]
        );
        return Err(Wrong::new(
            "an upstream's URL has no path and no query",
            help,
        ));
    }
    if let Some((_, host)) = rest.rsplit_once('@') {
        let help = format!("write \"{}{host}\"", &text[..before]);
        return Err(Wrong::new(
            "an upstream's URL has no user and no password",
            help,
        ));
    }
    let default = (protocol == PeerProtocol::Https).then_some(443);
    authority(rest, default, &text[..before]).map(|addr| (addr, protocol))
}

fn authority(rest: &str, default: Option<u16>, before: &str) -> Result<PeerAddr, Wrong> {
    let missing = || {
        let help = format!("write \"{before}{rest}:3000\", with the port of your app");
        Wrong::new("the port is missing", help)
    };
    let (name, port) = match rest.rsplit_once(':') {
        // Colons without brackets around them are those of an IPv6 address.
        Some((name, _)) if name.contains(':') && !name.ends_with(']') => (rest, None),
        Some((name, port)) => (name, Some(port)),
        None => (rest, None),
    };
    let port = match port {
        None => None,
        Some("") => return Err(Wrong::new("the port is missing", "")),
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port != 0 => Some(port),
            _ => return Err(Wrong::new("this port is not 1 to 65535", "")),
        },
    };
    if let Ok(ip) = name.parse::<std::net::Ipv6Addr>() {
        let help = format!("write \"{before}[{ip}]:{}\"", port.unwrap_or(3000));
        return Err(Wrong::new("an IPv6 address here has brackets", help));
    }
    let inside = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let ip: Option<IpAddr> = match inside {
        Some(inside) => inside.parse().ok().filter(IpAddr::is_ipv6),
        None => name.parse().ok(),
    };
    if ip.is_none() && !is_name(name) {
        return Err(Wrong::new(
            "this is no host",
            "write \"127.0.0.1:3000\", \"localhost:3000\", \"[::1]:3000\" or \"unix:/run/app.sock\"",
        ));
    }
    let port = port.or(default).ok_or_else(missing)?;
    match ip {
        Some(ip) if ip.is_unspecified() => {
            let loopback = if ip.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            let help = format!("write \"{before}{loopback}:{port}\"");
            Err(Wrong::new(
                "this is an address to listen on, not to connect to",
                help,
            ))
        }
        Some(ip) => Ok(PeerAddr::Ip(SocketAddr::new(ip, port))),
        None => Ok(PeerAddr::Name(name.to_ascii_lowercase(), port)),
    }
}

/// Whether it can be a DNS name. One whose last label is a number is an IPv4 address gone wrong.
fn is_name(name: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(valid);
    let last = name.rsplit('.').next().unwrap_or(name);
    name.len() <= 253
        && name.split('.').all(label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

fn unix(path: &str) -> Result<PeerAddr, Wrong> {
    if path.starts_with("//") {
        let help = format!("write \"unix:/{}\"", path.trim_start_matches('/'));
        return Err(Wrong::new("`unix:` is followed by the path alone", help));
    }
    if !path.starts_with('/') {
        return Err(Wrong::new(
            "a Unix socket's path begins with `/`",
            "write \"unix:/run/app.sock\"",
        ));
    }
    if path.len() > UNIX_MAX || path.contains('\0') {
        let why = format!("the kernel takes paths of up to {UNIX_MAX} bytes");
        return Err(Wrong::new(why, "choose a shorter one"));
    }
    Ok(PeerAddr::Unix(Path::new(path).to_owned()))
}

/// An upstream's name: `[a-z0-9_.-]`, not empty.
pub(crate) fn upstream_name(text: &str) -> Result<(), Wrong> {
    let valid =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    match !text.is_empty() && text.bytes().all(valid) {
        true => Ok(()),
        false => Err(Wrong::new(
            "names are made of a-z, 0-9, `_`, `.` and `-`",
            "",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::refuses;
    use super::*;

    #[test]
    fn peers() {
        let ip = |text: &str| PeerAddr::Ip(text.parse().unwrap());
        let name = |name: &str, port| PeerAddr::Name(name.into(), port);
        use PeerProtocol::{H2c, Http1, Https};
        for (text, addr, protocol) in [
            ("127.0.0.1:3000", ip("127.0.0.1:3000"), Http1),
            ("[::1]:3000", ip("[::1]:3000"), Http1),
            ("localhost:3000", name("localhost", 3000), Http1),
            ("http://127.0.0.1:3000", ip("127.0.0.1:3000"), Http1),
            ("HTTP://App_1.Example:80", name("app_1.example", 80), Http1),
            ("https://api.example", name("api.example", 443), Https),
            ("https://api.example:8443", name("api.example", 8443), Https),
            ("https://[::1]", ip("[::1]:443"), Https),
            ("h2c://grpc:50051", name("grpc", 50051), H2c),
            (
                "unix:/run/a.sock",
                PeerAddr::Unix("/run/a.sock".into()),
                Http1,
            ),
        ] {
            assert_eq!(peer(text), Ok((addr, protocol)), "{text}");
        }
        refuses(
            peer,
            &[
                ("", "no host"),
                ("localhost", "port is missing; write \"localhost:3000\""),
                (
                    "http://a.example",
                    "port is missing; write \"http://a.example:3000\"",
                ),
                ("localhost:", "port is missing"),
                ("localhost:0", "not 1 to 65535"),
                ("localhost:99999", "not 1 to 65535"),
                ("localhost:http", "not 1 to 65535"),
                ("http://a:1/", "no path and no query; write \"http://a:1\""),
                ("a:1/x", "no path and no query; write \"a:1\""),
                ("http://a:1/x?y", "`strip_prefix`"),
                ("http://u:p@a:1", "no password; write \"http://a:1\""),
                ("ftp://a:1", "scheme is unknown; there are http://"),
                ("wss://a:1", "go through \"https://a:1\""),
                ("::1:3000", "brackets"),
                ("[::1]", "port is missing; write \"[::1]:3000\""),
                ("[zz]:1", "no host"),
                ("[127.0.0.1]:1", "no host"),
                ("127.0.0.256:1", "no host"),
                ("a..b:1", "no host"),
                ("é:1", "no host"),
                ("0.0.0.0:3000", "write \"127.0.0.1:3000\""),
                ("http://[::]:3000", "write \"http://[::1]:3000\""),
                ("unix:run/a.sock", "begins with `/`"),
                ("unix:", "begins with `/`"),
                ("unix:///run/a.sock", "write \"unix:/run/a.sock\""),
            ],
        );
        assert!(peer(&format!("unix:/{}", "a".repeat(107))).is_err());
    }

    #[test]
    fn names_of_upstreams() {
        assert!(upstream_name("my-app_2.x").is_ok());
        refuses(
            upstream_name,
            &[("", "a-z"), ("App", "a-z"), ("a b", "a-z")],
        );
    }
}
