//! Whether a request may be answered now, by how much is asked already.

use http::HeaderMap;
use tracing::warn;

use crate::ctx::{Place, RequestCtx};
use crate::error::ProxyError;
use crate::http::origin;
use crate::snapshot::Snapshot;

/// Counts a request for the route at `index` against its client's rate.
///
/// # Errors
/// [`ProxyError::RateExceeded`]
pub(super) fn by_rate(
    snapshot: &Snapshot,
    index: usize,
    ctx: &RequestCtx,
    headers: &HeaderMap,
) -> Result<(), ProxyError> {
    let Some(rate) = &snapshot.config.routes[index].limits.request_rate else {
        return Ok(());
    };
    let server = &snapshot.config.server;
    let trusts = |ip| ctx.conn.trusts(server, ip);
    let client = origin::client(headers, ctx.conn.client.ip(), trusts);
    let taken = snapshot.rates.take(rate, index, client);
    taken.map_err(|wait| ProxyError::RateExceeded {
        rate: rate.to_string(),
        wait,
    })
}

/// Whether there is memory left for what comes of a request.
///
/// # Errors
/// [`ProxyError::OutOfMemory`]
pub(super) fn by_memory(ctx: &RequestCtx) -> Result<(), ProxyError> {
    match ctx.worker.load.heavy() {
        None => Ok(()),
        Some(limit) => Err(ProxyError::OutOfMemory(limit)),
    }
}

/// A place among the requests in flight; `None` where those have no bound.
///
/// # Errors
/// [`ProxyError::Overloaded`]: what would wait for a place is better tried again.
pub(super) fn by_load(snapshot: &Snapshot, ctx: &RequestCtx) -> Result<Option<Place>, ProxyError> {
    let Some(limit) = snapshot.config.limits.requests_in_flight else {
        return Ok(None);
    };
    let load = &ctx.worker.load;
    if let Some(place) = load.enter(limit) {
        return Ok(Some(place));
    }
    if load.shedding.begins() {
        warn!(
            limit,
            "limits.requests_in_flight reached: requests are answered with 503"
        );
    }
    Err(ProxyError::Overloaded(limit))
}
