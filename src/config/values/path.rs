//! Paths and methods of routes.

use http::Method;
use regex::{Regex, RegexBuilder};

use super::super::PathMatch;
use super::Wrong;
use crate::http::target;

/// Bytes that a compiled expression may take: matching it costs every request.
const REGEX_SIZE: usize = 1 << 20;

/// A prefix without the slash at its end; empty for `/`.
pub(crate) fn prefix(text: &str) -> Result<String, Wrong> {
    if let Some(before) = text.strip_suffix('*') {
        let help = format!(
            "a path covers what is below it: write \"{}\"",
            match before.trim_end_matches('/') {
                "" => "/",
                before => before,
            }
        );
        return Err(Wrong::new("`*` stands for itself here", help));
    }
    let path = exact(text)?;
    Ok(path.strip_suffix('/').map(str::to_owned).unwrap_or(path))
}

/// A whole path, as requests have it after [`target::normalise`].
pub(crate) fn exact(text: &str) -> Result<String, Wrong> {
    if !text.starts_with('/') {
        let help = match text.split_once("://") {
            Some((_, rest)) => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                format!("write host = \"{host}\" and path = \"/{path}\"")
            }
            None => format!("write \"/{text}\""),
        };
        return Err(Wrong::new("a path begins with `/`", help));
    }
    if let Some(at) = text.find(['?', '#']) {
        let help = format!("write \"{}\"", &text[..at]);
        return Err(Wrong::new(
            "routes match the path, not what follows it",
            help,
        ));
    }
    // What RFC 3986 lets a path hold (section 3.3), and percent-encoded bytes.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%\\".contains(&byte);
    if let Some(at) = text.bytes().position(|byte| !plain(byte)) {
        let char = text[at..].chars().next().unwrap_or_default();
        let help = match char {
            '{' | '}' | '<' | '>' | '^' | '|' => {
                "for a pattern write `path_regex`, such as \"/users/[0-9]+\"".to_owned()
            }
            _ => {
                let encoded: String = (char.to_string().bytes())
                    .map(|byte| format!("%{byte:02X}"))
                    .collect();
                format!("requests carry it percent-encoded: write {encoded}")
            }
        };
        let why = format!("{char:?} cannot be in a request's path");
        return Err(Wrong::new(why, help));
    }
    let normal = target::normalise(text);
    if normal != text {
        return Err(Wrong::new(
            "requests are matched by the plain form of their path",
            format!("write \"{normal}\""),
        ));
    }
    Ok(text.to_owned())
}

/// A regular expression over the whole path.
pub(crate) fn regex(text: &str) -> Result<PathMatch, Wrong> {
    let compile = |text: &str| -> Result<Regex, Wrong> {
        RegexBuilder::new(text)
            .size_limit(REGEX_SIZE)
            .build()
            .map_err(|error| {
                let error = error.to_string();
                let why = error.lines().last().unwrap_or_default();
                let why = why.trim_start_matches("error: ").trim_end_matches('.');
                Wrong::new(why, "its syntax: https://docs.rs/regex/#syntax")
            })
    };
    // Alone first: with the anchors around it, `a)|(b` would be one too.
    compile(text)?;
    let anchored = compile(&format!("\\A(?:{text})\\z"))?;
    Ok(PathMatch::Regex(anchored))
}

/// A method, upper case (RFC 9110 section 9.1).
pub(crate) fn method(text: &str) -> Result<Method, Wrong> {
    let upper = text.to_ascii_uppercase();
    if upper == "CONNECT" || upper == "TRACE" {
        return Err(Wrong::new(
            format!("{upper} is never forwarded"),
            "take it out",
        ));
    }
    if upper != text {
        let help = format!("write \"{upper}\"");
        return Err(Wrong::new("methods are upper case", help));
    }
    Method::from_bytes(text.as_bytes())
        .map_err(|_| Wrong::new("this is no method", "write \"GET\", \"POST\" ..."))
}

#[cfg(test)]
mod tests {
    use super::super::refuses;
    use super::*;

    #[test]
    fn prefixes_lose_the_slash_at_their_end() {
        for (text, path) in [
            ("/", ""),
            ("/api", "/api"),
            ("/api/", "/api"),
            ("/a.b/~c;v=1:x", "/a.b/~c;v=1:x"),
            ("/caf%C3%A9", "/caf%C3%A9"),
        ] {
            assert_eq!(prefix(text).as_deref(), Ok(path));
        }
        assert_eq!(exact("/api/").as_deref(), Ok("/api/"));
        assert_eq!(exact("/").as_deref(), Ok("/"));
    }

    #[test]
    fn paths_that_no_request_has_are_refused() {
        refuses(
            prefix,
            &[
                ("", "begins with `/`; write \"/\""),
                ("api", "begins with `/`; write \"/api\""),
                (
                    "http://a.example/x",
                    "write host = \"a.example\" and path = \"/x\"",
                ),
                ("/api/*", "write \"/api\""),
                ("/*", "write \"/\""),
                ("/a?b=c", "not what follows it; write \"/a\""),
                ("/a#b", "not what follows it"),
                ("//a", "write \"/a\""),
                ("/a//b", "write \"/a/b\""),
                ("/a/../b", "write \"/b\""),
                ("/a/./b", "write \"/a/b\""),
                ("/%61", "write \"/a\""),
                ("/a%2Fb", "write \"/a/b\""),
                ("/a\\b", "write \"/a/b\""),
                ("/a b", "write %20"),
                ("/é", "write %C3%A9"),
                ("/users/{id}", "`path_regex`"),
                ("/a\nb", "'\\n' cannot be"),
            ],
        );
    }

    #[test]
    fn expressions_are_anchored_at_both_ends() {
        let matches = |text: &str, path: &str| match regex(text).unwrap() {
            PathMatch::Regex(regex) => regex.is_match(path),
            _ => false,
        };
        assert!(matches("/a|/b", "/b"));
        assert!(!matches("/a|/b", "/bc"));
        assert!(!matches("/a|/b", "/x/a"));
        assert!(!matches("/a$", "/a\n"));
        assert!(matches("^/[0-9]+$", "/12"));
        refuses(
            regex,
            &[
                ("/(a", "unclosed group"),
                ("/a)|(?:/b", "unopened group"),
                ("/[z-a]", "invalid character class range"),
                ("/a{1000}{1000}", "size limit"),
                ("(?=a)", "look-around"),
            ],
        );
    }

    #[test]
    fn methods() {
        assert_eq!(method("GET"), Ok(Method::GET));
        assert_eq!(method("PROPFIND").unwrap().as_str(), "PROPFIND");
        refuses(
            method,
            &[
                ("get", "upper case; write \"GET\""),
                ("CONNECT", "never forwarded"),
                ("trace", "never forwarded"),
                ("", "no method"),
                ("GET POST", "no method"),
            ],
        );
    }
}
