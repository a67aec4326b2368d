//! HTTP/2 frame by frame: what breaks the rules of RFC 9113 ends its stream, or its connection with a GOAWAY, and none of
//! it goes upstream.

use super::BOTH;
use crate::support::Lowport;
use crate::support::frames::{
    self, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR, Frames, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, Outcome, PING, PRIORITY,
    PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use crate::support::recorder::Recorder;

const PADDED: u8 = 8;
const WHOLE: u8 = END_HEADERS | END_STREAM;

type Breach = fn(&mut Frames);

/// Begins a request whose body is still to come.
fn upload(client: &mut Frames) -> u32 {
    let mut fields = frames::get("/upload");
    fields[0].1 = "POST";
    client.request(&fields, false)
}

fn head() -> Vec<u8> {
    frames::block(&frames::get("/bad"))
}

/// Each ends the connection, with one of these codes.
fn breaches() -> Vec<(&'static str, Breach)> {
    vec![
        ("headers on an even stream", |c| {
            c.frame(HEADERS, WHOLE, 2, &head());
        }),
        ("headers on stream 0", |c| {
            c.frame(HEADERS, WHOLE, 0, &head());
        }),
        ("headers on a lower stream", |c| {
            c.stream();
            upload(c);
            c.frame(HEADERS, WHOLE, 1, &head());
        }),
        ("data on an idle stream", |c| {
            c.data(1, b"bad", true);
        }),
        ("data on stream 0", |c| {
            c.data(0, b"bad", true);
        }),
        ("data with too much padding", |c| {
            let stream = upload(c);
            c.frame(DATA, END_STREAM | PADDED, stream, &[9, 1, 1]);
        }),
        ("headers with too much padding", |c| {
            c.frame(HEADERS, WHOLE | PADDED, 1, &[&[255], &head()[..]].concat());
        }),
        ("reset of an idle stream", |c| {
            c.reset(1, CANCEL);
        }),
        ("reset of stream 0", |c| {
            c.reset(0, CANCEL);
        }),
        ("a reset of three bytes", |c| {
            let stream = upload(c);
            c.frame(RST_STREAM, 0, stream, &[0; 3]);
        }),
        ("window of an idle stream", |c| {
            c.window_update(1, 1);
        }),
        ("window of the connection by 0", |c| {
            c.window_update(0, 0);
        }),
        ("window of a stream by 0", |c| {
            let stream = upload(c);
            c.window_update(stream, 0);
        }),
        ("window of three bytes", |c| {
            c.frame(WINDOW_UPDATE, 0, 0, &[1; 3]);
        }),
        ("too wide a window of the connection", |c| {
            c.window_update(0, 0x7fff_ffff);
        }),
        ("too wide an initial window", |c| {
            c.settings(&[(INITIAL_WINDOW_SIZE, 0x8000_0000)]);
        }),
        ("a window that becomes too wide", |c| {
            let stream = upload(c);
            c.window_update(stream, 0x7fff_0000);
            c.settings(&[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]);
        }),
        ("push neither on nor off", |c| {
            c.settings(&[(2, 2)]);
        }),
        ("too small a frame size", |c| {
            c.settings(&[(5, 1)]);
        }),
        ("settings of five bytes", |c| {
            c.frame(SETTINGS, 0, 0, &[0; 5]);
        }),
        ("settings of a stream", |c| {
            c.frame(SETTINGS, 0, 1, &[]);
        }),
        ("an acknowledgement with settings", |c| {
            c.frame(SETTINGS, frames::ACK, 0, &[0; 6]);
        }),
        ("a ping of seven bytes", |c| {
            c.frame(PING, 0, 0, &[0; 7]);
        }),
        ("a ping of a stream", |c| {
            c.frame(PING, 0, 1, &[0; 8]);
        }),
        ("a goodbye to a stream", |c| {
            c.frame(GOAWAY, 0, 1, &[0; 8]);
        }),
        ("priority of stream 0", |c| {
            c.frame(PRIORITY, 0, 0, &[0, 0, 0, 3, 0]);
        }),
        ("a push from a client", |c| {
            let promise = [&[0, 0, 0, 2], &head()[..]].concat();
            c.frame(PUSH_PROMISE, END_HEADERS, 1, &promise);
        }),
        ("a continuation of nothing", |c| {
            c.frame(CONTINUATION, END_HEADERS, 1, &head());
        }),
        ("a continuation of another stream", |c| {
            c.frame(HEADERS, END_STREAM, 1, &head());
            c.frame(CONTINUATION, END_HEADERS, 3, &[]);
        }),
        ("a ping within a head", |c| {
            c.frame(HEADERS, END_STREAM, 1, &head());
            c.frame(PING, 0, 0, &[0; 8]);
        }),
        ("an unknown frame within a head", |c| {
            c.frame(HEADERS, END_STREAM, 1, &head());
            c.frame(0x77, 0, 0, &[0; 8]);
        }),
        ("a request within a head", |c| {
            c.frame(HEADERS, END_STREAM, 1, &head());
            c.frame(HEADERS, WHOLE, 3, &head());
        }),
        ("too large a frame", |c| {
            let stream = upload(c);
            c.data(stream, &[0; 20_000], true);
        }),
        ("the largest frame of all", |c| {
            c.bytes(&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]);
        }),
        ("an index of no table", |c| {
            c.block(&[0xff, 0xff, 0xff, 0x7f], true);
        }),
        ("index 0", |c| {
            c.block(&[0x80], true);
        }),
        ("too large a table", |c| {
            c.block(&[0x3f, 0xe1, 0xff, 0x03], true);
        }),
        ("no Huffman code", |c| {
            c.block(&[0, 0x84, 0xff, 0xff, 0xff, 0xff, 1, b'a'], true);
        }),
        ("half a field", |c| {
            c.block(&[0, 5, b'a'], true);
        }),
    ]
}

