//! The PROXY protocol: whoever a trusted proxy names is the client, and nobody else gets to name anybody.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{BOTH, Over, UPGRADE, UPGRADED, Wire, statuses};
use crate::support::frames::{Frames, Outcome};
use crate::support::lowport::Setup;
use crate::support::raw::{self, RawUpstream, read_all};
use crate::support::recorder::Recorder;
use crate::support::{Lowport, until};

const HELLO: &str = "[[route]]\nrespond = \"hello\"\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 127.0.0.1 56324 443\r\n";

/// A header of version 2.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("a length").to_be_bytes();
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    [signature, &[command, family][..], &length, block].concat()
}

/// Addresses of IPv4 with the ports, and an extension behind them.
const INET: &[u8] = &[
    203, 0, 113, 7, 127, 0, 0, 1, 0xdc, 4, 1, 0xbb, 0x04, 0, 3, 1, 2, 3,
];

/// The same of IPv6, from 2001:db8::7.
fn inet6() -> Vec<u8> {
    let mut block = vec![0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    block.extend([0; 15]);
    block.extend([1, 0xdc, 4, 1, 0xbb]);
    block
}

/// This machine's own address is a proxy that begins connections so.
const SERVER: &str =
    "redirect_to_https = false\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]";

fn lowport(rest: &str) -> Lowport {
    Lowport::with(&Setup {
        server: SERVER,
        rest,
        args: &["-v"],
    })
}

impl Wire {
    /// A connection of the proxy that begins with this.
    fn behind(lowport: &Lowport, over: Over, header: impl AsRef<[u8]>) -> Self {
        let mut stream = raw::connect(over.port(lowport));
        stream.write_all(header.as_ref()).expect("sent");
        Self(over.behind(stream, b"http/1.1"))
    }
}

/// Asks once over a connection that begins with `header`.
fn asked(lowport: &Lowport, over: Over, header: impl AsRef<[u8]>) -> String {
    let mut wire = Wire::behind(lowport, over, header);
    wire.send(GET);
    wire.rest()
}

/// What lowport has counted under this name when it has ended.
fn counted(mut lowport: Lowport, count: &str) -> Option<u64> {
    lowport.signal(Signal::SIGTERM);
    assert!(lowport.ended().success());
    let line = lowport.wait_for(" ending ");
    let (_, rest) = line.split_once(&format!(" {count}="))?;
    let number = rest.split([' ', '"']).next().expect("a word");
    Some(number.parse().expect("a number"))
}

#[test]
fn a_proxy_that_terminates_tls_may_bring_requests_for_https() {
    let lowport = lowport(HELLO);
    let mut wire = Wire::behind(&lowport, Over::Plain, LINE);
    wire.send("GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    assert_eq!(statuses(&wire.rest()), [200]);
}

#[test]
fn whoever_the_proxy_names_is_the_client() {
    let recorder = Recorder::start();
    let lowport = lowport(&recorder.route());
    for (header, client) in [
        (LINE.to_vec(), "203.0.113.7"),
        (
            b"PROXY TCP6 2001:db8::7 ::1 56324 443\r\n".to_vec(),
            "2001:db8::7",
        ),
        (
            b"PROXY TCP6 ::ffff:203.0.113.8 ::1 56324 443\r\n".to_vec(),
            "203.0.113.8",
        ),
        (v2(0x21, 0x11, INET), "203.0.113.7"),
        (v2(0x21, 0x21, &inet6()), "2001:db8::7"),
    ] {
        for over in BOTH {
            let seen = lowport.output().len();
            let told = asked(&lowport, over, &header);
            assert_eq!(statuses(&told), [200], "{over:?} {client}: {told}");
            let request = recorder.requests().pop().expect("a request");
            for name in ["x-forwarded-for", "x-real-ip"] {
                assert_eq!(request.values(name), [client], "{over:?} {request:?}");
            }
            let line = lowport.wait_for_after(seen, "\"GET / HTTP/1.1\" 200");
            assert!(line.starts_with(&format!("{client} - ")), "{line}");
        }
    }
    assert_eq!(counted(lowport, "refused_proxy_header"), None);
}

#[test]
fn http2_follows_the_header_too() {
    let recorder = Recorder::start();
    let lowport = lowport(&recorder.route());
    for over in BOTH {
        for header in [LINE.to_vec(), v2(0x21, 0x11, INET)] {
            let seen = lowport.output().len();
            let mut stream = raw::connect(over.port(&lowport));
            stream.write_all(&header).unwrap();
            let mut frames = Frames::over(over.behind(stream, b"h2"), &[(1, 0)]);
            let stream = frames.get("/");
            assert_eq!(frames.outcome(stream), Outcome::Status(200), "{over:?}");
            let request = recorder.requests().pop().expect("a request");
            assert_eq!(request.values("x-forwarded-for"), ["203.0.113.7"]);
            let line = lowport.wait_for_after(seen, "\"GET / HTTP/2.0\" 200");
            assert!(line.starts_with("203.0.113.7 - "), "{line}");
        }
    }
}

#[test]
fn a_websocket_follows_the_header_with_not_a_byte_lost() {
    let upstream = RawUpstream::handling(|_, stream| {
        let _ = stream.write_all(UPGRADED);
        let _ = std::io::copy(&mut stream.try_clone().expect("cloned"), stream);
    });
    let lowport = lowport(&upstream.route());
    for over in BOTH {
        let mut wire = Wire::behind(&lowport, over, LINE);
        wire.send(UPGRADE);
        assert_eq!(statuses(&wire.head()), [101], "{over:?}");
        // A second header is the client's.
        wire.send(LINE);
        let mut echo = vec![0; LINE.len()];
        wire.exactly(&mut echo);
        assert_eq!(echo, LINE, "{over:?}");
    }
    let head = upstream.first();
    assert!(head.contains("x-forwarded-for: 203.0.113.7\r\n"), "{head}");
}

#[test]
fn however_it_arrives_nothing_is_lost_or_read_twice() {
    let recorder = Recorder::start();
    let lowport = lowport(&recorder.route());
    // The body looks like a header, and so does what follows.
    let body = String::from_utf8_lossy(LINE);
    let length = body.len();
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
    let bytes = |header: &[u8]| [header, request.as_bytes(), GET.as_bytes()].concat();
    for header in [LINE.to_vec(), v2(0x21, 0x11, INET)] {
        let (whole, end) = (bytes(&header), header.len());
        // In one segment, in two that part within the header, at its end and behind it, and byte by byte.
        let mut ways: Vec<Vec<usize>> = [0, 1, 5, 12, 16, 17, end - 1, end, end + 1]
            .map(|cut| vec![cut])
            .to_vec();
        ways.push((1..whole.len()).collect());
        for cuts in ways {
            let before = recorder.requests().len();
            let mut stream = raw::connect(lowport.http);
            let mut at = 0;
            for cut in cuts.iter().copied().chain([whole.len()]) {
                stream.write_all(&whole[at..cut]).unwrap();
                at = cut;
                // So that the pieces are not all read as one.
                std::thread::sleep(Duration::from_millis(1));
            }
            let told = read_all(&mut stream);
            assert_eq!(statuses(&told), [200, 200], "{cuts:?}: {told}");
            let seen = &recorder.requests()[before..];
            assert_eq!(seen[0].body.as_deref(), Some(body.as_bytes()), "{cuts:?}");
            for request in seen {
                assert_eq!(request.values("x-forwarded-for"), ["203.0.113.7"]);
            }
        }
    }
}

#[test]
fn a_header_that_comes_byte_by_byte_is_followed_by_a_handshake() {
    let lowport = lowport(HELLO);
    for header in [LINE.to_vec(), v2(0x21, 0x21, &inet6())] {
        let mut stream = raw::connect(lowport.https);
        for byte in header {
            stream.write_all(&[byte]).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut wire = Wire(Over::Tls.behind(stream, b"http/1.1"));
        wire.send(GET);
        assert_eq!(statuses(&wire.rest()), [200]);
    }
}

#[test]
fn what_is_no_header_closes_the_connection_without_an_answer() {
    let recorder = Recorder::start();
    let lowport = lowport(&recorder.route());
    let bad = [
        (GET.as_bytes().to_vec(), "does not begin with"),
        (b"\x16\x03\x01\x02\x00\x01".to_vec(), "does not begin with"),
        (b"PROXY TCP4 203.0.113.7\r\n".to_vec(), "not of version 1"),
        (
            b"PROXY TCP4 203.0.113.07 127.0.0.1 1 443\r\n".to_vec(),
            "an address that is none",
        ),
        (
            b"PROXY TCP4 203.0.113.7 127.0.0.1 01 443\r\n".to_vec(),
            "a port that is none",
        ),
        (b"PROXY UDP4 a b 1 2\r\n".to_vec(), "unknown family"),
        (b"PROXY UNKNOWN\n".repeat(20), "too long"),
        (v2(0x11, 0x11, INET), "unknown version"),
        (v2(0x23, 0x11, INET), "unknown command"),
        (v2(0x21, 0x51, INET), "unknown family"),
        (v2(0x21, 0x21, INET), "too short for its addresses"),
        (v2(0x21, 0x11, &[0; 600]), "too long"),
    ];
    for (header, reason) in &bad {
        for over in BOTH {
            let seen = lowport.output().len();
            let mut stream = raw::connect(over.port(&lowport));
            // It may be closed by the time that the request is sent.
            let _ = stream.write_all(&[header, GET.as_bytes()].concat());
            assert_eq!(read_all(&mut stream), "", "{over:?} {reason}");
            let line = lowport.wait_for_after(seen, reason);
            assert!(line.contains("proxy=127.0.0.1:"), "{line}");
        }
    }
    // One that breaks off.
    for header in [&LINE[..20], &v2(0x21, 0x11, INET)[..20]] {
        let seen = lowport.output().len();
        let mut stream = raw::connect(lowport.http);
        stream.write_all(header).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut stream), "");
        lowport.wait_for_after(seen, "it ended within the PROXY header");
    }
    assert!(recorder.requests().is_empty(), "nobody's request is served");
    // The first is told to everybody, the others to those who want to know: it would be one line a connection.
    let lines = lowport.output();
    let level = |level: &str| {
        let lines = lines.iter().filter(|line| line.contains("server.proxy_"));
        lines.filter(|line| line.contains(level)).count()
    };
    let all = 2 * bad.len() + 2;
    assert_eq!((level(" INFO "), level(" DEBUG ")), (1, all - 1));
    assert_eq!(statuses(&asked(&lowport, Over::Tls, LINE)), [200]);
    assert_eq!(counted(lowport, "refused_proxy_header"), Some(all as u64));
}

#[test]
fn a_connection_that_says_nothing_is_no_error() {
    let lowport = lowport(HELLO);
    for over in BOTH {
        for reset in [false, true] {
            let mut stream = raw::connect(over.port(&lowport));
            if reset {
                // As health checks of TCP like to end.
                let socket = socket2::SockRef::from(&stream);
                socket.set_linger(Some(Duration::ZERO)).unwrap();
                continue;
            }
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&mut stream), "");
        }
        // A check that does introduce itself, and then has nothing to ask.
        drop(Wire::behind(&lowport, over, v2(0x20, 0, b"")));
    }
    assert_eq!(statuses(&asked(&lowport, Over::Plain, LINE)), [200]);
    let lines = lowport.output();
    let said = lines.iter().find(|line| line.contains("trusted proxy"));
    assert_eq!(said, None);
    assert_eq!(counted(lowport, "refused_proxy_header"), None);
}

