//! The head of a request as an upstream gets it (RFC 9112 section 3).

use std::io::Write;

use http::{HeaderMap, HeaderName, Method, header, request};

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none
    None,
    /// So many bytes
    Length(u64),
    /// In chunks
    Chunked,
}

/// Writes the head of a request. Whatever its fields say about framing, `framing` is what is said.
pub fn encode(head: &request::Parts, framing: Framing, out: &mut Vec<u8>) {
    let target = head.uri.path_and_query();
    let target = target.map_or("/", |target| target.as_str());
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    if target.starts_with('?') {
        // What an absolute target without a path leaves (RFC 9112 section 3.2.1).
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &head.headers {
        if *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING {
            field(out, name, value.as_bytes());
        }
    }
    match framing {
        Framing::Length(length) => {
            // Writing to memory does not fail.
            let _ = write!(out, "content-length: {length}\r\n\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"),
        // A server may wait for a body where the method has one, and is told that there is none (RFC 9110 section 8.6).
        Framing::None
            if head.headers.contains_key(header::CONTENT_LENGTH)
                || matches!(head.method, Method::POST | Method::PUT | Method::PATCH) =>
        {
            out.extend_from_slice(b"content-length: 0\r\n\r\n");
        }
        Framing::None => out.extend_from_slice(b"\r\n"),
    }
}

/// Writes the line in front of a chunk of `size` bytes; at least one.
pub fn chunk_size(out: &mut Vec<u8>, size: usize) {
    let _ = write!(out, "{size:x}\r\n");
}

/// Writes the last chunk and the trailers.
pub fn last_chunk(out: &mut Vec<u8>, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        field(out, name, value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn encoded(method: &str, fields: &[(&'static str, &'static str)], framing: Framing) -> String {
        let mut builder = Request::builder().method(method).uri("/a?b");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        let (head, ()) = builder.body(()).unwrap().into_parts();
        let mut out = Vec::new();
        encode(&head, framing, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn framing_is_ours_alone() {
        let claims = &[
            ("content-length", "7"),
            ("transfer-encoding", "gzip"),
            ("host", "a"),
        ];
        for (framing, said) in [
            (
                Framing::Length(1234567890),
                "content-length: 1234567890\r\n",
            ),
            (Framing::Length(0), "content-length: 0\r\n"),
            (Framing::Chunked, "transfer-encoding: chunked\r\n"),
            (Framing::None, "content-length: 0\r\n"),
        ] {
            let head = encoded("PUT", claims, framing);
            assert_eq!(head, format!("PUT /a?b HTTP/1.1\r\nhost: a\r\n{said}\r\n"));
        }
        let get = encoded("GET", &[("host", "a")], Framing::None);
        assert_eq!(get, "GET /a?b HTTP/1.1\r\nhost: a\r\n\r\n");
        let post = encoded("POST", &[], Framing::None);
        assert_eq!(post, "POST /a?b HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
    }

    #[test]
    fn a_target_has_a_path() {
        let (head, ()) = Request::builder()
            .uri("http://a.test?b")
            .body(())
            .unwrap()
            .into_parts();
        let mut out = Vec::new();
        encode(&head, Framing::None, &mut out);
        assert!(out.starts_with(b"GET /?b HTTP/1.1\r\n"));
    }

    #[test]
    fn trailers_come_behind_the_last_chunk() {
        let mut trailers = HeaderMap::new();
        trailers.append("x-sum", HeaderValue::from_static("1"));
        trailers.append("x-sum", HeaderValue::from_static("2"));
        let mut out = Vec::new();
        last_chunk(&mut out, &trailers);
        assert_eq!(out, b"0\r\nx-sum: 1\r\nx-sum: 2\r\n\r\n");
    }
}
