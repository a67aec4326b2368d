//! HTTP/1 by the letter (RFC 9112), one byte after the other: what a strict server reads out of a client's bytes.

/// What is wrong: which rule was broken does not matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bad;

/// A request as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The method
    pub method: Vec<u8>,
    /// The target, byte for byte
    pub target: Vec<u8>,
    /// Where its head ends
    pub head_end: usize,
    /// As much of its body as there is
    pub body: Vec<u8>,
    /// Whether that is all of it
    pub complete: bool,
}

/// All requests in `bytes` whose head is complete, up to the first thing that is none.
pub fn messages(bytes: &[u8]) -> Vec<Message> {
    let mut reader = Reader::new(bytes);
    let mut messages = Vec::new();
    while let Ok(Some(mut message)) = reader.head() {
        let body = match message.framing {
            Framing::Length(length) => reader.sized(length),
            Framing::Chunked => reader.chunked(&Bounds::NONE),
        };
        (message.message.body, message.message.complete) = match body {
            Body::Whole(data) => (data, true),
            Body::Broken(data) | Body::Unfinished(data) => (data, false),
        };
        let complete = message.message.complete;
        messages.push(message.message);
        if !complete {
            break;
        }
    }
    messages
}

/// What became of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// It is there, and nothing but it was read
    Whole(Vec<u8>),
    /// It breaks a rule after this much data
    Broken(Vec<u8>),
    /// The bytes end before it does
    Unfinished(Vec<u8>),
}

/// How large parts of a chunked body may be, in bytes.
#[derive(Debug)]
pub struct Bounds {
    /// The extensions of all chunks, without the first `;` of each
    pub extensions: usize,
    /// The trailers, without line ends
    pub trailers: usize,
    /// Digits of one chunk's size
    pub digits: usize,
}

impl Bounds {
    /// As large as can be.
    pub const NONE: Self = Self {
        extensions: usize::MAX,
        trailers: usize::MAX,
        digits: 15,
    };
}

/// Where reading stopped.
enum Stop {
    End,
    Bad,
}

enum Framing {
    Length(u64),
    Chunked,
}

struct Head {
    message: Message,
    framing: Framing,
}

