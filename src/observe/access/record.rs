//! One line of the access log.

use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Version;
use time::OffsetDateTime;

use super::super::RequestId;
use super::escape::{bare, json, quoted};

/// What is logged of one request. All of it is borrowed: nothing is allocated for a record.
#[derive(Debug)]
pub struct AccessRecord<'a> {
    /// Who asked
    pub client: IpAddr,
    /// The method
    pub method: &'a str,
    /// Path and query
    pub target: &'a str,
    /// The version that the client spoke
    pub version: Version,
    /// The host asked for, as the client wrote it; may be empty
    pub host: &'a [u8],
    /// 100 to 999; 499 for a client that left before it was answered
    pub status: u16,
    /// Bytes of the request's body, or from the client in a tunnel
    pub received: u64,
    /// Bytes of the response's body
    pub sent: u64,
    /// The `Referer` field
    pub referer: Option<&'a [u8]>,
    /// The `User-Agent` field
    pub user_agent: Option<&'a [u8]>,
    /// What the error page said, too
    pub id: &'a RequestId,
    /// The peer that answered
    pub upstream: Option<&'a str>,
    /// From the request sent to the response head
    pub upstream_time: Option<Duration>,
    /// From the request's head to the last byte of the response
    pub time: Duration,
    /// Why the proxy answered itself, or what cut the exchange off
    pub reason: Option<&'a str>,
}

impl AccessRecord<'_> {
    /// A line as nginx's `combined`, with more at its end.
    pub fn combined(&self, out: &mut Vec<u8>, clock: &Clock) {
        address(out, self.client);
        out.extend_from_slice(b" - - [");
        out.extend_from_slice(&clock.combined);
        out.extend_from_slice(b"] \"");
        bare(out, self.method.as_bytes());
        out.push(b' ');
        bare(out, self.target.as_bytes());
        out.push(b' ');
        out.extend_from_slice(version(self.version));
        out.extend_from_slice(b"\" ");
        decimal(out, u64::from(self.status));
        out.push(b' ');
        decimal(out, self.sent);
        out.extend_from_slice(b" \"");
        quoted(out, self.referer.unwrap_or(b"-"));
        out.extend_from_slice(b"\" \"");
        quoted(out, self.user_agent.unwrap_or(b"-"));
        out.extend_from_slice(b"\" id=");
        out.extend_from_slice(self.id.as_str().as_bytes());
        out.extend_from_slice(b" upstream=");
        bare(out, self.upstream.unwrap_or_default().as_bytes());
        out.extend_from_slice(b" upstream_time=");
        match self.upstream_time {
            Some(time) => thousandths(out, millis(time)),
            None => out.push(b'-'),
        }
        out.extend_from_slice(b" time=");
        thousandths(out, millis(self.time));
        out.extend_from_slice(b" received=");
        decimal(out, self.received);
        out.extend_from_slice(b" host=");
        bare(out, self.host);
        out.extend_from_slice(b" reason=\"");
        quoted(out, self.reason.unwrap_or("-").as_bytes());
        out.extend_from_slice(b"\"\n");
    }

    /// A line with one JSON object. Times are in milliseconds; what there is none of is `null`.
    pub fn json(&self, out: &mut Vec<u8>, clock: &Clock) {
        out.extend_from_slice(b"{\"ts\":\"");
        out.extend_from_slice(&clock.rfc3339);
        out.push(b'.');
        digits(out, u64::from(clock.millis), 3);
        out.extend_from_slice(b"Z\",\"client\":\"");
        address(out, self.client);
        out.extend_from_slice(b"\",\"method\":");
        json(out, self.method.as_bytes());
        out.extend_from_slice(b",\"target\":");
        json(out, self.target.as_bytes());
        out.extend_from_slice(b",\"version\":\"");
        out.extend_from_slice(version(self.version));
        out.extend_from_slice(b"\",\"host\":");
        json(out, self.host);
        out.extend_from_slice(b",\"status\":");
        decimal(out, u64::from(self.status));
        out.extend_from_slice(b",\"received\":");
        decimal(out, self.received);
        out.extend_from_slice(b",\"sent\":");
        decimal(out, self.sent);
        out.extend_from_slice(b",\"referer\":");
        optional(out, self.referer);
        out.extend_from_slice(b",\"user_agent\":");
        optional(out, self.user_agent);
        out.extend_from_slice(b",\"id\":\"");
        out.extend_from_slice(self.id.as_str().as_bytes());
        out.extend_from_slice(b"\",\"upstream\":");
        optional(out, self.upstream.map(str::as_bytes));
        out.extend_from_slice(b",\"upstream_ms\":");
        match self.upstream_time {
            Some(time) => thousandths(out, micros(time)),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"ms\":");
        thousandths(out, micros(self.time));
        out.extend_from_slice(b",\"reason\":");
        optional(out, self.reason.map(str::as_bytes));
        out.extend_from_slice(b"}\n");
    }
}