#[test]
fn from_anybody_else_a_header_is_no_request() {
    let recorder = Recorder::start();
    let lowport = lowport(&recorder.route());
    for header in [LINE.to_vec(), v2(0x21, 0x11, INET), v2(0x20, 0, b"")] {
        let mut stream = raw::connect_from_elsewhere(lowport.http);
        let _ = stream.write_all(&[&header, GET.as_bytes()].concat());
        let told = read_all(&mut stream);
        assert_eq!(statuses(&told), [400], "{told}");
        // Over TLS it is no handshake.
        let mut stream = raw::connect_from_elsewhere(lowport.https);
        let _ = stream.write_all(&header);
        let _ = stream.shutdown(Shutdown::Write);
        let told = read_all(&mut stream);
        assert!(!told.contains("200"), "{told:?}");
    }
    assert!(recorder.requests().is_empty());
    // Whoever it is needs none.
    for over in BOTH {
        let stream = raw::connect_from_elsewhere(over.port(&lowport));
        let mut wire = Wire(over.behind(stream, b"http/1.1"));
        wire.send(GET);
        assert_eq!(statuses(&wire.rest()), [200], "{over:?}");
        let request = recorder.requests().pop().expect("a request");
        assert_eq!(request.values("x-forwarded-for"), ["127.0.0.2"]);
    }
    // Nor does a client behind the proxy get to send a second one.
    let told = asked(&lowport, Over::Plain, [LINE, LINE].concat());
    assert_eq!(statuses(&told), [400], "{told}");
}

