//! One request after the other through the real binary, from end to end on loopback: the time that a client waits.
//!
//! `direct` is the same request without a proxy; what is above it is lowport's. For CPU time under load see `vs_nginx`.

mod support;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use support::site::Via;
use support::{Client, SETUP, lowport, runtime, upstream};

criterion_group!(benches, request);
criterion_main!(benches);

fn request(criterion: &mut Criterion) {
    let runtime = runtime();
    let upstream = upstream();
    let proxy = lowport(upstream, SETUP);
    let mut group = criterion.benchmark_group("request");
    let mut measure = |name: &str, mut client: Client| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(black_box(&mut client).ask()));
        });
    };
    let direct = tokio::net::TcpStream::connect(("127.0.0.1", upstream));
    let direct = runtime.block_on(direct).expect("connected");
    direct.set_nodelay(true).expect("set");
    measure("direct", Client::Http1(direct));
    for via in Via::ALL {
        measure(
            via.name(),
            runtime.block_on(Client::connect(&proxy.site, via)),
        );
    }
    group.finish();
}
