//! What it costs to look at the bytes of a request before hyper does, next to what parsing the same head costs.
//!
//! `cargo bench --bench strict` tells its share of a whole request.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lowport::http1::{Bounds, Chunks, Inspector};

criterion_group!(benches, heads, chunks);
criterion_main!(benches);

/// What a load generator sends.
const SHORT: &str = "GET /1k HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

/// What a browser sends for a page.
const BROWSER: &str = "GET /products/shoes?color=red&size=42 HTTP/1.1\r\nHost: app.example.com\r\nConnection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/140.0.0.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let bounds = Bounds {
        head: 16 << 10,
        target: 8 << 10,
        fields: 100,
    };
    let mut group = criterion.benchmark_group("inspector");
    for (name, head) in [("short", SHORT), ("browser", BROWSER)] {
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(format!("{name}/looked at"), |bencher| {
            let mut inspector = Inspector::new(bounds);
            bencher.iter(|| {
                let looked = inspector.look(black_box(head.as_bytes()));
                assert!(looked.is_ok());
            });
        });
        group.bench_function(format!("{name}/parsed"), |bencher| {
            bencher.iter(|| {
                let mut fields = [httparse::EMPTY_HEADER; 32];
                let mut request = httparse::Request::new(&mut fields);
                let parsed = request.parse(black_box(head.as_bytes()));
                assert!(parsed.is_ok_and(|status| status.is_complete()));
            });
        });
    }
    group.finish();
}

fn chunks(criterion: &mut Criterion) {
    let body = [&b"4000\r\n"[..], &[b'x'; 0x4000], b"\r\n"].concat();
    let mut group = criterion.benchmark_group("chunks");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("16 KiB", |bencher| {
        let mut chunks = Chunks::new(1024);
        bencher.iter(|| {
            let looked = chunks.look(black_box(&body));
            assert!(looked.is_ok());
        });
    });
    group.finish();
}