#[test]
fn a_client_without_a_name_is_the_proxy_and_is_not_believed() {
    let recorder = Recorder::start();
    let lowport = lowport(&format!(
        "[limits]\nrequest_rate = \"6/h\"\n{}",
        recorder.route()
    ));
    let claim = GET.replace("\r\n\r\n", "\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n");
    for (number, header) in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 203.0.113.7 127.0.0.1 1 443\r\n".to_vec(),
        v2(0x20, 0x11, INET),
        v2(0x21, 0x00, INET),
        // What TCP has no address for.
        v2(0x21, 0x12, INET),
        v2(0x21, 0x31, &[b'x'; 216]),
    ]
    .into_iter()
    .enumerate()
    {
        let seen = lowport.output().len();
        // Each claims to be another.
        let claim = claim.replace("6.6.6.6", &format!("6.6.6.{number}"));
        let mut wire = Wire::behind(&lowport, Over::Plain, &header);
        wire.send(claim);
        assert_eq!(statuses(&wire.rest()), [200]);
        let request = recorder.requests().pop().expect("a request");
        assert_eq!(request.values("x-forwarded-for"), ["127.0.0.1"]);
        let line = lowport.wait_for_after(seen, "\"GET / HTTP/1.1\" 200");
        assert!(line.starts_with("127.0.0.1 - "), "{line}");
    }
    let mut wire = Wire::behind(&lowport, Over::Plain, b"PROXY UNKNOWN\r\n");
    wire.send(claim);
    assert_eq!(statuses(&wire.rest()), [429], "they are one client");
    assert_eq!(statuses(&asked(&lowport, Over::Plain, LINE)), [200]);
}

