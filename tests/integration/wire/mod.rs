//! What holds for any bytes from either side, byte by byte: raw clients, and upstreams that show exactly what arrived.

mod bypass;
mod framing;
mod fuzzed;
mod h2_abuse;
mod h2_answers;
mod h2_frames;
mod h2_requests;
mod hibernation;
mod limits;
mod memory;
mod overload;
mod places;
mod proxy_header;
mod requests;
mod responses;
mod schemes;
mod time;

use std::io::{Read, Write};

use crate::support::over::{BOTH, Over, Stream};
use crate::support::{Lowport, raw};

/// An upgrade to a websocket.
const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The answer that lets it happen.
const UPGRADED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A connection for bytes, plain or in TLS.
struct Wire(Box<dyn Stream>);

impl Wire {
    fn connect(lowport: &Lowport, over: Over) -> Self {
        Self(over.connect(lowport, b"http/1.1"))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may have answered and closed already.
        let _ = self.0.write_all(bytes.as_ref());
    }

    /// Whatever comes until lowport closes.
    fn rest(&mut self) -> String {
        raw::read_all(&mut self.0)
    }

    /// As [`rest`](Self::rest), of an answer that may be cut off.
    fn rest_cut(&mut self) -> String {
        let mut answer = Vec::new();
        // What came before the error is there all the same.
        let _ = self.0.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Exactly as many bytes as `buffer` takes.
    fn exactly(&mut self, buffer: &mut [u8]) {
        self.0.read_exact(buffer).expect("as many bytes");
    }

    /// One response head.
    fn head(&mut self) -> String {
        let head = raw::read_head(&mut self.0).expect("a head");
        String::from_utf8_lossy(&head).into_owned()
    }

    /// One whole response over a connection that stays.
    fn answer(&mut self) -> String {
        let head = self.head();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().expect("a length"));
        let mut body = vec![0; length];
        self.exactly(&mut body);
        head + &String::from_utf8_lossy(&body)
    }
}

/// Sends bytes and reads until lowport closes.
fn exchange(lowport: &Lowport, over: Over, bytes: impl AsRef<[u8]>) -> String {
    let mut wire = Wire::connect(lowport, over);
    wire.send(bytes);
    wire.rest()
}

/// The status codes in what came back, in order.
fn statuses(answer: &str) -> Vec<u16> {
    answer
        .match_indices("HTTP/1.1 ")
        .filter_map(|(at, start)| answer[at + start.len()..].get(..3)?.parse().ok())
        .collect()
}