/// Reads byte after byte; what it cannot read may be wrong, or may not have arrived.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Begins at the beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How much has been read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// A chunked body (section 7.1).
    pub fn chunked(&mut self, bounds: &Bounds) -> Body {
        let mut data = Vec::new();
        match self.chunks(bounds, &mut data) {
            Ok(()) => Body::Whole(data),
            Err(Stop::End) => Body::Unfinished(data),
            Err(Stop::Bad) => Body::Broken(data),
        }
    }

    fn sized(&mut self, length: u64) -> Body {
        let rest = &self.bytes[self.at..];
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let data = rest[..length.min(rest.len())].to_vec();
        self.at += data.len();
        if data.len() == length {
            Body::Whole(data)
        } else {
            Body::Unfinished(data)
        }
    }

    /// The next head; `None` when the bytes end before it does.
    fn head(&mut self) -> Result<Option<Head>, Bad> {
        match self.request() {
            Ok(head) => Ok(Some(head)),
            Err(Stop::End) => Ok(None),
            Err(Stop::Bad) => Err(Bad),
        }
    }

    fn request(&mut self) -> Result<Head, Stop> {
        // Empty lines in front of a request are skipped (section 2.2).
        while self.peek()? == b'\r' {
            self.line_end()?;
        }
        let method = self.many(is_token)?;
        self.exactly(b" ")?;
        let target = self.many(|byte| byte > b' ' && byte != 0x7f && byte != b'#')?;
        self.exactly(b" HTTP/1.")?;
        let old = match self.byte()? {
            b'0' => true,
            b'1' => false,
            _ => return Err(Stop::Bad),
        };
        self.line_end()?;
        let (mut length, mut chunked) = (None, false);
        while self.peek()? != b'\r' {
            let name = self.many(is_token)?.to_ascii_lowercase();
            self.exactly(b":")?;
            let value = self.any(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f)?;
            self.line_end()?;
            match &name[..] {
                b"content-length" => {
                    let digits = std::str::from_utf8(value.trim_ascii()).map_err(|_| Stop::Bad)?;
                    let digits = Some(digits).filter(|it| it.bytes().all(|it| it.is_ascii_digit()));
                    let number = digits.and_then(|digits| digits.parse::<i64>().ok());
                    if length.replace(number.ok_or(Stop::Bad)?).is_some() {
                        return Err(Stop::Bad);
                    }
                }
                b"transfer-encoding" => {
                    let once = !std::mem::replace(&mut chunked, true);
                    if old || !once || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                        return Err(Stop::Bad);
                    }
                }
                _ => {}
            }
        }
        self.line_end()?;
        let framing = match (length, chunked) {
            (Some(_), true) => return Err(Stop::Bad),
            (length, false) => Framing::Length(length.unwrap_or(0).unsigned_abs()),
            (None, true) => Framing::Chunked,
        };
        let message = Message {
            method,
            target,
            head_end: self.at,
            body: Vec::new(),
            complete: false,
        };
        Ok(Head { message, framing })
    }

    fn chunks(&mut self, bounds: &Bounds, data: &mut Vec<u8>) -> Result<(), Stop> {
        let mut extensions = 0;
        loop {
            let mut size = 0_u64;
            let mut digits = 0;
            while digits == 0 || self.peek()?.is_ascii_hexdigit() {
                let digit = char::from(self.byte()?).to_digit(16).ok_or(Stop::Bad)?;
                size = size.checked_mul(16).ok_or(Stop::Bad)? + u64::from(digit);
                digits += 1;
                if digits > bounds.digits {
                    return Err(Stop::Bad);
                }
            }
            if self.peek()? == b';' {
                self.at += 1;
                while self.peek()? != b'\r' {
                    let byte = self.byte()?;
                    extensions += 1;
                    let control = byte != b'\t' && (byte < b' ' || byte == 0x7f);
                    if control || extensions > bounds.extensions {
                        return Err(Stop::Bad);
                    }
                }
            }
            self.line_end()?;
            if size == 0 {
                return self.trailers(bounds.trailers);
            }
            match self.sized(size) {
                Body::Whole(part) => data.extend(part),
                Body::Broken(part) | Body::Unfinished(part) => {
                    data.extend(part);
                    return Err(Stop::End);
                }
            }
            self.line_end()?;
        }
    }

    /// Their lines; whether they are fields is somebody else's to say.
    fn trailers(&mut self, bound: usize) -> Result<(), Stop> {
        let mut size = 0;
        while self.peek()? != b'\r' {
            if matches!(self.peek()?, b' ' | b'\t') {
                return Err(Stop::Bad);
            }
            while self.peek()? != b'\r' {
                size += 1;
                if self.byte()? == b'\n' || size > bound {
                    return Err(Stop::Bad);
                }
            }
            self.line_end()?;
        }
        self.line_end()
    }

    fn peek(&self) -> Result<u8, Stop> {
        self.bytes.get(self.at).copied().ok_or(Stop::End)
    }

    fn byte(&mut self) -> Result<u8, Stop> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    fn exactly(&mut self, text: &[u8]) -> Result<(), Stop> {
        for wanted in text {
            if self.byte()? != *wanted {
                return Err(Stop::Bad);
            }
        }
        Ok(())
    }

    fn line_end(&mut self) -> Result<(), Stop> {
        self.exactly(b"\r\n")
    }

    /// As many bytes as are of this kind; at least one.
    fn many(&mut self, kind: impl Fn(u8) -> bool) -> Result<Vec<u8>, Stop> {
        let found = self.any(kind)?;
        if found.is_empty() {
            Err(Stop::Bad)
        } else {
            Ok(found)
        }
    }

    fn any(&mut self, kind: impl Fn(u8) -> bool) -> Result<Vec<u8>, Stop> {
        let start = self.at;
        while kind(self.peek()?) {
            self.at += 1;
        }
        Ok(self.bytes[start..self.at].to_vec())
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