#[test]
fn claims_are_believed_where_the_told_client_is_a_trusted_proxy_itself() {
    let recorder = Recorder::start();
    let lowport = Lowport::with(&Setup {
        server: "redirect_to_https = false\nproxy_protocol = true\n\
                 trusted_proxies = [\"127.0.0.1\", \"198.51.100.0/24\"]",
        rest: &recorder.route(),
        args: &[],
    });
    let claim = GET.replace("\r\n\r\n", "\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n");
    for (client, chain) in [
        ("198.51.100.9", "192.0.2.1, 198.51.100.9"),
        ("203.0.113.7", "203.0.113.7"),
    ] {
        let header = format!("PROXY TCP4 {client} 127.0.0.1 1 443\r\n");
        let mut wire = Wire::behind(&lowport, Over::Plain, header);
        wire.send(&claim);
        assert_eq!(statuses(&wire.rest()), [200]);
        let request = recorder.requests().pop().expect("a request");
        assert_eq!(request.values("x-forwarded-for"), [chain]);
    }
}

#[test]
fn limits_of_a_client_are_those_of_the_one_that_is_told() {
    let lowport = lowport(&format!(
        "[limits]\nconnections_per_ip = 1\nrequest_rate = \"2/h\"\n{HELLO}"
    ));
    let header = |client: &str| format!("PROXY TCP4 {client} 127.0.0.1 1 443\r\n");
    let asks = |over, client: &str| statuses(&asked(&lowport, over, header(client)));
    let held = {
        let mut wire = Wire::behind(&lowport, Over::Plain, LINE);
        wire.send(GET.replace("Connection: close\r\n", ""));
        assert_eq!(statuses(&wire.answer()), [200]);
        wire
    };
    // Any number of connections of the proxy that have not told yet.
    let waiting: Vec<TcpStream> = (0..5).map(|_| raw::connect(lowport.http)).collect();
    let told = asked(&lowport, Over::Plain, LINE);
    assert_eq!(statuses(&told), [429]);
    assert!(told.contains("limits.connections_per_ip"), "{told}");
    let line = lowport.wait_for("\"GET / HTTP/1.1\" 429");
    assert!(line.starts_with("203.0.113.7 - "), "{line}");
    let mut stream = raw::connect(lowport.https);
    stream.write_all(LINE).unwrap();
    assert_eq!(read_all(&mut stream), "", "as ever over TLS");
    assert_eq!(asks(Over::Plain, "203.0.113.8"), [200], "another client");
    // The proxy for itself, as often as it likes.
    let local: Vec<Wire> = (0..3)
        .map(|_| Wire::behind(&lowport, Over::Plain, v2(0x20, 0, b"")))
        .collect();
    drop((held, waiting, local));
    until("a place", || {
        (asks(Over::Plain, "203.0.113.9") == [200]).then_some(())
    });
    // That was one of two requests, and the rate is the told client's too.
    until("the last connection's end", || {
        match asks(Over::Tls, "203.0.113.8")[..] {
            [200] => Some(()),
            _ => None,
        }
    });
    until("the rate", || {
        let told = asked(&lowport, Over::Plain, header("203.0.113.8"));
        told.contains("limits.request_rate").then_some(())
    });
    until("the first client's place", || {
        (asks(Over::Plain, "203.0.113.7") == [200]).then_some(())
    });
}

