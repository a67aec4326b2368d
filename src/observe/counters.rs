//! What happened, counted.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::StatusCode;

use crate::error::ProxyError;
use crate::http1::Refusal;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Something that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Count { $($(#[$doc])* $name,)* }

        impl Count {
            /// All of them, in their order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// How it is called where numbers are read: `refused_rate`.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

counts! {
    /// Client connections accepted
    Accepted = "connections_accepted",
    /// Of those, ended: the rest are active
    Ended = "connections_ended",
    /// Clients that were accepted by this worker and given to one that had less to do, which counts them
    PassedOn = "connections_passed_on",
    /// Connections past `limits.connections_per_ip`
    RefusedConnection = "connections_refused",
    /// Connections from trusted proxies that did not begin with a PROXY header, or not in time
    RefusedIntroduction = "refused_proxy_header",
    /// Times that accepting came to rest
    Rested = "accept_rests",
    /// Idle connections that were ended for new ones
    MadeRoom = "closed_for_room",
    /// Times that an idle connection gave back its buffers
    Hibernated = "hibernated",
    /// Requests whose head was complete
    Requests = "requests",
    /// Responses of each class; tunnels are 101
    Informed = "responses_1xx",
    /// As above
    Succeeded = "responses_2xx",
    /// As above
    Redirected = "responses_3xx",
    /// As above
    Refused = "responses_4xx",
    /// As above
    Failed = "responses_5xx",
    /// Clients that left before they were answered
    Unanswered = "responses_none",
    /// Not HTTP, or not unambiguous
    RefusedForm = "refused_malformed",
    /// A method that is not served
    RefusedMethod = "refused_method",
    /// An https:// address in plaintext
    Misdirected = "refused_misdirected",
    /// No route
    RefusedRoute = "refused_no_route",
    /// A head past `limits.request_head`, `request_target` or `request_headers`
    RefusedHead = "refused_head",
    /// A body past `limits.request_body`
    RefusedBody = "refused_body",
    /// Past `limits.request_rate`
    RefusedRate = "refused_rate",
    /// A head or a body that came too slowly
    RefusedSlow = "refused_slow",
    /// Bodies that broke off
    Aborted = "client_aborted",
    /// Past `limits.requests_in_flight`
    Shed = "shed",
    /// Past `limits.memory`
    ShedMemory = "shed_memory",
    /// No descriptor was left for a connection to an upstream
    Exhausted = "out_of_descriptors",
    /// Clients that did not read their response for `timeouts.response_write_idle`
    CutResponse = "cut_response",
    /// Tunnels that were quiet for `timeouts.tunnel_idle`
    CutTunnel = "cut_tunnel",
    /// No connection to an upstream
    UpstreamConnect = "upstream_connect",
    /// None in time
    UpstreamConnectTimeout = "upstream_connect_timeout",
    /// Upstreams that broke off
    UpstreamReset = "upstream_reset",
    /// Responses that were not HTTP
    UpstreamMalformed = "upstream_malformed",
    /// No response in time
    UpstreamTimeout = "upstream_timeout",
    /// The supervised app was not up
    UpstreamDown = "upstream_down",
    /// Upstreams run by a user that may not
    UpstreamUser = "upstream_wrong_user",
}

impl Count {
    /// What a request that was not answered by its upstream is counted as.
    pub fn of(error: &ProxyError) -> Self {
        match error {
            ProxyError::BadRequest(_) => Self::RefusedForm,
            ProxyError::Refused(refusal) => Self::of_refusal(*refusal),
            ProxyError::MethodRefused => Self::RefusedMethod,
            ProxyError::Misdirected => Self::Misdirected,
            ProxyError::NoRoute => Self::RefusedRoute,
            ProxyError::BodyTooLarge(_) => Self::RefusedBody,
            ProxyError::RateExceeded { .. } => Self::RefusedRate,
            ProxyError::BodyTimeout(_) | ProxyError::BodySlow(_) => Self::RefusedSlow,
            ProxyError::BodyAborted => Self::Aborted,
            ProxyError::Overloaded(_) => Self::Shed,
            ProxyError::OutOfMemory(_) => Self::ShedMemory,
            ProxyError::OutOfDescriptors(_) => Self::Exhausted,
            ProxyError::Connect(_) => Self::UpstreamConnect,
            ProxyError::ConnectTimeout(_) => Self::UpstreamConnectTimeout,
            ProxyError::Reset => Self::UpstreamReset,
            ProxyError::Malformed(_) => Self::UpstreamMalformed,
            ProxyError::ResponseTimeout(_) => Self::UpstreamTimeout,
            ProxyError::AppDown(_) => Self::UpstreamDown,
            ProxyError::WrongUser { .. } => Self::UpstreamUser,
        }
    }

    /// What bytes that are no request are counted as.
    pub fn of_refusal(refusal: Refusal) -> Self {
        match refusal.status() {
            StatusCode::REQUEST_TIMEOUT => Self::RefusedSlow,
            StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                Self::RefusedHead
            }
            StatusCode::TOO_MANY_REQUESTS => Self::RefusedConnection,
            _ => Self::RefusedForm,
        }
    }

    /// What a response is counted as; `None` where there was none.
    pub fn of_response(status: Option<StatusCode>) -> Self {
        match status.map(|status| status.as_u16() / 100) {
            None => Self::Unanswered,
            Some(1) => Self::Informed,
            Some(2) => Self::Succeeded,
            Some(3) => Self::Redirected,
            Some(4) => Self::Refused,
            Some(_) => Self::Failed,
        }
    }
}

/// The counts of one worker. It alone adds to them, so that no two cores ever fight over one; whoever reads them reads
/// [`Totals`]. Aligned, so that no two workers' counts share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters([AtomicU64; Count::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Counters {
    /// One more. Only for the worker whose counts they are.
    pub fn add(&self, count: Count) {
        let counter = &self.0[count as usize];
        counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// How many of this one so far.
    pub fn get(&self, count: Count) -> u64 {
        self.0[count as usize].load(Relaxed)
    }
}

/// The counts of all workers, as of one moment, more or less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals([u64; Count::ALL.len()]);

impl Totals {
    /// Adds them up.
    pub fn of<'a>(workers: impl IntoIterator<Item = &'a Arc<Counters>>) -> Self {
        let mut totals = [0; Count::ALL.len()];
        for worker in workers {
            for (total, counter) in totals.iter_mut().zip(&worker.0) {
                *total += counter.load(Relaxed);
            }
        }
        Self(totals)
    }

    /// How often it happened.
    pub fn get(&self, count: Count) -> u64 {
        self.0[count as usize]
    }

    /// Client connections that are open.
    pub fn active(&self) -> u64 {
        self.get(Count::Accepted)
            .saturating_sub(self.get(Count::Ended))
    }
}

/// Whatever happened at all, in one line.
impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connections_active={}", self.active())?;
        for count in Count::ALL.iter().filter(|count| self.get(**count) > 0) {
            f.write_char(' ')?;
            write!(f, "{}={}", count.label(), self.get(*count))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_all_workers_are_added_up() {
        let workers = [Arc::new(Counters::default()), Arc::new(Counters::default())];
        for worker in &workers {
            worker.add(Count::Accepted);
            worker.add(Count::Requests);
        }
        workers[1].add(Count::Ended);
        let no_route = Count::of(&ProxyError::NoRoute);
        workers[1].add(no_route);
        let totals = Totals::of(&workers);
        assert_eq!(totals.get(Count::Accepted), 2);
        assert_eq!(
            totals.to_string(),
            "connections_active=1 connections_accepted=2 connections_ended=1 requests=2 refused_no_route=1"
        );
    }

    #[test]
    fn each_count_has_a_label_of_its_own() {
        let mut labels: Vec<_> = Count::ALL.iter().map(|count| count.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Count::ALL.len());
        for (at, count) in Count::ALL.iter().enumerate() {
            assert_eq!(*count as usize, at);
        }
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        for (refusal, count) in [
            (Refusal::HeadTimeout, Count::RefusedSlow),
            (Refusal::TargetTooLong, Count::RefusedHead),
            (Refusal::TooManyFields, Count::RefusedHead),
            (Refusal::BadLength, Count::RefusedForm),
            (Refusal::TooManyConnections, Count::RefusedConnection),
        ] {
            assert_eq!(Count::of_refusal(refusal), count);
        }
        assert_eq!(Count::of_response(None), Count::Unanswered);
        assert_eq!(
            Count::of_response(Some(StatusCode::SWITCHING_PROTOCOLS)),
            Count::Informed
        );
    }
}
