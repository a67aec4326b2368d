//! What it costs to rewrite the header fields of a typical request and response.
//!
//! The fields are copied outside of what is measured; `nothing` shows what is left of that.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use lowport::http::forwarded::{self, Client};
use lowport::http::{hop, host, target};

criterion_group!(benches, rewriting, reading);
criterion_main!(benches);

/// What a browser sends for a page.
const BROWSER: [(&str, &str); 14] = [
    ("host", "app.example.com"),
    ("connection", "keep-alive"),
    (
        "sec-ch-ua",
        "\"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"",
    ),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", "\"Linux\""),
    ("upgrade-insecure-requests", "1"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    ),
    ("sec-fetch-site", "none"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    (
        "cookie",
        "session=0123456789abcdef0123456789abcdef; theme=dark",
    ),
];

/// The same with what a client has no business to say.
const CLAIMS: [(&str, &str); 5] = [
    ("x-forwarded-for", "10.0.0.1"),
    ("x-forwarded-proto", "https"),
    ("forwarded", "for=10.0.0.1"),
    ("x_real_ip", "10.0.0.1"),
    ("connection", "x-secret"),
];

/// What a Node app answers.
const NODE: [(&str, &str); 8] = [
    ("x-powered-by", "Express"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-length", "5120"),
    ("etag", "W/\"1400-abcdefghijklmnopqrstuvwxyz0\""),
    ("vary", "Accept-Encoding"),
    ("date", "Mon, 01 Jan 2024 00:00:00 GMT"),
    ("connection", "keep-alive"),
    ("keep-alive", "timeout=5"),
];

fn rewriting(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("headers");
    let client = Client::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), true, 443);
    let host = HeaderValue::from_static("app.example.com");
    let browser = fields(&BROWSER);
    let claims = fields(&[&BROWSER[..], &CLAIMS[..]].concat());
    let node = fields(&NODE);
    let request = |trusted| {
        let (client, host) = (&client, &host);
        move |headers: &mut HeaderMap| {
            hop::strip(headers);
            forwarded::set(headers, client, Some(host), trusted);
        }
    };
    let mut measure = |name: &str, headers: &HeaderMap, rewrite: &dyn Fn(&mut HeaderMap)| {
        group.bench_function(name, |bencher| {
            let rewrite = |mut headers: HeaderMap| {
                rewrite(black_box(&mut headers));
                headers
            };
            bencher.iter_batched(|| headers.clone(), rewrite, BatchSize::SmallInput);
        });
    };
    measure("nothing", &browser, &|_| ());
    measure("request", &browser, &request(false));
    measure("request_with_claims", &claims, &request(false));
    measure("request_from_trusted", &claims, &request(true));
    measure("response", &node, &|headers| {
        hop::strip(headers);
    });
    group.finish();
}

/// What is read of every request before its route is looked up.
fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    let mut request = Request::new(());
    *request.headers_mut() = fields(&BROWSER);
    group.bench_function("host", |bencher| {
        bencher.iter(|| host::of(black_box(&request)).is_ok());
    });
    for (name, path) in [
        ("plain_path", "/assets/app/main-abcdef.js"),
        ("odd_path", "/assets/./app/%6dain-abcdef.js"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| target::normalise(black_box(path)).len());
        });
    }
    group.finish();
}

fn fields(list: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for &(name, value) in list {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    headers
}
