//! The answer to bytes that did not come to be a request, and their line in the access log.

use std::time::{Duration, SystemTime};

use http::{StatusCode, Version};

use super::respond::Page;
use crate::ctx::{Conn, Worker};
use crate::http1::Refusal;
use crate::http2::Misuse;
use crate::observe::{AccessRecord, Count};

/// Logs what was refused and returns the answer, which the connection ends with. `head` is as much of it as is known.
pub fn refuse(worker: &Worker, conn: &Conn, head: &[u8], refusal: Refusal) -> Vec<u8> {
    let (status, id) = (refusal.status(), worker.ids.next());
    let line = first_line(head);
    let page = Page::plain(status, refusal.why(), id.to_string()).text();
    let head = line.split(|byte| *byte == b' ').next() == Some(b"HEAD");
    let body = if head { "" } else { &page };
    worker.counters.add(Count::of_refusal(refusal));
    record(worker, conn, line, status, refusal.why(), &id, body.len());
    let date = httpdate::fmt_http_date(SystemTime::now());
    let retry = match status {
        StatusCode::TOO_MANY_REQUESTS => "retry-after: 1\r\n",
        _ => "",
    };
    format!(
        "HTTP/1.1 {status}\r\ndate: {date}\r\nconnection: close\r\ncache-control: no-store\r\n{retry}\
         content-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n\r\n{body}",
        length = page.len(),
    )
    .into_bytes()
}

/// Logs that an HTTP/2 connection was cut off.
pub fn cut_off(worker: &Worker, conn: &Conn, misuse: Misuse) {
    let (id, status) = (worker.ids.next(), StatusCode::TOO_MANY_REQUESTS);
    record(worker, conn, b"", status, misuse.why(), &id, 0);
}

/// Logs what hyper found to be no request, and answered by itself.
pub fn refused(worker: &Worker, conn: &Conn, why: &str) {
    let id = worker.ids.next();
    worker.counters.add(Count::RefusedForm);
    record(worker, conn, b"", StatusCode::BAD_REQUEST, why, &id, 0);
}

fn record(
    worker: &Worker,
    conn: &Conn,
    line: &[u8],
    status: StatusCode,
    why: &str,
    id: &crate::observe::RequestId,
    sent: usize,
) {
    worker.counters.add(Count::of_response(Some(status)));
    if !worker.log.is_on() {
        return;
    }
    let line = String::from_utf8_lossy(line);
    let mut parts = line.splitn(3, ' ');
    let method = parts.next().filter(|method| !method.is_empty());
    let first = worker.log.write(&AccessRecord {
        client: conn.client.ip(),
        method: method.unwrap_or("-"),
        target: parts.next().unwrap_or("-"),
        version: if conn.h2 {
            Version::HTTP_2
        } else {
            Version::HTTP_11
        },
        host: b"",
        status: status.as_u16(),
        received: 0,
        sent: sent as u64,
        referer: None,
        user_agent: None,
        id,
        upstream: None,
        upstream_time: None,
        time: Duration::ZERO,
        reason: Some(why),
    });
    if first {
        worker.unflushed.notify_one();
    }
}

fn first_line(head: &[u8]) -> &[u8] {
    let head = head.trim_ascii_start();
    let end = head.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    &head[..end.unwrap_or(head.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_what_the_log_shows() {
        assert_eq!(
            first_line(b"\r\n\r\nGET / HTTP/1.1\r\nA: b"),
            b"GET / HTTP/1.1"
        );
        assert_eq!(first_line(b"GET /\nA"), b"GET /");
        assert_eq!(first_line(b"GE"), b"GE");
        assert_eq!(first_line(b""), b"");
    }
}
