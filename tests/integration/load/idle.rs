//! Many connections that wait for their clients' next requests.

use std::io::Write;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{report, size};
use crate::support::lowport::Setup;
use crate::support::over::{Over, Stream};
use crate::support::{Lowport, raw, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// lowport takes somewhat less than half of its descriptors for clients.
const DESCRIPTORS: u64 = 32_400;
/// Of so many idle connections, one is used again.
const AGAIN: usize = 100;

/// Fewer where the system allows fewer descriptors.
#[test]
fn fifteen_thousand_idle_connections_weigh_little_and_each_of_them_wakes() {
    let allowed = descriptors();
    for (over, count, most) in [
        (Over::Plain, 15_000, 4.0),
        (Over::Tls, size(500, 15_000), 16.0),
    ] {
        let count = count.min(allowed as usize * 15 / 32 - 100);
        let lowport = Lowport::with(&Setup {
            server: "redirect_to_https = false",
            rest: "[log]\naccess = \"off\"\n[timeouts]\nkeepalive_idle = \"1h\"\n[[route]]\nrespond = \"hello\"\n",
            args: &[],
        });
        // What is allocated once is not for them to pay.
        drop(open(&lowport, over));
        let before = lowport.memory();
        let mut all: Vec<_> = (0..count).map(|_| open(&lowport, over)).collect();
        // They hibernate after a moment, and the allocator gives back what they had every few seconds.
        let weighs = until("them to weigh little", || {
            let each = lowport.memory().saturating_sub(before) as f64 / count as f64;
            Some(each).filter(|each| *each < most)
        });
        let open = lowport.descriptors();
        assert!(open == 0 || open > count, "{open} descriptors");
        for stream in all.iter_mut().step_by(AGAIN) {
            ask(stream);
        }
        report(
            &format!("{over:?}"),
            &format!("{count} idle connections, {weighs:.1} KiB each"),
        );
    }
}

/// How many this process may have, and lowport that inherits it: as many as are wanted, or as are allowed.
fn descriptors() -> u64 {
    let limit = Resource::RLIMIT_NOFILE;
    let (_, hard) = getrlimit(limit).expect("a limit");
    if hard < DESCRIPTORS && setrlimit(limit, DESCRIPTORS, DESCRIPTORS).is_ok() {
        return DESCRIPTORS;
    }
    setrlimit(limit, hard, hard).expect("raised");
    hard.min(DESCRIPTORS)
}

fn open(lowport: &Lowport, over: Over) -> Box<dyn Stream> {
    let mut stream = over.connect(lowport, b"http/1.1");
    ask(&mut stream);
    stream
}

fn ask(stream: &mut Box<dyn Stream>) {
    stream.write_all(GET.as_bytes()).expect("sent");
    let head = raw::read_head(stream).expect("an answer");
    assert!(head.starts_with(b"HTTP/1.1 200 "));
    stream.read_exact(&mut [0; 5]).expect("hello");
}
