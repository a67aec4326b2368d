//! What holds for any bytes from either side, byte by byte: raw clients, and upstreams that show exactly what arrived.

mod framing;
mod fuzzed;
mod h2_abuse;
mod h2_answers;
mod h2_frames;
mod h2_requests;
mod limits;
mod overload;
mod requests;
mod responses;
mod time;

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::{Lowport, certs, raw};

/// How a client of bytes reaches lowport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Plain,
    Tls,
}

const BOTH: [Over; 2] = [Over::Plain, Over::Tls];

/// A connection for bytes, plain or in TLS.
enum Wire {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Wire {
    fn connect(lowport: &Lowport, over: Over) -> Self {
        match over {
            Over::Plain => Self::Plain(raw::connect(lowport.http)),
            Over::Tls => {
                let name = "localhost".try_into().expect("a name");
                let session = rustls::ClientConnection::new(certs::client(&[b"http/1.1"]), name);
                Self::Tls(Box::new(rustls::StreamOwned::new(
                    session.expect("a session"),
                    raw::connect(lowport.https),
                )))
            }
        }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may have answered and closed already.
        let _ = match self {
            Self::Plain(stream) => stream.write_all(bytes.as_ref()),
            Self::Tls(stream) => stream
                .write_all(bytes.as_ref())
                .and_then(|()| stream.flush()),
        };
    }

    /// Whatever comes until lowport closes.
    fn rest(&mut self) -> String {
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let read = match self {
                Self::Plain(stream) => stream.read(&mut chunk),
                Self::Tls(stream) => stream.read(&mut chunk),
            };
            match read {
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&answer)),
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// As [`rest`](Self::rest), of an answer that may be cut off.
    fn rest_cut(&mut self) -> String {
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = match self {
            Self::Plain(stream) => stream.read(&mut chunk),
            Self::Tls(stream) => stream.read(&mut chunk),
        } {
            answer.extend_from_slice(&chunk[..count]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Exactly as many bytes as `buffer` takes.
    fn exactly(&mut self, buffer: &mut [u8]) {
        let read = match self {
            Self::Plain(stream) => stream.read_exact(buffer),
            Self::Tls(stream) => stream.read_exact(buffer),
        };
        read.expect("as many bytes");
    }

    /// One response head.
    fn head(&mut self) -> String {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.exactly(&mut byte);
            head.push(byte[0]);
        }
        String::from_utf8_lossy(&head).into_owned()
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
