//! Clients that behave: what they ask for must be answered, and rightly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Message;

use crate::World;
use crate::ledger::{Fault, Kind};
use crate::site::Via;

/// How long anything may take; none of it takes a tenth of that.
const PATIENCE: Duration = Duration::from_secs(30);
/// The sample app's downloads have this period.
const PERIOD: usize = 251;
const LARGEST: usize = 1024 * 1024;

type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// Which app is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// One that lives as long as the soak
    Steady,
    /// Two of which one is killed now and then
    Mortal,
}

impl Target {
    fn prefix(self) -> &'static str {
        match self {
            Self::Steady => "",
            Self::Mortal => "/mortal",
        }
    }
}

impl From<Via> for Kind {
    fn from(via: Via) -> Self {
        match via {
            Via::Http1 => Self::Http1,
            Via::Tls => Self::Tls,
            Via::Http2 => Self::Http2,
        }
    }
}

/// A connection that takes requests.
enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Sender {
    async fn connect(world: &World, via: Via) -> Result<Self, Fault> {
        let stream = world.site().tcp(via).await.map_err(Fault::cut)?;
        if via == Via::Http1 {
            return Self::http1(stream).await;
        }
        let stream = world
            .site()
            .handshake(stream, via)
            .await
            .map_err(Fault::cut)?;
        if via == Via::Tls {
            return Self::http1(stream).await;
        }
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(Fault::cut)?;
        tokio::spawn(connection);
        Ok(Self::Http2(sender))
    }

    async fn http1<S>(stream: S) -> Result<Self, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(Fault::cut)?;
        tokio::spawn(connection);
        Ok(Self::Http1(sender))
    }

    /// Whether it takes another request; not once the other side has said that it closes.
    async fn ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn send(&mut self, ask: &Ask, body: Body) -> Result<Response<Incoming>, Fault> {
        let request = Request::builder()
            .method(ask.method.clone())
            .header("x-nonce", ask.nonce);
        match self {
            Self::Http1(sender) => {
                let request = request.uri(&ask.path).header("host", "localhost");
                sender
                    .send_request(request.body(body).expect("valid"))
                    .await
            }
            Self::Http2(sender) => {
                let request = request.uri(format!("https://localhost{}", ask.path));
                sender
                    .send_request(request.body(body).expect("valid"))
                    .await
            }
        }
        .map_err(Fault::cut)
    }
}

/// One request, and how its answer is known to be right.
struct Ask {
    method: Method,
    path: String,
    nonce: u64,
    /// Bytes that go with it, in how many pieces; a single one has its length told
    body: Option<(Bytes, usize)>,
    answer: Answer,
}

enum Answer {
    /// JSON that tells this request's nonce
    Echo,
    /// So many bytes of the pattern
    Pattern(usize),
    /// JSON with the length and the hash of what was sent
    Digest,
    /// This status
    Status(u16),
    /// Events in order, so many
    Events(usize),
}

impl Ask {
    fn any(target: Target, dice: &mut fastrand::Rng) -> Self {
        let prefix = target.prefix();
        let nonce = dice.u64(..);
        let get = |path: String, answer| Self {
            method: Method::GET,
            path: format!("{prefix}{path}"),
            nonce,
            body: None,
            answer,
        };
        match dice.u8(..100) {
            0..55 => get(format!("/echo/{nonce}?of=soak"), Answer::Echo),
            55..75 => {
                let bytes = size(dice);
                let chunked = u8::from(dice.bool());
                let path = format!("/download?bytes={bytes}&chunked={chunked}");
                get(path, Answer::Pattern(bytes))
            }
            75..85 => {
                let status = *dice.choice(&[200, 204, 304, 404, 500]).expect("some");
                get(format!("/status/{status}"), Answer::Status(status))
            }
            85..90 => get(format!("/slow?ms={}", dice.u32(..300)), Answer::Status(200)),
            _ => {
                let mut bytes = vec![0; size(dice)];
                dice.fill(&mut bytes);
                Self {
                    method: Method::POST,
                    body: Some((bytes.into(), dice.usize(1..8))),
                    ..get("/upload".to_owned(), Answer::Digest)
                }
            }
        }
    }

