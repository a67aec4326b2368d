//! WebSocket upgrades, over HTTP/1.1 (RFC 6455 section 4) and HTTP/2 (RFC 8441).

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Version};
use hyper::ext::Protocol;

/// How a request asks for a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// `Connection: Upgrade` and `Upgrade: websocket`; answered with 101
    Http1,
    /// Extended CONNECT with `:protocol` websocket; answered with 200
    Http2,
}

/// Whether the request asks for a WebSocket. Every other upgrade token, `h2c` too, is ignored and stripped as RFC 9110
/// section 7.8 allows: a server behind an `upgrade` listener would take whatever reached it.
pub fn wanted<B>(request: &Request<B>) -> Option<Upgrade> {
    match request.version() {
        Version::HTTP_11 => {
            let wanted = request.headers().contains_key(header::UPGRADE)
                && request.method() == Method::GET
                && super::hop::has_token(request.headers(), &header::CONNECTION, "upgrade")
                && super::hop::has_token(request.headers(), &header::UPGRADE, "websocket");
            wanted.then_some(Upgrade::Http1)
        }
        Version::HTTP_2 => {
            let protocol = request.extensions().get::<Protocol>()?;
            (request.method() == Method::CONNECT && protocol.as_str() == "websocket")
                .then_some(Upgrade::Http2)
        }
        _ => None,
    }
}

/// Puts back the fields of the upgrade that stripping took off. `key` is the `Sec-WebSocket-Key` where the client, over
/// HTTP/2, has none.
pub fn request(headers: &mut HeaderMap, upgrade: Upgrade, key: impl FnOnce() -> HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if upgrade == Upgrade::Http2 {
        headers.insert(header::SEC_WEBSOCKET_KEY, key());
        headers
            .entry(header::SEC_WEBSOCKET_VERSION)
            .or_insert(HeaderValue::from_static("13"));
    }
}

/// Turns the head of the app's 101 into the one for the client; the status to answer with.
pub fn response(headers: &mut HeaderMap, upgrade: Upgrade) -> StatusCode {
    match upgrade {
        Upgrade::Http1 => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            StatusCode::SWITCHING_PROTOCOLS
        }
        Upgrade::Http2 => {
            headers.remove(header::SEC_WEBSOCKET_ACCEPT);
            StatusCode::OK
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(upgrade: &str, connection: &str) -> Request<()> {
        Request::builder()
            .header("upgrade", upgrade)
            .header("connection", connection)
            .body(())
            .unwrap()
    }

    #[test]
    fn only_websocket_is_passed() {
        assert_eq!(
            wanted(&get("WebSocket", "keep-alive, Upgrade")),
            Some(Upgrade::Http1)
        );
        assert_eq!(wanted(&get("h2c", "Upgrade")), None);
        assert_eq!(wanted(&get("websocket", "keep-alive")), None);
        let mut post = get("websocket", "upgrade");
        *post.method_mut() = Method::POST;
        assert_eq!(wanted(&post), None);
    }

    #[test]
    fn extended_connect_is_a_websocket() {
        let request = Request::builder()
            .method(Method::CONNECT)
            .version(Version::HTTP_2)
            .extension(Protocol::from_static("websocket"))
            .body(())
            .unwrap();
        assert_eq!(wanted(&request), Some(Upgrade::Http2));
    }

    #[test]
    fn http2_gets_the_fields_that_http1_needs() {
        let mut headers = HeaderMap::new();
        request(&mut headers, Upgrade::Http2, || {
            HeaderValue::from_static("key")
        });
        assert_eq!(headers["sec-websocket-key"], "key");
        assert_eq!(headers["sec-websocket-version"], "13");
        headers.insert("sec-websocket-accept", HeaderValue::from_static("x"));
        assert_eq!(response(&mut headers, Upgrade::Http2), 200);
        assert!(!headers.contains_key("sec-websocket-accept"));
    }
}
