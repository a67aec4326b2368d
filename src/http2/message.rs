//! What is malformed (RFC 9113 section 8.1.1) though hyper's library lets it pass.

use http::{HeaderMap, Request, header};

/// Checks a request that came over HTTP/2.
///
/// # Errors
/// What to tell the client: a `:path` that is no path, a `content-length` that is not one number below 2^63, a field whose
/// value begins or ends with white space.
pub fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let target = request.uri().path_and_query();
    if target.is_some_and(|target| target.as_str().starts_with('?')) {
        return Err("The request's path does not begin with a slash.");
    }
    if let Some(scheme) = request.uri().scheme_str()
        && !["http", "https"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return Err("The request's scheme is neither http nor https.");
    }
    if !has_one_length(request.headers()) {
        return Err("The request's Content-Length is not one number.");
    }
    if request
        .headers()
        .values()
        .any(|value| is_padded(value.as_bytes()))
    {
        return Err("A header field begins or ends with white space.");
    }
    Ok(())
}

/// The library takes an empty length for 0, and one that is repeated for one.
fn has_one_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return true;
    };
    let length = length.to_str().ok().and_then(|text| text.parse().ok());
    lengths.next().is_none() && length.is_some_and(|length: u64| length <= i64::MAX as u64)
}

/// RFC 9113 section 8.2.1. HTTP/1.1 has no way to say such a value: behind the proxy it would be another.
fn is_padded(value: &[u8]) -> bool {
    let white = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    white(value.first()) || white(value.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(uri: &str, fields: &[(&str, &str)]) -> Result<(), &'static str> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap())
    }

    #[test]
    fn one_length_or_none() {
        assert_eq!(checked("/", &[("content-length", "007")]), Ok(()));
        for wrong in [
            &["0", "0"][..],
            &[""],
            &["9223372036854775808"],
            &["1, 1"],
            &["x"],
        ] {
            let fields: Vec<_> = wrong.iter().map(|text| ("content-length", *text)).collect();
            assert!(checked("/", &fields).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn white_space_belongs_inside_of_values() {
        assert_eq!(checked("/", &[("x", "a b\tc"), ("y", "")]), Ok(()));
        for wrong in [" a", "a ", "\ta", "a\t", " "] {
            assert!(checked("/", &[("x", "a"), ("y", wrong)]).is_err());
        }
    }

    #[test]
    fn only_web_addresses() {
        assert_eq!(checked("https://a.test/?q", &[]), Ok(()));
        assert!(checked("https://a.test?q", &[]).is_err());
        assert!(checked("ftp://a.test/", &[]).is_err());
    }
}
