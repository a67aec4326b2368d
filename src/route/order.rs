//! How specific a route is, and what two that are equally specific mean: a mistake.

use std::cmp::Reverse;

use http::Method;

use super::tell::{methods, place};
use crate::config::{HostMatch, Mistake, Mistakes, PathMatch, Route};

/// Ordered most specific first: of several routes that match a request, the one with the least rank wins.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank<'a> {
    host: Level<'a>,
    path: Level<'a>,
    methods: (bool, bool, Option<&'a str>),
}

/// Its kind, its length where the longer is the more specific, and its text so that the order is total.
type Level<'a> = (u8, Reverse<usize>, &'a str);

impl<'a> Rank<'a> {
    pub(super) fn of(route: &'a Route) -> Self {
        let methods = &route.methods;
        Self {
            host: match &route.host {
                HostMatch::Exact(name) => (0, Reverse(0), name),
                HostMatch::Wildcard(parent) => (1, Reverse(parent.len()), parent),
                HostMatch::Any => (2, Reverse(0), ""),
            },
            path: match &route.path {
                PathMatch::Exact(path) => (0, Reverse(0), path),
                PathMatch::Prefix(path) => (1, Reverse(path.len()), path),
                PathMatch::Regex(regex) => (2, Reverse(regex.as_str().len()), regex.as_str()),
                PathMatch::Any => (3, Reverse(0), ""),
            },
            // One that names HEAD before one that only implies it.
            methods: (
                methods.is_empty(),
                !methods.contains(&Method::HEAD),
                methods.first().map(Method::as_str),
            ),
        }
    }

    /// Whether they differ in methods only.
    pub(super) fn same_place(&self, other: &Self) -> bool {
        (self.host, self.path) == (other.host, other.path)
    }
}

/// The routes' indexes, most specific first; those that tie in the order of the file.
pub(super) fn order(routes: &[Route]) -> Box<[usize]> {
    let mut order: Box<[usize]> = (0..routes.len()).collect();
    order.sort_by_key(|&index| Rank::of(&routes[index]));
    order
}

/// Reports each route that ties with one before it in the file.
pub(super) fn report_ties(routes: &[Route], order: &[usize], mistakes: &Mistakes) {
    let same_place =
        |a: &usize, b: &usize| Rank::of(&routes[*a]).same_place(&Rank::of(&routes[*b]));
    for group in order.chunk_by(same_place) {
        let mut group = group.to_vec();
        group.sort_unstable();
        for (at, &later) in group.iter().enumerate() {
            let tie = group[..at]
                .iter()
                .find_map(|&first| Some((first, shared(&routes[first], &routes[later])?)));
            if let Some((first, shared)) = tie {
                mistakes.push(mistake(&routes[first], &routes[later], &shared));
            }
        }
    }
}

/// The methods for which neither of two routes of one place is the more specific: those that both name, or an empty list
/// when both are without methods. `None` when there is no tie.
fn shared(a: &Route, b: &Route) -> Option<Vec<Method>> {
    match (a.methods.is_empty(), b.methods.is_empty()) {
        (true, true) => Some(Vec::new()),
        (false, false) => {
            let both = a.methods.iter().filter(|method| b.methods.contains(method));
            let both: Vec<Method> = both.cloned().collect();
            (!both.is_empty()).then_some(both)
        }
        _ => None,
    }
}