#[test]
fn a_header_that_does_not_come_ends_the_connection() {
    let lowport = lowport(&format!(
        "[timeouts]\nrequest_head = \"500ms\"\ntls_handshake = \"500ms\"\n{HELLO}"
    ));
    for over in BOTH {
        for part in [&b""[..], &LINE[..10], &v2(0x21, 0x11, INET)[..20]] {
            let seen = lowport.output().len();
            let mut stream = raw::connect(over.port(&lowport));
            stream.write_all(part).unwrap();
            assert_eq!(read_all(&mut stream), "", "{over:?} {part:?}");
            lowport.wait_for_after(
                seen,
                match over {
                    Over::Plain => "did not arrive within timeouts.request_head",
                    Over::Tls => "did not arrive within timeouts.tls_handshake",
                },
            );
        }
    }
    assert_eq!(counted(lowport, "refused_proxy_header"), Some(6));
}

#[test]
fn what_follows_has_what_is_left_of_the_time() {
    let lowport = lowport(&format!(
        "[timeouts]\nrequest_head = \"2s\"\ntls_handshake = \"2s\"\n{HELLO}"
    ));
    for over in BOTH {
        let start = Instant::now();
        let mut stream = raw::connect(over.port(&lowport));
        std::thread::sleep(Duration::from_millis(1500));
        stream.write_all(LINE).unwrap();
        assert_eq!(read_all(&mut stream), "", "{over:?}");
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(1900), "{over:?} {took:?}");
        // Two seconds after the header it would be 3.5.
        assert!(took < Duration::from_millis(3400), "{over:?} {took:?}");
    }
}

