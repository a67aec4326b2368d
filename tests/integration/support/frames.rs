//! HTTP/2 by hand: a client that sends any frame, in any order, with any field in it.

use std::io::{ErrorKind, Read, Write};

use super::over::{Over, Stream};
use super::{Lowport, raw};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("a code"))
    }
}

/// What comes of a request first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Status(u16),
    /// RST_STREAM with this code
    Reset(u32),
    /// GOAWAY with this code, which is an error
    GoAway(u32),
    /// The end of the connection without a word
    Ended,
}

impl Outcome {
    /// Refused in one of the ways that RFC 9113 section 8.1.1 has for what is malformed, for this stream alone.
    pub(crate) fn is_stream_refusal(self) -> bool {
        matches!(self, Self::Status(400..=499) | Self::Reset(PROTOCOL_ERROR))
    }
}

/// A connection.
pub(crate) struct Frames {
    io: Box<dyn Stream>,
    seen: Vec<Frame>,
    ended: bool,
    next: u32,
}

impl Frames {
    /// In plaintext, with settings that change nothing.
    pub(crate) fn connect(port: u16) -> Self {
        Self::over(Box::new(raw::connect(port)), &[])
    }

    /// To the port that speaks as `over` says. Tells lowport to use no table of fields, so that a status can be read
    /// without one, and `settings`.
    pub(crate) fn open(lowport: &Lowport, over: Over, settings: &[(u16, u32)]) -> Self {
        let settings = [&[(1, 0)], settings].concat();
        Self::over(over.connect(lowport, b"h2"), &settings)
    }

    pub(crate) fn over(io: Box<dyn Stream>, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self {
            io,
            seen: Vec::new(),
            ended: false,
            next: 1,
        };
        frames.bytes(PREFACE);
        frames.settings(settings);
        frames
    }

    /// Any bytes. Lowport may have hung up already.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> bool {
        self.io
            .write_all(bytes)
            .and_then(|()| self.io.flush())
            .is_ok()
    }

    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.bytes(&frame(kind, flags, stream, payload))
    }

    pub(crate) fn settings(&mut self, settings: &[(u16, u32)]) -> bool {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(key, value)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        self.frame(SETTINGS, 0, 0, &payload)
    }

    pub(crate) fn window_update(&mut self, stream: u32, more: u32) -> bool {
        self.frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
    }

    pub(crate) fn reset(&mut self, stream: u32, code: u32) -> bool {
        self.frame(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    /// Begins a stream with these fields; `end` is whether that is all of it.
    pub(crate) fn request(&mut self, fields: &[(&str, &str)], end: bool) -> u32 {
        self.block(&block(fields), end)
    }

    /// The same with a block of fields that is encoded already.
    pub(crate) fn block(&mut self, block: &[u8], end: bool) -> u32 {
        let stream = self.stream();
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.frame(HEADERS, flags, stream, block);
        stream
    }

    /// The next stream's number.
    pub(crate) fn stream(&mut self) -> u32 {
        let stream = self.next;
        self.next += 2;
        stream
    }

    pub(crate) fn get(&mut self, path: &str) -> u32 {
        self.request(&get(path), true)
    }

    pub(crate) fn data(&mut self, stream: u32, data: &[u8], end: bool) -> bool {
        self.frame(DATA, if end { END_STREAM } else { 0 }, stream, data)
    }

    /// The next frame; `None` at the connection's end. Pings are answered.
    pub(crate) fn next(&mut self) -> Option<&Frame> {
        if self.ended {
            return None;
        }
        let mut head = [0; 9];
        if !self.fill(&mut head) {
            self.ended = true;
            return None;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        assert!(self.fill(&mut payload), "an end within a frame");
        let stream = u32::from_be_bytes(head[5..].try_into().expect("four"));
        if head[3] == PING && head[4] & ACK == 0 {
            self.frame(PING, ACK, 0, &payload);
        }
        self.seen.push(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        });
        self.seen.last()
    }

    /// Whether there was as much before the end.
    fn fill(&mut self, buffer: &mut [u8]) -> bool {
        match self.io.read_exact(buffer) {
            Ok(()) => true,
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    false
                }
                kind => panic!("{kind:?} after {:?}", self.seen.last()),
            },
        }
    }

    /// The first frame, of all that came and will come, that `wanted` wants; `None` where the connection ends without.
    pub(crate) fn find(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let mut at = 0;
        loop {
            if let Some(frame) = self.seen[at..].iter().find(|frame| wanted(frame)) {
                return Some(frame.clone());
            }
            at = self.seen.len();
            self.next()?;
        }
    }

    /// The payload of the first frame of this kind.
    pub(crate) fn until(&mut self, kind: u8) -> Vec<u8> {
        self.find(|frame| frame.kind == kind)
            .expect("a frame of that kind")
            .payload
    }

    /// What came of a stream.
    pub(crate) fn outcome(&mut self, stream: u32) -> Outcome {
        let found = self.find(|frame| match frame.kind {
            HEADERS | RST_STREAM => frame.stream == stream,
            GOAWAY => frame.code() != 0,
            _ => false,
        });
        match found {
            Some(frame) if frame.kind == HEADERS => Outcome::Status(status(&frame.payload)),
            Some(frame) if frame.kind == RST_STREAM => Outcome::Reset(frame.code()),
            Some(frame) => Outcome::GoAway(frame.code()),
            None => Outcome::Ended,
        }
    }

    /// The body of a response, to its END_STREAM; `None` where that does not come.
    pub(crate) fn body(&mut self, stream: u32) -> Option<Vec<u8>> {
        let last = self.find(|frame| {
            frame.stream == stream
                && (frame.kind == RST_STREAM
                    || matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0)
        })?;
        let data = self.seen.iter();
        let data = data.filter(|frame| frame.kind == DATA && frame.stream == stream);
        let body = data.flat_map(|frame| frame.payload.clone()).collect();
        (last.kind != RST_STREAM).then_some(body)
    }

    /// The code of the GOAWAY that the connection ends with, if it ends with one.
    pub(crate) fn ends_with(&mut self) -> Option<u32> {
        while self.next().is_some() {}
        let last = self.seen.iter().rev().find(|frame| frame.kind == GOAWAY);
        last.map(Frame::code)
    }

    /// How many frames of this kind came so far.
    pub(crate) fn count(&self, kind: u8) -> usize {
        self.seen.iter().filter(|frame| frame.kind == kind).count()
    }

    /// Waits for the connection's end.
    pub(crate) fn ended(mut self) {
        while self.next().is_some() {}
    }
}

