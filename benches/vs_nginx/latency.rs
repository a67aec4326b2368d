//! How long requests take at a fixed rate, whether or not those before them have been answered.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use crate::client::{answer, request, some};
use crate::cpu::cpu;
use crate::load::Got;
use crate::proxy::Proxy;

/// Connections, each with a thread: an asynchronous runtime's timers are a millisecond coarse.
const CONNECTIONS: u32 = 16;
/// How long between the requests of each; 2,000 a second in all.
const EVERY: Duration = Duration::from_millis(8);
/// Requests of each connection that do not count.
const WARM_UP: usize = 20;

/// Asks at that rate for this long.
pub(crate) fn at_fixed_rate(proxy: &Proxy, seconds: Duration) -> Result<Got, String> {
    let count = WARM_UP + (seconds.as_micros() / EVERY.as_micros()) as usize;
    let (port, start) = (proxy.site.http, Instant::now() + Duration::from_millis(50));
    let cpu_before = cpu(proxy.child.id());
    let threads: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let start = start + EVERY * number / CONNECTIONS;
            std::thread::spawn(move || connection(port, start, count))
        })
        .collect();
    let mut micros = Vec::new();
    for thread in threads {
        let times = thread.join().map_err(|_| "a client panicked".to_owned())?;
        let times = times.map_err(|error| error.to_string())?;
        micros.extend_from_slice(&times[WARM_UP..]);
    }
    micros.sort_by(f64::total_cmp);
    let cpu = (cpu(proxy.child.id()) - cpu_before).as_secs_f64();
    Ok(Got {
        done: (count * CONNECTIONS as usize) as f64,
        cpu,
        busy: cpu / start.elapsed().as_secs_f64(),
        micros,
    })
}

/// What each of this many requests takes, in microseconds.
fn connection(port: u16, start: Instant, count: usize) -> io::Result<Vec<f64>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    let request = request("/x", "");
    let mut times = Vec::with_capacity(count);
    let mut due = start;
    for _ in 0..count {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // A request counts from when it is sent, since the kernel wakes nobody on the dot; but where the answer before
        // it came late, from when it was due.
        let late = times.last().is_some_and(|(_, answered)| *answered > due);
        let begin = if late { due } else { Instant::now() };
        stream.write_all(&request)?;
        whole_answer(&mut stream)?;
        let answered = Instant::now();
        times.push((answered - begin, answered));
        due += EVERY;
    }
    Ok(times
        .into_iter()
        .map(|(took, _)| took.as_secs_f64() * 1e6)
        .collect())
}

fn whole_answer(stream: &mut TcpStream) -> io::Result<()> {
    let (mut buf, mut read) = ([0; 8192], 0);
    let whole = loop {
        read += some(stream.read(&mut buf[read..])?)?;
        if let Some((head, body)) = answer(&buf[..read], 200)? {
            break head + body;
        }
    };
    while read < whole {
        read += some(stream.read(&mut buf[read..])?)?;
    }
    Ok(())
}
