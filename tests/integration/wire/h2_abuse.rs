//! HTTP/2 clients that mean harm: each is cut off after a bounded amount of work, and nobody else notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{BOTH, Over};
use crate::support::frames::{
    self, CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, HEADERS,
    INITIAL_WINDOW_SIZE, Outcome, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use crate::support::raw::RawUpstream;
use crate::support::recorder::{Recorded, Recorder};
use crate::support::{Lowport, PATIENCE, until};

/// What may reach the upstream of a connection that resets its requests.
const MOST: usize = 300;

/// Answers all but what is below `/flood`, which it leaves waiting.
fn upstream() -> Recorder {
    Recorder::answering(|seen: &Recorded| {
        if seen.head.contains(" /flood") {
            std::thread::sleep(PATIENCE);
            return Vec::new();
        }
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()
    })
}

fn flooded(recorder: &Recorder) -> usize {
    let requests = recorder.requests();
    requests
        .iter()
        .filter(|seen| seen.head.contains(" /flood"))
        .count()
}

/// A client that minds its own business on a connection of its own until this drops.
struct Bystander {
    done: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl Bystander {
    fn start(lowport: &Lowport) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (over, mut client) = (Arc::clone(&done), Frames::open(lowport, Over::Tls, &[]));
        let thread = std::thread::spawn(move || {
            let mut answers = 0;
            while !over.load(Ordering::Relaxed) || answers == 0 {
                let stream = client.get("/calm");
                assert_eq!(client.outcome(stream), Outcome::Status(200));
                answers += 1;
            }
            answers
        });
        Self {
            done,
            thread: Some(thread),
        }
    }

    /// It was answered all the time, and never later than a client waits.
    fn ask(mut self) {
        self.done.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs");
        assert!(thread.join().expect("it was answered") > 0);
    }
}

/// Sends until lowport takes no more of it.
fn flood(client: &mut Frames, times: usize, mut part: impl FnMut(usize) -> Vec<u8>) {
    for batch in 0..times / 100 {
        let bytes: Vec<u8> = (0..100)
            .flat_map(|number| part(batch * 100 + number))
            .collect();
        if !client.bytes(&bytes) {
            break;
        }
    }
}

fn request(stream: u32, flags: u8) -> Vec<u8> {
    let block = frames::block(&frames::get("/flood"));
    frames::frame(HEADERS, END_HEADERS | flags, stream, &block)
}

#[test]
fn requests_that_are_reset_at_once_are_soon_no_more_taken() {
    let recorder = upstream();
    let lowport = Lowport::start(&recorder.route());
    for over in BOTH {
        let before = flooded(&recorder);
        let bystander = Bystander::start(&lowport);
        let mut client = Frames::open(&lowport, over, &[]);
        flood(&mut client, 10_000, |number| {
            let stream = number as u32 * 2 + 1;
            let reset = frames::frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
            [request(stream, END_STREAM), reset].concat()
        });
        assert_eq!(client.ends_with(), Some(ENHANCE_YOUR_CALM), "{over:?}");
        bystander.ask();
        let seen = flooded(&recorder) - before;
        assert!(seen <= MOST, "{seen} requests went upstream");
    }
    let line = lowport.wait_for("HTTP/2.0\" 429 ");
    assert!(line.contains("Too many requests were reset"), "{line}");
}

#[test]
fn requests_that_are_reset_when_they_have_arrived_as_well() {
    let recorder = upstream();
    let lowport = Lowport::start(&recorder.route());
    let mut client = Frames::open(&lowport, Over::Plain, &[]);
    'waves: for wave in 0..20 {
        let before = flooded(&recorder);
        let streams: Vec<u32> = (0..50).map(|_| client.get("/flood")).collect();
        let deadline = Instant::now() + Duration::from_secs(2);
        while flooded(&recorder) < before + streams.len() {
            if wave >= 4 && Instant::now() > deadline {
                break 'waves;
            }
            std::thread::yield_now();
        }
        for stream in streams {
            if !client.reset(stream, CANCEL) {
                break 'waves;
            }
        }
    }
    assert_eq!(client.ends_with(), Some(ENHANCE_YOUR_CALM));
    let seen = flooded(&recorder);
    assert!(
        (200..=MOST).contains(&seen),
        "{seen} requests went upstream"
    );
}

