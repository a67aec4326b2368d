//! What clients that behave notice of 4,000 that are slow: with slowhttptest(1) sending heads, sending bodies, and
//! reading answers little by little, the slowest in a hundred of everybody else's requests beside those without it.
//!
//! ```sh
//! cargo bench --bench slow_clients              # three rounds of 8 seconds each
//! cargo bench --bench slow_clients -- 1 20      # one round of 20 seconds each
//! ```
//!
//! lowport has one processor to itself; all others share another. Ends with a failure where it takes more than twice as
//! long as without, by the medians of the rounds: on a machine that others share, too, the slowest in a hundred is often
//! theirs. slowhttptest and the upstream that it reaches give way to the clients that are measured and to theirs, since it
//! is lowport's time that matters.

#[path = "support/command_line.rs"]
mod command_line;
#[path = "support/median.rs"]
mod median;
#[path = "support/processor.rs"]
mod processor;
mod support;
#[path = "support/verdict.rs"]
mod verdict;

use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use command_line::numbers;
use median::median;
use nix::unistd::gettid;
use processor::{OTHERS, on_own_processor, pin};
use support::proxy::Proxy;
use support::site::Via;
use support::{Client, SETUP, Setup, lowport, runtime, upstream, upstream_on};
use verdict::verdict;

/// Slow connections at the same time.
const CONNECTIONS: &str = "4000";
/// How many of them are opened in a second.
const RATE: &str = "1000";
/// The most that a request may take, of what it takes without slow clients.
const MOST: f64 = 2.0;
/// The path that they ask for.
const SLOWLY: &str = "/slow";
/// Clients that behave, and how long each rests after an answer.
const CLIENTS: usize = 8;
const REST: Duration = Duration::from_millis(4);
/// Of the requests of each, every so-manieth begins a connection.
const FRESH: u32 = 10;

/// What slowhttptest does slowly, and how it is told to.
const SLOW: [(&str, &[&str]); 3] = [
    ("heads", &["-H", "-i", "2"]),
    ("bodies", &["-B", "-i", "2", "-s", "8192"]),
    (
        "reads",
        &["-X", "-n", "1", "-w", "256", "-y", "512", "-z", "16"],
    ),
];

fn main() -> ExitCode {
    let Some(mut numbers) = numbers() else {
        return ExitCode::SUCCESS;
    };
    if Command::new("slowhttptest").arg("-h").output().is_err() {
        eprintln!("\n*** NOT RUN: slow_clients: slowhttptest is not installed ***\n");
        return ExitCode::SUCCESS;
    }
    let rounds = numbers.next().unwrap_or(3).max(1);
    let seconds = Duration::from_secs(numbers.next().unwrap_or(8).max(1));
    pin(OTHERS);
    let (upstream, of_the_slow) = (upstream(), upstream_on(give_way));
    let tables = format!(
        "[upstream.slow]\npeers = [\"127.0.0.1:{of_the_slow}\"]\nexpect_user = \"any\"\n\
         [[route]]\npath = \"{SLOWLY}\"\nupstream = \"slow\"\n"
    );
    let proxy = on_own_processor(move || {
        let tables = &tables;
        lowport(upstream, Setup { tables, ..SETUP })
    });
    println!(
        "{CONNECTIONS} slow connections, {rounds} x {seconds:?} each; the slowest of 100 requests in microseconds\n"
    );
    println!("                 connections   without us   with us   ratio");
    let mut holds = true;
    for via in Via::ALL {
        for (what, args) in SLOW {
            let (mut without, mut with, mut most) = (Vec::new(), Vec::new(), 0);
            for _ in 0..rounds {
                without.push(slowest_of_100(&proxy, via, seconds));
                let slow = Slow::start(&proxy, via, args, seconds);
                let watch = slow.watch(&proxy);
                with.push(slowest_of_100(&proxy, via, seconds));
                most = watch.join().expect("counted").max(most);
            }
            let (without, with) = (median(without), median(with));
            let ratio = with / without;
            println!(
                "{:<6} {what:<8} {most:>12}   {without:>10.0}   {with:>7.0}   {ratio:.2}",
                via.name(),
            );
            holds &= ratio <= MOST;
        }
    }
    verdict(
        holds,
        "clients that behave are served as before",
        "SLOW CLIENTS ARE IN THE WAY OF OTHERS",
    )
}

/// This thread runs when nobody else wants to.
fn give_way() {
    let thread = gettid().to_string();
    let done = Command::new("chrt")
        .args(["--idle", "--pid", "0", &thread])
        .status();
    assert!(
        done.is_ok_and(|status| status.success()),
        "chrt(1) is needed"
    );
}

/// What 99 in 100 requests take at most, in microseconds.
fn slowest_of_100(proxy: &Proxy, via: Via, seconds: Duration) -> f64 {
    let until = Instant::now() + seconds;
    let clients = async {
        let clients = (0..CLIENTS).map(|_| asking(proxy, via, until));
        futures_util::future::join_all(clients).await
    };
    let mut times: Vec<Duration> = runtime().block_on(clients).concat();
    times.sort_unstable();
    times[times.len() * 99 / 100].as_secs_f64() * 1e6
}

async fn asking(proxy: &Proxy, via: Via, until: Instant) -> Vec<Duration> {
    let mut client = Client::connect(&proxy.site, via).await;
    let mut times = Vec::new();
    for number in 1.. {
        let begin = Instant::now();
        if begin >= until {
            break;
        }
        if number % FRESH == 0 {
            client = Client::connect(&proxy.site, via).await;
        }
        client.ask().await;
        times.push(begin.elapsed());
        tokio::time::sleep(REST).await;
    }
    times
}

/// slowhttptest at work. Ended when dropped.
struct Slow(Child);

impl Slow {
    fn start(proxy: &Proxy, via: Via, args: &[&str], seconds: Duration) -> Self {
        let url = match via {
            Via::Http1 => format!("http://127.0.0.1:{}{SLOWLY}", proxy.site.http),
            _ => format!("https://127.0.0.1:{}{SLOWLY}", proxy.site.https),
        };
        let seconds = (seconds.as_secs() + 5).to_string();
        let child = Command::new("chrt")
            .args(["--idle", "0", "slowhttptest", "-c", CONNECTIONS, "-r", RATE])
            .args(["-l", &seconds, "-u", &url, "-v", "0"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("slowhttptest runs");
        Self(child)
    }

    /// Counts for as long as it runs how many connections lowport has at the same time; 0 where that is not to be seen.
    fn watch(&self, proxy: &Proxy) -> std::thread::JoinHandle<u64> {
        let (tool, lowport) = (self.0.id(), proxy.child.id());
        std::thread::spawn(move || {
            let mut most = 0;
            let runs = |pid| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
                stat.is_ok_and(|stat| !stat.contains(") Z "))
            };
            while runs(tool) {
                // Its size is the number of descriptors from Linux 6.2 on; counting them would be in the way.
                let open = std::fs::metadata(format!("/proc/{lowport}/fd"));
                most = most.max(open.map_or(0, |open| open.len()));
                std::thread::sleep(Duration::from_millis(200));
            }
            most
        })
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
