//! Why bytes are not passed on as a request.

use http::StatusCode;

/// What is wrong with a client's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A line that ends in LF without CR
    BareLineFeed,
    /// A field continued on the next line (RFC 9112 section 5.2)
    FoldedField,
    /// A request line that is not `method SP target SP version`
    RequestLine,
    /// A version other than 1.0 and 1.1
    Version,
    /// A target with a fragment
    Fragment,
    /// A target longer than `limits.request_target`
    TargetTooLong,
    /// A head larger than `limits.request_head`
    HeadTooLarge,
    /// More fields than `limits.request_headers`
    TooManyFields,
    /// `Content-Length` and `Transfer-Encoding` in one head (RFC 9112 section 6.3)
    LengthAndCoding,
    /// A `Content-Length` that is not one number below 2^63
    BadLength,
    /// Several `Content-Length` fields
    RepeatedLength,
    /// `Transfer-Encoding` in HTTP/1.0
    CodingInHttp10,
    /// `chunked` twice, or not alone at the end
    BadCoding,
    /// A transfer coding other than `chunked`
    UnknownCoding,
    /// A body in front of a WebSocket, or of what CONNECT asks for
    UpgradeWithBody,
    /// A connection past `limits.connections_per_ip`
    TooManyConnections,
    /// The head did not arrive within `timeouts.request_head`
    HeadTimeout,
    /// A chunk whose size is not hexadecimal digits, or too many of them
    ChunkSize,
    /// A chunk that does not end where its size says
    ChunkEnd,
    /// A chunk extension that is too long, or has a control character
    ChunkExtension,
    /// A trailer whose line does not end in CR LF, or is folded
    Trailers,
    /// Trailers larger than a head may be
    TrailersTooLarge,
}

impl Refusal {
    /// The status that tells the client.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge | Self::TooManyFields | Self::TrailersTooLarge => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyConnections => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// What the client is told, and the access log.
    pub fn why(self) -> &'static str {
        match self {
            Self::BareLineFeed => "A line of the request ends without a carriage return.",
            Self::FoldedField => "A header field is continued on a second line.",
            Self::RequestLine => "The request line is not valid.",
            Self::Version => "Only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here.",
            Self::Fragment => "The request's target has a fragment.",
            Self::TargetTooLong => {
                "The request's target is longer than limits.request_target allows."
            }
            Self::HeadTooLarge => "The request's head is larger than limits.request_head allows.",
            Self::TooManyFields => {
                "The request has more header fields than limits.request_headers allows."
            }
            Self::LengthAndCoding => {
                "The request has both a Content-Length and a Transfer-Encoding."
            }
            Self::BadLength => "The request's Content-Length is not one number.",
            Self::RepeatedLength => "The request has several Content-Length fields.",
            Self::CodingInHttp10 => "HTTP/1.0 has no Transfer-Encoding.",
            Self::BadCoding => "The request's Transfer-Encoding does not end its body.",
            Self::UnknownCoding => "The only Transfer-Encoding that is understood is chunked.",
            Self::UpgradeWithBody => "A request for a tunnel cannot have a body.",
            Self::TooManyConnections => {
                "This client has more connections than limits.connections_per_ip allows."
            }
            Self::HeadTimeout => "The request's head did not arrive within timeouts.request_head.",
            Self::ChunkSize => "The size of a chunk is not valid.",
            Self::ChunkEnd => "A chunk does not end where its size says.",
            Self::ChunkExtension => "A chunk extension is not valid, or too long.",
            Self::Trailers => "The request's trailers are not valid.",
            Self::TrailersTooLarge => {
                "The request's trailers are larger than limits.request_head allows."
            }
        }
    }

    /// Whether it was met in a body: the request is with the app then, perhaps.
    pub fn in_body(self) -> bool {
        matches!(
            self,
            Self::ChunkSize
                | Self::ChunkEnd
                | Self::ChunkExtension
                | Self::Trailers
                | Self::TrailersTooLarge
        )
    }
}
