//! Why a request goes where it goes.

use std::fmt;

use http::Method;

use super::order::Rank;
use super::tell;
use crate::config::{HostMatch, PathMatch, Route};

/// Which route wins a request, and why the others do not. As text it ends without a line break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Method, host and path that were asked for
    pub request: String,
    /// The route that wins, and why it matches
    pub winner: Option<Verdict>,
    /// How many routes match, with the winner
    pub matching: usize,
    /// The others and why they do not win, the nearest first; at most [`SHOWN`](Self::SHOWN)
    pub others: Vec<Verdict>,
    /// How many others there are besides
    pub more: usize,
}

/// What is said of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its index in the order of the file
    pub route: usize,
    /// What it matches
    pub matcher: String,
    /// Why it wins or does not
    pub reason: String,
}

/// A request as routes see it.
pub(super) struct Asked<'a> {
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) method: &'a Method,
}

impl Explanation {
    /// How many of the others are told of.
    pub const SHOWN: usize = 10;

    pub(super) fn of(
        asked: &Asked<'_>,
        routes: &[Route],
        order: &[usize],
        winner: Option<usize>,
    ) -> Self {
        let mut losers: Vec<(Nearness, usize, String)> = order
            .iter()
            .filter(|&&index| Some(index) != winner)
            .map(|&index| {
                let (nearness, reason) =
                    why_not(asked, &routes[index], winner.map(|at| &routes[at]));
                (nearness, index, reason)
            })
            .collect();
        // Stable: those that are equally near stay in order of specificity.
        losers.sort_by_key(|(nearness, ..)| *nearness);
        let beaten = losers.iter().filter(|(near, ..)| *near == Nearness::Beaten);
        let verdict = |route: usize, reason: String| Verdict {
            route,
            matcher: tell::matcher(&routes[route]),
            reason,
        };
        Self {
            request: format!("{} {}{}", asked.method, asked.host, asked.path),
            winner: winner.map(|index| verdict(index, why(asked, &routes[index]))),
            matching: beaten.count() + usize::from(winner.is_some()),
            more: losers.len().saturating_sub(Self::SHOWN),
            others: losers
                .into_iter()
                .take(Self::SHOWN)
                .map(|(_, index, reason)| verdict(index, reason))
                .collect(),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.winner {
            Some(winner) => {
                writeln!(f, "{} goes to {winner}.", self.request)?;
                match self.matching {
                    1 => f.write_str("No other route matches.")?,
                    all => write!(f, "It is the most specific of {all} routes that match.")?,
                }
            }
            None => write!(f, "{}: no route matches.", self.request)?,
        }
        if !self.others.is_empty() {
            f.write_str("\n\nWhy not another, the nearest first:")?;
        }
        for other in &self.others {
            write!(f, "\n  {other}")?;
        }
        if self.more > 0 {
            write!(f, "\n  and {} more", self.more)?;
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    /// Routes are counted from 1, as people do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "route {} ({}): {}",
            self.route + 1,
            self.matcher,
            self.reason
        )
    }
}

/// How near a route came, the nearest first. The numbers are edits that would turn one spelling into the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    /// It matches, but a more specific one does too
    Beaten,
    /// Only the method is wrong
    Method,
    /// The host matches, the path does not
    Path(usize),
    /// The path matches, the host does not
    Host(usize),
    Neither(usize),
}

fn why_not(asked: &Asked<'_>, route: &Route, winner: Option<&Route>) -> (Nearness, String) {
    let host = host_miss(&route.host, asked.host);
    let path = path_miss(&route.path, asked.path);
    match (host, path) {
        (Some((distance, reason)), None) => (Nearness::Host(distance), reason),
        (Some((distance, reason)), Some(_)) => (Nearness::Neither(distance), reason),
        (None, Some((distance, reason))) => (Nearness::Path(distance), reason),
        (None, None) => match (method_miss(&route.methods, asked.method), winner) {
            (None, Some(winner)) => (Nearness::Beaten, less_specific(asked, route, winner)),
            (miss, _) => (Nearness::Method, miss.unwrap_or_default()),
        },
    }
}