#[test]
fn waiting_for_the_rest_of_a_header_costs_nothing() {
    let lowport = lowport(HELLO);
    let cpu = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", lowport.pid()));
        let stat = stat.expect("it runs");
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        let ticks = fields.split(' ').skip(11).take(2);
        ticks
            .map(|ticks| ticks.parse::<u64>().expect("a number"))
            .sum::<u64>()
    };
    let waiting: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = raw::connect(lowport.http);
            stream.write_all(&LINE[..20]).unwrap();
            stream
        })
        .collect();
    // They are all with lowport: whoever comes later on either worker is served.
    for _ in 0..20 {
        assert_eq!(statuses(&asked(&lowport, Over::Plain, LINE)), [200]);
    }
    let before = cpu();
    std::thread::sleep(Duration::from_millis(500));
    // In hundredths of a second: looking at it again and again would take 50 a worker.
    assert!(cpu() - before < 20, "{} of 50", cpu() - before);
    for mut stream in waiting {
        stream
            .write_all(&[&LINE[20..], GET.as_bytes()].concat())
            .unwrap();
        assert_eq!(statuses(&read_all(&mut stream)), [200]);
    }
}

#[test]
fn a_reload_turns_it_on_and_off_for_new_connections() {
    let lowport = Lowport::start(HELLO);
    let rewrite = |server: &str| {
        lowport.rewrite(&Setup {
            server,
            rest: HELLO,
            args: &[],
        });
    };
    let keep = GET.replace("Connection: close\r\n", "");
    let mut before = Wire::connect(&lowport, Over::Plain);
    before.send(&keep);
    assert_eq!(statuses(&before.answer()), [200]);
    rewrite(SERVER);
    until("a header to be wanted", || {
        (statuses(&asked(&lowport, Over::Plain, LINE)) == [200]).then_some(())
    });
    let mut behind = Wire::behind(&lowport, Over::Tls, LINE);
    behind.send(&keep);
    assert_eq!(statuses(&behind.answer()), [200]);
    rewrite("redirect_to_https = false\ntrusted_proxies = [\"127.0.0.1\"]");
    until("none to be wanted", || {
        (statuses(&asked(&lowport, Over::Plain, "")) == [200]).then_some(())
    });
    assert_eq!(statuses(&asked(&lowport, Over::Plain, LINE)), [400]);
    // Those that were there are what they were.
    for wire in [&mut before, &mut behind] {
        wire.send(GET);
        assert_eq!(statuses(&wire.rest()), [200]);
    }
    let lines = lowport.output();
    assert!(
        lines.iter().any(|line| line.starts_with("203.0.113.7 - ")),
        "{lines:?}"
    );
}

#[test]
fn a_connection_that_waits_for_its_header_does_not_keep_lowport() {
    let lowport = lowport(HELLO);
    let mut waiting: Vec<TcpStream> = BOTH
        .into_iter()
        .map(|over| {
            let mut stream = raw::connect(over.port(&lowport));
            stream.write_all(&LINE[..10]).unwrap();
            stream
        })
        .collect();
    for _ in 0..10 {
        assert_eq!(statuses(&asked(&lowport, Over::Plain, LINE)), [200]);
    }
    let start = Instant::now();
    // And that is no fault of the proxy's.
    assert_eq!(counted(lowport, "refused_proxy_header"), None);
    // Not the 10 seconds of the head and of the handshake.
    assert!(start.elapsed() < Duration::from_secs(8));
    for stream in &mut waiting {
        assert_eq!(read_all(stream), "");
    }
}