/// A frame as bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The fields of a plain request.
pub(crate) fn get(path: &str) -> [(&'static str, &str); 4] {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", path),
    ]
}

/// Fields as literals that go into no table (RFC 7541 section 6.2.2): whatever is in them arrives as it is.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, 7, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer behind a prefix of so many bits, the others 0 (RFC 7541 section 5.1).
pub(crate) fn integer(block: &mut Vec<u8>, bits: u32, mut value: usize) {
    let most = (1 << bits) - 1;
    if value < most {
        return block.push(value as u8);
    }
    block.push(most as u8);
    value -= most;
    while value >= 128 {
        block.push(value as u8 | 128);
        value >>= 7;
    }
    block.push(value as u8);
}

/// The status at the beginning of a response's fields, which use no dynamic table.
fn status(block: &[u8]) -> u16 {
    let start = block.iter().position(|byte| byte >> 5 != 1);
    let block = &block[start.expect("a field")..];
    match block[0] {
        index @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        // A literal with the name `:status`, indexed or not.
        0x48 | 0x08 | 0x18 => {
            let length = usize::from(block[1] & 0x7f);
            let value = &block[2..2 + length];
            let text = if block[1] & 0x80 == 0 {
                String::from_utf8_lossy(value).into_owned()
            } else {
                digits(value)
            };
            text.parse().expect("a status")
        }
        other => panic!("{other:#x} is no :status"),
    }
}

/// Digits in Huffman's code (RFC 7541 appendix B): 0 to 2 have five bits, the others six.
fn digits(code: &[u8]) -> String {
    let bits: Vec<u8> = code
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let (mut at, mut text) = (0, String::new());
    while bits.len() - at >= 5 {
        let five = bits[at..at + 5].iter().fold(0, |sum, bit| sum * 2 + bit);
        if five <= 2 {
            text.push(char::from(b'0' + five));
            at += 5;
            continue;
        }
        let Some(last) = bits.get(at + 5) else { break };
        let digit = (five * 2 + last).wrapping_sub(25) + 3;
        if !(3..=9).contains(&digit) {
            break;
        }
        text.push(char::from(b'0' + digit));
        at += 6;
    }
    text
}