    fn body(&self) -> Body {
        match &self.body {
            None => Empty::new().boxed_unsync(),
            Some((bytes, 1)) => Full::new(bytes.clone()).boxed_unsync(),
            Some((bytes, pieces)) => {
                let length = bytes.len().div_ceil(*pieces).max(1);
                let pieces: Vec<_> = (0..bytes.len())
                    .step_by(length)
                    .map(|at| bytes.slice(at..bytes.len().min(at + length)))
                    .map(|piece| Ok(Frame::data(piece)))
                    .collect();
                StreamBody::new(stream::iter(pieces)).boxed_unsync()
            }
        }
    }

    async fn put(&self, sender: &mut Sender) -> Result<(), Fault> {
        let response = sender.send(self, self.body()).await?;
        let status = response.status().as_u16();
        let wanted = match self.answer {
            Answer::Status(status) => status,
            _ => 200,
        };
        if matches!(status, 502..=504) {
            return Err(Fault::Refused(status));
        }
        if status != wanted {
            return Err(Fault::Wrong(format!("status {status}")));
        }
        let body = response.into_body().collect().await.map_err(Fault::cut)?;
        if self.is_right(&body.to_bytes()) {
            Ok(())
        } else {
            Err(Fault::Wrong("another body".to_owned()))
        }
    }

    fn is_right(&self, body: &[u8]) -> bool {
        let json = || serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
        match self.answer {
            Answer::Echo => json()["headers"]["x-nonce"].as_str() == Some(&self.nonce.to_string()),
            Answer::Pattern(bytes) => body.len() == bytes && is_pattern(body, 0),
            Answer::Digest => {
                let (sent, _) = self.body.as_ref().expect("an upload");
                let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, sent);
                let hex: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
                json()["bytes"] == sent.len() && json()["sha256"] == hex
            }
            Answer::Status(_) => true,
            Answer::Events(count) => {
                let text = String::from_utf8_lossy(body);
                let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
                ids.eq((1..=count).map(|id| id.to_string()))
            }
        }
    }
}

/// Whether these bytes are those of a download from `offset` on.
pub(crate) fn is_pattern(bytes: &[u8], offset: usize) -> bool {
    let expected = (offset..).map(|at| (at % PERIOD) as u8);
    bytes.iter().copied().eq(expected.take(bytes.len()))
}

/// Mostly small, now and then large.
fn size(dice: &mut fastrand::Rng) -> usize {
    let most = if dice.u8(..10) == 0 { LARGEST } else { 8192 };
    dice.usize(..most)
}

/// One request after the other, each with a connection that may have been used before, until the soak ends. Over HTTP/2
/// `lanes` at a time.
pub(crate) async fn requests(world: Arc<World>, via: Via, target: Target, lanes: usize, seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    while world.goes_on() {
        let from = Instant::now();
        let sender = match Sender::connect(&world, via).await {
            Ok(sender) => sender,
            Err(fault) => {
                let ended = Err(fault);
                world
                    .ledger
                    .enter(via.into(), "connect", from, false, &ended);
                continue;
            }
        };
        let rounds = dice.usize(1..100);
        match sender {
            Sender::Http1(_) => lane(&world, via, target, sender, rounds, dice.fork()).await,
            Sender::Http2(sender) => {
                let lanes = (0..lanes).map(|_| {
                    let sender = Sender::Http2(sender.clone());
                    lane(&world, via, target, sender, rounds, dice.fork())
                });
                futures_util::future::join_all(lanes.collect::<Vec<_>>()).await;
            }
        }
    }
}

async fn lane(
    world: &World,
    via: Via,
    target: Target,
    mut sender: Sender,
    rounds: usize,
    mut dice: fastrand::Rng,
) {
    for _ in 0..rounds {
        if !world.goes_on() || !sender.ready().await {
            return;
        }
        let ask = Ask::any(target, &mut dice);
        if !put(world, via.into(), target, &ask, &mut sender).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(dice.u64(..60))).await;
    }
}