/// MadeYouReset: the client breaks a rule on each stream, and lowport resets it.
#[test]
fn requests_that_lowport_is_made_to_reset_count_as_well() {
    let recorder = upstream();
    let lowport = Lowport::start(&recorder.route());
    type Fault = (&'static str, u8, fn(u32) -> Vec<u8>);
    let faults: [Fault; 5] = [
        ("too wide a window", END_STREAM, |stream| {
            frames::frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())
        }),
        ("a window by 0", END_STREAM, |stream| {
            frames::frame(WINDOW_UPDATE, 0, stream, &[0; 4])
        }),
        ("a dependency on itself", END_STREAM, |stream| {
            frames::frame(
                PRIORITY,
                0,
                stream,
                &[&stream.to_be_bytes()[..], &[0]].concat(),
            )
        }),
        ("data after the end", END_STREAM, |stream| {
            frames::frame(DATA, END_STREAM, stream, b"x")
        }),
        ("trailers that are not the end", 0, |stream| {
            frames::frame(HEADERS, END_HEADERS, stream, &frames::block(&[("x", "1")]))
        }),
    ];
    for over in BOTH {
        for (name, flags, fault) in faults {
            let before = flooded(&recorder);
            let bystander = Bystander::start(&lowport);
            let mut client = Frames::open(&lowport, over, &[]);
            flood(&mut client, 5000, |number| {
                let stream = number as u32 * 2 + 1;
                [request(stream, flags), fault(stream)].concat()
            });
            let code = client.ends_with();
            assert!(
                matches!(code, Some(1 | ENHANCE_YOUR_CALM)),
                "{over:?} {name} {code:?}"
            );
            bystander.ask();
            let seen = flooded(&recorder) - before;
            assert!(seen <= MOST, "{name}: {seen} requests went upstream");
        }
    }
}

#[test]
fn who_leaves_pages_early_is_not_cut_off() {
    let recorder = upstream();
    let lowport = Lowport::start(&recorder.route());
    let mut client = Frames::open(&lowport, Over::Tls, &[]);
    // A page with a hundred pictures, left at once.
    for _ in 0..100 {
        let stream = client.get("/flood");
        client.reset(stream, CANCEL);
    }
    // And many where some of it was seen.
    for _ in 0..300 {
        let seen = client.get("/calm");
        assert_eq!(client.outcome(seen), Outcome::Status(200));
        let left = client.get("/flood");
        client.reset(left, CANCEL);
    }
    let after = client.get("/calm");
    assert_eq!(client.outcome(after), Outcome::Status(200));
}

#[test]
fn frames_that_nothing_comes_of_end_the_connection() {
    let recorder = upstream();
    let lowport = Lowport::start(&recorder.route());
    let open = END_STREAM;
    type Flood = (&'static str, fn(usize) -> Vec<u8>);
    let floods: [Flood; 11] = [
        ("settings", |_| {
            frames::frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])
        }),
        ("empty settings", |_| frames::frame(SETTINGS, 0, 0, &[])),
        ("pings", |_| frames::frame(PING, 0, 0, &[0; 8])),
        ("answers to pings", |_| {
            frames::frame(PING, frames::ACK, 0, &[0; 8])
        }),
        ("priorities", |number| {
            frames::frame(PRIORITY, 0, number as u32 * 2 + 1, &[0, 0, 0, 0, 9])
        }),
        ("windows", |_| {
            frames::frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])
        }),
        ("windows of a stream", |_| {
            frames::frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])
        }),
        ("resets", |_| frames::frame(RST_STREAM, 0, 1, &[0; 4])),
        ("empty data", |_| frames::frame(DATA, 0, 3, &[])),
        ("unknown frames", |_| frames::frame(0x77, 0, 0, &[])),
        ("goodbyes", |_| frames::frame(frames::GOAWAY, 0, 0, &[0; 8])),
    ];
    for over in BOTH {
        for (name, part) in floods {
            let bystander = Bystander::start(&lowport);
            let mut client = Frames::open(&lowport, over, &[]);
            client.bytes(&request(1, open));
            let mut upload = frames::get("/flood");
            upload[0].1 = "POST";
            client.stream();
            client.request(&upload, false);
            flood(&mut client, 50_000, part);
            let code = client.ends_with();
            assert!(
                code == Some(ENHANCE_YOUR_CALM) || name == "goodbyes" && code.is_some(),
                "{over:?} {name} {code:?}"
            );
            let answers = client.count(PING) + client.count(SETTINGS);
            assert!(answers < 1100, "{name}: {answers} answers");
            bystander.ask();
        }
    }
    let line = lowport.wait_for("Too many frames came that nothing comes of.");
    assert!(line.contains("HTTP/2.0\" 429 "), "{line}");
}

