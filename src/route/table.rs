//! The table itself: from host, path and method to a route.

use http::Method;

use super::explain::{self, Explanation};
use super::order;
use super::paths::{Map, Paths};
use crate::config::{HostMatch, Mistakes, Route};

/// Finds the route for a request in a time that depends on the request only, not on the number of routes (but for regular
/// expressions: those of the host are tried in turn once one of them is known to match).
#[derive(Debug)]
pub struct RouteTable {
    exact: Map<Paths>,
    /// By what is behind `*.`
    wildcards: Map<Paths>,
    /// Bytes of the longest key of `wildcards`: no longer end of a host is worth a look
    longest_wildcard: usize,
    any: Paths,
    /// All routes, most specific first
    order: Box<[usize]>,
}

impl RouteTable {
    /// Makes the table of `routes`, whose indexes it hands out. Routes that tie are mistakes.
    pub fn build(routes: &[Route], mistakes: &Mistakes) -> Self {
        let order = order::order(routes);
        order::report_ties(routes, &order, mistakes);
        let mut table = Self {
            exact: Map::default(),
            wildcards: Map::default(),
            longest_wildcard: 0,
            any: Paths::default(),
            order,
        };
        for &index in &table.order {
            let route = &routes[index];
            let paths = match &route.host {
                HostMatch::Exact(name) => table.exact.entry(name.as_str().into()).or_default(),
                HostMatch::Wildcard(parent) => {
                    table.longest_wildcard = table.longest_wildcard.max(parent.len());
                    table.wildcards.entry(parent.as_str().into()).or_default()
                }
                HostMatch::Any => &mut table.any,
            };
            paths.add(index, route);
        }
        let hosts = table.exact.values_mut().chain(table.wildcards.values_mut());
        hosts.chain([&mut table.any]).for_each(Paths::finish);
        table.exact.shrink_to_fit();
        table.wildcards.shrink_to_fit();
        table
    }

    /// The index of the route for a request, by the order that [the module](super) tells. `host` is lower case and without
    /// port, empty when the client named none; `path` is without query. A route for GET takes HEAD too.
    ///
    /// Total, and allocates and locks nothing of its own (a regular expression takes its scratch space from its pool).
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Option<usize> {
        let exact = self.exact.get(host);
        exact
            .and_then(|paths| paths.find(path, method))
            .or_else(|| self.find_wildcard(host, path, method))
            .or_else(|| self.any.find(path, method))
    }

    /// The routes' indexes in the order in which they are matched: of those that match, the first wins.
    pub fn ordered(&self) -> Vec<usize> {
        self.order.to_vec()
    }

    /// Says which of the `routes` that this table was built from wins, and why the others do not.
    pub fn explain(
        &self,
        routes: &[Route],
        host: &str,
        path: &str,
        method: &Method,
    ) -> Explanation {
        let winner = self.find(host, path, method);
        let asked = explain::Asked { host, path, method };
        Explanation::of(&asked, routes, &self.order, winner)
    }

