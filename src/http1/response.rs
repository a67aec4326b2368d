//! The head of a response as an upstream sends it (RFC 9112 sections 4 and 6).

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};

use crate::http::hop::{self, Persistence};

/// Fields of a response at most.
const FIELDS: usize = 128;

/// A response's head, and what follows it.
#[derive(Debug)]
pub struct Head {
    /// The head itself. Fields are slices of the bytes that were read
    pub response: Response<()>,
    /// Where its body ends
    pub framing: Framing,
    /// Whether the connection may be used again
    pub keep_alive: bool,
}

/// Where a response's body ends (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes
    Length(u64),
    /// With the last chunk
    Chunked,
    /// With the connection
    Close,
}

/// What is wrong with a response.
pub type Malformed = &'static str;

/// Takes the head of the response to a request of `method` off the front of `buf`, once it is there whole. `buf` must be
/// smaller than 4 GiB.
///
/// # Errors
/// What is wrong with it.
pub fn parse(buf: &mut BytesMut, method: &Method) -> Result<Option<Head>, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, buf, &mut fields)
        .map_err(why)?;
    let httparse::Status::Complete(length) = status else {
        return Ok(None);
    };
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else {
        return Err("no status line");
    };
    let status = StatusCode::from_u16(code).map_err(|_| "a status below 100")?;
    // Where each name and value stands: `buf` is cut before they are made.
    let start = buf.as_ptr() as usize;
    let place = |bytes: &[u8]| {
        let at = bytes.as_ptr() as usize - start;
        (at as u32, (at + bytes.len()) as u32)
    };
    let mut places = [((0, 0), (0, 0)); FIELDS];
    let count = parsed.headers.len();
    for (slot, field) in places.iter_mut().zip(parsed.headers.iter()) {
        *slot = (place(field.name.as_bytes()), place(field.value));
    }
    let bytes = buf.split_to(length).freeze();
    let mut headers = HeaderMap::with_capacity(count);
    let mut seen = Seen::default();
    for (name, value) in &places[..count] {
        let name = HeaderName::from_bytes(&bytes[name.0 as usize..name.1 as usize])
            .map_err(|_| "a field whose name is too long")?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(value.0 as usize..value.1 as usize))
            .map_err(|_| "a field with a control character")?;
        seen.note(&name, &value)?;
        headers.append(name, value);
    }
    let version = if minor == 1 {
        Version::HTTP_11
    } else {
        Version::HTTP_10
    };
    let keep_alive = !seen.persistence.ends(version);
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let framing = match (seen.length, seen.chunked) {
        (Some(_), true) => return Err("both a Content-Length and a Transfer-Encoding"),
        (_, true) if minor == 0 => return Err("a Transfer-Encoding in HTTP/1.0"),
        _ if bodiless => Framing::Length(0),
        (Some(length), false) => Framing::Length(length),
        (None, true) => Framing::Chunked,
        (None, false) => Framing::Close,
    };
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        // It must not be there (RFC 9110 section 8.6), and is not passed on.
        headers.remove(header::CONTENT_LENGTH);
    }
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(Some(Head {
        response,
        framing,
        keep_alive,
    }))
}

/// Reads the trailers of a chunked body: lines of fields and an empty one.
///
/// # Errors
/// What is wrong with them.
pub fn trailers(bytes: &[u8]) -> Result<HeaderMap, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let httparse::Status::Complete((_, fields)) =
        httparse::parse_headers(bytes, &mut fields).map_err(why)?
    else {
        return Err("trailers that do not end");
    };
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| "a bad trailer")?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| "a bad trailer")?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn why(error: httparse::Error) -> Malformed {
    match error {
        httparse::Error::HeaderName => "a field whose name is not valid",
        httparse::Error::HeaderValue => "a field with a control character",
        httparse::Error::NewLine => "a line that does not end as it should",
        httparse::Error::Status => "a status that is not three digits",
        httparse::Error::Token => "a reason with a control character",
        httparse::Error::TooManyHeaders => "more than 128 fields",
        httparse::Error::Version => "no status line of HTTP/1",
    }
}

/// What fields say about framing.
#[derive(Debug, Default)]
struct Seen {
    length: Option<u64>,
    chunked: bool,
    persistence: Persistence,
}

