//! The body of a response, whichever protocol it comes over.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::h1;
use crate::bypass::Bypass;
use crate::error::chain;
use crate::http::trailers;

/// A response's body. Dropped before its end, it ends the exchange: the connection of HTTP/1, the stream of HTTP/2.
#[derive(Debug)]
pub struct Body(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    H1(h1::Body),
    H2(Incoming),
}

/// Why a body broke off.
#[derive(Debug)]
pub struct BodyError(String);

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BodyError {}

impl Body {
    /// The rest may go by `bypass`, where that is worth it.
    pub fn pass_by(&mut self, bypass: &Arc<Bypass>) {
        if let Kind::H1(body) = &mut self.0 {
            body.pass_by(bypass);
        }
    }

    /// Whether it yields nothing because the client has not taken what came before.
    pub fn waits_for_client(&self) -> bool {
        matches!(&self.0, Kind::H1(body) if body.waits_for_client())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.0 {
            Kind::H1(body) => body
                .poll_frame(cx)
                .map_err(|error| BodyError(error.to_string())),
            Kind::H2(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|error| BodyError(chain(&error))),
        };
        // Trailers are the last frame: without them, there is none.
        polled.map(|frame| frame?.map(trailers::of_response).transpose())
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::H1(body) => body.is_done(),
            Kind::H2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::H1(body) => body.size_hint(),
            Kind::H2(body) => body.size_hint(),
        }
    }
}
