//! The fields that tell the app who the client is and what it asked for.

use std::fmt::Write;
use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const PROXY: HeaderName = HeaderName::from_static("proxy");

/// What is true of a client connection whatever its requests say. Made once per connection.
#[derive(Debug, Clone)]
pub struct Client {
    ip: IpAddr,
    ip_value: HeaderValue,
    proto: HeaderValue,
    port: HeaderValue,
}

impl Client {
    /// A client at `ip` that came in over TLS or not, to `port` of ours.
    pub fn new(ip: IpAddr, tls: bool, port: u16) -> Self {
        let ip = ip.to_canonical();
        let value =
            |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        Self {
            ip,
            ip_value: value(&ip.to_string()),
            proto: HeaderValue::from_static(if tls { "https" } else { "http" }),
            port: value(&port.to_string()),
        }
    }

    /// The client's address, IPv4 also where the socket is IPv6.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }
}

/// Sets the forwarding fields on a request.
///
/// From an untrusted peer, whatever it claims is replaced or dropped: every `X-Forwarded-*`, `X-Real-IP`, `Forwarded`
/// (RFC 7239), `Proxy` (which CGI libraries read as `HTTP_PROXY`) and each field with an underscore in its name, which
/// many servers take for the same field with a hyphen. From a trusted peer its `X-Forwarded-For` is continued, and the
/// rest of its word is kept where it gave any.
pub fn set(headers: &mut HeaderMap, client: &Client, host: Option<&HeaderValue>, trusted: bool) {
    if trusted {
        append_for(headers, client);
        headers
            .entry(X_FORWARDED_PROTO)
            .or_insert_with(|| client.proto.clone());
        headers
            .entry(X_FORWARDED_PORT)
            .or_insert_with(|| client.port.clone());
        headers
            .entry(X_REAL_IP)
            .or_insert_with(|| client.ip_value.clone());
        if let Some(host) = host {
            headers
                .entry(X_FORWARDED_HOST)
                .or_insert_with(|| host.clone());
        }
        return;
    }
    drop_claims(headers);
    // Once, where each might have the map grow again.
    headers.reserve(5);
    headers.insert(X_FORWARDED_FOR, client.ip_value.clone());
    headers.insert(X_REAL_IP, client.ip_value.clone());
    headers.insert(X_FORWARDED_PROTO, client.proto.clone());
    headers.insert(X_FORWARDED_PORT, client.port.clone());
    if let Some(host) = host {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
}

fn drop_claims(headers: &mut HeaderMap) {
    // One look at the names; the list is only made where there is something to drop.
    let claims = |name: &HeaderName| {
        let bytes = name.as_str().as_bytes();
        bytes.starts_with(b"x-forwarded-")
            || *name == header::FORWARDED
            || *name == PROXY
            || bytes.contains(&b'_')
    };
    if headers.keys().any(claims) {
        let names: Vec<HeaderName> = headers
            .keys()
            .filter(|name| claims(name))
            .cloned()
            .collect();
        for name in names {
            headers.remove(name);
        }
    }
}

fn append_for(headers: &mut HeaderMap, client: &Client) {
    let mut chain = String::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        let _ = write!(chain, "{}, ", value.to_str().unwrap_or_default());
    }
    let _ = write!(chain, "{}", client.ip);
    let value = HeaderValue::from_str(&chain).unwrap_or_else(|_| client.ip_value.clone());
    headers.insert(X_FORWARDED_FOR, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client::new("::ffff:192.0.2.7".parse().unwrap(), true, 443)
    }

    #[test]
    fn claims_of_untrusted_peers_never_pass() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-forwarded-for",
            "x-forwarded-ssl",
            "forwarded",
            "proxy",
            "x_forwarded_for",
            "x-real-ip",
        ] {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static("6.6.6.6"),
            );
        }
        headers.append("x-forwarded-for", HeaderValue::from_static("7.7.7.7"));
        set(
            &mut headers,
            &client(),
            Some(&HeaderValue::from_static("a.example:8443")),
            false,
        );
        let text = format!("{headers:?}");
        assert!(
            !text.contains("6.6.6.6") && !text.contains("7.7.7.7"),
            "{text}"
        );
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-real-ip"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "a.example:8443");
        assert_eq!(headers["x-forwarded-port"], "443");
    }

    #[test]
    fn trusted_peers_are_continued() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", HeaderValue::from_static("1.1.1.1"));
        headers.append("x-forwarded-for", HeaderValue::from_static("2.2.2.2"));
        headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
        headers.insert("forwarded", HeaderValue::from_static("for=1.1.1.1"));
        set(&mut headers, &client(), None, true);
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 2.2.2.2, 192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["forwarded"], "for=1.1.1.1");
    }
}