/// Puts and enters it; whether it was answered.
async fn put(world: &World, kind: Kind, target: Target, ask: &Ask, sender: &mut Sender) -> bool {
    let from = Instant::now();
    let ended = in_time(ask.put(sender)).await;
    let what = format!("{} {} {target:?}", ask.method, ask.path);
    world
        .ledger
        .enter(kind, &what, from, target == Target::Mortal, &ended);
    ended.is_ok()
}

/// What does not end in time has hung.
pub(crate) async fn in_time<T>(what: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let late = |_| Err(Fault::Wrong("no end in time".to_owned()));
    tokio::time::timeout(PATIENCE, what)
        .await
        .unwrap_or_else(late)
}

/// One stream of events after the other.
pub(crate) async fn events(world: Arc<World>, via: Via, target: Target, seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    while world.goes_on() {
        let count = dice.usize(1..200);
        let ask = Ask {
            method: Method::GET,
            path: format!("{}/events?interval=20&count={count}", target.prefix()),
            nonce: 0,
            body: None,
            answer: Answer::Events(count),
        };
        if let Ok(mut sender) = Sender::connect(&world, via).await {
            put(&world, Kind::Events, target, &ask, &mut sender).await;
        } else {
            world.ledger.lose(Kind::Events, "connect");
        }
    }
}

/// One WebSocket after the other, each with some messages that come back.
pub(crate) async fn websockets(world: Arc<World>, via: Via, target: Target, seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    while world.goes_on() {
        let from = Instant::now();
        let dice = dice.fork();
        let ended = in_time(async {
            let stream = world.site().tcp(via).await.map_err(Fault::cut)?;
            if via == Via::Http1 {
                echoes("ws", stream, target, dice).await
            } else {
                let stream = world.site().handshake(stream, via).await;
                echoes("wss", stream.map_err(Fault::cut)?, target, dice).await
            }
        })
        .await;
        let what = format!("{} {target:?}", via.name());
        let excused = target == Target::Mortal;
        world
            .ledger
            .enter(Kind::WebSocket, &what, from, excused, &ended);
    }
}

async fn echoes<S>(
    scheme: &str,
    stream: S,
    target: Target,
    mut dice: fastrand::Rng,
) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    use tokio_tungstenite::tungstenite::Error;
    let url = format!("{scheme}://localhost{}/ws/echo", target.prefix());
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream)
        .await
        .map_err(|error| match error {
            Error::Http(response) => Fault::Refused(response.status().as_u16()),
            error => Fault::cut(error),
        })?;
    for _ in 0..dice.u32(1..60) {
        let mut bytes = vec![0; dice.usize(..64 * 1024)];
        dice.fill(&mut bytes);
        let message = Message::binary(bytes);
        socket.send(message.clone()).await.map_err(Fault::cut)?;
        match socket.next().await {
            Some(Ok(echo)) if echo == message => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => {
                return Err(Fault::Cut("closed".to_owned()));
            }
            Some(Ok(_)) => return Err(Fault::Wrong("another message".to_owned())),
        }
        tokio::time::sleep(Duration::from_millis(dice.u64(..100))).await;
    }
    socket.close(None).await.map_err(Fault::cut)?;
    match socket.next().await {
        Some(Ok(Message::Close(_))) => Ok(()),
        other => Err(Fault::Cut(format!("no close came back: {other:?}"))),
    }
}

/// Clients that go away in the middle, of an answer that does not come or of one that is long.
pub(crate) async fn aborts(world: Arc<World>, via: Via, target: Target, seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    while world.goes_on() {
        let Ok(mut sender) = Sender::connect(&world, via).await else {
            world.ledger.lose(Kind::Abort, "connect");
            continue;
        };
        let path = *dice
            .choice(&[
                "/slow?ms=5000",
                "/download?bytes=50000000",
                "/events?interval=10",
            ])
            .expect("some");
        let ask = Ask {
            method: Method::GET,
            path: format!("{}{path}", target.prefix()),
            nonce: 0,
            body: None,
            answer: Answer::Status(200),
        };
        let patience = Duration::from_millis(dice.u64(1..200));
        let from = Instant::now();
        let ended = tokio::time::timeout(patience, ask.put(&mut sender))
            .await
            .unwrap_or(Ok(()));
        world
            .ledger
            .enter(Kind::Abort, path, from, target == Target::Mortal, &ended);
    }
}
