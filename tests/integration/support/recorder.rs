//! An upstream that keeps every byte it is sent, and cuts requests out of them by the letter of RFC 9112.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request as an upstream saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// Up to and with the empty line
    pub(crate) head: String,
    /// Without its framing; `None` where the connection ended first
    pub(crate) body: Option<Vec<u8>>,
    /// The trailers of a chunked body
    pub(crate) trailers: String,
}

impl Recorded {
    /// The values of a field.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }
}

/// A raw upstream. It answers every request whose body is whole.
pub(crate) struct Recorder {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<Recorded>>>,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    /// Answers `200` and `ok`.
    pub(crate) fn start() -> Self {
        Self::answering(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec())
    }

    /// Answers with what `answer` gives; an empty answer closes the connection.
    pub(crate) fn answering(answer: impl Fn(&Recorded) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let (requests, bytes) = (Arc::default(), Arc::default());
        let recorder = Self {
            port,
            requests: Arc::clone(&requests),
            bytes: Arc::clone(&bytes),
        };
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, requests) = (Arc::clone(&answer), Arc::clone(&requests));
                let bytes = Arc::clone(&bytes);
                std::thread::spawn(move || {
                    let mut tap = Tap { stream, bytes };
                    while let Some(recorded) = read_request(&mut tap) {
                        let whole = recorded.body.is_some();
                        requests.lock().expect("unpoisoned").push(recorded.clone());
                        let answer = if whole { answer(&recorded) } else { Vec::new() };
                        if answer.is_empty() || tap.stream.write_all(&answer).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        recorder
    }

    /// A route to it for everything. The tests themselves are who runs it, root perhaps.
    pub(crate) fn route(&self) -> String {
        format!(
            "[upstream.recorder]\npeers = \"127.0.0.1:{}\"\nexpect_user = \"any\"\n[[route]]\nupstream = \"recorder\"\n",
            self.port
        )
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().expect("unpoisoned").clone()
    }

    /// Every byte so far, of all connections.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().expect("unpoisoned").clone()
    }
}

struct Tap {
    stream: TcpStream,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(1) => {
                self.bytes.lock().expect("unpoisoned").push(byte[0]);
                Some(byte[0])
            }
            _ => None,
        }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.byte()?);
        }
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        (0..count).map(|_| self.byte()).collect()
    }
}

fn read_request(tap: &mut Tap) -> Option<Recorded> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push_str(&tap.line()?);
    }
    let mut recorded = Recorded {
        head,
        body: None,
        trailers: String::new(),
    };
    if recorded.values("transfer-encoding") == ["chunked"] {
        if let Some((body, trailers)) = read_chunks(tap) {
            recorded.body = Some(body);
            recorded.trailers = trailers;
        }
    } else {
        let length = match recorded.values("content-length")[..] {
            [] => 0,
            [length] => length.parse().expect("a length"),
            [..] => panic!("several lengths upstream"),
        };
        recorded.body = tap.exactly(length);
    }
    Some(recorded)
}

fn read_chunks(tap: &mut Tap) -> Option<(Vec<u8>, String)> {
    let mut body = Vec::new();
    loop {
        let line = tap.line()?;
        let size = usize::from_str_radix(line.trim_end(), 16).expect("a bare size");
        if size == 0 {
            break;
        }
        body.extend(tap.exactly(size)?);
        assert_eq!(tap.line()?, "\r\n", "the end of a chunk");
    }
    let mut trailers = String::new();
    loop {
        let line = tap.line()?;
        if line == "\r\n" {
            return Some((body, trailers));
        }
        trailers.push_str(&line);
    }
}
