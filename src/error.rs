//! What can go wrong with one request, whose fault it is, and which status says so.

use std::fmt;
use std::io;
use std::time::Duration;

use http::StatusCode;

use crate::http1::Refusal;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client's: a 4xx
    Client,
    /// The upstream's: 502 or 504
    Upstream,
    /// Ours: 500 or 503
    Internal,
}

/// Why a request was not answered by its upstream.
#[derive(Debug)]
pub enum ProxyError {
    /// The request breaks a rule of HTTP, or one that keeps routing unambiguous.
    BadRequest(&'static str),
    /// The request, or its body, is not as RFC 9112 has it, or past a limit.
    Refused(Refusal),
    /// TRACE, or CONNECT outside RFC 8441.
    MethodRefused,
    /// An https:// address was asked for in plaintext (RFC 9110 section 7.4).
    Misdirected,
    /// No route matches.
    NoRoute,
    /// The request's body is larger than `limits.request_body` bytes.
    BodyTooLarge(u64),
    /// The client sends more requests than `limits.request_rate`.
    RateExceeded {
        /// The rate, as people read it
        rate: String,
        /// How long it should wait
        wait: Duration,
    },
    /// The client stalled in mid-body for `timeouts.request_body_idle`.
    BodyTimeout(Duration),
    /// The client sends its body more slowly than `limits.request_body_rate`, in bytes a second.
    BodySlow(u64),
    /// The client broke off in mid-body.
    BodyAborted,
    /// Upstreams are busy with `limits.requests_in_flight` requests.
    Overloaded(usize),
    /// This process has as many bytes in memory as `limits.memory`.
    OutOfMemory(u64),
    /// This process has no descriptor left for a connection to an upstream.
    OutOfDescriptors(io::Error),
    /// No address of the upstream took a connection.
    Connect(io::Error),
    /// No address of the upstream took a connection within `timeouts.upstream_connect`.
    ConnectTimeout(Duration),
    /// The upstream closed or reset the connection before its response was whole.
    Reset,
    /// The upstream's response is not HTTP.
    Malformed(String),
    /// No response head within `timeouts.upstream_response`.
    ResponseTimeout(Duration),
    /// The supervised app is not up; the text says what it is doing instead.
    AppDown(String),
    /// The upstream is run by a user that `expect_user` does not allow.
    WrongUser {
        /// Who runs it, such as `root (uid 0)`
        found: String,
        /// Who may, such as `anybody but root`
        expected: String,
    },
}

impl ProxyError {
    /// The status that tells the client.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::BodyAborted => StatusCode::BAD_REQUEST,
            Self::Refused(refusal) => refusal.status(),
            Self::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateExceeded { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::BodyTimeout(_) | Self::BodySlow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Overloaded(_) | Self::OutOfMemory(_) | Self::OutOfDescriptors(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Connect(_)
            | Self::Reset
            | Self::Malformed(_)
            | Self::AppDown(_)
            | Self::WrongUser { .. } => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout(_) | Self::ResponseTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self.status().as_u16() {
            400..=499 => Fault::Client,
            502 | 504 => Fault::Upstream,
            _ => Fault::Internal,
        }
    }

    /// When the client may try again, where that helps: whole seconds, at least one (RFC 9110 section 10.2.3).
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::RateExceeded { wait, .. } => {
                let more = u64::from(wait.subsec_nanos() > 0);
                Some((wait.as_secs() + more).max(1))
            }
            Self::Overloaded(_)
            | Self::OutOfMemory(_)
            | Self::OutOfDescriptors(_)
            | Self::AppDown(_) => Some(1),
            _ => None,
        }
    }