/// The time of day, formatted once a second.
#[derive(Debug, Default)]
pub struct Clock {
    second: u64,
    millis: u32,
    /// `24/Nov/2026:14:53:51 +0000`
    combined: Vec<u8>,
    /// `2026-11-24T14:53:51`
    rfc3339: Vec<u8>,
}

impl Clock {
    /// Sets it.
    pub fn set(&mut self, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.millis = since.subsec_millis();
        if since.as_secs() != self.second || self.combined.is_empty() {
            self.second = since.as_secs();
            self.format();
        }
    }

    fn format(&mut self) {
        let second = i64::try_from(self.second).unwrap_or_default();
        let now = OffsetDateTime::from_unix_timestamp(second).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (year, month, day) = now.to_calendar_date();
        let (hour, minute, second) = now.to_hms();
        let name = month.to_string();
        self.combined.clear();
        self.rfc3339.clear();
        // Writing to memory does not fail.
        let _ = write!(
            self.combined,
            "{day:02}/{:.3}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000",
            name
        );
        let _ = write!(
            self.rfc3339,
            "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}",
            u8::from(month)
        );
    }
}

fn version(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2.0",
        Version::HTTP_3 => b"HTTP/3.0",
        _ => b"HTTP/1.1",
    }
}

/// An IPv4 address that came in through an IPv6 socket is written as what it is.
fn address(out: &mut Vec<u8>, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, rest @ ..] = ip.octets();
            decimal(out, u64::from(first));
            for octet in rest {
                out.push(b'.');
                decimal(out, u64::from(octet));
            }
        }
        IpAddr::V6(ip) => drop(write!(out, "{ip}")),
    }
}