#[test]
fn heads_without_end_end_the_connection() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    let block = frames::block(&frames::get("/flood"));
    let field = frames::block(&[("x", "yyyyyyyyyyyyyyyyyyyyyyyyy")]).repeat(10);
    for over in BOTH {
        for payload in [&b""[..], &field] {
            let bystander = Bystander::start(&lowport);
            let mut client = Frames::open(&lowport, over, &[]);
            client.frame(HEADERS, END_STREAM, 1, &block);
            flood(&mut client, 50_000, |_| {
                frames::frame(CONTINUATION, 0, 1, payload)
            });
            assert_eq!(client.ends_with(), Some(ENHANCE_YOUR_CALM), "{over:?}");
            bystander.ask();
        }
    }
    assert!(
        recorder
            .requests()
            .iter()
            .all(|seen| !seen.head.contains("/flood"))
    );
    let line = lowport.wait_for("excessive load");
    assert!(line.contains("HTTP/2.0\" 400 "), "{line}");
}

#[test]
fn a_head_that_drips_is_not_waited_for() {
    let lowport =
        Lowport::start("[timeouts]\nrequest_head = \"500ms\"\n[[route]]\nrespond = \"hello\"\n");
    let block = frames::block(&frames::get("/"));
    for over in BOTH {
        // Whether or not there is another request meanwhile.
        let mut client = Frames::open(&lowport, over, &[]);
        let stream = client.get("/");
        assert_eq!(client.outcome(stream), Outcome::Status(200));
        client.frame(HEADERS, END_STREAM, 3, &block);
        assert!(client.ends_with().is_some());
        // Cut within a frame.
        let mut client = Frames::open(&lowport, over, &[]);
        client.bytes(&frames::frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)[..20]);
        assert!(client.ends_with().is_some());
    }
    until("a line for each", || {
        let late = |line: &&String| line.contains("did not arrive within timeouts.request_head");
        (lowport.output().iter().filter(late).count() == 4).then_some(())
    });
}

/// One entry of the table of fields, as large as it may be, and a byte for each time that it is meant.
#[test]
fn a_block_of_fields_that_grows_when_it_is_read_is_refused() {
    let recorder = Recorder::start();
    let lowport = Lowport::start(&recorder.route());
    let mut entry = vec![0x40, 1, b'x'];
    frames::integer(&mut entry, 7, 4000);
    entry.extend([b'y'; 4000]);
    let base = frames::block(&frames::get("/flood"));
    for over in BOTH {
        let mut client = Frames::open(&lowport, over, &[]);
        let first = client.block(&[&base[..], &entry].concat(), true);
        assert_eq!(client.outcome(first), Outcome::Status(200));
        // More than a head may have, and more than anybody would read to its end.
        let large = client.block(&[&base[..], &[0xbe; 10]].concat(), true);
        assert_eq!(client.outcome(large), Outcome::Status(431));
        let bomb = client.block(&[&base[..], &[0xbe; 10_000]].concat(), true);
        assert_eq!(client.outcome(bomb), Outcome::GoAway(ENHANCE_YOUR_CALM));
    }
    assert_eq!(recorder.requests().len(), 2);
}

