//! Looks at a client's bytes before hyper does, and refuses what can be read in two ways.

use memchr::memchr;

use super::{Chunks, Refusal};

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes in all
    pub head: usize,
    /// Bytes of the target
    pub target: usize,
    /// Fields
    pub fields: usize,
}

/// Follows one client's HTTP/1 connection from head to body to head. A head is looked at line by line, where it lies; only
/// a line that arrives in pieces is put together. Bodies are skipped, but for the lines between chunks.
#[derive(Debug)]
pub struct Inspector {
    bounds: Bounds,
    state: State,
    head: Head,
    /// A line of which the end is yet to come
    partial: Vec<u8>,
    heads: u32,
    beyond: bool,
}

#[derive(Debug)]
enum State {
    Head,
    Body(u64),
    Chunked(Chunks),
    /// After a request for a WebSocket, or a CONNECT: what follows may be anything
    Opaque,
}

/// What of a head decides how its body is framed.
#[derive(Debug, Default)]
struct Head {
    size: usize,
    begun: bool,
    get: bool,
    connect: bool,
    old: bool,
    fields: usize,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

/// Bytes that are not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// How many bytes in front of them are
    pub after: usize,
    /// What is wrong with them
    pub why: Refusal,
}

impl Inspector {
    /// A new connection.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            state: State::Head,
            head: Head::default(),
            partial: Vec::new(),
            heads: 0,
            beyond: false,
        }
    }

    /// Heads that were complete.
    pub fn heads(&self) -> u32 {
        self.heads
    }

    /// Whether the last head asked for a tunnel, so that what follows is not looked at.
    pub fn is_opaque(&self) -> bool {
        matches!(self.state, State::Opaque)
    }

    /// Whether bytes came behind that head that were not looked at.
    pub fn has_seen_beyond(&self) -> bool {
        self.beyond
    }

    /// Whether all that was looked at are whole requests.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Head) && self.head.size == 0
    }

    /// Gives back what it kept room for, and has `bounds` from now on. Between requests.
    pub fn begin_anew(&mut self, bounds: Bounds) {
        self.partial = Vec::new();
        self.bounds = bounds;
    }

    /// There is no tunnel: what follows is the next request.
    pub fn resume(&mut self) {
        self.state = State::Head;
    }

    /// Looks at what arrived.
    ///
    /// # Errors
    /// What must not be passed on, and why. Nothing is to be looked at after that.
    pub fn look(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.state {
                State::Opaque => {
                    self.beyond = true;
                    return Ok(());
                }
                State::Body(length) => {
                    let count = usize::try_from(*length)
                        .unwrap_or(usize::MAX)
                        .min(rest.len());
                    *length -= count as u64;
                    at += count;
                    if *length == 0 {
                        self.state = State::Head;
                    }
                }
                State::Chunked(chunks) => match chunks.look(rest) {
                    Ok(count) => {
                        at += count;
                        if chunks.is_done() {
                            self.state = State::Head;
                        }
                    }
                    Err((after, why)) => {
                        let after = at + after;
                        return Err(Refused { after, why });
                    }
                },
                State::Head => {
                    let count = memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
                    self.piece(&rest[..count])
                        .map_err(|why| Refused { after: at, why })?;
                    at += count;
                }
            }
        }
        Ok(())
    }

    /// A line of a head, or what has come of it.
    fn piece(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        self.head.size += piece.len();
        let whole = piece.last() == Some(&b'\n');
        if self.partial.is_empty() && whole {
            return self.line(piece);
        }
        self.partial.extend_from_slice(piece);
        if !whole {
            return self.fits(self.partial.len());
        }
        let line = std::mem::take(&mut self.partial);
        let looked = self.line(&line);
        self.partial = line;
        self.partial.clear();
        looked
    }

    /// Whether the head is within its bounds so far; `line` bytes of it are the line of this moment.
    fn fits(&self, line: usize) -> Result<(), Refusal> {
        if !self.head.begun && line > self.bounds.target + LINE_MARGIN {
            Err(Refusal::TargetTooLong)
        } else if self.head.size > self.bounds.head {
            Err(Refusal::HeadTooLarge)
        } else {
            Ok(())
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.fits(line.len())?;
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err(Refusal::BareLineFeed);
        };
        match (self.head.begun, line) {
            // Empty lines in front of a request are skipped (RFC 9112 section 2.2).
            (false, b"") => Ok(()),
            (false, _) => self.request_line(line),
            (true, b"") => self.end(),
            (true, _) => self.field(line),
        }
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let head = &mut self.head;
        head.begun = true;
        let (rest, version) = split_last(line).ok_or(Refusal::RequestLine)?;
        head.old = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            _ if version.starts_with(b"HTTP/") => return Err(Refusal::Version),
            _ => return Err(Refusal::RequestLine),
        };
        let method = memchr(b' ', rest).ok_or(Refusal::RequestLine)?;
        head.get = &rest[..method] == b"GET";
        head.connect = &rest[..method] == b"CONNECT";
        let target = &rest[method + 1..];
        if target.len() > self.bounds.target {
            return Err(Refusal::TargetTooLong);
        }
        if memchr(b'#', target).is_some() {
            return Err(Refusal::Fragment);
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let head = &mut self.head;
        head.fields += 1;
        if head.fields > self.bounds.fields {
            return Err(Refusal::TooManyFields);
        }
        match line[0] {
            b' ' | b'\t' => return Err(Refusal::FoldedField),
            b'c' | b'C' => {
                if let Some(value) = value_of(line, b"content-length") {
                    if head.length.is_some() {
                        return Err(Refusal::RepeatedLength);
                    }
                    head.length = Some(number(value).ok_or(Refusal::BadLength)?);
                }
            }
            b't' | b'T' => {
                if let Some(value) = value_of(line, b"transfer-encoding") {
                    if head.old {
                        return Err(Refusal::CodingInHttp10);
                    }
                    if head.chunked {
                        return Err(Refusal::BadCoding);
                    }
                    coding(value)?;
                    head.chunked = true;
                }
            }
            b'u' | b'U' => {
                if let Some(value) = value_of(line, b"upgrade") {
                    let mut tokens = value.split(|byte| *byte == b',');
                    head.upgrade |=
                        tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"websocket"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The empty line.
    fn end(&mut self) -> Result<(), Refusal> {
        let head = std::mem::take(&mut self.head);
        let upgrade = head.upgrade && head.get && !head.old || head.connect;
        self.state = match (head.length, head.chunked) {
            (Some(_), true) => return Err(Refusal::LengthAndCoding),
            (Some(1..), _) | (_, true) if upgrade => return Err(Refusal::UpgradeWithBody),
            (None, true) => State::Chunked(Chunks::new(self.bounds.head)),
            (None | Some(0), false) if upgrade => State::Opaque,
            (None | Some(0), false) => State::Head,
            (Some(length), false) => State::Body(length),
        };
        self.heads = self.heads.wrapping_add(1);
        Ok(())
    }
}

/// What a request line has besides its target: the longest method that hyper takes, and the version.
const LINE_MARGIN: usize = 64;

fn split_last(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().rposition(|byte| *byte == b' ')?;
    Some((&line[..at], &line[at + 1..]))
}

/// The value of a field, if it has this name. A name with a space behind it is none; hyper refuses that.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// Digits, and nothing but digits.
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let number = value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })?;
    // What a signed 64-bit number of the server behind can hold.
    (number <= i64::MAX as u64).then_some(number)
}

/// Accepts `chunked`, and tells apart what is wrong with anything else (RFC 9112 section 6.1).
fn coding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .rev();
    let ends_in_chunked = codings
        .next()
        .is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    let known =
        codings.all(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"chunked"));
    Err(if ends_in_chunked && known {
        Refusal::UnknownCoding
    } else {
        Refusal::BadCoding
    })
}

#[cfg(test)]
mod tests;
