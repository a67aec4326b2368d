//! THE request path: check, match, act, answer.

use std::borrow::Cow;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tracing::{debug, warn};

use super::forward::forward;
use super::reply::{Reply, ReplyBody};
use super::{admit, respond, tunnel};
use crate::config::{Action, Limits};
use crate::ctx::{Conn, Endpoints, Flow, RequestCtx, Worker};
use crate::error::{Fault, ProxyError};
use crate::http::hop;
use crate::http::host::{self, Host};
use crate::http::target;
use crate::http::upgrade::{self, Upgrade};
use crate::http1::Refusal;
use crate::http2;
use crate::linger::{self, ClientBody};
use crate::observe::Count;
use crate::snapshot::Snapshot;

/// How a request ends.
pub(super) enum Outcome {
    /// With a response
    Reply(Response<ReplyBody>),
    /// With a response and a tunnel after it
    Tunnel(Response<()>, tunnel::Ends),
}

/// Answers one request. Every error is a response. Over HTTP/2, `flow` tells whether the client takes it.
///
/// # Errors
/// None.
pub async fn handle(
    worker: Rc<Worker>,
    conn: Rc<Conn>,
    flow: Option<Rc<Flow>>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Infallible> {
    let snapshot = worker.snapshot();
    let expects = hop::has_token(request.headers(), &header::EXPECT, "100-continue");
    let request = request.map(|incoming| ClientBody::new(incoming, expects, conn.h2));
    let asks = respond::Asks::of(&request);
    let upgrade = request.extensions().get::<OnUpgrade>().cloned();
    let mut ctx = RequestCtx::begin(worker, Rc::clone(&conn), &request);
    // Whoever breaks the rules once is not waited for to do it again, and where memory is short, nobody is.
    let mut ends = false;
    let response = match serve(&snapshot, &mut ctx, request).await {
        Ok(Outcome::Reply(response)) => response,
        Ok(Outcome::Tunnel(response, ends)) => {
            ctx.status = Some(response.status());
            tunnel::spawn(ends, ctx);
            return Ok(response.map(|()| Reply::none()));
        }
        Err(error) => {
            ctx.worker.counters.add(Count::of(&error));
            log(&ctx, &error);
            ctx.reason = Some(error.to_string());
            ends = matches!(
                error,
                ProxyError::BadRequest(_)
                    | ProxyError::Refused(_)
                    | ProxyError::MethodRefused
                    | ProxyError::OutOfMemory(_)
            );
            respond::error(&snapshot, &asks, &ctx, &error)
        }
    };
    ctx.status = Some(response.status());
    let response = if asks.is_head() {
        respond::without_body(response)
    } else {
        response
    };
    let mut response = response.map(|body| Reply::new(body, flow, ctx));
    let most = snapshot.config.limits.requests_per_connection;
    ends |= conn.intake.settle();
    ends |= most.is_some_and(|most| conn.intake.begun() >= most);
    if ends && !conn.h2 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    if let Some(upgrade) = upgrade {
        tokio::task::spawn_local(end(upgrade));
    }
    Ok(response)
}

async fn serve(
    snapshot: &Arc<Snapshot>,
    ctx: &mut RequestCtx,
    mut request: Request<ClientBody>,
) -> Result<Outcome, ProxyError> {
    if ctx.conn.h2 {
        bound(&snapshot.config.limits, &request)?;
        http2::check(&request).map_err(ProxyError::BadRequest)?;
    }
    let last = request.method() == Method::OPTIONS && !hop::may_forward(request.headers_mut());
    let upgrade = upgrade::wanted(&request);
    let method = method(&request, upgrade)?;
    target::check(&request).map_err(ProxyError::BadRequest)?;
    let host = host::of(&request).map_err(ProxyError::BadRequest)?;
    if !ctx.conn.tls && target::is_https(&request) {
        // Who terminates TLS in front of this one passes on what it was asked.
        let Endpoints {
            introduced, peer, ..
        } = ctx.conn.endpoints;
        if !introduced && !snapshot.config.server.trusts(peer.ip()) {
            return Err(ProxyError::Misdirected);
        }
    }
    if let Some(port) = snapshot.https_port.filter(|_| !ctx.conn.tls) {
        return respond::to_https(&request, &host, port).map(Outcome::Reply);
    }
    if last {
        return Ok(Outcome::Reply(respond::options()));
    }
    let index = find(snapshot, &host, request.uri().path(), &method)?;
    let route = &snapshot.config.routes[index];
    admit::by_rate(snapshot, index, ctx, request.headers())?;
    match &route.action {
        Action::Proxy(upstream) => {
            admit::by_memory(ctx)?;
            ctx.place = admit::by_load(snapshot, ctx)?;
            forward(snapshot, route, *upstream, ctx, request, upgrade).await
        }
        Action::Redirect { location, status } => {
            respond::redirect(&request, &host, location, *status).map(Outcome::Reply)
        }
        Action::Respond {
            status,
            body,
            content_type,
        } => Ok(Outcome::Reply(respond::fixed(*status, body, content_type))),
    }
}

/// hyper hands over a connection that ends after a request for an upgrade, whatever came of that, and leaves the goodbye to
/// whoever takes it.
async fn end(upgrade: OnUpgrade) {
    if let Ok(stream) = upgrade.await {
        linger::part(&mut TokioIo::new(stream)).await;
    }
}

/// What the inspector bounds in HTTP/1. The library's own bound lies beyond it, since that would say nothing, and not be
/// logged. Cookies count as the one field that they become: browsers send each as a field of its own (RFC 9113 section 8.2.3).
fn bound<B>(limits: &Limits, request: &Request<B>) -> Result<(), ProxyError> {
    let target = request.uri().path_and_query();
    if target.is_some_and(|target| target.as_str().len() > limits.request_target) {
        return Err(ProxyError::Refused(Refusal::TargetTooLong));
    }
    let crumbs = request.headers().get_all(header::COOKIE).iter().count();
    let joined = crumbs.saturating_sub(1);
    if request.headers().len() - joined > limits.request_headers {
        return Err(ProxyError::Refused(Refusal::TooManyFields));
    }
    let fields = request.headers().iter();
    let size = fields.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    let target = target.map_or(0, |target| target.as_str().len());
    let saved = joined * ("cookie: \r\n".len() - "; ".len());
    if size.sum::<usize>() - saved + target > limits.request_head {
        return Err(ProxyError::Refused(Refusal::HeadTooLarge));
    }
    Ok(())
}

/// The method that routes see. TRACE would show a client what the proxy adds, CONNECT is for forward proxies, and PRI is
/// how HTTP/2 begins (RFC 9113 section 11.6).
fn method<B>(
    request: &Request<B>,
    upgrade: Option<Upgrade>,
) -> Result<Cow<'_, Method>, ProxyError> {
    match *request.method() {
        Method::CONNECT if upgrade == Some(Upgrade::Http2) => Ok(Cow::Owned(Method::GET)),
        Method::CONNECT | Method::TRACE => Err(ProxyError::MethodRefused),
        _ if request.method().as_str() == "PRI" => Err(ProxyError::MethodRefused),
        _ => Ok(Cow::Borrowed(request.method())),
    }
}