#[test]
fn only_so_many_streams_are_open_at_once() {
    for over in BOTH {
        // An upstream each: it may see the last of them when the client has long heard.
        let recorder = upstream();
        let lowport = Lowport::start(&recorder.route());
        let mut client = Frames::open(&lowport, over, &[]);
        let streams: Vec<u32> = (0..200).map(|_| client.get("/flood")).collect();
        let refused = Outcome::Reset(7);
        assert_eq!(client.outcome(streams[199]), refused, "REFUSED_STREAM");
        assert!(flooded(&recorder) <= 128);
        assert_eq!(client.count(RST_STREAM), 72);
        client.reset(streams[0], CANCEL);
        let after = client.get("/calm");
        assert_eq!(client.outcome(after), Outcome::Status(200));
    }
}

#[test]
fn attackers_cost_little_memory() {
    let recorder = upstream();
    let rest = format!(
        "[[route]]\npath = \"/said\"\nrespond = \"{}\"\n{}",
        "x".repeat(8000),
        recorder.route()
    );
    let lowport = Lowport::start(&rest);
    const ATTACKERS: u64 = 20;
    let grown = |name: &str, attack: &dyn Fn(&mut Frames)| {
        let bystander = Bystander::start(&lowport);
        let before = lowport.memory();
        let mut attackers: Vec<Frames> = (0..ATTACKERS)
            .map(|_| Frames::open(&lowport, Over::Plain, &[(INITIAL_WINDOW_SIZE, 0)]))
            .collect();
        attackers.iter_mut().for_each(attack);
        bystander.ask();
        let grown = lowport.memory().saturating_sub(before) / ATTACKERS;
        assert!(grown < 2048, "{name}: {grown} KiB for each connection");
    };
    grown("answers that are never read", &|client| {
        let streams: Vec<u32> = (0..128).map(|_| client.get("/said")).collect();
        assert_eq!(client.outcome(streams[127]), Outcome::Status(200));
    });
    // Many fields of a byte each: they take the most room for what they are.
    let small = [
        frames::block(&frames::get("/flood")),
        vec![0x40, 1, b'x', 0],
        vec![0xbe; 900],
    ]
    .concat();
    grown("blocks that grow", &|client| {
        flood(client, 1000, |number| {
            frames::frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                number as u32 * 2 + 1,
                &small,
            )
        });
    });
    grown("heads that never end", &|client| {
        client.frame(HEADERS, END_STREAM, 1, &small);
        for _ in 0..4 {
            client.frame(
                CONTINUATION,
                0,
                1,
                &frames::block(&[("y", &"z".repeat(2000))]),
            );
        }
    });
    grown("pings that are not read", &|client| {
        flood(client, 10_000, |_| frames::frame(PING, 0, 0, &[0; 8]));
    });
    grown("requests that are reset", &|client| {
        flood(client, 2000, |number| {
            let stream = number as u32 * 2 + 1;
            let reset = frames::frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
            [request(stream, END_STREAM), reset].concat()
        });
    });
}

#[test]
fn a_drain_does_not_wait_for_one_who_has_vanished() {
    use nix::sys::signal::Signal;
    let mut lowport =
        Lowport::start("[timeouts]\ndrain = \"60s\"\n[[route]]\nrespond = \"hello\"\n");
    let mut vanished = Frames::open(&lowport, Over::Tls, &[]);
    let stream = vanished.get("/");
    assert_eq!(vanished.outcome(stream), Outcome::Status(200));
    lowport.signal(Signal::SIGTERM);
    // It neither answers nor ends; and this waits much less than the drain may take.
    assert!(lowport.ended().success());
}

#[test]
fn a_client_that_reads_slowly_gets_all_of_it() {
    let body = vec![b'x'; 300_000];
    let upstream = {
        let body = body.clone();
        RawUpstream::handling(move |_, stream| {
            use std::io::Write;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        })
    };
    let lowport = Lowport::start(&upstream.route());
    for over in BOTH {
        // A window of a byte, and then of a few thousand at a time.
        let mut client = Frames::open(&lowport, over, &[(INITIAL_WINDOW_SIZE, 1)]);
        let stream = client.get("/");
        assert_eq!(client.outcome(stream), Outcome::Status(200));
        let mut given = 1;
        while given < body.len() as u32 {
            client.window_update(stream, 7001);
            client.window_update(0, 7001);
            given += 7001;
        }
        assert_eq!(client.body(stream).as_deref(), Some(&body[..]), "{over:?}");
    }
    until("both upstream", || {
        (upstream.seen().len() == 2).then_some(())
    });
}