    /// What the client is told: no address, no name of a file, nothing that helps an attacker.
    pub fn public(&self) -> &'static str {
        match self {
            Self::BadRequest(why) => why,
            Self::Refused(refusal) => refusal.why(),
            Self::MethodRefused => "This method is not served here.",
            Self::Misdirected => "This is for an https:// address, and the connection has no TLS.",
            Self::NoRoute => "No route matches this address.",
            Self::BodyTooLarge(_) => {
                "The request's body is larger than limits.request_body allows."
            }
            Self::RateExceeded { .. } => {
                "This client sends more requests than limits.request_rate allows."
            }
            Self::BodyTimeout(_) => {
                "The request's body did not arrive within timeouts.request_body_idle."
            }
            Self::BodySlow(_) => {
                "The request's body comes more slowly than limits.request_body_rate allows."
            }
            Self::BodyAborted => "The request's body broke off.",
            Self::Overloaded(_) => {
                "The server is busy with as many requests as limits.requests_in_flight allows."
            }
            Self::OutOfMemory(_) => "The server has as much in memory as limits.memory allows.",
            Self::OutOfDescriptors(_) => "The server has too many open connections.",
            Self::Connect(_) => "The application does not accept connections.",
            Self::ConnectTimeout(_) => {
                "The application did not accept the connection within timeouts.upstream_connect."
            }
            Self::Reset => "The application closed the connection before it had answered.",
            Self::Malformed(_) => "The application's answer is not valid HTTP.",
            Self::ResponseTimeout(_) => {
                "The application did not answer within timeouts.upstream_response."
            }
            Self::AppDown(_) => "The application is not running.",
            Self::WrongUser { .. } => "The application is not served; lowport's log says why.",
        }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRequest(why) => write!(f, "bad request: {why}"),
            Self::Refused(refusal) => write!(f, "refused: {}", refusal.why()),
            Self::MethodRefused => f.write_str("method refused"),
            Self::Misdirected => {
                f.write_str("https:// asked for in plaintext, by none of server.trusted_proxies")
            }
            Self::NoRoute => f.write_str("no route"),
            Self::BodyTooLarge(limit) => {
                write!(f, "request body over limits.request_body ({limit} bytes)")
            }
            Self::RateExceeded { rate, .. } => {
                write!(f, "more requests than limits.request_rate ({rate})")
            }
            Self::BodySlow(rate) => write!(
                f,
                "request body slower than limits.request_body_rate ({rate} bytes/s)"
            ),
            Self::Overloaded(limit) => {
                write!(f, "shed: limits.requests_in_flight ({limit}) reached")
            }
            Self::OutOfMemory(limit) => {
                write!(f, "shed: limits.memory ({limit} bytes) reached")
            }
            Self::OutOfDescriptors(error) => {
                write!(f, "no descriptor left for an upstream connection: {error}")
            }
            Self::BodyTimeout(limit) => write!(
                f,
                "request body idle for timeouts.request_body_idle ({limit:?})"
            ),
            Self::BodyAborted => f.write_str("client broke off in mid-body"),
            Self::Connect(error) => write!(f, "upstream connect: {error}"),
            Self::ConnectTimeout(limit) => write!(
                f,
                "upstream connect: timeouts.upstream_connect ({limit:?}) passed"
            ),
            Self::Reset => {
                f.write_str("upstream closed the connection before the response was complete")
            }
            Self::Malformed(why) => write!(f, "upstream response malformed: {why}"),
            Self::ResponseTimeout(limit) => {
                write!(
                    f,
                    "no upstream response head within timeouts.upstream_response ({limit:?})"
                )
            }
            Self::AppDown(state) => write!(f, "app is down: {state}"),
            Self::WrongUser { found, expected } => {
                write!(
                    f,
                    "upstream is run by {found}; expect_user allows {expected}"
                )
            }
        }
    }
}

impl std::error::Error for ProxyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(error) | Self::OutOfDescriptors(error) => Some(error),
            _ => None,
        }
    }
}

/// An error with all of its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_504_and_broken_upstreams_502() {
        let second = Duration::from_secs(1);
        assert_eq!(ProxyError::ResponseTimeout(second).status(), 504);
        assert_eq!(ProxyError::ConnectTimeout(second).status(), 504);
        for broken in [
            ProxyError::Reset,
            ProxyError::Malformed(String::new()),
            ProxyError::AppDown(String::new()),
        ] {
            assert_eq!(
                (broken.status(), broken.fault()),
                (StatusCode::BAD_GATEWAY, Fault::Upstream)
            );
        }
    }

    #[test]
    fn what_the_client_is_told_leaks_no_address() {
        let refused = ProxyError::Connect(io::Error::other("connect to 10.1.2.3:3000 refused"));
        assert!(!refused.public().contains("10.1.2.3"));
        assert!(refused.to_string().contains("10.1.2.3"));
        let wrong = ProxyError::WrongUser {
            found: "root (uid 0)".into(),
            expected: "anybody but root".into(),
        };
        assert!(!wrong.public().contains("root"));
        assert!(wrong.to_string().contains("root (uid 0)"));
    }

    #[test]
    fn whoever_may_come_again_is_told_when() {
        let after = |millis| {
            let wait = Duration::from_millis(millis);
            ProxyError::RateExceeded {
                rate: String::new(),
                wait,
            }
            .retry_after()
        };
        assert_eq!(after(1), Some(1));
        assert_eq!(after(1000), Some(1));
        assert_eq!(after(1001), Some(2));
        assert_eq!(ProxyError::Overloaded(1).retry_after(), Some(1));
        assert_eq!(ProxyError::NoRoute.retry_after(), None);
        assert_eq!(ProxyError::Overloaded(1).fault(), Fault::Internal);
    }

    #[test]
    fn clients_mistakes_are_theirs() {
        for error in [
            ProxyError::NoRoute,
            ProxyError::Misdirected,
            ProxyError::BodyTooLarge(1),
            ProxyError::BadRequest("x"),
        ] {
            assert_eq!(error.fault(), Fault::Client);
        }
    }
}