/// The route for a request. One that another spelling of the same path would take to another route is refused: the app
/// may well read the path in that other way.
fn find(
    snapshot: &Snapshot,
    host: &Host<'_>,
    path: &str,
    method: &Method,
) -> Result<usize, ProxyError> {
    let found = snapshot.table.find(&host.name, path, method);
    if let Cow::Owned(normal) = target::normalise(path)
        && snapshot.table.find(&host.name, &normal, method) != found
    {
        return Err(ProxyError::BadRequest(
            "The path can be read in two ways that belong to different routes.",
        ));
    }
    found.ok_or(ProxyError::NoRoute)
}

/// An upstream's fault is the operator's business; a client's is noise unless asked for.
fn log(ctx: &RequestCtx, error: &ProxyError) {
    let upstream = ctx
        .upstream
        .as_ref()
        .map_or("", |peer| peer.display.as_str());
    let status = error.status().as_u16();
    match error.fault() {
        // Which may be a thousand times a second.
        Fault::Internal if error.retry_after().is_some() => {
            if matches!(error, ProxyError::OutOfDescriptors(_))
                && ctx.worker.load.exhausted.begins()
            {
                warn!(reason = %error, "out of descriptors: requests are answered with 503");
            }
            debug!(id = %ctx.id, status, upstream, reason = %error, "request shed");
        }
        Fault::Client => debug!(id = %ctx.id, status, reason = %error, "request refused"),
        Fault::Upstream | Fault::Internal => {
            warn!(id = %ctx.id, status, upstream, reason = %error, "request failed")
        }
    }
}
