//! Forwarding: rewrite the head once, then try peers until one has answered or the request may have been seen.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version, request};
use tokio::sync::oneshot;
use tokio::time::sleep_until;

use super::handle::Outcome;
use super::hold;
use super::reply::ReplyBody;
use super::tunnel::Ends;
use crate::body::{BodyFault, Limited, Progress, RequestBody};
use crate::config::{PeerProtocol, Route};
use crate::ctx::RequestCtx;
use crate::error::ProxyError;
use crate::http::upgrade::{self, Upgrade};
use crate::http::{forwarded, hop, target};
use crate::linger::ClientBody;
use crate::patience::Patience;
use crate::snapshot::Snapshot;
use crate::upstream::{self, Answer, Lease, Peer, SendError, SendFault, Upstream};

/// What an upstream that ignores `Expect: 100-continue` has before the body is sent anyway (RFC 9110 section 10.1.1).
const EXPECT_PATIENCE: Duration = Duration::from_secs(1);
/// Connections that may turn out stale before a fresh one is insisted on.
const STALE_TRIES: usize = 2;

/// Forwards a request to the upstream at `index` and returns its response.
pub(super) async fn forward(
    snapshot: &Arc<Snapshot>,
    route: &Route,
    index: usize,
    ctx: &mut RequestCtx,
    mut request: Request<ClientBody>,
    upgrade: Option<Upgrade>,
) -> Result<Outcome, ProxyError> {
    let limit = route.limits.request_body;
    if let Some(limit) = limit
        .filter(|limit| content_length(request.headers()).is_some_and(|length| length > *limit))
    {
        return Err(ProxyError::BodyTooLarge(limit));
    }
    hold::until_ready(snapshot, index, ctx, request.headers()).await?;
    let client_upgrade = upgrade.map(|_| hyper::upgrade::on(&mut request));
    let (mut head, incoming) = request.into_parts();
    let expects = incoming.expects();
    rewrite(&mut head, snapshot, route, ctx, upgrade);
    let mut gate = None;
    let body = if upgrade.is_some() || hyper::body::Body::is_end_stream(&incoming) {
        RequestBody::Empty
    } else {
        let progress = Rc::new(Progress::default());
        ctx.body = Some(Rc::clone(&progress));
        let idle = route.timeouts.request_body_idle;
        let patience = Patience::new(idle, route.limits.request_body_rate);
        let mut limited = Limited::new(incoming, limit, patience, progress);
        if expects {
            let (open, wait) = oneshot::channel();
            limited = limited.gated(wait);
            gate = Some(Gate::new(open));
        }
        RequestBody::Incoming(Box::new(limited))
    };
    let exchange = Exchange {
        upstream: &snapshot.upstreams[index],
        route,
        gate,
    };
    let mut request = Request::from_parts(head, body);
    let mut refused_since = None;
    let (answered, lease) = loop {
        match exchange.run(request, ctx).await {
            Ok(answered) => break answered,
            // Waiting does not make another user of whoever runs it.
            Err(
                Failed::Lost(error)
                | Failed::Refused(
                    error @ (ProxyError::WrongUser { .. } | ProxyError::OutOfDescriptors(_)),
                    _,
                ),
            ) => return Err(error),
            Err(Failed::Refused(error, unsent)) => {
                // The request has not left yet: a supervised app that is restarting may have it later.
                let since = *refused_since.get_or_insert_with(tokio::time::Instant::now);
                hold::after_refusal(snapshot, index, ctx, unsent.headers(), since, error).await?;
                request = *unsent;
            }
        }
    };
    match answered {
        Answer::Response(mut response) => {
            if let Some(bypass) = ctx
                .conn
                .bypass
                .as_ref()
                .filter(|_| snapshot.config.splices())
            {
                response.body_mut().pass_by(bypass);
            }
            answer(response, lease, route, upgrade)
        }
        Answer::Switched(response, stream, early) => {
            let (client, upgrade) = client_upgrade
                .zip(upgrade)
                .ok_or_else(|| malformed("101 to a request that asked for no upgrade"))?;
            let answer = switch(response, upgrade)?;
            let ends = Ends {
                client,
                upstream: stream,
                early,
                idle: route.timeouts.tunnel_idle,
            };
            Ok(Outcome::Tunnel(answer, ends))
        }
    }
}

