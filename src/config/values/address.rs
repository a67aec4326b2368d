//! Addresses to listen on, and networks to trust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::Wrong;

/// Addresses to listen on: `0.0.0.0:80`, `[::]:443`, and `:8080` for both.
pub(crate) fn listen(text: &str) -> Result<Vec<SocketAddr>, Wrong> {
    const HELP: &str = "write \"0.0.0.0:80\", \"[::]:80\", \":80\" for both, or \"127.0.0.1:80\" for this machine only";
    let both = |port| {
        let (four, six) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        vec![
            SocketAddr::from((four, port)),
            SocketAddr::from((six, port)),
        ]
    };
    let addresses = match text.strip_prefix(':').map(str::parse) {
        Some(Ok(port)) => both(port),
        _ => text.parse().map(|addr| vec![addr]).unwrap_or_default(),
    };
    if addresses.iter().any(|addr| addr.port() == 0) {
        return Err(Wrong::new(
            "port 0 would be another port at every start",
            "choose one from 1 to 65535",
        ));
    }
    if !addresses.is_empty() {
        return Ok(addresses);
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        let example = SocketAddr::new(ip, 80);
        return Err(Wrong::new(
            "the port is missing",
            format!("write \"{example}\""),
        ));
    }
    if text.parse::<u16>().is_ok() {
        let help = format!("write \":{text}\", or \"127.0.0.1:{text}\" for this machine only");
        return Err(Wrong::new("the address is missing", help));
    }
    if let Some(port) = text.strip_prefix("*:") {
        return Err(Wrong::new(
            "this is no IP address",
            format!("write \":{port}\""),
        ));
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        let help = format!("write \"127.0.0.1:{port}\" or \"[::1]:{port}\"");
        return Err(Wrong::new("this is a name, not an IP address", help));
    }
    Err(Wrong::new("this is no IP address with a port", HELP))
}

/// A network: `10.0.0.0/8`; an address alone is that address.
pub(crate) fn network(text: &str) -> Result<IpNet, Wrong> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip));
    }
    text.parse().map_err(|_| {
        Wrong::new(
            "this is no network",
            "write \"10.0.0.0/8\", \"2001:db8::/32\", or an IP address",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::refuses;
    use super::*;

    #[test]
    fn addresses_to_listen_on() {
        for (text, shown) in [
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::]:443", "[::]:443"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            (":8080", "0.0.0.0:8080 [::]:8080"),
        ] {
            let addresses: Vec<String> = listen(text)
                .unwrap()
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(addresses.join(" "), shown);
        }
        refuses(
            listen,
            &[
                ("", "no IP address with a port"),
                ("localhost:80", "not an IP address; write \"127.0.0.1:80\""),
                (
                    "example.com:80",
                    "no IP address with a port; write \"0.0.0.0:80\"",
                ),
                ("127.0.0.1", "port is missing; write \"127.0.0.1:80\""),
                ("::", "port is missing; write \"[::]:80\""),
                ("[::1]", "port is missing; write \"[::1]:80\""),
                ("8080", "address is missing; write \":8080\""),
                ("*:80", "write \":80\""),
                ("0.0.0.0:0", "port 0"),
                (":0", "port 0"),
                ("0.0.0.0:65536", "no IP address with a port"),
                ("http://0.0.0.0:80", "no IP address with a port"),
            ],
        );
    }

    #[test]
    fn networks() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("::1", "::1/128"),
            ("2001:db8::/32", "2001:db8::/32"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), shown);
        }
        refuses(
            network,
            &[
                ("10.0.0.0/33", "no network; write \"10.0.0.0/8\""),
                ("localhost", "no network"),
                ("10.0.0", "no network"),
            ],
        );
    }
}
