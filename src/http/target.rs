//! The request target's path, as routes see it.

use std::borrow::Cow;

use http::uri::Scheme;
use http::{Method, Request};

/// Refuses the forms of a target that belong to other methods: `*` is for OPTIONS, a host alone for CONNECT (RFC 9112
/// section 3.2). HTTP/2 can leave the path out (RFC 9113 section 8.3.1).
///
/// # Errors
/// What to tell the client.
pub fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let (uri, method) = (request.uri(), request.method());
    let no_path = uri.path().is_empty() || uri.scheme().is_none() && uri.authority().is_some();
    if no_path && method != Method::CONNECT || uri.path() == "*" && method != Method::OPTIONS {
        return Err("The request's target is not one that its method can have.");
    }
    if uri
        .scheme()
        .is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS)
    {
        return Err("The request's target is of another scheme than http and https.");
    }
    Ok(())
}

/// Whether the target is an `https://` address: an absolute one, as HTTP/2 has it always.
pub fn is_https<B>(request: &Request<B>) -> bool {
    request.uri().scheme() == Some(&Scheme::HTTPS)
}

/// The path that a server which decodes and resolves it would see (RFC 3986 section 6.2.2): percent-encoded unreserved
/// characters decoded, dot segments resolved, runs of slashes made one.
///
/// Routes are matched on the raw path and, where the two differ, on this one as well: a request whose two readings choose
/// different routes is refused, so that no spelling of a path opens a way around a route. What goes upstream is the raw
/// path. Borrows, without a second look, when there is nothing to normalise.
pub fn normalise(path: &str) -> Cow<'_, str> {
    if is_normal(path.as_bytes()) {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(resolve(&decode(path)))
    }
}

fn is_normal(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        match byte {
            b'%' | b'\\' => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = byte == b'/',
        }
    }
    true
}

/// Decodes what a lenient server might: unreserved characters, and the slashes and backslashes that move a path. An escape
/// that decoding makes is decoded too: after it, there is none left.
fn decode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        out.push(slash(character));
        while let Some(decoded) = last_escape(out.as_bytes()) {
            out.truncate(out.len() - 3);
            out.push(slash(decoded));
        }
    }
    out
}

fn slash(character: char) -> char {
    if character == '\\' { '/' } else { character }
}

/// What the escape at the end stands for, if there is one to decode.
fn last_escape(bytes: &[u8]) -> Option<char> {
    let [.., b'%', high, low] = bytes else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let decoded = char::from_u32(digit(*high)? * 16 + digit(*low)?)?;
    (decoded.is_ascii_alphanumeric() || "-._~/\\".contains(decoded)).then_some(decoded)
}

fn resolve(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut folder = true;
    for segment in path.split('/') {
        folder = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if folder || out.is_empty() {
        out.push('/');
    }
    out
}

/// Takes `prefix` (no slash at its end) off the front of a path with its query, on a segment boundary. What is left
/// begins with `/`. `None` when the path is not below the prefix.
pub fn strip_prefix<'a>(path_and_query: &'a str, prefix: &str) -> Option<Cow<'a, str>> {
    let rest = path_and_query.strip_prefix(prefix)?;
    match rest.as_bytes().first() {
        Some(b'/') => Some(Cow::Borrowed(rest)),
        None => Some(Cow::Borrowed("/")),
        Some(b'?') => Some(Cow::Owned(format!("/{rest}"))),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_of_a_form_that_their_method_can_have() {
        for (method, target, fine) in [
            ("GET", "/", true),
            ("GET", "http://a.test", true),
            ("GET", "HTTPS://a.test/", true),
            ("GET", "ftp://a.test/", false),
            ("GET", "://a.test/", false),
            ("GET", "*", false),
            ("GET", "a.test", false),
            ("GET", "a.test:80", false),
            ("OPTIONS", "*", true),
            ("OPTIONS", "a.test:80", false),
            ("CONNECT", "a.test:80", true),
        ] {
            let request = Request::builder().method(method).uri(target).body(());
            let checked = check(&request.unwrap());
            assert_eq!(checked.is_ok(), fine, "{method} {target}");
        }
    }

    #[test]
    fn only_an_absolute_target_says_https() {
        for (target, https) in [
            ("https://a.test/", true),
            ("HTTPS://a.test", true),
            ("http://a.test/https://", false),
            ("/https://a.test/", false),
            ("*", false),
        ] {
            let request = Request::builder().uri(target).body(());
            assert_eq!(is_https(&request.unwrap()), https, "{target}");
        }
    }

    #[test]
    fn plain_paths_are_borrowed() {
        for path in ["/", "/a/b.c", "/a/b/", "/a;x=1/b", "*"] {
            assert!(
                matches!(normalise(path), Cow::Borrowed(same) if same == path),
                "{path}"
            );
        }
    }

    #[test]
    fn spellings_of_one_path_become_one() {
        for (path, normal) in [
            ("//admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("/x/../admin", "/admin"),
            ("/x/%2e%2E/admin", "/admin"),
            ("/x%2F..%2fadmin", "/admin"),
            ("/./admin/.", "/admin/"),
            ("/x\\..\\admin", "/admin"),
            ("/../../admin", "/admin"),
            ("/a//", "/a/"),
            ("/..", "/"),
            ("/%zz/%4", "/%zz/%4"),
            ("/%20", "/%20"),
            ("/%é/a", "/%é/a"),
            // What decoding makes an escape of is decoded too.
            ("/%%361dmin", "/admin"),
            ("/%%%3361", "/a"),
            ("/x/%%32%45./a", "/a"),
        ] {
            assert_eq!(normalise(path), normal, "{path}");
            assert_eq!(normalise(normal), normal, "{path}");
        }
    }

    #[test]
    fn prefixes_end_at_segments() {
        assert_eq!(strip_prefix("/api/x?q", "/api").as_deref(), Some("/x?q"));
        assert_eq!(strip_prefix("/api", "/api").as_deref(), Some("/"));
        assert_eq!(strip_prefix("/api?q=1", "/api").as_deref(), Some("/?q=1"));
        assert_eq!(strip_prefix("/apix", "/api"), None);
        assert_eq!(strip_prefix("/api%2Fx", "/api"), None);
    }
}
