//! Fields at the end of a message, and what of them goes on (RFC 9110 section 6.5.1): those that mean nothing in a head.
//! Whoever takes the two together would else believe at the end what nobody may say at the beginning.

use http::header::{self, HeaderName, HeaderValue};
use http_body::Frame;

/// What goes on of a frame of a response's body; `None` where that is nothing.
pub fn of_response<T>(frame: Frame<T>) -> Option<Frame<T>> {
    passed(frame, |_| false)
}

/// What goes on of a frame of a request's body: a client has no say in what only a proxy says either. `None` where that
/// is nothing.
pub fn of_request<T>(frame: Frame<T>) -> Option<Frame<T>> {
    passed(frame, claims)
}

fn passed<T>(frame: Frame<T>, but: impl Fn(&HeaderName) -> bool) -> Option<Frame<T>> {
    let mut fields = match frame.into_trailers() {
        Ok(fields) => fields,
        Err(frame) => return Some(frame),
    };
    let fine = |name: &HeaderName, value: &HeaderValue| {
        // HTTP/2 can bring a value with space around it; HTTP/1.1 has no way to say it.
        may_trail(name) && !but(name) && value.as_bytes().trim_ascii() == value.as_bytes()
    };
    if !fields.iter().all(|(name, value)| fine(name, value)) {
        let kept = fields.iter().filter(|(name, value)| fine(name, value));
        fields = kept
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
    }
    (!fields.is_empty()).then(|| Frame::trailers(fields))
}

/// Whether a field means something at the end of a message, and nothing that would have to be known at its beginning.
fn may_trail(name: &HeaderName) -> bool {
    const HEAD_ONLY: [HeaderName; 22] = [
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::EXPECT,
        header::FORWARDED,
        header::HOST,
        header::LOCATION,
        header::MAX_FORWARDS,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::RANGE,
        header::SET_COOKIE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::WWW_AUTHENTICATE,
    ];
    let text = name.as_str();
    !(HEAD_ONLY.contains(name) || text.starts_with("x-forwarded-") || text == "keep-alive")
}

/// Whether it is a client's word on what only a proxy says, or would be taken for it.
fn claims(name: &HeaderName) -> bool {
    let text = name.as_str();
    matches!(text, "proxy" | "x-real-ip") || text.contains('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [(&str, &str); 9] = [
        ("grpc-status", "1"),
        ("content-length", "1"),
        ("host", "1"),
        ("x-forwarded-for", "1"),
        ("x-real-ip", "1"),
        ("x_real_ip", "1"),
        ("proxy", "1"),
        ("x-sum", "1"),
        ("x-padded", " 1"),
    ];

    fn frame(fields: &[(&'static str, &'static str)]) -> Frame<()> {
        let field = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        Frame::trailers(fields.iter().map(field).collect())
    }

    fn names(frame: Option<Frame<()>>) -> Vec<String> {
        let fields = frame.and_then(|frame| frame.into_trailers().ok());
        let fields = fields.unwrap_or_default();
        fields.keys().map(HeaderName::to_string).collect()
    }

    #[test]
    fn trailers_say_nothing_that_a_head_says() {
        assert_eq!(names(of_request(frame(&FIELDS))), ["grpc-status", "x-sum"]);
        assert_eq!(
            names(of_response(frame(&FIELDS))),
            ["grpc-status", "x-real-ip", "x_real_ip", "proxy", "x-sum"]
        );
    }

    #[test]
    fn where_no_field_is_left_there_are_no_trailers() {
        assert!(of_request(frame(&[("host", "a")])).is_none());
        assert!(of_response(frame(&[])).is_none());
        assert!(of_request(Frame::data(())).is_some_and(|frame| frame.is_data()));
    }
}
