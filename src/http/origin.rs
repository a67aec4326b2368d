//! Who asks, when proxies in front of this one tell it.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

/// The client behind proxies that are trusted: the last address of `X-Forwarded-For` that is none of theirs. Each proxy
/// adds the address that it was asked from, so whatever stands in front of that was written by somebody unknown. `peer` is
/// who the connection is with.
pub fn client(headers: &HeaderMap, peer: IpAddr, trusts: impl Fn(IpAddr) -> bool) -> IpAddr {
    let mut client = peer;
    if !trusts(peer) {
        return client;
    }
    let values = headers.get_all("x-forwarded-for");
    let values = values.iter().map(|value| value.to_str().unwrap_or(""));
    // Fields of one name are one list (RFC 9110 section 5.3).
    let mut told: Vec<&str> = values.flat_map(|value| value.split(',')).collect();
    while let Some(next) = told.pop() {
        // What cannot be read is nobody that requests could be counted for: whoever passed it on is the client.
        let Some(next) = address(next.trim()) else {
            break;
        };
        client = next;
        if !trusts(client) {
            break;
        }
    }
    client
}

/// An address, also with a port, as some proxies write it.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse();
    let address = address.or_else(|_| text.parse().map(|with_port: SocketAddr| with_port.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_last_that_no_trusted_proxy_is() {
        let trusts = |ip: IpAddr| ip.to_string().starts_with("10.");
        for (peer, fields, client) in [
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
            (
                "10.0.0.1",
                &["6.6.6.6", "203.0.113.9, 10.0.0.2"],
                "203.0.113.9",
            ),
            ("10.0.0.1", &["10.0.0.3,10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &[""], "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append("x-forwarded-for", field.parse().unwrap());
            }
            let found = super::client(&headers, peer.parse().unwrap(), trusts);
            assert_eq!(found.to_string(), client, "{peer} {fields:?}");
        }
    }
}
