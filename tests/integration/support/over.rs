//! What a client's bytes travel over.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::{Lowport, certs, raw};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Plain,
    Tls,
}

pub(crate) const BOTH: [Over; 2] = [Over::Plain, Over::Tls];

/// A connection, whatever it is made of.
pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Over {
    /// Connects to the port that speaks so; over TLS, `alpn` is what the client says that it speaks.
    pub(crate) fn connect(self, lowport: &Lowport, alpn: &[u8]) -> Box<dyn Stream> {
        self.behind(raw::connect(self.port(lowport)), alpn)
    }

    /// The port that speaks so.
    pub(crate) fn port(self, lowport: &Lowport) -> u16 {
        match self {
            Self::Plain => lowport.http,
            Self::Tls => lowport.https,
        }
    }

    /// The same over a connection to that port on which something else has been said first.
    pub(crate) fn behind(self, stream: TcpStream, alpn: &[u8]) -> Box<dyn Stream> {
        match self {
            Self::Plain => Box::new(stream),
            Self::Tls => {
                let name = "localhost".try_into().expect("a name");
                let session = rustls::ClientConnection::new(certs::client(&[alpn]), name);
                let session = session.expect("a session");
                Box::new(Tls { session, stream })
            }
        }
    }
}

/// TLS that reads what has come even where nothing can be written any more, which `rustls::Stream` does not.
struct Tls {
    session: rustls::ClientConnection,
    stream: TcpStream,
}

impl Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
            let _ = self.flush();
            self.session.read_tls(&mut self.stream)?;
            let processed = self.session.process_new_packets();
            processed.map_err(std::io::Error::other)?;
        }
    }
}

impl Write for Tls {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let part = &buffer[..buffer.len().min(16_384)];
        while self.session.is_handshaking() {
            self.session.complete_io(&mut self.stream)?;
        }
        self.session.writer().write_all(part)?;
        self.flush()?;
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.stream)?;
        }
        Ok(())
    }
}
