//! Where a chunked body ends (RFC 9112 section 7.1), by the letter.

use super::Refusal;

/// Bytes of extensions in one body. Nobody uses them; each chunk could carry some.
const EXTENSIONS: usize = 4096;
/// Digits of a chunk's size: 2^60 bytes are enough for anybody.
const DIGITS: u8 = 15;

/// Follows a chunked body: its data is skipped, the lines between are checked.
#[derive(Debug)]
pub struct Chunks {
    state: State,
    size: u64,
    digits: u8,
    extensions: usize,
    trailers: usize,
    limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataReturn,
    DataEnd,
    /// At the beginning of a trailer's line
    Trailer,
    InTrailer,
    TrailerEnd,
    LastEnd,
    Done,
}

/// Some bytes of a chunked body: all of them data, or none of them. Framing is either all before the trailers or all in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes of data
    Data(usize),
    /// So many bytes that are no data
    Framing(usize),
}

impl Chunks {
    /// A body whose trailers have at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            state: State::Size,
            size: 0,
            digits: 0,
            extensions: 0,
            trailers: 0,
            limit,
        }
    }

    /// Whether the last chunk and the trailers are over.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the last line that was looked at is, or was, one of the trailers.
    pub fn in_trailers(&self) -> bool {
        matches!(
            self.state,
            State::Trailer | State::InTrailer | State::TrailerEnd | State::LastEnd | State::Done
        )
    }

    /// Looks at what comes next and returns how many of its bytes belong to the body: all, unless the body ends in them.
    ///
    /// # Errors
    /// What is wrong, and how many bytes came before that.
    pub fn look(&mut self, bytes: &[u8]) -> Result<usize, (usize, Refusal)> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            let (Piece::Data(count) | Piece::Framing(count)) = self
                .next(&bytes[at..])
                .map_err(|(after, refusal)| (at + after, refusal))?;
            at += count;
        }
        Ok(at)
    }

    /// What is at the front of `bytes`, which must not be empty.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub fn next(&mut self, bytes: &[u8]) -> Result<Piece, (usize, Refusal)> {
        if self.state == State::Data {
            let rest = usize::try_from(self.size).unwrap_or(usize::MAX);
            let count = rest.min(bytes.len());
            self.size -= count as u64;
            if self.size == 0 {
                self.state = State::DataReturn;
            }
            return Ok(Piece::Data(count));
        }
        let in_trailers = self.in_trailers();
        for (at, byte) in bytes.iter().enumerate() {
            if self.state == State::Data || self.is_done() || self.in_trailers() != in_trailers {
                return Ok(Piece::Framing(at));
            }
            self.step(*byte).map_err(|refusal| (at, refusal))?;
        }
        Ok(Piece::Framing(bytes.len()))
    }

    fn step(&mut self, byte: u8) -> Result<(), Refusal> {
        self.state = match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeEnd,
            (State::Size, b';') if self.digits > 0 => State::Extension,
            (State::Size, _) => {
                let digit = (byte as char).to_digit(16).ok_or(Refusal::ChunkSize)?;
                if self.digits == DIGITS {
                    return Err(Refusal::ChunkSize);
                }
                self.digits += 1;
                self.size = self.size << 4 | u64::from(digit);
                State::Size
            }
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, _) => {
                self.extensions += 1;
                if self.extensions > EXTENSIONS || byte != b'\t' && byte.is_ascii_control() {
                    return Err(Refusal::ChunkExtension);
                }
                State::Extension
            }
            (State::SizeEnd, b'\n') => {
                self.digits = 0;
                if self.size == 0 {
                    State::Trailer
                } else {
                    State::Data
                }
            }
            (State::SizeEnd, _) => return Err(Refusal::ChunkSize),
            (State::DataReturn, b'\r') => State::DataEnd,
            (State::DataEnd, b'\n') => State::Size,
            (State::DataReturn | State::DataEnd, _) => return Err(Refusal::ChunkEnd),
            (State::Trailer, b'\r') => State::LastEnd,
            (State::Trailer, b' ' | b'\t') => return Err(Refusal::Trailers),
            (State::Trailer | State::InTrailer, b'\n') => return Err(Refusal::Trailers),
            (State::InTrailer, b'\r') => State::TrailerEnd,
            (State::Trailer | State::InTrailer, _) => {
                self.trailers += 1;
                if self.trailers > self.limit {
                    return Err(Refusal::TrailersTooLarge);
                }
                State::InTrailer
            }
            (State::TrailerEnd, b'\n') => State::Trailer,
            (State::LastEnd, b'\n') => State::Done,
            (State::TrailerEnd | State::LastEnd, _) => return Err(Refusal::Trailers),
            // The loop above takes care of these.
            (State::Data | State::Done, _) => self.state,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of `text`, in one piece and byte by byte.
    fn look(text: &str) -> Result<usize, Refusal> {
        let whole = Chunks::new(64).look(text.as_bytes());
        let mut chunks = Chunks::new(64);
        let mut count = 0;
        let mut bytewise = Ok(());
        for byte in text.as_bytes() {
            match chunks.look(&[*byte]) {
                Ok(taken) => count += taken,
                Err((_, refusal)) => {
                    bytewise = Err((count, refusal));
                    break;
                }
            }
        }
        assert_eq!(whole, bytewise.map(|()| count), "{text:?}");
        whole.map_err(|(_, refusal)| refusal)
    }

    #[test]
    fn a_body_ends_where_its_last_chunk_says() {
        for (text, length) in [
            ("0\r\n\r\nGET", 5),
            ("3\r\nabc\r\n0\r\n\r\n", 13),
            ("a;x=1;y=\"2\"\r\n0123456789\r\n0\r\n\r\nx", 30),
            ("000003\r\nabc\r\n00\r\nX-T: 1\r\n\r\n0", 27),
            ("1\r\n\n\r\n0\r\n\r\n", 11),
            ("3\r\nab", 5),
        ] {
            assert_eq!(look(text), Ok(length), "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for (text, refusal) in [
            ("\r\n", Refusal::ChunkSize),
            (";x\r\n", Refusal::ChunkSize),
            ("0x3\r\n", Refusal::ChunkSize),
            ("+3\r\n", Refusal::ChunkSize),
            ("-1\r\n", Refusal::ChunkSize),
            (" 3\r\n", Refusal::ChunkSize),
            ("3 \r\n", Refusal::ChunkSize),
            ("3\n", Refusal::ChunkSize),
            ("3\rx", Refusal::ChunkSize),
            ("1000000000000000\r\n", Refusal::ChunkSize),
            ("3;a\nb\r\n", Refusal::ChunkExtension),
            ("3;a\0\r\n", Refusal::ChunkExtension),
            ("3\r\nabcd\r\n", Refusal::ChunkEnd),
            ("3\r\nabc\n", Refusal::ChunkEnd),
            ("3\r\nabc\rx", Refusal::ChunkEnd),
            ("0\r\n\n", Refusal::Trailers),
            ("0\r\nA: b\n", Refusal::Trailers),
            ("0\r\nA: b\r\n c\r\n", Refusal::Trailers),
            ("0\r\nA: b\rx", Refusal::Trailers),
        ] {
            assert_eq!(look(text), Err(refusal), "{text:?}");
        }
        let long = format!("3;{}\r\n", "x".repeat(EXTENSIONS + 1));
        assert_eq!(look(&long), Err(Refusal::ChunkExtension));
        let many = format!("0\r\n{}\r\n", "A: bcdef\r\n".repeat(10));
        assert_eq!(look(&many), Err(Refusal::TrailersTooLarge));
    }

    #[test]
    fn extensions_are_counted_over_the_whole_body() {
        let chunk = format!("1;{}\r\na\r\n", "x".repeat(EXTENSIONS / 2));
        assert!(look(&chunk.repeat(2)).is_ok());
        assert_eq!(look(&chunk.repeat(3)), Err(Refusal::ChunkExtension));
    }
}
