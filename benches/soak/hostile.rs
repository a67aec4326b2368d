//! Clients that do not behave: each must be refused, or served at its pace, and hurts nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::World;
use crate::client::{in_time, is_pattern};
use crate::ledger::{Fault, Kind};
use crate::site::Via;

/// Bytes of HTTP/1 that are no request, or two, and the status that says so.
const REFUSED: &[(&str, &str)] = &[
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "400",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "400",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        "400",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5 \n\r\nhello\r\n0\r\n\r\n",
        "400",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "501",
    ),
    ("GET / HTTP/1.1\r\n\r\n", "400"),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", "400"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", "400"),
    ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
    ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "405"),
    ("\x16\x03\x01\x02\x00\x01\x00\x01\u{7f}", "400"),
];

/// One of them after the other, and bytes without any sense.
pub(crate) async fn bytes(world: Arc<World>, via: Via, seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    while world.goes_on() {
        let (mut bytes, wanted) = match dice.u8(..3) {
            0 => (garbage(&mut dice), None),
            _ => {
                let (text, status) = dice.choice(REFUSED).expect("some");
                (text.as_bytes().to_vec(), Some(*status))
            }
        };
        // What follows is never read as a request.
        bytes.extend_from_slice(b"\r\n\r\nGET /echo/smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let what = bytes.escape_ascii().to_string();
        let ended = async {
            let mut stream = open(&world, via).await?;
            let _ = stream.write_all(&bytes).await;
            let answer = rest(&mut stream).await;
            let status = answer
                .get(9..12)
                .map(|status| status.escape_ascii().to_string());
            let right = match (wanted, &status) {
                (Some(wanted), Some(status)) => status == wanted,
                (Some(_), None) => false,
                (None, Some(status)) => status.starts_with(['4', '5']),
                (None, None) => true,
            };
            let once = answer.windows(7).filter(|at| at == b"HTTP/1.").count() <= 1;
            if right && once {
                Ok(())
            } else {
                Err(Fault::Wrong(answer.escape_ascii().to_string()))
            }
        };
        enter(&world, Kind::Hostile, &what, ended).await;
        tokio::time::sleep(Duration::from_millis(dice.u64(..200))).await;
    }
}

/// Never a request: its first byte is none of a method, nor of a connection preface.
fn garbage(dice: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = vec![0; dice.usize(1..2000)];
    dice.fill(&mut bytes);
    bytes[0] = dice.u8(0x80..);
    bytes
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Fields of `GET /slow` on localhost, as HPACK without its table
const FIELDS: &[u8] = b"\x82\x87\x04\x05/slow\x41\x09localhost";
/// Frames of a flood, at most.
const FLOOD: usize = 200_000;
/// When its connection must be closed, counted from its last frame.
const CUT_OFF: Duration = Duration::from_secs(5);

/// One flood of HTTP/2 after the other, each of which has to be cut off.
pub(crate) async fn floods(world: Arc<World>, seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    while world.goes_on() {
        let flood = *dice
            .choice(&[
                "rapid reset",
                "SETTINGS",
                "PING",
                "empty DATA",
                "CONTINUATION",
                "garbage",
            ])
            .expect("some");
        let mut dice = dice.fork();
        let ended = async {
            let stream = open(&world, Via::Http2).await?;
            let (mut reader, mut writer) = tokio::io::split(stream);
            let write = async {
                writer.write_all(PREFACE).await?;
                let mut sent = 0;
                while sent < FLOOD {
                    let mut frames = Vec::new();
                    for _ in 0..100 {
                        frames.extend(frame(flood, sent, &mut dice));
                        sent += 1;
                    }
                    writer.write_all(&frames).await?;
                }
                Ok::<_, std::io::Error>(())
            };
            let read = async {
                let mut buffer = vec![0; 16 * 1024];
                while let Ok(1..) = reader.read(&mut buffer).await {}
            };
            // It is over when the other side says so; what was sent after its last frame is only read away.
            let write = async {
                let _ = write.await;
                tokio::time::sleep(CUT_OFF).await;
            };
            tokio::select! {
                () = read => Ok(()),
                () = write => Err(Fault::Wrong("it was not cut off".to_owned())),
            }
        };
        enter(&world, Kind::Hostile, flood, ended).await;
        tokio::time::sleep(Duration::from_millis(dice.u64(..500))).await;
    }
}

/// The next frame of a flood, or two that belong together.
fn frame(flood: &str, sent: usize, dice: &mut fastrand::Rng) -> Vec<u8> {
    let stream = u32::try_from(sent).expect("it is bounded") * 2 + 1;
    let one = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len())
            .expect("it is short")
            .to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    match flood {
        "rapid reset" => [one(1, 5, stream, FIELDS), one(3, 0, stream, &[0, 0, 0, 8])].concat(),
        "SETTINGS" => one(4, 0, 0, &[]),
        "PING" => one(6, 0, 0, b"flooding"),
        "empty DATA" if sent == 0 => one(1, 4, 1, b"\x83\x87\x04\x07/upload\x41\x09localhost"),
        "empty DATA" => one(0, 0, 1, &[]),
        "CONTINUATION" if sent == 0 => one(1, 1, 1, FIELDS),
        "CONTINUATION" => one(9, 0, 1, &[]),
        _ => {
            let mut bytes = vec![0; 50];
            dice.fill(&mut bytes);
            bytes
        }
    }
}

/// One slow client after the other.
pub(crate) async fn slow(world: Arc<World>, via: Via, seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    while world.goes_on() {
        match dice.u8(..3) {
            0 => enter(&world, Kind::Slow, "head", slow_head(&world, via)).await,
            1 => enter(&world, Kind::Slow, "body", slow_body(&world, via)).await,
            _ => enter(&world, Kind::Slow, "read", slow_read(&world, via)).await,
        }
    }
}

/// A byte at a time, for longer than a head may take.
async fn slow_head(world: &World, via: Via) -> Result<(), Fault> {
    let stream = open(world, via).await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let write = async {
        let fields = b"GET /echo HTTP/1.1\r\nHost: localhost\r\nX: ".iter();
        for byte in fields.chain(std::iter::repeat(&b'x')) {
            if writer.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // What was answered is still there to be read.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = write => unreachable!("it does not end"),
        answer = rest(&mut reader) => timed_out(&answer),
    }
}

async fn slow_body(world: &World, via: Via) -> Result<(), Fault> {
    let mut stream = open(world, via).await?;
    let head =
        b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nand no more";
    stream.write_all(head).await.map_err(Fault::cut)?;
    timed_out(&rest(&mut stream).await)
}

fn timed_out(answer: &[u8]) -> Result<(), Fault> {
    if answer.starts_with(b"HTTP/1.1 408 ") {
        Ok(())
    } else {
        Err(Fault::Wrong(answer.escape_ascii().to_string()))
    }
}

/// An answer of some MiB, read little by little.
async fn slow_read(world: &World, via: Via) -> Result<(), Fault> {
    let mut stream = open(world, via).await?;
    const BYTES: usize = 3_000_000;
    let head = format!(
        "GET /download?bytes={BYTES} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    );
    stream
        .write_all(head.as_bytes())
        .await
        .map_err(Fault::cut)?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer).await.map_err(Fault::cut)? {
            0 => break,
            count => answer.extend_from_slice(&buffer[..count]),
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
    let body = head.map_or(&[][..], |at| &answer[at + 4..]);
    if body.len() == BYTES && is_pattern(body, 0) {
        Ok(())
    } else {
        Err(Fault::Wrong(format!("{} bytes, or others", body.len())))
    }
}

/// A stream of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn open(world: &World, via: Via) -> Result<Box<dyn Stream>, Fault> {
    let stream = world.site().tcp(via).await.map_err(Fault::cut)?;
    if via == Via::Http1 {
        return Ok(Box::new(stream));
    }
    let stream = world.site().handshake(stream, via).await;
    Ok(Box::new(stream.map_err(Fault::cut)?))
}

async fn enter(
    world: &World,
    kind: Kind,
    what: &str,
    ended: impl Future<Output = Result<(), Fault>>,
) {
    let from = Instant::now();
    let ended = in_time(ended).await;
    world.ledger.enter(kind, what, from, false, &ended);
}

/// What comes until the other side ends it.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}
