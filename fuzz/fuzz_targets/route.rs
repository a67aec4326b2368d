//! The route table finds what a search through all routes finds, and reports the ties that one finds.
#![no_main]

use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use lowport::config::{self, Mistakes, Route, Source};
use lowport::route::RouteTable;
use lowport_fuzz::routes::{self, Place};

#[derive(Debug, Arbitrary)]
struct Input {
    routes: Vec<Place>,
    asked: Vec<Place>,
}

/// Something for the rest of a route.
static LIKE: LazyLock<Route> = LazyLock::new(|| {
    let source = Source::of_text("", "[[route]]\nrespond = \"\"\n");
    let config = config::parse(&source, &Mistakes::new(Arc::clone(&source)));
    config.routes.into_iter().next().expect("a route")
});

fuzz_target!(|input: Input| {
    let mut list: Vec<Route> = Vec::new();
    let mut tied = Vec::new();
    for place in input.routes.iter().take(64) {
        let route = place.route(&LIKE);
        let tie = list.iter().any(|other| routes::tie(other, &route));
        if tie { &mut tied } else { &mut list }.push(route);
    }
    let (table, ties) = build(&list);
    assert_eq!(ties, 0, "{list:?}");
    for place in input.asked.iter().take(64) {
        let (host, path, method) = (place.name(), place.text(), place.method());
        let wanted = routes::search(&list, &host, &path, &method);
        let found = table.find(&host, &path, &method);
        assert_eq!(found, wanted, "{method} {host}{path} {list:#?}");
        let told = table.explain(&list, &host, &path, &method);
        assert_eq!(told.matching > 0, found.is_some(), "{told}");
    }
    let any = !tied.is_empty();
    list.append(&mut tied);
    assert_eq!(build(&list).1 > 0, any, "{list:?}");
});

/// The table, and how many ties are told; such as read alike are told once.
fn build(routes: &[Route]) -> (RouteTable, usize) {
    let mistakes = Mistakes::new(Source::of_text("", ""));
    let table = RouteTable::build(routes, &mistakes);
    (table, mistakes.len())
}
