//! Large bodies in plaintext, which go from socket to socket without being read: nobody notices but by what it costs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::statuses;
use crate::support::lowport::Setup;
use crate::support::raw::{self, RawUpstream};
use crate::support::{Lowport, skipped, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// More than sockets and a pipe hold between them.
const HUGE: usize = 32 << 20;

/// So many bytes, none of which can be left out or swapped with another unnoticed.
fn bytes(count: usize) -> Vec<u8> {
    (0..count as u64 / 8 + 1)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .take(count)
        .collect()
}

/// Answers each request on a connection with a body of the next one of these lengths.
fn upstream(lengths: &'static [usize]) -> RawUpstream {
    RawUpstream::handling(move |_, stream| {
        for (number, length) in lengths.iter().enumerate() {
            if number > 0 && raw::read_head(stream).is_none() {
                return;
            }
            if give(stream, *length, *length).is_err() {
                return;
            }
        }
    })
}

/// A response of this length, of which only the beginning comes.
fn give(stream: &mut TcpStream, length: usize, comes: usize) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &bytes(length)[..comes]].concat())
}

fn lowport(upstream: &RawUpstream, server: &str, timeouts: &str) -> Lowport {
    Lowport::with(&Setup {
        server: &format!("redirect_to_https = false\nworkers = 1\n{server}"),
        rest: &format!("[timeouts]\n{timeouts}\n{}", upstream.route()),
        args: &[],
    })
}

/// How many ends of pipes lowport has; `None` where that is not to be seen.
fn pipes(lowport: &Lowport) -> Option<usize> {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", lowport.pid())).ok()?;
    let targets = entries.map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let is_pipe = |target: &std::path::PathBuf| target.to_string_lossy().starts_with("pipe:");
    Some(targets.flatten().filter(is_pipe).count())
}

/// Waits until there are as many as before.
fn until_gone(lowport: &Lowport, before: Option<usize>) {
    until("the pipe to be gone", || {
        (pipes(lowport) == before).then_some(())
    });
}

/// A response whose body has this length, and whatever of it comes.
fn body(client: &mut TcpStream, length: usize) -> Vec<u8> {
    let head = raw::read_head(client).expect("a head");
    assert_eq!(statuses(&String::from_utf8_lossy(&head)), [200]);
    let mut body = vec![0; length];
    let mut read = 0;
    while read < length {
        match client.read(&mut body[read..]) {
            Ok(count @ 1..) => read += count,
            _ => break,
        }
    }
    body.truncate(read);
    body
}

#[test]
fn every_byte_comes_as_it_was_and_responses_keep_apart() {
    const LENGTHS: &[usize] = &[
        262_143, 262_144, 3, 1_000_003, 300_000, 65_536, 1, 5_000_000,
    ];
    for server in ["", "splice = false"] {
        let upstream = upstream(LENGTHS);
        let lowport = lowport(&upstream, server, "");
        let before = pipes(&lowport);
        let mut client = raw::connect(lowport.http);
        // All at once: one response waits behind the other.
        client
            .write_all(GET.repeat(LENGTHS.len()).as_bytes())
            .expect("sent");
        for length in LENGTHS {
            assert!(
                body(&mut client, *length) == bytes(*length),
                "{length} {server}"
            );
        }
        assert_eq!(upstream.seen().len(), 1, "one connection for all");
        until_gone(&lowport, before);
    }
}

#[test]
fn there_is_a_pipe_while_a_large_body_is_on_its_way_and_only_then() {
    for (server, passes) in [("", true), ("splice = false", false)] {
        let upstream = upstream(&[HUGE]);
        let lowport = lowport(&upstream, server, "");
        let before = pipes(&lowport);
        if before.is_none() {
            return skipped(
                "there_is_a_pipe_while_a_large_body_is_on_its_way_and_only_then",
                "who may not look at lowport's descriptors sees no pipe",
            );
        }
        let mut client = raw::connect(lowport.http);
        client.write_all(GET.as_bytes()).expect("sent");
        let mut first = [0];
        client.read_exact(&mut first).expect("it has begun");
        if passes {
            until("a pipe", || (pipes(&lowport) != before).then_some(()));
        } else {
            assert_eq!(pipes(&lowport), before);
        }
        // The client gives up.
        drop(client);
        until_gone(&lowport, before);
        lowport.wait_for("client went away in mid-response");
    }
}

/// The upstream has nothing to do with how long the client takes.
#[test]
fn a_client_that_pauses_is_not_the_upstreams_fault() {
    let upstream = upstream(&[HUGE]);
    let lowport = lowport(&upstream, "", "upstream_idle = \"200ms\"");
    let mut client = raw::connect(lowport.http);
    client.write_all(GET.as_bytes()).expect("sent");
    std::thread::sleep(Duration::from_secs(1));
    assert!(body(&mut client, HUGE) == bytes(HUGE));
}

#[test]
fn a_client_that_reads_nothing_is_cut_off() {
    let upstream = upstream(&[HUGE]);
    let lowport = lowport(&upstream, "", "response_write_idle = \"300ms\"");
    let mut client = raw::connect(lowport.http);
    client.write_all(GET.as_bytes()).expect("sent");
    lowport.wait_for("client read nothing for timeouts.response_write_idle");
    assert!(body(&mut client, HUGE).len() < HUGE);
}

#[test]
fn an_upstream_that_breaks_off_or_stalls_never_looks_complete() {
    for (stalls, reason) in [
        (false, "upstream broke off in mid-body"),
        (true, "upstream sent nothing for timeouts.upstream_idle"),
    ] {
        let upstream = RawUpstream::handling(move |_, stream| {
            let _ = give(stream, 1_000_000, 400_000);
            if stalls {
                let _ = stream.read(&mut [0]);
            }
        });
        let lowport = lowport(&upstream, "", "upstream_idle = \"300ms\"");
        let before = pipes(&lowport);
        let mut client = raw::connect(lowport.http);
        client.write_all(GET.as_bytes()).expect("sent");
        assert!(body(&mut client, 1_000_000) == bytes(1_000_000)[..400_000]);
        lowport.wait_for(reason);
        until_gone(&lowport, before);
    }
}
