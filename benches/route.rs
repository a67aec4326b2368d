//! What it costs to find a route, and that it does not grow with the table.
//!
//! `one` asks for the same route again and again: everything is in the nearest cache. `varied` asks for all routes of the
//! table in random order, so that a large table pays for its size in cache misses. `miss` asks for what is not there.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Method;
use lowport::config::{
    Action, HostMatch, Limits, Memory, Mistakes, PathMatch, Route, Source, Timeouts,
};
use lowport::route::RouteTable;

const SIZES: [usize; 3] = [10, 1_000, 10_000];

criterion_group!(benches, hosts, wildcards, paths, exact_paths);
criterion_main!(benches);

/// Every route has its own host.
fn hosts(criterion: &mut Criterion) {
    let route = |n| {
        route(
            HostMatch::Exact(format!("app-{n}.example.com")),
            PathMatch::Any,
        )
    };
    let asks = |n| (format!("app-{n}.example.com"), "/users/42".to_owned());
    measure(criterion, "host", route, asks);
}

/// Every route has its own wildcard, two labels above the hosts that are asked for.
fn wildcards(criterion: &mut Criterion) {
    let route = |n| {
        route(
            HostMatch::Wildcard(format!("app-{n}.example.com")),
            PathMatch::Any,
        )
    };
    let asks = |n| {
        (
            format!("www.eu.app-{n}.example.com"),
            "/users/42".to_owned(),
        )
    };
    measure(criterion, "wildcard", route, asks);
}

/// Every route has its own path prefix, two segments above the paths that are asked for.
fn paths(criterion: &mut Criterion) {
    let route = |n| route(HostMatch::Any, PathMatch::Prefix(format!("/api/app-{n}")));
    let asks = |n| ("example.com".to_owned(), format!("/api/app-{n}/users/42"));
    measure(criterion, "path", route, asks);
}

/// Every route has its own exact path.
fn exact_paths(criterion: &mut Criterion) {
    let route = |n| route(HostMatch::Any, PathMatch::Exact(format!("/api/app-{n}")));
    let asks = |n| ("example.com".to_owned(), format!("/api/app-{n}"));
    measure(criterion, "path_exact", route, asks);
}

fn measure(
    criterion: &mut Criterion,
    name: &str,
    route: impl Fn(usize) -> Route,
    asks: impl Fn(usize) -> (String, String),
) {
    let mut group = criterion.benchmark_group(name);
    group.warm_up_time(Duration::from_secs(1));
    group.measurement_time(Duration::from_secs(3));
    for size in SIZES {
        let table = build(&(0..size).map(&route).collect::<Vec<_>>());
        let mut find = |kind: &str, asked: Asked, hit: bool| {
            let finds = |(host, path): &(&str, &str)| table.find(host, path, &Method::GET);
            let asked = asked.all();
            assert!(asked.iter().all(|asked| finds(asked).is_some() == hit));
            group.bench_function(BenchmarkId::new(kind, size), |bencher| {
                let mut asked = asked.iter().cycle();
                bencher.iter(|| asked.next().and_then(|asked| finds(black_box(asked))));
            });
        };
        let all = shuffled(size);
        // Beyond the table, but spelled as its routes are.
        let missing = all.iter().map(|n| n + size);
        find("one", Asked::new([asks(size / 2)]), true);
        find("varied", Asked::new(all.iter().copied().map(&asks)), true);
        find("miss", Asked::new(missing.map(&asks)), false);
    }
    group.finish();
}

/// Hosts and paths to ask for, one behind the other in memory as they are asked for: a request's own text has just been
/// read, so it must not cost cache misses here, nor crowd the table out of the cache.
struct Asked {
    text: String,
    /// Where each host and each path ends
    ends: Vec<(usize, usize)>,
}

impl Asked {
    fn new(asked: impl IntoIterator<Item = (String, String)>) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for (host, path) in asked {
            text.push_str(&host);
            let host_end = text.len();
            text.push_str(&path);
            ends.push((host_end, text.len()));
        }
        Self { text, ends }
    }

    fn all(&self) -> Vec<(&str, &str)> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(_, end)| end));
        let ask = |(&(host, path), start): (&(usize, usize), usize)| {
            (&self.text[start..host], &self.text[host..path])
        };
        self.ends.iter().zip(starts).map(ask).collect()
    }
}

fn build(routes: &[Route]) -> RouteTable {
    let mistakes = Mistakes::new(Source::of_text("bench", ""));
    let table = RouteTable::build(routes, &mistakes);
    assert!(mistakes.is_empty(), "{mistakes}");
    table
}

/// All numbers below `size` in an order that no prefetcher foresees.
fn shuffled(size: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..size).collect();
    let mut draw = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..size).rev() {
        draw ^= draw << 13;
        draw ^= draw >> 7;
        draw ^= draw << 17;
        numbers.swap(at, (draw % (at as u64 + 1)) as usize);
    }
    numbers
}

fn route(host: HostMatch, path: PathMatch) -> Route {
    let second = Duration::from_secs(1);
    Route {
        host,
        path,
        methods: Vec::new(),
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
