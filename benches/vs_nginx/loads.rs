//! What the clients of each row do.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::Resumption;

use crate::client::{Client, Multiplexed, request};
use crate::latency::at_fixed_rate;
use crate::load::{self, Got, Tally, load, quantile};
use crate::proxy::Proxy;
use crate::rows::{Bout, Sample};
use crate::site::Via;
use crate::upstream::BYTES;

/// Connections that are kept.
const KEPT: usize = 64;
/// Requests at the same time on each of HTTP/2.
const STREAMS: usize = 10;
/// Connections at the same time where each serves one request: in plaintext, and over TLS.
const FRESH: usize = 64;
const FRESH_TLS: usize = 16;
/// Downloads, uploads and tunnels at the same time.
const DOWNLOADS: usize = 8;
const UPLOADS: usize = 2;
const TUNNELS: usize = 1;
/// Routes that each client asks for in turn, where there are many.
const ROUTES: usize = 500;

const MIB: usize = 1 << 20;
/// Of the connections that can resume an earlier one, the share that has to.
const RESUMED: f64 = 0.95;

/// Small requests on connections that are kept.
pub(crate) fn keep_alive(bout: &Bout, via: Via) -> Result<Sample, String> {
    let proxy = bout.proxy();
    let got = load(proxy, bout.seconds, |tally| {
        crowd(KEPT, || asking(proxy, tally, via, vec![request("/x", "")]))
    })?;
    Ok(per_request(&got))
}

/// The same over HTTP/2.
pub(crate) fn multiplexed(bout: &Bout) -> Result<Sample, String> {
    let proxy = bout.proxy();
    let got = load(proxy, bout.seconds, |tally| {
        crowd(KEPT, || streams(Rc::clone(proxy), Rc::clone(tally)))
    })?;
    Ok(per_request(&got))
}

async fn streams(proxy: Rc<Proxy>, tally: Rc<Tally>) -> io::Result<()> {
    let client = Multiplexed::connect(&proxy.site).await?;
    let streams = (0..STREAMS).map(|_| {
        let (mut client, tally) = (client.clone(), Rc::clone(&tally));
        async move {
            loop {
                client.ask().await?;
                tally.did(1);
            }
        }
    });
    futures_util::future::try_join_all(streams)
        .await
        .map(|_: Vec<()>| ())
}