/// Makes the head that the app sees out of the client's (`node.md` of the design: what is dropped, set and kept).
fn rewrite(
    head: &mut request::Parts,
    snapshot: &Snapshot,
    route: &Route,
    ctx: &RequestCtx,
    upgrade: Option<Upgrade>,
) {
    let headers = &mut head.headers;
    if hop::strip(headers).ends(head.version) {
        ctx.conn.intake.hears_the_last();
    }
    hop::add_via(headers, head.version);
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(header::HOST, host);
    }
    join_cookies(headers);
    let host = headers.get(header::HOST).cloned();
    let client = &ctx.conn.client;
    let trusted = ctx.conn.trusts(&snapshot.config.server, client.ip());
    forwarded::set(headers, client, host.as_ref(), trusted);
    if let Some(upgrade) = upgrade {
        upgrade::request(headers, upgrade, || ctx.worker.ids.websocket_key());
        head.method = Method::GET;
    }
    head.extensions.clear();
    head.version = Version::HTTP_11;
    head.uri = origin_form(&head.uri, route.strip_prefix.as_deref());
}

/// HTTP/2 lets a client split its cookies over several fields; HTTP/1.1 knows one (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut values = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (values.next(), values.next()) else {
        return;
    };
    let mut joined = [first.as_bytes(), second.as_bytes()].join(&b"; "[..]);
    for value in values {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(value.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(header::COOKIE, value);
    }
}

/// Path and query byte for byte as they came, less the prefix that the route strips.
fn origin_form(uri: &Uri, strip: Option<&str>) -> Uri {
    let whole = uri
        .path_and_query()
        .cloned()
        .unwrap_or(PathAndQuery::from_static("/"));
    let stripped = strip
        .and_then(|prefix| target::strip_prefix(whole.as_str(), prefix))
        .and_then(|rest| PathAndQuery::try_from(rest.as_ref()).ok());
    Uri::from(stripped.unwrap_or(whole))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Holds a body back until the upstream has said `100 Continue`. Behind a lock since hyper wants its callback `Sync`.
#[derive(Debug, Clone)]
struct Gate(Arc<Mutex<Option<oneshot::Sender<()>>>>);

impl Gate {
    fn new(open: oneshot::Sender<()>) -> Self {
        Self(Arc::new(Mutex::new(Some(open))))
    }

    fn open(&self) {
        if let Some(open) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Nobody listens when the body is gone already.
            let _ = open.send(());
        }
    }
}

/// One request on its way through the peers of an upstream.
struct Exchange<'a> {
    upstream: &'a Upstream,
    route: &'a Route,
    gate: Option<Gate>,
}

