//! What clients of `lowport dev` see while the app starts, crashes, restarts.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::room::{Dev, Room, Who, has_namespaces};
use crate::support::{is_root, port_after, raw, skipped, until};

/// Root that may not make namespaces can still not run this as somebody else.
fn lacks_user(test: &str) -> bool {
    let lacks = is_root() && !has_namespaces();
    if lacks {
        skipped(test, "needs namespaces");
    }
    lacks
}

fn dev(script: &str) -> Dev {
    Room::script(script).dev(Who::User)
}

/// A server that answers `text`, once `before` has called `listen`.
fn server(text: &str, before: &str) -> String {
    format!(
        "const server = require('http').createServer((q, r) => r.end('{text}'));
         const listen = () => server.listen(process.env.PORT, process.env.HOST);
         {before}"
    )
}

const HTML: &[&str] = &["-H", "accept: text/html,*/*;q=0.8", "-w", "\n%{http_code}"];

#[test]
fn requests_wait_for_an_app_that_starts_slowly() {
    if lacks_user("requests_wait_for_an_app_that_starts_slowly") {
        return;
    }
    let dev = dev(&server("at last", "setTimeout(listen, 1500);"));
    // Whoever asks for what.
    let (text, page) = std::thread::scope(|scope| {
        let page = scope.spawn(|| dev.curl("/", HTML));
        let posted = ["--data", "x", "-H", "accept: application/json"];
        (dev.curl("/", &posted), page.join().unwrap())
    });
    assert_eq!((page.as_str(), text.as_str()), ("at last\n200", "at last"));
    dev.lowport.wait_for("app ready in ");
}

#[test]
fn a_browser_that_has_waited_gets_a_page_that_reloads_itself() {
    if lacks_user("a_browser_that_has_waited_gets_a_page_that_reloads_itself") {
        return;
    }
    let dev = dev("setInterval(() => {}, 1000)");
    let started = Instant::now();
    let page = dev.curl("/", HTML);
    let waited = started.elapsed();
    assert!(page.ends_with("\n503"), "{page}");
    assert!(
        page.contains("The app is starting.") && page.contains("location.reload()"),
        "{page}"
    );
    assert!(waited >= Duration::from_secs(5), "{waited:?}");
    let hint = dev
        .lowport
        .wait_for("the app runs but does not listen on 127.0.0.1:");
    assert!(hint.contains("process.env.PORT"), "{hint}");
}

#[test]
fn a_crash_is_shown_with_its_last_words_until_the_file_is_mended() {
    if lacks_user("a_crash_is_shown_with_its_last_words_until_the_file_is_mended") {
        return;
    }
    let dev = dev("console.error('<boom> of the test\\n    at line 7'); process.exit(3);");
    // It is held at first: the next try might do.
    let page = dev.curl("/", HTML);
    assert!(page.ends_with("\n502"), "{page}");
    for part in [
        "The app exited with code 3. It is started again in ",
        "<pre>&lt;boom&gt; of the test\n    at line 7</pre>",
        "location.reload()",
        "request id",
    ] {
        assert!(page.contains(part), "{part:?} in {page}");
    }
    let with_head = ["-i", "-H", "accept: application/json"];
    let answer = dev.curl("/", &with_head).to_ascii_lowercase();
    assert!(
        answer.contains("content-type: application/json"),
        "{answer}"
    );
    assert!(answer.contains("cache-control: no-store"), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    let json = dev.json("/");
    assert_eq!(json["status"], 502);
    assert_eq!(json["detail"], "<boom> of the test\n    at line 7");
    assert!(
        json["message"]
            .as_str()
            .unwrap()
            .starts_with("The app exited with code 3.")
    );
    let text = dev.curl("/", &["-w", "\n%{content_type}"]);
    assert!(
        text.contains("\n<boom> of the test\n    at line 7\n"),
        "{text}"
    );
    assert!(text.ends_with("text/plain; charset=utf-8"), "{text}");
    dev.lowport.wait_for("app | <boom> of the test");
    dev.lowport
        .wait_for("app exited with code 3, restart in 0.1 s");

    // However often it has crashed, whoever mends it need not wait for long.
    dev.lowport
        .wait_for("app exited with code 3, restart in 2 s");
    dev.room.write("server.js", &server("mended", "listen();"));
    until("the app to be back", || {
        (dev.curl("/", &[]) == "mended").then_some(())
    });
}

#[test]
fn what_cannot_be_started_is_told() {
    if lacks_user("what_cannot_be_started_is_told") {
        return;
    }
    let room = Room::new();
    let app = room.app.to_str().unwrap().to_owned();
    let command = room.command(Who::User, true, &["dev", &app, "--", "no-such-program"]);
    let dev = Dev::start(room, Who::User, command);
    let json = dev.json("/");
    let message = json["message"].as_str().unwrap();
    let expected = "The app cannot be started: there is no program \"no-such-program\" in PATH (";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn an_app_that_restarts_its_own_listener_costs_no_request() {
    if lacks_user("an_app_that_restarts_its_own_listener_costs_no_request") {
        return;
    }
    // As `node --watch` does: the process stays, the port is closed for a while.
    let dev = dev(&server(
        "here",
        "server.on('request', (q) => q.url === '/bounce' && q.socket.once('close', bounce));
         const bounce = () => { console.log('closed'); server.close(); server.closeAllConnections();
                                setTimeout(listen, 300); };
         server.on('listening', () => console.log('open'));
         listen();",
    ));
    for _ in 0..3 {
        let seen = dev.lowport.output().len();
        dev.curl("/", &[]);
        // It closes once the proxy has let go of the connection, so that one is not pooled.
        let bounce = "GET /bounce HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let port = app_port(&dev);
        dev.inside(|| raw::exchange(port, bounce));
        dev.lowport.wait_for_after(seen, "app | closed");
        let answers: Vec<String> = std::thread::scope(|scope| {
            let ask = |number| {
                let args: &[&str] = match number % 2 {
                    0 => &["-w", " %{http_code}"],
                    _ => &["-w", " %{http_code}", "--data", "posted"],
                };
                dev.curl("/", args)
            };
            let clients: Vec<_> = (0..8)
                .map(|number| scope.spawn(move || ask(number)))
                .collect();
            clients
                .into_iter()
                .map(|client| client.join().unwrap())
                .collect()
        });
        assert!(
            answers.iter().all(|answer| answer == "here 200"),
            "{answers:?}"
        );
    }
    let output = dev.lowport.output();
    assert!(
        !output.iter().any(|line| line.contains("restart in")),
        "the process stayed"
    );
}

fn app_port(dev: &Dev) -> u16 {
    let line = dev.lowport.wait_for(", on port ");
    port_after(&line, ", on port ")
}

#[test]
fn a_killed_app_is_back_before_anybody_notices() {
    if lacks_user("a_killed_app_is_back_before_anybody_notices") {
        return;
    }
    let dev = Room::sample().dev(Who::User);
    let pid = |answer: &Value| answer["app"]["pid"].as_u64().unwrap() as u32;
    let before = pid(&dev.json("/whoami"));
    let seen = dev.lowport.output().len();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(before as i32),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    // What a dying process had accepted is lost with it.
    let line = dev.lowport.wait_for_after(seen, "restart in 0.1 s");
    let after = pid(&dev.json("/whoami"));
    assert_ne!(before, after);
    // The app is a shell's child, which tells of a signal in its own way.
    assert!(
        line.contains("exited with code 137") || line.contains("SIGKILL"),
        "{line}"
    );
}