fn optional(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => json(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// `1.234` for 1234.
fn thousandths(out: &mut Vec<u8>, number: u64) {
    decimal(out, number / 1000);
    out.push(b'.');
    digits(out, number % 1000, 3);
}

fn decimal(out: &mut Vec<u8>, number: u64) {
    digits(out, number, 1);
}

/// At least `least` digits; several times faster than going through `fmt`.
fn digits(out: &mut Vec<u8>, mut number: u64, least: usize) {
    let mut buffer = [b'0'; 20];
    let mut at = buffer.len();
    while number > 0 || buffer.len() - at < least {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&buffer[at..]);
}

#[cfg(test)]
mod tests {
    use super::super::super::IdSource;
    use super::*;

    /// 2026-11-24 14:53:51.042 UTC.
    fn clock() -> Clock {
        let mut clock = Clock::default();
        clock.set(UNIX_EPOCH + Duration::from_millis(1_795_532_031_042));
        clock
    }

    fn record(id: &RequestId) -> AccessRecord<'_> {
        AccessRecord {
            client: "192.0.2.7".parse().unwrap(),
            method: "GET",
            target: "/x?y=1",
            version: Version::HTTP_11,
            host: b"example.com:8443",
            status: 200,
            received: 0,
            sent: 123,
            referer: Some(b"https://example.com/"),
            user_agent: Some(b"curl/8.0 (x)"),
            id,
            upstream: Some("127.0.0.1:3000"),
            upstream_time: Some(Duration::from_micros(3_456)),
            time: Duration::from_micros(1_004_567),
            reason: None,
        }
    }

    fn combined(record: &AccessRecord<'_>) -> String {
        let mut out = Vec::new();
        record.combined(&mut out, &clock());
        String::from_utf8(out).unwrap()
    }

    fn json(record: &AccessRecord<'_>) -> serde_json::Value {
        let mut out = Vec::new();
        record.json(&mut out, &clock());
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_combined_line_is_nginxs_with_more_at_its_end() {
        let id = IdSource::new().next();
        assert_eq!(
            combined(&record(&id)),
            format!(
                "192.0.2.7 - - [24/Nov/2026:14:53:51 +0000] \"GET /x?y=1 HTTP/1.1\" 200 123 \"https://example.com/\" \
                 \"curl/8.0 (x)\" id={id} upstream=127.0.0.1:3000 upstream_time=0.003 time=1.004 received=0 \
                 host=example.com:8443 reason=\"-\"\n"
            )
        );
    }

    #[test]
    fn a_json_line_is_an_object() {
        let id = IdSource::new().next();
        assert_eq!(
            json(&record(&id)),
            serde_json::json!({
                "ts": "2026-11-24T14:53:51.042Z", "client": "192.0.2.7", "method": "GET", "target": "/x?y=1",
                "version": "HTTP/1.1", "host": "example.com:8443", "status": 200, "received": 0, "sent": 123,
                "referer": "https://example.com/", "user_agent": "curl/8.0 (x)", "id": id.as_str(),
                "upstream": "127.0.0.1:3000", "upstream_ms": 3.456, "ms": 1004.567, "reason": null,
            })
        );
    }

    #[test]
    fn what_is_missing_is_said_to_be() {
        let id = IdSource::new().next();
        let bare = AccessRecord {
            client: "::ffff:192.0.2.7".parse().unwrap(),
            version: Version::HTTP_2,
            host: b"",
            referer: None,
            user_agent: None,
            upstream: None,
            upstream_time: None,
            time: Duration::ZERO,
            reason: Some("no route"),
            ..record(&id)
        };
        let line = combined(&bare);
        assert!(line.starts_with("192.0.2.7 - - ["), "{line}");
        let end = format!(
            "HTTP/2.0\" 200 123 \"-\" \"-\" id={id} upstream=- upstream_time=- time=0.000 received=0 host=- \
             reason=\"no route\"\n"
        );
        assert!(line.ends_with(&end), "{line}");
        let object = json(&bare);
        assert!(
            object["referer"].is_null()
                && object["upstream"].is_null()
                && object["upstream_ms"].is_null()
        );
        assert_eq!(object["ms"], 0.0);
        assert_eq!(object["reason"], "no route");
    }

    #[test]
    fn hostile_fields_break_out_of_neither_format() {
        let id = IdSource::new().next();
        let evil = b"\" 200 0 \"\nfake\r\x1b]0;x\x07\xff\xc2\x9b31m";
        let hostile = AccessRecord {
            host: b"h reason=\"x\"\n",
            referer: Some(evil),
            user_agent: Some(evil),
            reason: Some("a\"\nb\u{9b}"),
            upstream: Some("unix:/a b\n"),
            ..record(&id)
        };
        let line = combined(&hostile);
        assert!(
            line.trim_end_matches('\n')
                .bytes()
                .all(|byte| (0x20..0x7f).contains(&byte)),
            "{line}"
        );
        assert_eq!(line.matches('"').count(), 8);
        assert!(
            line.contains(" host=h\\x20reason=\\x22x\\x22\\x0A reason="),
            "{line}"
        );
        let object = json(&hostile);
        assert_eq!(object["host"], "h reason=\"x\"\n");
        assert_eq!(
            object["user_agent"],
            "\" 200 0 \"\nfake\r\u{1b}]0;x\u{7}\u{fffd}\u{9b}31m"
        );
    }

    #[test]
    fn numbers_are_written_whole() {
        let written = |number, least| {
            let mut out = Vec::new();
            digits(&mut out, number, least);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(0, 1), "0");
        assert_eq!(written(7, 3), "007");
        assert_eq!(written(u64::MAX, 1), u64::MAX.to_string());
    }

    #[test]
    fn the_clock_follows_the_second() {
        let mut clock = clock();
        clock.set(UNIX_EPOCH + Duration::from_millis(1_795_532_032_007));
        assert_eq!(clock.rfc3339, b"2026-11-24T14:53:52");
        assert_eq!(clock.millis, 7);
        clock.set(UNIX_EPOCH);
        assert_eq!(clock.combined, b"01/Jan/1970:00:00:00 +0000");
    }
}
