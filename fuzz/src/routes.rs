//! Route tables out of an input, and a search through them as the documentation of `lowport::route` tells it: plain and slow.

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use http::Method;
use lowport::config::{HostMatch, PathMatch, Route};
use regex::Regex;

/// A part of a host's name. Few, so that names meet.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Label {
    A,
    B,
    Www,
    Example,
    Test,
}

/// A part of a path.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Part {
    Slash,
    A,
    B,
    Ab,
    Dot,
    Letter,
}

/// A name, a path and methods to match or to ask for.
#[derive(Debug, Arbitrary)]
pub struct Place {
    labels: Vec<Label>,
    parts: Vec<Part>,
    host: u8,
    path: u8,
    methods: u8,
}

const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "PURGE"];

/// As a configuration makes them out of texts; once, since that takes its time.
static REGEXES: LazyLock<[Regex; 8]> = LazyLock::new(|| {
    let texts = [
        "/a.*",
        "/.*b",
        "/[^/]*",
        "(?:/ab?)+",
        "(?:/[ab]+)*",
        "/+",
        "/.*é.*",
        "(?i)/A",
    ];
    texts.map(|text| Regex::new(&format!("\\A(?:{text})\\z")).expect("a regular expression"))
});

impl Place {
    /// The route that it describes, with whatever else `like` has.
    pub fn route(&self, like: &Route) -> Route {
        let mut route = like.clone();
        route.host = match self.host % 3 {
            0 => HostMatch::Any,
            _ if self.labels.is_empty() => HostMatch::Any,
            1 => HostMatch::Exact(self.name()),
            _ => HostMatch::Wildcard(self.name()),
        };
        route.path = match self.path % 8 {
            0 => PathMatch::Any,
            1 | 2 => PathMatch::Exact(self.text()),
            3 => {
                let regex = &REGEXES[usize::from(self.path / 8) % REGEXES.len()];
                PathMatch::Regex(regex.clone())
            }
            _ => PathMatch::Prefix(self.text().trim_end_matches('/').to_owned()),
        };
        route.methods = (0..METHODS.len())
            .filter(|bit| self.methods >> bit & 1 == 1)
            .filter_map(|bit| METHODS[bit].parse().ok())
            .collect();
        route
    }

    /// The host that it asks for; may be empty.
    pub fn name(&self) -> String {
        let labels = self.labels.iter().take(6).map(|label| match label {
            Label::A => "a",
            Label::B => "b",
            Label::Www => "www",
            Label::Example => "example",
            Label::Test => "test",
        });
        labels.collect::<Vec<_>>().join(".")
    }

    /// The path that it asks for.
    pub fn text(&self) -> String {
        let parts = self.parts.iter().take(12).map(|part| match part {
            Part::Slash => "/",
            Part::A => "/a",
            Part::B => "b",
            Part::Ab => "/ab",
            Part::Dot => "/.",
            Part::Letter => "é",
        });
        let text: String = parts.collect();
        format!("/{}", text.strip_prefix('/').unwrap_or(&text))
    }

    /// The method that it asks for.
    pub fn method(&self) -> Method {
        let method = METHODS[usize::from(self.methods) % METHODS.len()];
        method.parse().expect("a method")
    }
}

/// Whether two routes tie: the same host, the same path, and a method for which neither is the more specific.
pub fn tie(a: &Route, b: &Route) -> bool {
    let path = match (&a.path, &b.path) {
        (PathMatch::Any, PathMatch::Any) => true,
        (PathMatch::Exact(a), PathMatch::Exact(b))
        | (PathMatch::Prefix(a), PathMatch::Prefix(b)) => a == b,
        (PathMatch::Regex(a), PathMatch::Regex(b)) => a.as_str() == b.as_str(),
        _ => false,
    };
    let methods = if a.methods.is_empty() || b.methods.is_empty() {
        a.methods.is_empty() && b.methods.is_empty()
    } else {
        a.methods.iter().any(|method| b.methods.contains(method))
    };
    a.host == b.host && path && methods
}

/// The index of the route that wins: every one is tried, and the best of those that match is kept.
pub fn search(routes: &[Route], host: &str, path: &str, method: &Method) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (index, route) in routes.iter().enumerate() {
        if matches(route, host, path, method)
            && best.is_none_or(|best| beats(route, &routes[best], method))
        {
            best = Some(index);
        }
    }
    best
}

fn matches(route: &Route, host: &str, path: &str, method: &Method) -> bool {
    let host = match &route.host {
        HostMatch::Any => true,
        HostMatch::Exact(name) => host == name,
        HostMatch::Wildcard(parent) => host
            .strip_suffix(parent.as_str())
            .is_some_and(|front| front.ends_with('.')),
    };
    let path = match &route.path {
        PathMatch::Any => true,
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Prefix(prefix) => path
            .strip_prefix(prefix.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        PathMatch::Regex(regex) => regex.is_match(path),
    };
    host && path && (route.methods.is_empty() || takes(route, method))
}

/// A route for GET takes HEAD too.
fn takes(route: &Route, method: &Method) -> bool {
    let methods = &route.methods;
    methods.contains(method) || method == Method::HEAD && methods.contains(&Method::GET)
}

/// Whether the first of two routes that both match is the more specific one.
fn beats(a: &Route, b: &Route, method: &Method) -> bool {
    let host = |route: &Route| match &route.host {
        HostMatch::Exact(_) => (2, 0),
        HostMatch::Wildcard(parent) => (1, parent.len()),
        HostMatch::Any => (0, 0),
    };
    if host(a) != host(b) {
        return host(a) > host(b);
    }
    let path = |route: &Route| match &route.path {
        PathMatch::Exact(_) => (3, 0),
        PathMatch::Prefix(prefix) => (2, prefix.len()),
        PathMatch::Regex(regex) => (1, regex.as_str().len()),
        PathMatch::Any => (0, 0),
    };
    if path(a) != path(b) {
        return path(a) > path(b);
    }
    if let (PathMatch::Regex(a), PathMatch::Regex(b)) = (&a.path, &b.path)
        && a.as_str() != b.as_str()
    {
        return a.as_str() < b.as_str();
    }
    let named = |route: &Route| match route.methods.contains(method) {
        true => 2,
        false => u8::from(!route.methods.is_empty()),
    };
    named(a) > named(b)
}
