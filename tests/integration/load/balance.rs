//! A few connections that stay: the workers have about as many each, whatever the kernel's hash makes of them.

use std::fs;
use std::io::Write;
use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::support::lowport::Setup;
use crate::support::{Lowport, port_after, raw, say};

/// Connections that stay. A hash gives one of two workers at most three of them once in seven times.
const STAY: usize = 12;
/// Requests over each.
const REQUESTS: usize = 300;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// One request and its answer.
fn ask(stream: &mut TcpStream) {
    stream.write_all(REQUEST).expect("sent");
    let head = raw::read_head(stream).expect("an answer");
    assert!(head.starts_with(b"HTTP/1.1 204 "), "{head:?}");
}

/// Ticks of processor time that each worker has had.
fn worked(lowport: &Lowport) -> Vec<u64> {
    let tasks = fs::read_dir(format!("/proc/{}/task", lowport.pid())).expect("it runs");
    let of = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        // `utime` and `stime` of proc(5).
        let ticks = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
        name.contains("(worker-").then_some(ticks)
    };
    tasks.flatten().filter_map(of).collect()
}

#[test]
fn the_workers_share_a_few_connections_that_stay() {
    let mut lowport = Lowport::with(&Setup {
        server: "redirect_to_https = false\nworkers = 2",
        rest: "[log]\naccess = \"off\"\n[[route]]\nrespond = \"\"\nstatus = 204\n",
        args: &["-v"],
    });
    // Three times, so that chance alone will hardly have been even each time.
    for _ in 0..2 {
        let mut round: Vec<TcpStream> = (0..STAY).map(|_| raw::connect(lowport.http)).collect();
        round.iter_mut().for_each(ask);
    }
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..STAY {
        let mut stream = raw::connect(lowport.http);
        ask(&mut stream);
        streams.push(stream);
    }
    let before = worked(&lowport);
    assert_eq!(before.len(), 2);
    for _ in 0..REQUESTS {
        streams.iter_mut().for_each(ask);
    }
    let after = worked(&lowport);
    let ticks: Vec<u64> = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after - before)
        .collect();
    say(&format!(
        "ticks of each worker for {STAY} connections: {ticks:?}"
    ));
    let (least, most) = (ticks.iter().min().unwrap(), ticks.iter().max().unwrap());
    assert!(most - least <= most / 2 + 5, "{ticks:?}");
    drop(streams);
    lowport.signal(Signal::SIGTERM);
    assert!(lowport.ended().success());
    let line = lowport.wait_for(" ending ");
    assert!(port_after(&line, " connections_passed_on=") > 0, "{line}");
}