    /// Takes one label after the other off the front of the host, so that the longest wildcard comes first.
    fn find_wildcard(&self, host: &str, path: &str, method: &Method) -> Option<usize> {
        if self.wildcards.is_empty() {
            return None;
        }
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            let paths = if parent.len() <= self.longest_wildcard {
                self.wildcards.get(parent)
            } else {
                None
            };
            if let Some(found) = paths.and_then(|paths| paths.find(path, method)) {
                return Some(found);
            }
            rest = parent;
        }
        None
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Action, Limits, Memory, PathMatch, Source, Timeouts};

    pub(in super::super) fn any() -> HostMatch {
        HostMatch::Any
    }

    pub(in super::super) fn exact(name: &str) -> HostMatch {
        HostMatch::Exact(name.into())
    }

    pub(in super::super) fn wildcard(parent: &str) -> HostMatch {
        HostMatch::Wildcard(parent.into())
    }

    pub(in super::super) fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.into())
    }

    pub(in super::super) fn regex(text: &str) -> PathMatch {
        PathMatch::Regex(regex::Regex::new(&format!("\\A(?:{text})\\z")).unwrap())
    }

    /// A route; `methods` are separated by spaces.
    pub(in super::super) fn route(host: HostMatch, path: PathMatch, methods: &str) -> Route {
        let second = Duration::from_secs(1);
        Route {
            host,
            path,
            methods: methods
                .split_whitespace()
                .map(|method| method.parse().unwrap())
                .collect(),
            action: Action::Proxy(0),
            strip_prefix: None,
            limits: Limits {
                request_head: 16384,
                request_target: 8 << 10,
                request_headers: 100,
                request_body: None,
                connections: None,
                connections_per_ip: None,
                requests_per_connection: None,
                streams: 128,
                requests_in_flight: None,
                memory: Memory::Any,
                request_rate: None,
                request_body_rate: None,
            },
            timeouts: Timeouts {
                tls_handshake: second,
                request_head: second,
                request_body_idle: second,
                response_write_idle: second,
                keepalive_idle: second,
                hibernate: None,
                upstream_connect: second,
                upstream_response: second,
                upstream_idle: second,
                tunnel_idle: second,
                drain: second,
            },
            span: None,
        }
    }

    fn mistakes() -> Mistakes {
        Mistakes::new(Source::of_text("lowport.toml", ""))
    }

    /// The table of routes that do not tie.
    pub(in super::super) fn build(routes: &[Route]) -> RouteTable {
        let mistakes = mistakes();
        let table = RouteTable::build(routes, &mistakes);
        assert!(mistakes.is_empty(), "{mistakes}");
        table
    }

    /// Checks `METHOD host/path -> route` lines against a table.
    fn check(routes: &[Route], cases: &str) {
        let table = build(routes);
        for case in cases.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (asked, wanted) = case.split_once(" -> ").unwrap();
            let (method, target) = asked.split_once(' ').unwrap();
            let (host, path) = target.split_at(target.find(['/', '*']).unwrap());
            let found = table.find(host, path, &method.parse().unwrap());
            assert_eq!(found, wanted.parse().ok(), "{case}");
        }
    }

    #[test]
    fn exact_over_wildcard_over_any() {
        let routes = [
            route(any(), PathMatch::Any, ""),
            route(wildcard("example"), PathMatch::Any, ""),
            route(wildcard("a.example"), PathMatch::Any, ""),
            route(exact("x.a.example"), PathMatch::Any, ""),
            route(exact("[::1]"), PathMatch::Any, ""),
        ];
        let cases = "
            GET x.a.example/ -> 3
            GET y.a.example/ -> 2
            GET z.y.a.example/ -> 2
            GET x.x.a.example/ -> 2
            GET a.example/ -> 1
            GET b.example/ -> 1
            GET example/ -> 0
            GET notexample/ -> 0
            GET example.org/ -> 0
            GET [::1]/ -> 4
            GET [::2]/ -> 0
            GET / -> 0";
        check(&routes, cases);
    }

    #[test]
    fn exact_over_longest_prefix_over_regex_over_any() {
        let routes = [
            route(any(), PathMatch::Any, ""),
            route(any(), regex("/api.*"), ""),
            route(any(), prefix("/api"), ""),
            route(any(), prefix("/api/users"), ""),
            route(any(), PathMatch::Exact("/api/users/me".into()), ""),
            route(any(), PathMatch::Exact("/api".into()), ""),
        ];
        let cases = "
            GET /api/users/me -> 4
            GET /api/users/me/ -> 3
            GET /api/users/ -> 3
            GET /api/users -> 3
            GET /api/usersx -> 2
            GET /api/ -> 2
            GET /api//users -> 2
            GET /api -> 5
            GET /apix -> 1
            GET /API -> 0
            GET / -> 0
            OPTIONS * -> 0";
        check(&routes, cases);
    }

    #[test]
    fn the_root_as_a_prefix_is_every_path_but_no_asterisk() {
        let routes = [route(any(), prefix(""), "")];
        check(&routes, "GET / -> 0\nGET /a/b -> 0\nOPTIONS * -> none");
    }

    #[test]
    fn methods_over_none_and_head_as_get() {
        let routes = [
            route(any(), prefix("/a"), ""),
            route(any(), prefix("/a"), "GET"),
            route(any(), prefix("/a"), "POST PURGE"),
            route(any(), prefix("/b"), "GET"),
            route(any(), prefix("/b"), "HEAD"),
            route(any(), prefix("/c"), "HEAD"),
        ];
        let cases = "
            GET /a -> 1
            HEAD /a -> 1
            POST /a -> 2
            PURGE /a -> 2
            PUT /a -> 0
            GET /b -> 3
            HEAD /b -> 4
            POST /b -> none
            HEAD /c -> 5
            GET /c -> none";
        check(&routes, cases);
    }

    #[test]
    fn what_does_not_take_the_method_gives_way() {
        let routes = [
            route(exact("x.example"), PathMatch::Exact("/a/b".into()), "PUT"),
            route(exact("x.example"), prefix("/a/b"), "POST"),
            route(exact("x.example"), prefix("/a"), "DELETE"),
            route(exact("x.example"), regex("/a/.*"), "PATCH"),
            route(wildcard("example"), prefix("/a"), "OPTIONS"),
            route(any(), PathMatch::Any, "GET"),
        ];
        let cases = "
            PUT x.example/a/b -> 0
            POST x.example/a/b -> 1
            DELETE x.example/a/b -> 2
            PATCH x.example/a/b -> 3
            OPTIONS x.example/a/b -> 4
            GET x.example/a/b -> 5
            PURGE x.example/a/b -> none";
        check(&routes, cases);
    }

    #[test]
    fn many_regexes_are_tried_by_length_then_alphabet() {
        let text = |n: usize| format!("/(?:a|{})[0-9]*", "b".repeat(n));
        let mut routes: Vec<Route> = (1..10).map(|n| route(any(), regex(&text(n)), "")).collect();
        routes.push(route(any(), regex("/x.*y"), ""));
        routes.push(route(any(), regex("/.xx*y"), ""));
        routes.push(route(any(), regex("/.xx*y"), "POST"));
        let cases = "
            GET /a1 -> 8
            GET /bb1 -> 1
            GET /bbb -> 2
            GET /xxy -> 10
            POST /xxy -> 11
            GET /c -> none
            GET /a1/ -> none";
        check(&routes, cases);
    }

    #[test]
    fn hostile_requests_are_no_trouble() {
        let routes = [
            route(wildcard("example.com"), prefix("/a/b"), ""),
            route(any(), PathMatch::Any, ""),
        ];
        let table = build(&routes);
        let slashes = "/".repeat(1 << 20);
        let dots = ".".repeat(1 << 20);
        assert_eq!(table.find(&dots, &slashes, &Method::GET), Some(1));
        let host = format!("{dots}example.com");
        let path = format!("/a/b{slashes}");
        assert_eq!(table.find(&host, &path, &Method::GET), Some(0));
        assert_eq!(table.find("é.example.com", "/a/b/é", &Method::GET), Some(0));
        assert_eq!(table.find("", "", &Method::GET), Some(1));
    }

    #[test]
    fn an_empty_table_finds_nothing() {
        check(&[], "GET a.example/ -> none");
        assert!(build(&[]).ordered().is_empty());
    }

    /// Draws numbers: xorshift64.
    struct Draw(u64);

    impl Draw {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % end as u64) as usize
        }

        fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
            choices[self.below(choices.len())]
        }

        fn path(&mut self) -> String {
            (0..=self.below(4))
                .map(|_| self.of(&["/", "/a", "/b", "/ab", "/a/b", "/é"]))
                .collect()
        }

        fn route(&mut self) -> Route {
            let parents = ["example", "a.example", "x.a.example", "b.example"];
            let host = match self.below(4) {
                0 => any(),
                1 => wildcard(self.of(&parents)),
                _ => exact(self.of(&HOSTS)),
            };
            let regexes = [
                "/a.*",
                "/b.*",
                "/.*a",
                "/.*b",
                "/[^/]*",
                "(?:/ab?)+",
                "(?:/[ab]+)+",
                "/+",
                "/.*é.*",
            ];
            let path = match self.below(5) {
                0 => PathMatch::Any,
                1 => PathMatch::Exact(self.path()),
                2 => regex(self.of(&regexes)),
                _ => prefix(self.path().trim_end_matches('/')),
            };
            let methods = ["", "", "GET", "HEAD", "POST", "GET HEAD", "PURGE POST"];
            route(host, path, self.of(&methods))
        }
    }

    const HOSTS: [&str; 7] = [
        "example",
        "a.example",
        "b.example",
        "x.a.example",
        "y.x.a.example",
        "z.example",
        "",
    ];

    /// How specific a route is for a request, the more the greater; `None` if it does not match. Slow and plain.
    fn score(route: &Route, host: &str, path: &str, method: &Method) -> Option<impl Ord + Copy> {
        let host = match &route.host {
            HostMatch::Any => (0, 0),
            HostMatch::Wildcard(parent) if host.ends_with(&format!(".{parent}")) => {
                (1, parent.len())
            }
            HostMatch::Exact(name) if host == name => (2, 0),
            _ => return None,
        };
        let path = match &route.path {
            PathMatch::Any => (0, 0, ""),
            PathMatch::Regex(regex) if regex.is_match(path) => {
                (1, regex.as_str().len(), regex.as_str())
            }
            PathMatch::Prefix(prefix) if format!("{path}/").starts_with(&format!("{prefix}/")) => {
                (2, prefix.len(), "")
            }
            PathMatch::Exact(exact) if path == exact => (3, 0, ""),
            _ => return None,
        };
        let methods = &route.methods;
        let methods = if methods.contains(method) {
            2
        } else if method == Method::HEAD && methods.contains(&Method::GET) {
            1
        } else if methods.is_empty() {
            0
        } else {
            return None;
        };
        Some((host, path.0, path.1, std::cmp::Reverse(path.2), methods))
    }

    /// Whether two routes tie.
    fn tie(a: &Route, b: &Route) -> bool {
        let text = |path: &PathMatch| format!("{path:?}");
        a.host == b.host
            && text(&a.path) == text(&b.path)
            && (a.methods.is_empty() && b.methods.is_empty()
                || a.methods.iter().any(|method| b.methods.contains(method)))
    }

    #[test]
    fn as_a_slow_and_plain_search() {
        let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
        let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT];
        let (mut hits, mut ties) = (0, 0);
        for _ in 0..150 {
            let mut routes: Vec<Route> = Vec::new();
            let mut tied = 0;
            for _ in 0..draw.below(60) {
                let route = draw.route();
                if routes.iter().any(|other| tie(other, &route)) {
                    let mut with = routes.clone();
                    with.push(route);
                    let mistakes = mistakes();
                    RouteTable::build(&with, &mistakes);
                    assert_eq!(mistakes.len(), 1, "{mistakes}");
                    tied += 1;
                } else {
                    routes.push(route);
                }
            }
            ties += tied;
            let table = build(&routes);
            let ordered = table.ordered();
            for turn in 0..100 {
                let host = draw.of(&HOSTS);
                let path = draw.path();
                let method = &methods[draw.below(methods.len())];
                let score = |index: &usize| score(&routes[*index], host, &path, method);
                let wanted = (0..routes.len())
                    .filter(|index| score(index).is_some())
                    .max_by_key(score);
                let found = table.find(host, &path, method);
                assert_eq!(found, wanted, "{method} {host}{path} {routes:#?}");
                let first = ordered.iter().find(|index| score(index).is_some());
                assert_eq!(first.copied(), wanted, "{method} {host}{path} {routes:#?}");
                hits += usize::from(found.is_some());
                // An explanation takes its time.
                if turn % 20 == 0 {
                    let told = table.explain(&routes, host, &path, method);
                    let matching = ordered.iter().filter(|index| score(index).is_some());
                    assert_eq!(told.matching, matching.count(), "{told}");
                    assert!(told.others.iter().all(|other| !other.reason.is_empty()));
                }
            }
        }
        assert!(hits > 8_000 && ties > 100, "{hits} {ties}");
    }
}