#[test]
fn a_broken_connection_is_told_so_and_ends() {
    // Never answers: what it was sent stays unanswered.
    let recorder = Recorder::answering(|_| Vec::new());
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        for (name, breach) in breaches() {
            let mut client = Frames::open(&lowport, over, &[]);
            breach(&mut client);
            let code = client.ends_with();
            let known = [PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, 9];
            assert!(
                code.is_some_and(|code| known.contains(&code)),
                "{over:?} {name}: {code:?}"
            );
        }
    }
    let seen = recorder.requests();
    assert!(
        seen.iter()
            .all(|seen| seen.body.is_none() && seen.head.starts_with("POST /upload "))
    );
    let line = lowport.wait_for("HTTP/2.0\" 400 ");
    assert!(line.contains("connection error detected"), "{line}");
}

#[test]
fn nobody_may_send_more_than_the_window() {
    let recorder = Recorder::answering(|_| Vec::new());
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        let mut client = Frames::open(&lowport, over, &[]);
        let mut fields = frames::get("/upload").to_vec();
        fields[0].1 = "POST";
        // Nobody reads it before the upstream has said so, which it does not.
        fields.push(("expect", "100-continue"));
        let stream = client.request(&fields, false);
        for _ in 0..17 {
            client.data(stream, &[0; 16_384], false);
        }
        // Of the stream or, before the settings that widen that are acknowledged, of the connection.
        let outcome = client.outcome(stream);
        let told = [
            Outcome::Reset(FLOW_CONTROL_ERROR),
            Outcome::GoAway(FLOW_CONTROL_ERROR),
        ];
        assert!(told.contains(&outcome), "{over:?} {outcome:?}");
    }
    assert!(recorder.requests().iter().all(|seen| seen.body.is_none()));
}

