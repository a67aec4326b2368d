//! Whatever a client sends, its line in the access log is one line: a JSON object that means it, or printable ASCII.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use arbitrary::Arbitrary;
use http::Version;
use libfuzzer_sys::fuzz_target;
use lowport::observe::{AccessRecord, Clock, IdSource, RequestId};
use serde_json::Value;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    method: &'a str,
    target: &'a str,
    host: &'a [u8],
    referer: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
    upstream: Option<&'a str>,
    reason: Option<&'a str>,
    client: std::net::IpAddr,
    numbers: (u64, u64, Duration, Duration),
    now: Duration,
}

static ID: LazyLock<RequestId> = LazyLock::new(|| IdSource::new().next());

fuzz_target!(|input: Input<'_>| {
    let record = AccessRecord {
        client: input.client,
        method: input.method,
        target: input.target,
        version: Version::HTTP_11,
        host: input.host,
        status: 200,
        received: input.numbers.0,
        sent: input.numbers.1,
        referer: input.referer,
        user_agent: input.user_agent,
        id: &ID,
        upstream: input.upstream,
        upstream_time: Some(input.numbers.2),
        time: input.numbers.3,
        reason: input.reason,
    };
    let mut clock = Clock::default();
    clock.set(
        SystemTime::UNIX_EPOCH
            .checked_add(input.now)
            .unwrap_or(SystemTime::UNIX_EPOCH),
    );

    let mut line = Vec::new();
    record.json(&mut line, &clock);
    let text = String::from_utf8(line).expect("UTF-8");
    let body = text.strip_suffix('\n').expect("a line");
    assert!(
        !body
            .chars()
            .any(|it| it.is_control() || it == '\u{2028}' || it == '\u{2029}')
    );
    let object: Value = serde_json::from_str(body).expect("JSON");
    let lossy = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
    let maybe = |bytes: Option<&[u8]>| bytes.map_or(Value::Null, lossy);
    assert_eq!(object["method"], input.method);
    assert_eq!(object["target"], input.target);
    assert_eq!(object["host"], lossy(input.host));
    assert_eq!(object["referer"], maybe(input.referer));
    assert_eq!(object["user_agent"], maybe(input.user_agent));
    assert_eq!(object["upstream"], maybe(input.upstream.map(str::as_bytes)));
    assert_eq!(object["reason"], maybe(input.reason.map(str::as_bytes)));
    assert_eq!(object["received"], input.numbers.0);
    assert_eq!(object["sent"], input.numbers.1);

    let mut line = Vec::new();
    record.combined(&mut line, &clock);
    let body = line.strip_suffix(b"\n").expect("a line");
    assert!(body.iter().all(|byte| (0x20..0x7f).contains(byte)));
    let quotes = body.iter().filter(|byte| **byte == b'"').count();
    assert_eq!(quotes, 8, "four fields are quoted");
    let spaces = body.split(|byte| *byte == b'"').step_by(2).flatten();
    assert_eq!(spaces.filter(|byte| **byte == b' ').count(), 16);
});