impl Exchange<'_> {
    /// Tries peers in turn. A peer that takes no connection, or that the guard refuses in time, has not seen the request, so
    /// the next may have it; one that took it may only be followed where that cannot happen twice.
    async fn run(
        &self,
        mut request: Request<RequestBody>,
        ctx: &mut RequestCtx,
    ) -> Result<(Answer, Lease), Failed> {
        let mut last = ProxyError::Connect(std::io::Error::other("the upstream has no peers"));
        for peer in self.upstream.order(ctx.worker.turn()) {
            ctx.upstream = Some(Arc::clone(peer));
            match self.attempt(peer, request, ctx).await {
                Err(Failed::Refused(error, unsent)) => {
                    last = error;
                    request = *unsent;
                }
                ended => return ended,
            }
        }
        Err(Failed::Refused(last, Box::new(request)))
    }

    /// One peer: over an idle connection if there is one, and where that was stale, over another.
    async fn attempt(
        &self,
        peer: &Arc<Peer>,
        mut request: Request<RequestBody>,
        ctx: &mut RequestCtx,
    ) -> Result<(Answer, Lease), Failed> {
        let limit = self.route.timeouts.upstream_connect;
        for tried in 0.. {
            let pool = &ctx.worker.pool;
            let lease = if tried < STALE_TRIES {
                pool.lease(self.upstream, peer, limit).await
            } else {
                pool.open(self.upstream, peer, limit).await
            };
            let mut lease = match lease {
                Ok(lease) => lease,
                Err(error) => return Err(Failed::Refused(error, Box::new(request))),
            };
            let stale = lease.reused();
            // What is sent over HTTP/1.1 comes back.
            let spare = (stale && lease.is_h2() && may_go_again(&request)).then(|| copy(&request));
            address(&mut request, peer, lease.is_h2());
            let started = Instant::now();
            let sent = self.send(&mut lease, request, ctx, started).await;
            ctx.upstream_time = Some(started.elapsed());
            match sent {
                Ok(Ok(answer)) => {
                    // Whose answer is it? Nothing of it is passed on before that is known.
                    return match lease.vouch(&self.upstream.guard) {
                        Ok(()) => Ok((answer, lease)),
                        Err(error) => Err(Failed::Lost(error)),
                    };
                }
                Err(error) => return Err(Failed::Lost(error)),
                // The peer closed an idle connection just as it was used. What it has not seen cannot happen twice, and
                // what is idempotent may.
                Ok(Err(SendError {
                    fault,
                    request: back,
                    seen,
                })) => match back.or(spare).filter(|request| {
                    stale && (!seen || fault == SendFault::Closed && may_go_again(request))
                }) {
                    Some(again) => request = again,
                    None => return Err(Failed::Lost(lost(fault, ctx))),
                },
            }
        }
        Err(Failed::Lost(ProxyError::Reset))
    }

    /// Waits for the response head within `timeouts.upstream_response` of the last byte sent, so that a long upload is not
    /// cut off by it.
    async fn send(
        &self,
        lease: &mut Lease,
        request: Request<RequestBody>,
        ctx: &RequestCtx,
        started: Instant,
    ) -> Result<Result<Answer, SendError>, ProxyError> {
        let limit = self.route.timeouts.upstream_response;
        let mut deadline = tokio::time::Instant::from_std(started) + limit;
        let expect = self
            .gate
            .as_ref()
            .map(|gate| (gate, tokio::time::Instant::now() + EXPECT_PATIENCE));
        let gate = self.gate.clone();
        let interim = move |status| {
            if status == StatusCode::CONTINUE
                && let Some(gate) = &gate
            {
                gate.open();
            }
        };
        let mut sending = std::pin::pin!(lease.send(request, interim));
        let mut waiting_for_100 = expect.is_some();
        loop {
            let next = expect
                .filter(|_| waiting_for_100)
                .map_or(deadline, |(_, soon)| soon.min(deadline));
            tokio::select! {
                biased;
                sent = &mut sending => return Ok(sent),
                () = sleep_until(next) => {}
            }
            if let Some((gate, _)) = expect.filter(|_| waiting_for_100) {
                gate.open();
                waiting_for_100 = false;
            }
            if let Some(last) = ctx.body.as_ref().and_then(|body| body.last()) {
                deadline = deadline.max(last + limit);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(ProxyError::ResponseTimeout(limit));
            }
        }
    }
}

/// Why an attempt brought no response.
enum Failed {
    /// Nothing was sent: the next peer may have it
    Refused(ProxyError, Box<Request<RequestBody>>),
    /// It may have been seen
    Lost(ProxyError),
}

/// Whether it may be sent again should a reused connection turn out to be closing: what is idempotent and has no body.
fn may_go_again(request: &Request<RequestBody>) -> bool {
    request.method().is_idempotent() && matches!(request.body(), RequestBody::Empty)
}

