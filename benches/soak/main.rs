//! Everything at the same time, for as long as it is told: clients over HTTP/1.1, TLS and HTTP/2, uploads, downloads,
//! server-sent events and WebSockets, beside slow and hostile ones, while peers are killed and lowport reloads.
//!
//! ```sh
//! cargo bench --bench soak                     # a minute
//! cargo bench --bench soak -- 15               # 15 minutes
//! cargo bench --bench soak -- 15 42            # with this seed for what is drawn
//! ```
//!
//! Every request is entered as answered rightly, as refused or cut off with a reason (its peer was killed meanwhile), or
//! as lost. Ends with a failure where anything was lost, lowport failed in any way, or it holds more in the end than
//! after it had warmed up.

#![allow(
    clippy::expect_used,
    reason = "a bench that cannot be set up has failed"
)]

mod app;
mod client;
#[path = "../support/command_line.rs"]
mod command_line;
mod hostile;
mod ledger;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/site.rs"]
mod site;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use app::App;
use client::Target;
use command_line::numbers;
use ledger::Ledger;
use proxy::{CONFIG, LOG, Proxy};
use site::{Site, Via, write};
use watch::Sample;

/// What all clients share.
pub(crate) struct World {
    lowport: Proxy,
    /// How everything ended
    pub(crate) ledger: Ledger,
    over: AtomicBool,
}

impl World {
    /// Where lowport is.
    pub(crate) fn site(&self) -> &Site {
        &self.lowport.site
    }

    /// Whether clients still begin something.
    pub(crate) fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }
}

fn main() -> ExitCode {
    let Some(mut numbers) = numbers() else {
        return ExitCode::SUCCESS;
    };
    let whole = Duration::from_secs(60 * numbers.next().unwrap_or(1).max(1));
    let seed = numbers.next().unwrap_or_else(|| fastrand::u64(..));
    println!("{whole:?}, seed {seed}");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let sample = app::copy_sample(folder.path());
    let steady = App::start(&sample);
    let mut mortal = [App::start(&sample), App::start(&sample)];
    let ports = [steady.port, mortal[0].port, mortal[1].port];
    let configs = [0, 1].map(|number| move |site: &Site| config(site, ports, number));
    let site = Site::new();
    let text = configs[0](&site);
    let world = Arc::new(World {
        lowport: Proxy::lowport(&proxy::lowport(), site, &text, &[]),
        ledger: Ledger::default(),
        over: AtomicBool::new(false),
    });

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut dice = fastrand::Rng::with_seed(seed);
    let clients = spawn(&runtime, &world, &mut dice);

    let killer = {
        let (world, mut dice) = (world.clone(), dice.fork());
        std::thread::spawn(move || {
            while world.goes_on() {
                rest(&world, dice.u64(3000..8000));
                let one = &mut mortal[dice.usize(..2)];
                world.ledger.while_killing(|| one.kill());
                rest(&world, dice.u64(100..2000));
                one.restart();
            }
            mortal
        })
    };

    let pid = world.lowport.child.id();
    let begin = Instant::now();
    let (mut samples, mut reloads, mut next_reload) = (Vec::new(), 0, begin);
    while begin.elapsed() < whole {
        std::thread::sleep(Duration::from_secs(1));
        samples.push(Sample::of(pid));
        if Instant::now() > next_reload {
            reloads += 1;
            write(
                world.site().path(),
                CONFIG,
                &configs[reloads % 2](world.site()),
            );
            kill(Pid::from_raw(pid as i32), Signal::SIGHUP).expect("it runs");
            next_reload = Instant::now() + Duration::from_millis(dice.u64(1000..6000));
        }
        if samples.len().is_multiple_of(30) {
            tell(begin, &world.ledger, samples[samples.len() - 1]);
        }
    }
    world.over.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        for client in clients {
            client.await.expect("no client panics");
        }
    });
    let mortal = killer.join().expect("no panic");
    println!("\n{}", world.ledger);
    println!("{} kills, {reloads} reloads", world.ledger.kills());
    let grown = !watch::holds(&samples, begin + watch::warm_up(whole));
    drop(runtime);
    let World {
        lowport, ledger, ..
    } = Arc::into_inner(world).expect("all clients have ended");
    let ended = end(lowport);
    drop((steady, mortal));
    verdict(&ledger, grown, &ended)
}