fn mistake(first: &Route, later: &Route, shared: &[Method]) -> Mistake {
    let place = place(later);
    let message = if shared.is_empty() {
        format!("two routes tie for {place}")
    } else {
        format!("two routes tie for {place}, {}", methods(shared))
    };
    Mistake::new(later.span.clone(), message)
        .label("the second of them")
        .other(first.span.clone(), "the first of them")
        .help("give one of them another host, path or methods: their order in the file does not choose between them")
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{any, exact, prefix, regex, route, wildcard};
    use super::*;
    use crate::config::Source;

    /// What is said of these routes, each on a line of its own.
    fn told(routes: &mut [Route]) -> String {
        let line = "[[route]]\n";
        let text = line.repeat(routes.len());
        for (at, route) in routes.iter_mut().enumerate() {
            route.span = Some(at * line.len()..(at + 1) * line.len() - 1);
        }
        let mistakes = Mistakes::new(Source::of_text("lowport.toml", text));
        report_ties(routes, &order(routes), &mistakes);
        mistakes.render(false)
    }

    #[test]
    fn hosts_then_paths_then_methods() {
        let sorted = [
            route(exact("a.example"), PathMatch::Exact("/a".into()), "GET"),
            route(exact("a.example"), PathMatch::Exact("/a".into()), ""),
            route(exact("a.example"), prefix("/a/b"), ""),
            route(exact("a.example"), prefix("/a"), "HEAD"),
            route(exact("a.example"), prefix("/a"), "GET POST"),
            route(exact("a.example"), regex("/a/.*"), ""),
            route(exact("a.example"), regex("/a.*"), ""),
            route(exact("a.example"), regex("/b.*"), ""),
            route(exact("a.example"), PathMatch::Any, "GET"),
            route(exact("a.example"), PathMatch::Any, ""),
            route(exact("b.example"), PathMatch::Any, ""),
            route(wildcard("a.example"), PathMatch::Any, ""),
            route(wildcard("example"), PathMatch::Exact("/a".into()), ""),
            route(any(), PathMatch::Exact("/a".into()), "GET"),
            route(any(), PathMatch::Any, ""),
        ];
        for turn in 0..sorted.len() {
            let mut shuffled = sorted.to_vec();
            shuffled.reverse();
            shuffled.rotate_left(turn);
            let order = order(&shuffled);
            let found = order.iter().map(|&index| Rank::of(&shuffled[index]));
            assert!(found.eq(sorted.iter().map(Rank::of)), "{turn}");
        }
    }

    #[test]
    fn a_tie_names_both_places() {
        let mut routes = [
            route(exact("a.example"), prefix("/api"), "GET POST PUT"),
            route(any(), PathMatch::Any, ""),
            route(exact("a.example"), prefix("/api"), "PUT POST"),
        ];
        assert_eq!(
            told(&mut routes),
            "error: two routes tie for host a.example, path /api, methods POST, PUT
 --> lowport.toml:3:1
  |
1 | [[route]]
  | --------- the first of them
2 | [[route]]
3 | [[route]]
  | ^^^^^^^^^ the second of them
  |
  = help: give one of them another host, path or methods: their order in the file does not choose between them

lowport.toml: 1 mistake
"
        );
    }

    #[test]
    fn every_kind_of_place_can_tie() {
        for (host, path, methods, message) in [
            (any(), PathMatch::Any, "", "any host, any path\n"),
            (
                wildcard("example"),
                PathMatch::Exact("/".into()),
                "GET",
                "host *.example, path_exact /, method GET\n",
            ),
            (any(), regex("/a+"), "", "any host, path_regex /a+\n"),
        ] {
            let one = route(host, path, methods);
            let text = told(&mut [one.clone(), one.clone(), one]);
            let message = format!("error: two routes tie for {message}");
            assert_eq!(text.matches(&message).count(), 2, "{text}");
            assert!(text.ends_with("lowport.toml: 2 mistakes\n"), "{text}");
        }
    }

    #[test]
    fn what_differs_does_not_tie() {
        let text = told(&mut [
            route(exact("a.example"), prefix("/a"), "GET"),
            route(exact("a.example"), prefix("/a"), "HEAD"),
            route(exact("a.example"), prefix("/a"), ""),
            route(exact("a.example"), PathMatch::Exact("/a".into()), ""),
            route(exact("a.example"), regex("/a"), ""),
            route(exact("a.example"), regex("/b"), ""),
            route(wildcard("a.example"), prefix("/a"), ""),
            route(exact("b.example"), prefix("/a"), ""),
            route(any(), prefix("/a"), ""),
        ]);
        assert_eq!(text, "lowport.toml: 0 mistakes\n");
    }
}