#[test]
fn a_connection_begins_with_settings() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    let mut stream = crate::support::raw::connect(lowport.http);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frames::frame(HEADERS, WHOLE, 1, &head()));
    std::io::Write::write_all(&mut stream, &bytes).expect("sent");
    let answer = crate::support::raw::read_all(&mut stream);
    assert!(
        answer.contains("The first frame of the connection is not SETTINGS."),
        "{answer:?}"
    );
    assert_eq!(recorder.bytes(), b"");
}

#[test]
fn what_breaks_a_stream_breaks_no_other() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        for (name, breach) in [
            (
                "too wide a window",
                (|c, stream| {
                    c.window_update(stream, 0x7fff_ffff);
                }) as fn(&mut Frames, u32),
            ),
            ("a stream that depends on itself", |c, stream| {
                c.frame(
                    PRIORITY,
                    0,
                    stream,
                    &[&stream.to_be_bytes()[..], &[0]].concat(),
                );
            }),
            ("trailers that are not the end", |c, stream| {
                c.frame(HEADERS, END_HEADERS, stream, &frames::block(&[("x", "1")]));
            }),
        ] {
            let mut client = Frames::open(&lowport, over, &[]);
            let (other, broken) = (upload(&mut client), upload(&mut client));
            breach(&mut client, broken);
            let outcome = client.outcome(broken);
            assert!(
                matches!(outcome, Outcome::Reset(PROTOCOL_ERROR | FLOW_CONTROL_ERROR)),
                "{name}: {outcome:?}"
            );
            client.data(other, b"whole", true);
            assert_eq!(client.outcome(other), Outcome::Status(200), "{name}");
        }
        // What was reset may still have had something on its way.
        let mut client = Frames::open(&lowport, over, &[]);
        let stream = upload(&mut client);
        client.reset(stream, CANCEL);
        client.data(stream, b"late", true);
        client.window_update(stream, 1);
        let after = client.get("/after");
        assert_eq!(client.outcome(after), Outcome::Status(200));
    }
}

#[test]
fn what_is_allowed_is_no_breach() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        let mut client = Frames::open(&lowport, over, &[]);
        // Unknown settings, unknown frames, priority of what does not exist.
        client.settings(&[(0x99, 5)]);
        client.frame(0x77, 0xff, 5, &[0; 80]);
        client.frame(PRIORITY, 0, 99, &[0, 0, 0, 3, 0]);
        client.frame(PING, 0, 0, b"12345678");
        assert_eq!(client.until(PING), b"12345678");
        let stream = client.stream();
        let padded = [&[3][..], &head(), &[0; 3]].concat();
        client.frame(HEADERS, WHOLE | PADDED, stream, &padded);
        assert_eq!(client.outcome(stream), Outcome::Status(200));
        // A head in pieces, one of them empty, the cut within a field.
        let (stream, block) = (client.stream(), head());
        client.frame(HEADERS, END_STREAM, stream, &block[..7]);
        client.frame(CONTINUATION, 0, stream, &[]);
        client.frame(CONTINUATION, 0, stream, &block[7..20]);
        client.frame(CONTINUATION, END_HEADERS, stream, &block[20..]);
        assert_eq!(client.outcome(stream), Outcome::Status(200));
        // Padding is no part of a body.
        let mut fields = frames::get("/upload").to_vec();
        fields[0].1 = "POST";
        fields.push(("content-length", "2"));
        let stream = client.request(&fields, false);
        client.frame(DATA, END_STREAM | PADDED, stream, &[2, b'a', b'b', 0, 0]);
        assert_eq!(client.outcome(stream), Outcome::Status(200));
        // A client that says goodbye is answered to the end.
        let stream = client.get("/last");
        client.frame(GOAWAY, 0, 0, &[0; 8]);
        assert_eq!(client.body(stream).as_deref(), Some(&b"ok"[..]));
    }
    let bodies: Vec<_> = recorder
        .requests()
        .into_iter()
        .filter_map(|seen| seen.body)
        .collect();
    assert_eq!(bodies.len(), 8);
    assert!(bodies.iter().all(|body| body.is_empty() || body == b"ab"));
}