/// One of two configurations, of which now the one and now the other is loaded.
fn config(site: &Site, [steady, one, other]: [u16; 3], number: usize) -> String {
    format!(
        "[server]\nhttp = \"127.0.0.1:{}\"\nhttps = \"127.0.0.1:{}\"\nredirect_to_https = false\nworkers = 2\n\
         user = \"65534:65534\"\n[log]\naccess = \"off\"\n[[certificate]]\ncert = \"site.pem\"\nkey = \"site.key\"\n\
         [timeouts]\nhibernate = \"20ms\"\nrequest_head = \"2s\"\nrequest_body_idle = \"2s\"\nkeepalive_idle = \"{}s\"\n\
         [upstream.steady]\npeers = [\"127.0.0.1:{steady}\"]\n\
         [upstream.mortal]\npeers = [\"127.0.0.1:{one}\", \"127.0.0.1:{other}\"]\n\
         [[route]]\nupstream = \"steady\"\n\
         [[route]]\npath = \"/mortal\"\nstrip_prefix = \"/mortal\"\nupstream = \"mortal\"\n\
         [[route]]\nhost = \"host-{number}.example\"\nupstream = \"steady\"\n",
        site.http,
        site.https,
        20 + number,
    )
}

/// All clients, each with a seed of its own.
fn spawn(
    runtime: &tokio::runtime::Runtime,
    world: &Arc<World>,
    dice: &mut fastrand::Rng,
) -> Vec<tokio::task::JoinHandle<()>> {
    let mut clients = Vec::new();
    for target in [Target::Steady, Target::Steady, Target::Mortal] {
        for via in Via::ALL {
            for _ in 0..2 {
                let requests = client::requests(world.clone(), via, target, 6, dice.u64(..));
                clients.push(runtime.spawn(requests));
            }
            let events = client::events(world.clone(), via, target, dice.u64(..));
            clients.push(runtime.spawn(events));
            let aborts = client::aborts(world.clone(), via, target, dice.u64(..));
            clients.push(runtime.spawn(aborts));
        }
        for via in [Via::Http1, Via::Tls] {
            let sockets = client::websockets(world.clone(), via, target, dice.u64(..));
            clients.push(runtime.spawn(sockets));
        }
    }
    for via in [Via::Http1, Via::Tls] {
        for _ in 0..2 {
            clients.push(runtime.spawn(hostile::bytes(world.clone(), via, dice.u64(..))));
            clients.push(runtime.spawn(hostile::slow(world.clone(), via, dice.u64(..))));
        }
    }
    clients.push(runtime.spawn(hostile::floods(world.clone(), dice.u64(..))));
    clients
}

/// Sleeps so many milliseconds, or until the soak is over.
fn rest(world: &World, millis: u64) {
    let until = Instant::now() + Duration::from_millis(millis);
    while world.goes_on() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn tell(begin: Instant, ledger: &Ledger, sample: Sample) {
    let [answered, refused, lost] = ledger.sums();
    let descriptors = sample
        .descriptors
        .map_or("?".to_owned(), |count| count.to_string());
    println!(
        "{:>4} s: {answered} answered, {refused} refused or cut, {lost} lost; {} KiB, {descriptors} descriptors",
        begin.elapsed().as_secs(),
        sample.memory,
    );
}

/// How lowport ended, and what it said.
struct End {
    how: String,
    said: String,
}

/// Asks it to stop and waits.
fn end(mut lowport: Proxy) -> End {
    kill(Pid::from_raw(lowport.child.id() as i32), Signal::SIGTERM).expect("it runs");
    let patience = Instant::now() + Duration::from_secs(40);
    let mut how = "not in time".to_owned();
    while Instant::now() < patience {
        if let Some(status) = lowport.child.try_wait().expect("waited") {
            how = status.to_string();
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = std::fs::read_to_string(lowport.site.path().join(LOG));
    End {
        how,
        said: said.expect("its log is there"),
    }
}

fn verdict(ledger: &Ledger, grown: bool, ended: &End) -> ExitCode {
    let [_, _, lost] = ledger.sums();
    let mut faults = Vec::new();
    if lost > 0 {
        faults.push(format!("{lost} LOST"));
    }
    if grown {
        faults.push("IT GREW".to_owned());
    }
    if ended.how != "exit status: 0" {
        faults.push(format!("IT ENDED WITH {}", ended.how));
    }
    let bad = |line: &&str| line.contains("panicked") || line.contains("ERROR");
    faults.extend(ended.said.lines().filter(bad).map(str::to_owned));
    if faults.is_empty() {
        println!("nothing was lost, and nothing grew");
        return ExitCode::SUCCESS;
    }
    for fault in faults {
        println!("{fault}");
    }
    ExitCode::FAILURE
}
