//! Many WebSockets, idle most of the time.

use futures_util::{SinkExt, StreamExt};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::block_in_place;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::{report, size};
use crate::support::client::{tls, websocket};
use crate::support::{Lowport, Node, until};

/// KiB that an idle tunnel may take, TLS or not.
const TUNNEL: f64 = 32.0;
const AT_ONCE: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_websockets_cost_little_and_all_of_them_work() {
    // This process, the app and lowport have one or two descriptors a socket; children inherit the limit.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raised");
    let count = size(300, 2000);
    let node = Node::start();
    // A lowport each, so that one does not live on memory that the other has left.
    let lowport = Lowport::start(&node.route());
    let http = lowport.http;
    many("plain", &lowport, count, || websocket(http, "/ws/echo")).await;
    let lowport = Lowport::start(&node.route());
    let https = lowport.https;
    let over_tls = || async move {
        let stream = tls(https, "localhost", &[b"http/1.1"]).await;
        let opened = tokio_tungstenite::client_async("wss://localhost/ws/echo", stream).await;
        opened.expect("an upgrade").0
    };
    many("TLS", &lowport, count, over_tls).await;
}

async fn many<F, S>(what: &str, lowport: &Lowport, count: usize, connect: impl Fn() -> F)
where
    F: Future<Output = WebSocketStream<S>>,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let descriptors = lowport.descriptors();
    let all_gone = || {
        until("all tunnels to be gone", || {
            (lowport.descriptors() <= descriptors).then_some(())
        })
    };
    // What is allocated once is not for the tunnels to pay.
    drop(open(AT_ONCE, &connect).await);
    block_in_place(all_gone);
    let before = lowport.memory();
    let per_tunnel = || lowport.memory().saturating_sub(before) as f64 / count as f64;
    let mut sockets = open(count, &connect).await;
    let idle = per_tunnel();
    // All send before the first reads: each tunnel has something on its way.
    let texts = (0..count).map(|number| Message::text(format!("{number:01000}")));
    for (socket, text) in sockets.iter_mut().zip(texts.clone()) {
        socket.send(text).await.expect("sent");
    }
    for (socket, text) in sockets.iter_mut().zip(texts) {
        assert_eq!(socket.next().await.expect("open").expect("a message"), text);
    }
    let used = per_tunnel();
    report(
        &format!("{count} websockets, {what}"),
        &format!("{idle:.1} KiB each while idle, {used:.1} KiB after an echo"),
    );
    assert!(idle < TUNNEL && used < TUNNEL, "{idle} {used}");
    drop(sockets);
    block_in_place(all_gone);
}

async fn open<F, S>(count: usize, connect: &impl Fn() -> F) -> Vec<WebSocketStream<S>>
where
    F: Future<Output = WebSocketStream<S>>,
{
    futures_util::stream::iter((0..count).map(|_| connect()))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}
