//! What is known of one request; its access record is written when this drops.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Uri, Version};

use super::{Conn, Place, Worker};
use crate::body::Progress;
use crate::observe::{AccessRecord, Count, RequestId};
use crate::upstream::Peer;

/// nginx's status for a client that left before it was answered.
const CLIENT_GONE: u16 = 499;

/// One request, from its head to the last byte of its response. It travels with the response's body, so that a client
/// that goes away is logged as well.
#[derive(Debug)]
pub struct RequestCtx {
    /// The worker that serves it
    pub worker: Rc<Worker>,
    /// The connection that it came in on
    pub conn: Rc<Conn>,
    /// Told to the client on error pages, and found in both logs
    pub id: RequestId,
    /// The status that the client got; `None` until there is one
    pub status: Option<StatusCode>,
    /// Why the proxy answered itself, or what cut the exchange off
    pub reason: Option<String>,
    /// Bytes of the response's body that were sent
    pub sent: u64,
    /// Who answered
    pub upstream: Option<Arc<Peer>>,
    /// From the request sent to the response head
    pub upstream_time: Option<Duration>,
    /// The request's body
    pub body: Option<Rc<Progress>>,
    /// Whether the client cut its response short
    pub cut_short: bool,
    /// Bytes that a tunnel moved from the client
    pub tunnelled: u64,
    /// Among the requests in flight, where those have a bound
    pub place: Option<Place>,
    started: Instant,
    logged: Option<Logged>,
}

/// What only the access log needs; not kept when it is off. All of it shares the request's own buffers.
#[derive(Debug)]
struct Logged {
    method: Method,
    target: Uri,
    version: Version,
    host: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
}

impl Logged {
    fn of<B>(request: &Request<B>) -> Self {
        let field = |headers: &HeaderMap, name| headers.get(name).cloned();
        Self {
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            host: field(request.headers(), header::HOST),
            referer: field(request.headers(), header::REFERER),
            user_agent: field(request.headers(), header::USER_AGENT),
        }
    }
}

impl RequestCtx {
    /// A request whose head has just arrived.
    pub fn begin<B>(worker: Rc<Worker>, conn: Rc<Conn>, request: &Request<B>) -> Self {
        conn.activity.request_began();
        conn.intake.begin();
        worker.counters.add(Count::Requests);
        Self {
            id: worker.ids.next(),
            logged: worker.log.is_on().then(|| Logged::of(request)),
            worker,
            conn,
            status: None,
            reason: None,
            sent: 0,
            upstream: None,
            upstream_time: None,
            body: None,
            cut_short: false,
            tunnelled: 0,
            place: None,
            started: Instant::now(),
        }
    }
}

impl Drop for RequestCtx {
    fn drop(&mut self) {
        let answered = self.status.is_some() && !self.cut_short;
        self.conn.activity.request_ended(answered);
        let response = Count::of_response(self.status);
        self.worker.counters.add(response);
        let Some(logged) = &self.logged else { return };
        let target = logged
            .target
            .path_and_query()
            .map_or("*", |target| target.as_str());
        let host = match (logged.target.authority(), &logged.host) {
            (Some(authority), _) => authority.as_str().as_bytes(),
            (None, Some(host)) => host.as_bytes(),
            (None, None) => b"",
        };
        let first = self.worker.log.write(&AccessRecord {
            client: self.conn.client.ip(),
            method: logged.method.as_str(),
            target,
            version: logged.version,
            host,
            status: self.status.map_or(CLIENT_GONE, |status| status.as_u16()),
            received: self.tunnelled + self.body.as_ref().map_or(0, |body| body.received()),
            sent: self.sent,
            referer: logged.referer.as_ref().map(HeaderValue::as_bytes),
            user_agent: logged.user_agent.as_ref().map(HeaderValue::as_bytes),
            id: &self.id,
            upstream: self.upstream.as_ref().map(|peer| peer.display.as_str()),
            upstream_time: self.upstream_time,
            time: self.started.elapsed(),
            reason: self.reason.as_deref(),
        });
        if first {
            self.worker.unflushed.notify_one();
        }
    }
}
