//! What the proxies stand in front of: a server on a thread of its own that does as little as it can.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::runtime;

/// Where this many bytes are to be had: `/b/1048576`.
pub(crate) const BYTES: &str = "/b/";
/// Bytes of what is answered everywhere else.
const SMALL: usize = 1024;
/// Bytes of a buffer for a request's head.
const HEAD_ROOM: usize = 8 << 10;
/// Bytes of one for its body.
const BODY_ROOM: usize = 256 << 10;

/// What bodies are made of.
static FILLING: [u8; 256 << 10] = [b'x'; 256 << 10];

/// Starts it, and returns its port. It ends with the process.
pub(crate) fn upstream() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    listener.set_nonblocking(true).expect("non-blocking");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("listening");
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    // How a connection ends is the client's to notice.
                    tokio::spawn(async { drop(serve(stream).await) });
                }
                // Else a crowd is let in before anybody who is there already is answered.
                tokio::task::yield_now().await;
            }
        });
    });
    port
}

/// What a request wants.
struct Wanted {
    /// Bytes of its head
    head: usize,
    /// Bytes of the body that follows
    sent: usize,
    /// Bytes of the answer's body
    answer: usize,
    /// Whether it becomes a tunnel
    tunnel: bool,
    /// Whether the connection ends after it
    last: bool,
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let small = [head(SMALL).as_bytes(), &FILLING[..SMALL]].concat();
    let (mut buf, mut read) = (vec![0; HEAD_ROOM], 0);
    loop {
        let wanted = loop {
            if let Some(wanted) = wanted(&buf[..read])? {
                break wanted;
            }
            match stream.read(&mut buf[read..]).await? {
                0 => return Ok(()),
                count => read += count,
            }
        };
        if wanted.tunnel {
            return tunnel(stream).await;
        }
        let mut missing = (wanted.head + wanted.sent).saturating_sub(read);
        if missing > 0 {
            buf.resize(BODY_ROOM, 0);
        }
        while missing > 0 {
            let most = missing.min(BODY_ROOM);
            match stream.read(&mut buf[..most]).await? {
                0 => return Ok(()),
                count => missing -= count,
            }
        }
        // Nobody here sends a request before the last one was answered.
        read = 0;
        if wanted.answer == SMALL {
            stream.write_all(&small).await?;
        } else {
            stream.write_all(head(wanted.answer).as_bytes()).await?;
            fill(&mut stream, wanted.answer).await?;
        }
        if wanted.last {
            return stream.shutdown().await;
        }
    }
}

/// `None` while the head is not there yet.
fn wanted(bytes: &[u8]) -> io::Result<Option<Wanted>> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(head) = request.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let field = |name: &str| {
        let field = request
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name));
        field.map_or("", |field| std::str::from_utf8(field.value).unwrap_or(""))
    };
    let bytes = request.path.and_then(|path| path.strip_prefix(BYTES));
    Ok(Some(Wanted {
        head,
        sent: field("content-length").parse().unwrap_or(0),
        answer: bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or(SMALL),
        tunnel: field("upgrade").eq_ignore_ascii_case("websocket"),
        last: field("connection").eq_ignore_ascii_case("close"),
    }))
}

fn head(length: usize) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: keep-alive\r\n\
         Keep-Alive: timeout=60\r\n\r\n"
    )
}

async fn fill(stream: &mut TcpStream, mut length: usize) -> io::Result<()> {
    while length > 0 {
        let some = length.min(FILLING.len());
        stream.write_all(&FILLING[..some]).await?;
        length -= some;
    }
    Ok(())
}

/// Sends for as long as the other end listens. What is in a tunnel is no proxy's business, so it needs no frames.
async fn tunnel(mut stream: TcpStream) -> io::Result<()> {
    // What RFC 6455 section 1.3 answers to the key that is its example.
    let accepted = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    stream.write_all(accepted.as_bytes()).await?;
    loop {
        stream.write_all(&FILLING).await?;
    }
}