impl Seen {
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), Malformed> {
        match *name {
            header::CONTENT_LENGTH => {
                let digits = value.as_bytes();
                let fine = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
                let length = value.to_str().ok().filter(|_| fine);
                let length = length
                    .and_then(|digits| digits.parse::<u64>().ok())
                    .ok_or("a Content-Length that is not one number")?;
                if self.length.replace(length).is_some() {
                    return Err("several Content-Length fields");
                }
            }
            header::TRANSFER_ENCODING => {
                if self.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    return Err("a Transfer-Encoding other than chunked");
                }
                self.chunked = true;
            }
            header::CONNECTION => {
                for token in hop::tokens(value) {
                    self.persistence.note(token);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, method: Method) -> Result<Option<Head>, Malformed> {
        parse(&mut BytesMut::from(text), &method)
    }

    #[test]
    fn bodies_end_where_the_head_says() {
        let get = Method::GET;
        for (head, method, framing, keep_alive) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                &get,
                Framing::Length(5),
                true,
            ),
            (
                "HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n",
                &get,
                Framing::Chunked,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n",
                &get,
                Framing::Close,
                false,
            ),
            ("HTTP/1.0 200 OK\r\n\r\n", &get, Framing::Close, false),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
                &get,
                Framing::Length(0),
                true,
            ),
            (
                "HTTP/1.1 304 \r\nContent-Length: 5\r\n\r\n",
                &get,
                Framing::Length(0),
                true,
            ),
            (
                "HTTP/1.1 204 \r\nTransfer-Encoding: chunked\r\n\r\n",
                &get,
                Framing::Length(0),
                true,
            ),
            (
                "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n",
                &Method::HEAD,
                Framing::Length(0),
                true,
            ),
            (
                "HTTP/1.1 103 \r\nLink: </a>\r\n\r\n",
                &get,
                Framing::Length(0),
                true,
            ),
        ] {
            let found = parsed(head, method.clone()).unwrap().unwrap();
            assert_eq!(
                (found.framing, found.keep_alive),
                (framing, keep_alive),
                "{head:?}"
            );
        }
    }

    #[test]
    fn a_head_is_taken_off_when_it_is_whole() {
        let whole = "HTTP/1.1 200 OK\r\nX: y\r\nx: z\r\n\r\nrest";
        for end in 1..whole.len() - 4 {
            assert!(
                parsed(&whole[..end], Method::GET).unwrap().is_none(),
                "{end}"
            );
        }
        let mut buf = BytesMut::from(whole);
        let head = parse(&mut buf, &Method::GET).unwrap().unwrap();
        let values: Vec<_> = head.response.headers().get_all("x").iter().collect();
        assert_eq!(values, ["y", "z"]);
        assert_eq!(buf, "rest");
    }

    #[test]
    fn what_may_be_meant_otherwise_is_malformed() {
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length: ",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: identity",
            "A: b\r\n folded",
            "A : b",
            "A: b\0",
            "A: b\rc",
            "A b",
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
            assert!(parsed(&head, Method::GET).is_err(), "{fields:?}");
        }
        for line in [
            "HTTP/2 200 OK",
            "HTTP/1.1 20 OK",
            "HTTP/1.1 099 OK",
            "nonsense",
            "HTTP/1.1 2x0",
        ] {
            assert!(
                parsed(&format!("{line}\r\n\r\n"), Method::GET).is_err(),
                "{line}"
            );
        }
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(parsed(old, Method::GET).is_err());
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(FIELDS + 1));
        assert!(parsed(&many, Method::GET).is_err());
    }

    #[test]
    fn a_204_has_no_length_to_pass_on() {
        let head = parsed("HTTP/1.1 204 \r\nContent-Length: 5\r\n\r\n", Method::GET);
        assert!(head.unwrap().unwrap().response.headers().is_empty());
    }

    #[test]
    fn trailers_are_fields() {
        let found = trailers(b"X-Sum: 1\r\nx-sum: 2\r\n\r\n").unwrap();
        let values: Vec<_> = found.get_all("x-sum").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert!(trailers(b"\r\n").unwrap().is_empty());
        assert!(trailers(b"bad\r\n\r\n").is_err());
    }
}
