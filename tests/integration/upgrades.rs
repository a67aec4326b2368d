//! WebSockets over HTTP/1.1 and HTTP/2, and what is no WebSocket.

use std::io::{Read, Write};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::client::{tls, websocket};
use crate::support::raw::{self, RawUpstream};
use crate::support::{Lowport, Node, until};

#[tokio::test]
async fn messages_pass_both_ways_and_so_does_the_close() {
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    let mut socket = websocket(lowport.http, "/ws/echo").await;
    for size in [0, 1, 125, 126, 65_536, 3_000_000] {
        let sent = Message::Binary(Bytes::from(vec![7; size]));
        socket.send(sent.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), sent, "{size}");
    }
    let close = CloseFrame {
        code: CloseCode::Library(4321),
        reason: "".into(),
    };
    socket.close(Some(close.clone())).await.unwrap();
    let answer = socket.next().await.unwrap().unwrap();
    assert_eq!(answer, Message::Close(Some(close)));
    assert!(socket.next().await.is_none());
}

#[tokio::test]
async fn over_tls_too() {
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    let stream = tls(lowport.https, "localhost", &[b"http/1.1"]).await;
    let (mut socket, _) = tokio_tungstenite::client_async("wss://localhost/ws/echo", stream)
        .await
        .unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::text("hello")
    );
}

#[tokio::test]
async fn over_http2_by_extended_connect() {
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    let stream = tls(lowport.https, "localhost", &[b"h2"]).await;
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let mut connection = Box::pin(connection);
    // The server's SETTINGS say whether it may be asked.
    while !client.is_extended_connect_protocol_enabled() {
        tokio::select! {
            ended = &mut connection => panic!("{ended:?}"),
            () = tokio::time::sleep(std::time::Duration::from_millis(1)) => {}
        }
    }
    tokio::spawn(connection);
    let request = http::Request::builder()
        .method("CONNECT")
        .uri("https://localhost/ws/echo")
        .extension(h2::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    let (response, mut send) = client.send_request(request, false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    for field in [
        "connection",
        "upgrade",
        "sec-websocket-accept",
        "transfer-encoding",
    ] {
        assert!(!response.headers().contains_key(field), "{field}");
    }
    // A masked text frame "hi", with a mask of zeroes.
    send.send_data(
        Bytes::from_static(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']),
        false,
    )
    .unwrap();
    let mut body = response.into_body();
    let mut got = Vec::new();
    while got.len() < 4 {
        got.extend_from_slice(&body.data().await.unwrap().unwrap());
    }
    assert_eq!(got, [0x81, 2, b'h', b'i']);
    // A close frame is answered, and the stream ends in both directions.
    send.send_data(
        Bytes::from_static(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]),
        true,
    )
    .unwrap();
    let mut rest = Vec::new();
    while let Some(data) = body.data().await {
        rest.extend_from_slice(&data.unwrap());
    }
    assert_eq!(rest[..4], [0x88, 2, 0x03, 0xe8]);
}

#[test]
fn a_refused_upgrade_stays_http() {
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    let mut stream = raw::connect(lowport.http);
    let head = "GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let answer = String::from_utf8(raw::read_head(&mut stream).unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[test]
fn other_protocols_are_not_upgraded_to() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
    );
    let lowport = Lowport::start(&upstream.route());
    let answer = raw::exchange(
        lowport.http,
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let head = upstream.first().to_ascii_lowercase();
    assert!(
        !head.contains("upgrade") && !head.contains("http2-settings"),
        "{head}"
    );
}

#[test]
fn a_101_that_nobody_asked_for_is_502() {
    let upstream = RawUpstream::answering(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nGET /smuggled",
    );
    let lowport = Lowport::start(&upstream.route());
    let answer = raw::exchange(
        lowport.http,
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(!answer.contains("smuggled"), "{answer}");
}

#[test]
fn bytes_sent_early_are_kept_and_each_direction_closes_by_itself() {
    let upstream = RawUpstream::handling(|_, stream| {
        let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst";
        stream.write_all(switch.as_bytes()).unwrap();
        let mut sent = String::new();
        // Ends when the client has closed its side; ours is still open.
        stream.read_to_string(&mut sent).unwrap();
        stream.write_all(format!("<{sent}>").as_bytes()).unwrap();
    });
    let lowport = Lowport::start(&upstream.route());
    let mut stream = raw::connect(lowport.http);
    let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nearly";
    stream.write_all(head.as_bytes()).unwrap();
    let answer = String::from_utf8(raw::read_head(&mut stream).unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    stream.write_all(b" and late").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(raw::read_all(&mut stream), "first<early and late>");
}

#[tokio::test]
async fn a_client_that_vanishes_closes_the_apps_side() {
    let node = Node::start();
    let lowport = Lowport::start(&node.route());
    let before = lowport.descriptors();
    let sockets = [
        websocket(lowport.http, "/ws/echo").await,
        websocket(lowport.http, "/ws/echo").await,
    ];
    drop(sockets);
    until("both tunnels to be gone", || {
        (lowport.descriptors() <= before).then_some(())
    });
}