/// How far off a host is, and what to say of it; `None` when it matches.
fn host_miss(host: &HostMatch, asked: &str) -> Option<(usize, String)> {
    let (name, matches, reason) = match host {
        HostMatch::Any => return None,
        HostMatch::Exact(name) => (name, name == asked, format!("host {name} is another host")),
        HostMatch::Wildcard(parent) => (
            parent,
            asked
                .strip_suffix(parent.as_str())
                .is_some_and(|front| front.ends_with('.')),
            format!("the host is not below {parent}"),
        ),
    };
    (!matches).then(|| (strsim::osa_distance(name, asked), reason))
}

/// How far off a path is, and what to say of it; `None` when it matches.
fn path_miss(path: &PathMatch, asked: &str) -> Option<(usize, String)> {
    let (text, matches, reason) = match path {
        PathMatch::Any => return None,
        PathMatch::Exact(path) => (
            path.as_str(),
            path == asked,
            format!("the path is not {path}"),
        ),
        PathMatch::Prefix(path) => (
            path.as_str(),
            asked
                .strip_prefix(path.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            format!(
                "the path is neither {0} nor below it",
                tell::prefix_text(path)
            ),
        ),
        PathMatch::Regex(regex) => (
            tell::regex_text(regex),
            regex.is_match(asked),
            format!("the path does not match {}", tell::regex_text(regex)),
        ),
    };
    // What is below a prefix does not make it farther.
    let asked = match path {
        PathMatch::Prefix(path) => first_segments(asked, path.split('/').count()),
        _ => asked,
    };
    (!matches).then(|| (strsim::osa_distance(text, asked), reason))
}

/// A path up to its `count`th slash.
fn first_segments(path: &str, count: usize) -> &str {
    let end = path.match_indices('/').nth(count);
    end.map_or(path, |(end, _)| &path[..end])
}

/// What to say when the method is wrong.
fn method_miss(methods: &[Method], asked: &Method) -> Option<String> {
    let takes = methods.is_empty() || methods.contains(asked) || by_get(methods, asked);
    (!takes).then(|| format!("method {asked} is not among {}", tell::list(methods)))
}

/// Whether it is HEAD, and taken on GET's behalf.
fn by_get(methods: &[Method], asked: &Method) -> bool {
    asked == Method::HEAD && !methods.contains(asked) && methods.contains(&Method::GET)
}

/// Why a route that matches loses to the winner: the first thing that differs decides.
fn less_specific(asked: &Asked<'_>, route: &Route, winner: &Route) -> String {
    let than = |ours: String, theirs: String| format!("{ours} is less specific than {theirs}");
    if route.host != winner.host {
        than(tell::host(&route.host), tell::host(&winner.host))
    } else if !Rank::of(route).same_place(&Rank::of(winner)) {
        than(tell::path(&route.path), tell::path(&winner.path))
    } else if by_get(&route.methods, asked.method) {
        than(
            tell::methods(&route.methods),
            "a route that names HEAD".into(),
        )
    } else {
        than("any method".into(), tell::methods(&winner.methods))
    }
}

/// Why a route matches.
fn why(asked: &Asked<'_>, route: &Route) -> String {
    let mut reasons = Vec::new();
    match &route.host {
        HostMatch::Any => {}
        HostMatch::Exact(name) => reasons.push(format!("the host is {name}")),
        HostMatch::Wildcard(parent) => reasons.push(format!("the host is below {parent}")),
    }
    match &route.path {
        PathMatch::Any => {}
        PathMatch::Exact(path) => reasons.push(format!("the path is {path}")),
        PathMatch::Prefix(path) if path == asked.path => {
            reasons.push(format!("the path is {path}"))
        }
        PathMatch::Prefix(path) => {
            reasons.push(format!("the path is below {}", tell::prefix_text(path)));
        }
        PathMatch::Regex(regex) => {
            reasons.push(format!("the path matches {}", tell::regex_text(regex)));
        }
    }
    if by_get(&route.methods, asked.method) {
        reasons.push("HEAD goes where GET goes".into());
    } else if !route.methods.is_empty() {
        reasons.push(format!("{} is among its methods", asked.method));
    }
    if reasons.is_empty() {
        "it takes every request".into()
    } else {
        reasons.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{any, build, exact, prefix, regex, route, wildcard};
    use super::*;

    fn explain(routes: &[Route], host: &str, path: &str, method: &Method) -> String {
        build(routes)
            .explain(routes, host, path, method)
            .to_string()
    }

    #[test]
    fn the_winner_and_why_not_the_others() {
        let routes = [
            route(any(), PathMatch::Any, ""),
            route(exact("example.com"), prefix("/api"), ""),
            route(exact("example.com"), prefix("/api/x"), "GET HEAD"),
            route(exact("example.com"), prefix("/api/x"), ""),
            route(wildcard("com"), PathMatch::Exact("/api/x".into()), ""),
            route(exact("example.com"), prefix("/api/x"), "POST"),
            route(exact("example.com"), prefix("/apo"), ""),
            route(exact("other.example"), prefix("/api"), ""),
            route(exact("other.example"), prefix("/x"), ""),
            route(wildcard("other.example"), PathMatch::Any, ""),
            route(exact("example.com"), regex("/[a-z]+"), ""),
            route(exact("example.com"), PathMatch::Exact("/api/".into()), ""),
        ];
        assert_eq!(
            explain(&routes, "example.com", "/api/x", &Method::POST),
            "\
POST example.com/api/x goes to route 6 (host example.com, path /api/x, method POST): the host is example.com, \
the path is /api/x, POST is among its methods.
It is the most specific of 5 routes that match.

Why not another, the nearest first:
  route 4 (host example.com, path /api/x): any method is less specific than method POST
  route 2 (host example.com, path /api): path /api is less specific than path /api/x
  route 5 (host *.com, path_exact /api/x): host *.com is less specific than host example.com
  route 1 (any host, any path): any host is less specific than host example.com
  route 3 (host example.com, path /api/x, methods GET, HEAD): method POST is not among GET, HEAD
  route 12 (host example.com, path_exact /api/): the path is not /api/
  route 7 (host example.com, path /apo): the path is neither /apo nor below it
  route 11 (host example.com, path_regex /[a-z]+): the path does not match /[a-z]+
  route 8 (host other.example, path /api): host other.example is another host
  route 10 (host *.other.example, any path): the host is not below other.example
  and 1 more"
        );
    }

    #[test]
    fn nothing_matches() {
        let routes = [
            route(exact("b.example"), PathMatch::Any, ""),
            route(exact("a.example"), prefix("/b"), ""),
            route(exact("a.example"), prefix("/aip"), ""),
        ];
        assert_eq!(
            explain(&routes, "a.example", "/api/users/1", &Method::GET),
            "\
GET a.example/api/users/1: no route matches.

Why not another, the nearest first:
  route 3 (host a.example, path /aip): the path is neither /aip nor below it
  route 2 (host a.example, path /b): the path is neither /b nor below it
  route 1 (host b.example, any path): host b.example is another host"
        );
        assert_eq!(
            explain(&[], "a.example", "/", &Method::GET),
            "GET a.example/: no route matches."
        );
    }

    #[test]
    fn a_single_route_takes_everything() {
        let routes = [route(any(), PathMatch::Any, "")];
        assert_eq!(
            explain(&routes, "", "/", &Method::GET),
            "GET / goes to route 1 (any host, any path): it takes every request.\nNo other route matches."
        );
    }

    #[test]
    fn head_is_told_of() {
        let routes = [
            route(any(), prefix("/a"), "GET"),
            route(wildcard("example"), prefix("/a"), "HEAD"),
            route(wildcard("example"), prefix("/a"), "GET"),
        ];
        assert_eq!(
            explain(&routes, "a.example", "/a/b", &Method::HEAD),
            "\
HEAD a.example/a/b goes to route 2 (host *.example, path /a, method HEAD): the host is below example, \
the path is below /a, HEAD is among its methods.
It is the most specific of 3 routes that match.

Why not another, the nearest first:
  route 3 (host *.example, path /a, method GET): method GET is less specific than a route that names HEAD
  route 1 (any host, path /a, method GET): any host is less specific than host *.example"
        );
        assert!(
            explain(&routes, "", "/a", &Method::HEAD)
                .contains("the path is /a, HEAD goes where GET goes.\n")
        );
    }

    #[test]
    fn nearer_spellings_come_first_and_the_rest_is_counted() {
        let hosts = (0..100).map(|n| route(exact(&format!("h{n}.example")), PathMatch::Any, ""));
        let routes: Vec<Route> = hosts.collect();
        let told = build(&routes).explain(&routes, "h42.exmaple", "/", &Method::GET);
        assert_eq!((told.others.len(), told.more), (Explanation::SHOWN, 90));
        assert_eq!(told.others[0].matcher, "host h42.example, any path");
        assert_eq!((told.winner, told.matching), (None, 0));
    }
}
