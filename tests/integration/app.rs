//! `[app]` of `lowport run`: who it is, what becomes of it, and what becomes of requests meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::client::curl;
use crate::support::lowport::Setup;
use crate::support::node::{self, APP_UID};
use crate::support::{Lowport, folder, is_root, lowport, port, process, raw, skipped, until};

/// A lowport that runs an app, and the app's folder.
struct Scene {
    lowport: Lowport,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn sample() -> Self {
        let folder = folder();
        node::copy(&node::sample(), folder.path());
        Self::new("", folder)
    }

    fn script(rest: &str, text: &str) -> Self {
        Self::new(rest, node::script(text))
    }

    fn new(rest: &str, folder: tempfile::TempDir) -> Self {
        let toml = format!(
            "{rest}\n[app]\ncommand = [\"node\", \"server.js\"]\ndir = \"{}\"\nport = {}\n{}",
            folder.path().display(),
            port(),
            node::app_user()
        );
        let lowport = Lowport::with(&Setup {
            server: "redirect_to_https = false",
            rest: &toml,
            args: &[],
        });
        lowport.wait_for("app ready in");
        Self {
            lowport,
            _folder: folder,
        }
    }

    fn json(&self, path: &str) -> Value {
        let text = curl(&self.lowport, path, &[]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The app and its supervisor.
    fn pids(&self) -> (u32, u32) {
        let app = self.json("/whoami")["app"]["pid"]
            .as_u64()
            .expect("a number") as u32;
        let supervisor = process::parent(app);
        let guardian = process::parent(supervisor);
        assert_eq!(process::parent(guardian), self.lowport.pid());
        (app, supervisor)
    }
}

fn kill_9(pid: u32) {
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("killed");
}

fn owner() -> u32 {
    if is_root() {
        APP_UID
    } else {
        nix::unistd::geteuid().as_raw()
    }
}

#[test]
fn the_app_is_who_the_file_says_and_can_become_nobody_else() {
    let scene = Scene::sample();
    let app = &scene.json("/whoami")["app"];
    assert_eq!(
        (&app["uid"], &app["root"]),
        (&owner().into(), &false.into())
    );
    assert_eq!(app["capabilities"], "0");
    assert_eq!(app["noNewPrivs"], true);
    if is_root() {
        assert_eq!(app["gid"], APP_UID);
        assert_eq!(app["groups"], serde_json::json!([APP_UID]));
    }
    let (app, supervisor) = scene.pids();
    for pid in [app, supervisor] {
        assert_eq!(process::uids(pid), [owner(); 4]);
        assert_eq!(process::status(pid, "NoNewPrivs").unwrap(), "1");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(
                process::status(pid, set).unwrap(),
                "0000000000000000",
                "{set}"
            );
        }
    }
}

#[test]
fn the_app_is_told_where_to_listen_and_inherits_nothing_of_ours() {
    let scene = Scene::script(
        "",
        "const fs = require('fs');
         require('http').createServer((q, r) => {
           const fds = fs.readdirSync('/proc/self/fd').map((fd) => {
             try { return fs.readlinkSync('/proc/self/fd/' + fd); } catch { return ''; }
           });
           r.end(JSON.stringify({ env: process.env, cwd: process.cwd(), fds }));
         }).listen(process.env.PORT, process.env.HOST);",
    );
    let told = scene.json("/");
    assert_eq!(told["env"]["HOST"], "127.0.0.1");
    let port = told["env"]["PORT"].as_str().unwrap();
    scene.lowport.wait_for(&format!("on port {port}"));
    // lowport's listeners and keys are not among what it has open: its own listener and its connections are all.
    let fds = told["fds"].as_array().unwrap();
    let sockets = fds
        .iter()
        .filter(|fd| fd.as_str().unwrap().starts_with("socket:"))
        .count();
    assert!(sockets <= 3, "{fds:?}");
    assert!(
        !fds.iter().any(|fd| fd.as_str().unwrap().contains(".key")),
        "{fds:?}"
    );
}

/// lowport takes memory in small pages, which keep nobody waiting; the app as it would have without us.
#[test]
fn the_app_has_huge_pages_as_it_would_have_without_us() {
    let scene = Scene::sample();
    let huge_pages = |pid| process::status(pid, "THP_enabled");
    let Some(ours) = huge_pages(std::process::id()) else {
        return skipped(
            "the_app_has_huge_pages_as_it_would_have_without_us",
            "the kernel does not tell (before Linux 5.0)",
        );
    };
    let (app, _) = scene.pids();
    assert_eq!(huge_pages(app), Some(ours));
    assert_eq!(huge_pages(scene.lowport.pid()).as_deref(), Some("0"));
}

/// What one client counted.
#[derive(Default)]
struct Count {
    ok: u32,
    failed: u32,
    /// The longest wait for an answer
    longest: Duration,
}

/// Asks over one connection until told to stop; a connection that the proxy closed after an answer is made anew.
fn ask_on_and_on(port: u16, number: usize, stop: &AtomicBool) -> Count {
    let mut count = Count::default();
    let mut stream = raw::connect(port);
    while !stop.load(Ordering::Relaxed) {
        let started = Instant::now();
        let request = match number % 4 {
            0 => "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody",
            1 => "GET /slow?ms=20 HTTP/1.1\r\nhost: a\r\n\r\n",
            _ => "GET /health HTTP/1.1\r\nhost: a\r\n\r\n",
        };
        stream.write_all(request.as_bytes()).expect("written");
        let (status, closes) = answer(&mut stream);
        count.longest = count.longest.max(started.elapsed());
        match status {
            200 => count.ok += 1,
            502 | 504 => count.failed += 1,
            other => panic!("status {other}"),
        }
        if closes {
            stream = raw::connect(port);
        }
    }
    count
}

/// Reads one whole answer: its status, and whether the connection ends with it.
fn answer(stream: &mut TcpStream) -> (u16, bool) {
    let head =
        String::from_utf8(raw::read_head(stream).expect("an answer, in time")).expect("UTF-8");
    let head = head.to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let status = head.split(' ').nth(1).expect("a status");
    let status = status.parse().expect("a number");
    if let Some(length) = field("content-length: ") {
        let mut body = vec![0; length.parse().expect("a number")];
        stream.read_exact(&mut body).expect("a whole body");
    } else {
        assert!(field("transfer-encoding: chunked").is_some(), "{head}");
        let mut end = Vec::new();
        let mut byte = [0];
        while !end.ends_with(b"0\r\n\r\n") {
            stream.read_exact(&mut byte).expect("a whole body");
            end.push(byte[0]);
        }
    }
    (status, field("connection: close").is_some())
}

#[test]
fn killing_the_app_under_load_leaves_no_request_without_an_answer() {
    const CLIENTS: usize = 64;
    const KILLS: usize = 3;
    let scene = Scene::sample();
    let load = |kills: usize| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let stop = &stop;
                    scope.spawn(move || ask_on_and_on(scene.lowport.http, number, stop))
                })
                .collect();
            let mut before = scene.pids().0;
            for _ in 0..kills {
                kill_9(before);
                // It waits for the new one, as everybody does.
                let after = until("the app to be back", || {
                    let text = curl(&scene.lowport, "/whoami", &[]);
                    let json = serde_json::from_str::<Value>(&text).ok()?;
                    json["app"]["pid"].as_u64().map(|pid| pid as u32)
                });
                assert_ne!(before, after);
                before = after;
            }
            stop.store(true, Ordering::Relaxed);
            let counts = clients
                .into_iter()
                .map(|client| client.join().expect("answers only"));
            counts.fold(Count::default(), |sum, count| Count {
                ok: sum.ok + count.ok,
                failed: sum.failed + count.failed,
                longest: sum.longest.max(count.longest),
            })
        })
    };
    // What is kept for the next time is allocated by the first.
    load(0);
    let before = scene.lowport.memory();
    let sum = load(KILLS);
    assert!(sum.ok as usize > CLIENTS * KILLS, "{} answers", sum.ok);
    // One request a client and a kill is in flight, and of those that had reached the app some cannot be sent again.
    assert!(
        sum.failed as usize <= CLIENTS * KILLS,
        "{} failed, {} ok",
        sum.failed,
        sum.ok
    );
    assert!(sum.longest < Duration::from_secs(10), "{:?}", sum.longest);
    let restarts = scene
        .lowport
        .output()
        .iter()
        .filter(|line| line.contains("SIGKILL"))
        .count();
    assert_eq!(restarts, KILLS);
    until("the memory to be given back", || {
        (scene.lowport.memory() < before + 8 * 1024).then_some(())
    });
}

