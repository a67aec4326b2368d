//! Memory: where there is too much of it nobody is let add to it, whoever has nothing to ask leaves, and it ends when there is
//! less.

use std::net::TcpStream;

use nix::sys::signal::Signal;
use tokio::task::{JoinSet, block_in_place};

use super::overload::{answered, ask, exchange};
use super::{BOTH, statuses};
use crate::support::client::{h2, request_h2};
use crate::support::frames::{Frames, Outcome};
use crate::support::lowport::Setup;
use crate::support::peer::{Counter, Endless, Peer};
use crate::support::raw::{self, RawUpstream};
use crate::support::{Lowport, process, until};

/// Bytes that lowport may have besides those that it has from the start.
const MORE: u64 = 16 << 20;
/// Uploads at the same time; each takes some hundred KiB.
const UPLOADS: usize = 100;

const HEALTH: &str = "[[route]]\npath = \"/health\"\nrespond = \"ok\"\n";

fn setup(rest: &str) -> Setup<'_> {
    Setup {
        server: "redirect_to_https = false",
        rest,
        args: &["-v"],
    }
}

/// Sets the limit of memory, in bytes, by a reload.
fn limit(lowport: &Lowport, routes: &str, limit: u64) {
    let seen = lowport.output().len();
    lowport.rewrite(&setup(&format!("[limits]\nmemory = {limit}\n{routes}")));
    lowport.wait_for_after(seen, " reloaded ");
}

/// Uploads that an upstream does not read, each over a connection of its own, until this drops.
async fn pile_up(lowport: &Lowport) -> JoinSet<()> {
    let sent = Counter::default();
    let mut uploads = JoinSet::new();
    for _ in 0..UPLOADS {
        let mut sender = h2(lowport.https).await;
        let upload = request_h2("POST", "/hold", Endless::counted(&sent));
        // Whether it is answered is all the same.
        uploads.spawn(async move { drop(sender.send_request(upload).await) });
    }
    uploads
}

/// Where the kernel may hand out huge pages, those that the first allocations touch are three times as much.
#[test]
fn one_that_only_waits_takes_up_little() {
    let lowport = Lowport::start(HEALTH);
    let anonymous = process::status(lowport.pid(), "RssAnon").unwrap();
    let kib: u64 = anonymous.trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 4096, "{kib} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_its_limit_requests_are_503_while_health_answers_and_below_it_all_are_served() {
    let peer = Peer::start(true);
    let routes = format!(
        "[upstream.peer]\npeers = \"h2c://127.0.0.1:{}\"\nexpect_user = \"any\"\n[[route]]\nupstream = \"peer\"\n{HEALTH}",
        peer.port
    );
    let mut lowport = Lowport::with(&setup(&routes));
    let most = lowport.memory() * 1024 + MORE;
    block_in_place(|| limit(&lowport, &routes, most));
    let small = |lowport: &Lowport| block_in_place(|| exchange(lowport, "/small"));
    assert_eq!(statuses(&small(&lowport)), [200]);
    let uploads = pile_up(&lowport).await;
    block_in_place(|| {
        until("requests to be shed", || {
            (statuses(&small(&lowport)) == [503]).then_some(())
        });
    });
    for _ in 0..5 {
        let shed = small(&lowport);
        assert_eq!(statuses(&shed), [503], "{shed}");
        assert!(shed.contains("limits.memory"), "{shed}");
        assert!(shed.contains("retry-after: 1\r\n"), "{shed}");
        let health = block_in_place(|| exchange(&lowport, "/health"));
        assert!(health.ends_with("ok"), "{health}");
    }
    drop(uploads);
    block_in_place(|| {
        // Also where nobody comes.
        lowport.wait_for("below limits.memory again");
        assert_eq!(statuses(&small(&lowport)), [200]);
        lowport.wait_for(&format!(
            "reason=\"shed: limits.memory ({most} bytes) reached\""
        ));
        let said = lowport.output();
        let said = said
            .iter()
            .filter(|line| line.contains("limits.memory reached"));
        assert_eq!(said.count(), 1, "one line for all of it");
        lowport.signal(Signal::SIGTERM);
        assert!(lowport.ended().success());
        let line = lowport.wait_for(" ending ");
        assert!(line.contains(" shed_memory="), "{line}");
    });
}

/// A limit, in bytes, that it has passed already; no less than a limit can be.
fn too_little(lowport: &Lowport) -> u64 {
    (lowport.memory() * 1024 / 2).max(4 << 20)
}

/// It has more than it may have from the start.
fn heavy(routes: &str) -> Lowport {
    let lowport = Lowport::with(&setup(routes));
    limit(&lowport, routes, too_little(&lowport));
    lowport
}

#[test]
fn whoever_is_answered_503_is_parted_with() {
    let upstream = RawUpstream::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let routes = format!("{}{HEALTH}", upstream.route());
    let lowport = heavy(&routes);
    let mut shed = raw::connect(lowport.http);
    until("requests to be shed", || {
        ask(&mut shed, "/");
        let head = answered(&mut shed);
        if statuses(&head) == [503] {
            assert!(head.contains("connection: close\r\n"), "{head}");
            return Some(());
        }
        shed = raw::connect(lowport.http);
        None
    });
    raw::read_all(&mut shed);
    for over in BOTH {
        let mut client = Frames::open(&lowport, over, &[]);
        let stream = client.get("/");
        assert_eq!(client.outcome(stream), Outcome::Status(503), "{over:?}");
        assert_eq!(client.ends_with(), Some(0), "{over:?}");
    }
    let before = upstream.seen().len();
    let mut idle = raw::connect(lowport.http);
    ask(&mut idle, "/health");
    let told = raw::read_all(&mut idle);
    assert_eq!(statuses(&told), [200]);
    assert_eq!(upstream.seen().len(), before, "none of them went upstream");
    lowport.wait_for("passed by an eighth: accepting rests after each client");
    // Without a limit, nobody waits for memory.
    limit(&lowport, &routes, 0);
    until("requests to be served", || {
        (statuses(&exchange(&lowport, "/")) == [200]).then_some(())
    });
}

#[test]
fn whoever_is_within_a_request_stays() {
    let (upstream, barrier) = super::overload::held();
    let routes = upstream.route();
    let lowport = Lowport::with(&setup(&routes));
    let mut busy: Vec<TcpStream> = (0..2).map(|_| raw::connect(lowport.http)).collect();
    for stream in &mut busy {
        ask(stream, "/");
    }
    until("both upstream", || {
        (upstream.seen().len() == 2).then_some(())
    });
    limit(&lowport, &routes, too_little(&lowport));
    until("requests to be shed", || {
        let mut stream = raw::connect(lowport.http);
        ask(&mut stream, "/");
        stream
            .set_read_timeout(Some(std::time::Duration::from_millis(500)))
            .expect("set");
        raw::read_head(&mut stream).filter(|head| head.starts_with(b"HTTP/1.1 503"))
    });
    barrier.open();
    for stream in &mut busy {
        assert_eq!(statuses(&answered(stream)), [200]);
    }
}