/// Another one like this, which has no body.
fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// The target and host in the form that the connection's protocol has for them.
fn address(request: &mut Request<RequestBody>, peer: &Peer, h2: bool) {
    if !h2 {
        if !request.headers().contains_key(header::HOST) {
            let name = match request.uri().authority() {
                // A peer that speaks HTTP/2 was to have it first.
                Some(authority) => authority.as_str(),
                None if peer.protocol == PeerProtocol::Http1 => &peer.display,
                None => "localhost",
            };
            let host = HeaderValue::from_str(name).unwrap_or(HeaderValue::from_static("localhost"));
            request.headers_mut().insert(header::HOST, host);
            *request.uri_mut() = origin_form(request.uri(), None);
        }
        return;
    }
    if request.uri().authority().is_some() {
        return;
    }
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(header::HOST);
    let authority = host
        .as_ref()
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", PathAndQuery::as_str);
    if let Ok(uri) = Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query(target)
        .build()
    {
        *request.uri_mut() = uri;
    }
}

/// Whose fault a lost exchange is: the client's, when its own body broke it.
fn lost(fault: SendFault, ctx: &RequestCtx) -> ProxyError {
    match ctx.body.as_ref().and_then(|body| body.fault()) {
        Some(fault) => match ctx.conn.intake.refusal() {
            Some(refusal) if fault == BodyFault::Aborted => ProxyError::Refused(refusal),
            _ => fault.into(),
        },
        None => match fault {
            SendFault::Malformed(why) => ProxyError::Malformed(why),
            SendFault::Body => ProxyError::BodyAborted,
            SendFault::Closed | SendFault::Cut => ProxyError::Reset,
        },
    }
}

/// Makes the client's response out of the app's.
fn answer(
    response: Response<upstream::Body>,
    lease: Lease,
    route: &Route,
    upgrade: Option<Upgrade>,
) -> Result<Outcome, ProxyError> {
    // Over HTTP/2, success would say that there is a tunnel (RFC 8441 section 5).
    if response.status().is_success() && upgrade == Some(Upgrade::Http2) {
        let status = response.status();
        return Err(malformed(&format!("{status} to a request for a WebSocket")));
    }
    let (mut head, body) = response.into_parts();
    hop::strip(&mut head.headers);
    head.version = Version::HTTP_11;
    head.extensions.clear();
    let idle = (!is_event_stream(&head.headers)).then_some(route.timeouts.upstream_idle);
    Ok(Outcome::Reply(Response::from_parts(
        head,
        ReplyBody::upstream(body, lease, idle),
    )))
}

/// The client's response out of a 101.
fn switch(mut response: Response<()>, upgrade: Upgrade) -> Result<Response<()>, ProxyError> {
    if !hop::has_token(response.headers(), &header::UPGRADE, "websocket") {
        return Err(malformed("101 to a protocol other than websocket"));
    }
    hop::strip(response.headers_mut());
    *response.status_mut() = upgrade::response(response.headers_mut(), upgrade);
    Ok(response)
}

fn malformed(why: &str) -> ProxyError {
    ProxyError::Malformed(why.to_owned())
}

/// An event stream may be silent for as long as it likes.
fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.len() >= 17 && value[..17].eq_ignore_ascii_case(b"text/event-stream")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PeerAddr;
    use crate::upstream::Registry;

    #[test]
    fn whichever_peer_has_a_request_first_the_next_is_told_its_host() {
        let registry = Registry::default();
        let peer = |protocol| registry.peer(&PeerAddr::Name("app".into(), 1), protocol, None);
        let (h1, h2) = (peer(PeerProtocol::Http1), peer(PeerProtocol::H2c));
        let asked = Request::get("/a?b").header("host", "a.test:81");
        let mut request = asked.body(RequestBody::Empty).unwrap();
        for _ in 0..2 {
            address(&mut request, &h2, true);
            assert_eq!(*request.uri(), "http://a.test:81/a?b");
            assert!(!request.headers().contains_key("host"));
            address(&mut request, &h1, false);
            assert_eq!(request.headers()["host"], "a.test:81");
            assert_eq!(request.uri().path_and_query().unwrap(), "/a?b");
        }
    }
}