/// A TLS connection for each request.
pub(crate) fn handshakes(bout: &Bout, resume: bool) -> Result<Sample, String> {
    let (proxy, resumed, all) = (bout.proxy(), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let got = load(proxy, bout.seconds, |tally| {
        crowd(FRESH_TLS, || {
            let (proxy, tally) = (Rc::clone(proxy), Rc::clone(tally));
            let (resumed, all) = (Rc::clone(&resumed), Rc::clone(&all));
            // Each client has tickets of its own, so that none runs out of them.
            let mut tls = proxy.site.tls(Via::Tls);
            if !resume {
                tls.resumption = Resumption::disabled();
            }
            let tls = Arc::new(tls);
            async move {
                let request = request("/x", "connection: close\r\n");
                // Nothing is there yet to be resumed.
                let mut first = true;
                loop {
                    let (mut client, did) = Client::secure(&proxy.site, &tls).await?;
                    client.ask(&request, |_| ()).await?;
                    client.until_closed().await;
                    tally.did(1);
                    resumed.set(resumed.get() + u64::from(did));
                    all.set(all.get() + u64::from(!first));
                    first = false;
                }
            }
        })
    })?;
    let share = resumed.get() as f64 / f64::max(all.get() as f64, 1.0);
    match resume {
        true if share < RESUMED => Err(format!("only {share:.2} of the connections resumed")),
        false if share > 0.0 => Err(format!("{share:.2} of the connections resumed")),
        _ => Ok(per_request(&got)),
    }
}

/// A plaintext connection for each request.
pub(crate) fn churn(bout: &Bout) -> Result<Sample, String> {
    let proxy = bout.proxy();
    let got = load(proxy, bout.seconds, |tally| {
        crowd(FRESH, || {
            let (proxy, tally) = (Rc::clone(proxy), Rc::clone(tally));
            async move {
                let request = request("/x", "connection: close\r\n");
                loop {
                    let mut client = Client::connect(&proxy.site, Via::Http1).await?;
                    client.ask(&request, |_| ()).await?;
                    client.until_closed().await;
                    tally.did(1);
                }
            }
        })
    })?;
    Ok(per_request(&got))
}

/// Answers of 1 MiB, one after another.
pub(crate) fn downloads(bout: &Bout, via: Via) -> Result<Sample, String> {
    let proxy = bout.proxy();
    let got = load(proxy, bout.seconds, |tally| {
        crowd(DOWNLOADS, || downloading(proxy, tally, via, MIB))
    })?;
    Ok(per_gib(&got))
}

/// Requests of 10 MiB, one after another.
pub(crate) fn uploads(bout: &Bout, via: Via) -> Result<Sample, String> {
    let proxy = bout.proxy();
    let got = load(proxy, bout.seconds, |tally| {
        crowd(UPLOADS, || {
            let (proxy, tally) = (Rc::clone(proxy), Rc::clone(tally));
            async move {
                let mut client = Client::connect(&proxy.site, via).await?;
                loop {
                    client.upload(10 * MIB, |bytes| tally.did(bytes)).await?;
                }
            }
        })
    })?;
    Ok(per_gib(&got))
}

/// A tunnel that is never empty.
pub(crate) fn tunnel(bout: &Bout) -> Result<Sample, String> {
    let proxy = bout.proxy();
    let got = load(proxy, bout.seconds, |tally| {
        crowd(TUNNELS, || {
            let (proxy, tally) = (Rc::clone(proxy), Rc::clone(tally));
            async move {
                let client = Client::connect(&proxy.site, Via::Http1).await?;
                client.for_large().tunnel(|bytes| tally.did(bytes)).await
            }
        })
    })?;
    Ok(per_gib(&got))
}

/// What a request costs where the bout's second process has many routes, over what it costs with few.
pub(crate) fn routes(bout: &Bout) -> Result<Sample, String> {
    let cost = |proxy: &Rc<Proxy>, routes: usize| {
        let got = load(proxy, bout.seconds, |tally| {
            crowd(KEPT, || {
                let any = |_| request(&format!("/r{}/x", fastrand::usize(..routes)), "");
                asking(proxy, tally, Via::Http1, (0..ROUTES).map(any).collect())
            })
        });
        got.map(|got| (got.cpu / got.done, got.busy))
    };
    let [few, many] = [(0, 10), (1, 10_000)].map(|(at, routes)| cost(&bout.running[at], routes));
    let ((few, _), (many, busy)) = (few?, many?);
    Ok(Sample {
        values: vec![many / few],
        busy: Some(busy),
    })
}

/// How long requests take half of the time, and at most 99 times in 100, while there is little to do.
pub(crate) fn fixed_rate(bout: &Bout) -> Result<Sample, String> {
    let got = at_fixed_rate(bout.proxy(), bout.seconds)?;
    Ok(Sample {
        values: vec![quantile(&got.micros, 0.5)?, quantile(&got.micros, 0.99)?],
        busy: Some(got.busy),
    })
}

/// How long 99 in 100 take at most while all ask as fast as they can.
pub(crate) fn saturation(bout: &Bout) -> Result<Sample, String> {
    let proxy = bout.proxy();
    let got = load(proxy, bout.seconds, |tally| {
        crowd(KEPT, || timed(proxy, tally))
    })?;
    slowest_of_100(&got)
}

/// The same of all but one, which has a download that does not end.
pub(crate) fn fairness(bout: &Bout) -> Result<Sample, String> {
    let proxy = bout.proxy();
    let got = load(proxy, bout.seconds, |tally| {
        let mut clients = crowd(KEPT - 1, || timed(proxy, tally));
        // Its bytes are nobody's concern here.
        let aside = Rc::new(Tally::default());
        clients.extend(crowd(1, || {
            downloading(proxy, &aside, Via::Http1, 1024 * MIB)
        }));
        clients
    })?;
    slowest_of_100(&got)
}

fn timed(proxy: &Rc<Proxy>, tally: &Rc<Tally>) -> impl Future<Output = io::Result<()>> + 'static {
    let (proxy, tally) = (Rc::clone(proxy), Rc::clone(tally));
    async move {
        let request = request("/x", "");
        let mut client = Client::connect(&proxy.site, Via::Http1).await?;
        loop {
            let begin = Instant::now();
            client.ask(&request, |_| ()).await?;
            tally.took(begin);
        }
    }
}

fn downloading(
    proxy: &Rc<Proxy>,
    tally: &Rc<Tally>,
    via: Via,
    bytes: usize,
) -> impl Future<Output = io::Result<()>> + 'static {
    let (proxy, tally) = (Rc::clone(proxy), Rc::clone(tally));
    async move {
        let request = request(&format!("{BYTES}{bytes}"), "");
        let mut client = Client::connect(&proxy.site, via).await?.for_large();
        loop {
            client.ask(&request, |bytes| tally.did(bytes)).await?;
        }
    }
}

fn asking(
    proxy: &Rc<Proxy>,
    tally: &Rc<Tally>,
    via: Via,
    requests: Vec<Vec<u8>>,
) -> impl Future<Output = io::Result<()>> + 'static {
    let (proxy, tally) = (Rc::clone(proxy), Rc::clone(tally));
    async move {
        let mut client = Client::connect(&proxy.site, via).await?;
        for request in requests.iter().cycle() {
            client.ask(request, |_| ()).await?;
            tally.did(1);
        }
        Ok(())
    }
}

/// This many of them.
fn crowd<F: Future<Output = io::Result<()>> + 'static>(
    count: usize,
    client: impl Fn() -> F,
) -> Vec<load::Client> {
    (0..count)
        .map(|_| Box::pin(client()) as load::Client)
        .collect()
}

fn per_request(got: &Got) -> Sample {
    Sample {
        values: vec![got.cpu * 1e6 / got.done],
        busy: Some(got.busy),
    }
}

fn per_gib(got: &Got) -> Sample {
    Sample {
        values: vec![got.cpu / (got.done / (1 << 30) as f64)],
        busy: Some(got.busy),
    }
}

fn slowest_of_100(got: &Got) -> Result<Sample, String> {
    Ok(Sample {
        values: vec![quantile(&got.micros, 0.99)?],
        busy: Some(got.busy),
    })
}
