//! What routes match, in words: the keys of the file, without its quotes.

use http::Method;

use crate::config::{HostMatch, PathMatch, Route};

/// What a route matches: `host example.com, path /api, methods GET, POST`.
pub fn matcher(route: &Route) -> String {
    if route.methods.is_empty() {
        place(route)
    } else {
        format!("{}, {}", place(route), methods(&route.methods))
    }
}

/// The same in three columns: host, path, methods. The last is empty for all methods.
pub fn columns(route: &Route) -> [String; 3] {
    let methods = match route.methods.as_slice() {
        [] => String::new(),
        some => methods(some),
    };
    [host(&route.host), path(&route.path), methods]
}

/// Host and path of a route.
pub(super) fn place(route: &Route) -> String {
    format!("{}, {}", host(&route.host), path(&route.path))
}

/// `host example.com`, `host *.example.com` or `any host`.
pub(super) fn host(host: &HostMatch) -> String {
    match host {
        HostMatch::Any => "any host".into(),
        HostMatch::Exact(name) => format!("host {name}"),
        HostMatch::Wildcard(parent) => format!("host *.{parent}"),
    }
}

/// `path /api`, `path_exact /api`, `path_regex /api/[0-9]+` or `any path`.
pub(super) fn path(path: &PathMatch) -> String {
    match path {
        PathMatch::Any => "any path".into(),
        PathMatch::Exact(path) => format!("path_exact {path}"),
        PathMatch::Prefix(path) => format!("path {}", prefix_text(path)),
        PathMatch::Regex(regex) => format!("path_regex {}", regex_text(regex)),
    }
}

/// A prefix as it was written: the root has lost its slash.
pub(super) fn prefix_text(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// A regular expression as it was written, without the anchors that loading puts around it.
pub(super) fn regex_text(regex: &regex::Regex) -> &str {
    let text = regex.as_str();
    let written = text
        .strip_prefix("\\A(?:")
        .and_then(|text| text.strip_suffix(")\\z"));
    written.unwrap_or(text)
}

/// `method GET` or `methods GET, POST`.
pub(super) fn methods(methods: &[Method]) -> String {
    let plural = if methods.len() == 1 { "" } else { "s" };
    format!("method{plural} {}", list(methods))
}

/// `GET, POST`
pub(super) fn list(methods: &[Method]) -> String {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{any, exact, prefix, regex, route, wildcard};
    use super::*;

    #[test]
    fn routes_are_told_as_they_were_written() {
        let told = |host, path, methods| matcher(&route(host, path, methods));
        assert_eq!(told(any(), PathMatch::Any, ""), "any host, any path");
        assert_eq!(
            told(exact("a.example"), prefix("/api"), "GET"),
            "host a.example, path /api, method GET"
        );
        assert_eq!(
            told(wildcard("a.example"), regex("/x|/y"), "GET PURGE"),
            "host *.a.example, path_regex /x|/y, methods GET, PURGE"
        );
        assert_eq!(
            told(any(), PathMatch::Exact("/".into()), ""),
            "any host, path_exact /"
        );
        assert_eq!(told(any(), prefix(""), ""), "any host, path /");
        assert_eq!(
            columns(&route(any(), prefix("/a"), "GET")),
            ["any host", "path /a", "method GET"]
        );
        assert_eq!(columns(&route(any(), prefix("/a"), ""))[2], "");
        let bare = PathMatch::Regex(regex::Regex::new("^/a$").unwrap());
        assert_eq!(told(any(), bare, ""), "any host, path_regex ^/a$");
    }
}