#[test]
fn sigterm_reaches_the_app_after_the_drain_and_nothing_is_left() {
    let mut scene = Scene::script(
        "",
        "const children = [require('child_process').spawn('sleep', ['600'])];
         process.on('SIGTERM', () => { console.log('told to stop'); process.exit(); });
         require('http').createServer((q, r) => {
           if (q.url === '/slow') {
             r.write('first');
             return setTimeout(() => r.end('last'), 500);
           }
           r.end(JSON.stringify([process.pid, children[0].pid]));
         }).listen(process.env.PORT, process.env.HOST);",
    );
    let pids: Vec<u32> = serde_json::from_value(scene.json("/")).unwrap();
    let supervisor = process::parent(pids[0]);
    let mut slow = raw::connect(scene.lowport.http);
    write!(slow, "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    raw::read_head(&mut slow).unwrap();
    scene.lowport.signal(Signal::SIGTERM);
    // The app would have cut it off.
    assert!(raw::read_all(&mut slow).ends_with("last\r\n0\r\n\r\n"));
    assert!(scene.lowport.ended().success());
    scene.lowport.wait_for("app | told to stop");
    scene.lowport.wait_for("app stopped");
    // Not when somebody has time for it, but before lowport itself ends.
    for pid in [pids[0], pids[1], supervisor] {
        assert!(process::is_gone(pid), "{pid} is left");
    }
    assert!(
        kill(Pid::from_raw(-(pids[0] as i32)), None).is_err(),
        "its group is left"
    );
}

#[test]
fn a_lowport_that_is_killed_takes_the_app_with_it() {
    // Even one that wants to stay.
    let mut scene = Scene::script(
        "",
        "process.on('SIGTERM', () => {});
         require('http').createServer((q, r) => r.end(String(process.pid)))
           .listen(process.env.PORT, process.env.HOST);",
    );
    let app = curl(&scene.lowport, "/", &[]).parse().unwrap();
    let supervisor = process::parent(app);
    scene.lowport.signal(Signal::SIGKILL);
    scene.lowport.ended();
    let started = Instant::now();
    process::gone(&[app, supervisor]);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_supervisor_that_is_killed_takes_the_app_with_it_and_is_told() {
    let scene = Scene::sample();
    let (app, supervisor) = scene.pids();
    kill_9(supervisor);
    process::gone(&[app]);
    scene
        .lowport
        .wait_for("the app's supervisor was killed by SIGKILL: the app is not started again");
    let status = curl(&scene.lowport, "/", &["-w", "%{http_code}"]);
    assert!(status.ends_with("502"), "{status}");
    // What only a developer should see stays in the log.
    assert!(
        !status.contains("SIGKILL") && !status.contains("upervisor"),
        "{status}"
    );
}

#[test]
fn a_crash_shows_a_client_nothing_of_the_app() {
    let scene = Scene::script(
        "[timeouts]\nupstream_response = \"5s\"",
        "require('http').createServer((q, r) => { console.error('secret'); process.exit(3); })
           .listen(process.env.PORT, process.env.HOST);",
    );
    for accept in ["text/html", "application/json", "text/plain"] {
        let header = format!("accept: {accept}");
        let page = curl(&scene.lowport, "/", &["-H", &header, "-w", "%{http_code}"]);
        assert!(page.ends_with("502"), "{page}");
        assert!(
            !page.contains("secret") && !page.contains("code 3"),
            "{page}"
        );
        scene.lowport.wait_for("app | secret");
    }
}

#[test]
fn an_app_that_would_be_root_is_refused_with_the_remedy() {
    if !is_root() {
        return skipped(
            "an_app_that_would_be_root_is_refused_with_the_remedy",
            "needs root",
        );
    }
    let folder = folder();
    let file = folder.path().join("lowport.toml");
    let said = |user: &str| {
        let toml = format!(
            "[server]\nhttp = \"127.0.0.1:{}\"\nuser = \"{}\"\n[app]\ncommand = [\"node\", \"x.js\"]\n{user}",
            port(),
            lowport::USER
        );
        std::fs::write(&file, toml).unwrap();
        let output = lowport::run(&["run", "-c", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let none = said("");
    assert!(
        none.contains("[app] has no user, and lowport was started as root"),
        "{none}"
    );
    assert!(
        none.contains("add `user = \"node\"`: the app must not run as root"),
        "{none}"
    );
    for root in ["root", "0", "0:0"] {
        let told = said(&format!("user = \"{root}\"\n"));
        assert!(told.contains("nothing here runs as root"), "{told}");
        assert!(told.contains("lowport.toml:6:8"), "{told}");
    }
    let unknown = said("user = \"no-such-user\"\n");
    assert!(unknown.contains("no-such-user"), "{unknown}");
}
