//! `lowport health`: whether the one that runs answers, as a container's health check asks.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::lowport::{BINARY, Setup, run};
use crate::support::raw::RawUpstream;
use crate::support::room::{Dev, Room, Who, has_namespaces};
use crate::support::terminal::{CONFIG, USAGE, config, done, failed, text};
use crate::support::{Lowport, Node, port, raw, skipped, until};

const RESPOND: &str = "[[route]]\nrespond = \"x\"\n";

/// What is said of the lowport with this configuration.
fn health(file: &Path, args: &[&str]) -> std::process::Output {
    let file = file.to_str().expect("UTF-8");
    run(&[&["health", "-c", file], args].concat())
}

/// Why it is not healthy.
fn why(output: &std::process::Output) -> String {
    let error = failed(output, 1);
    let why = error.strip_prefix("lowport: unhealthy: ");
    let why = why.unwrap_or_else(|| panic!("{error}"));
    assert_eq!(why.lines().count(), 1, "{why}");
    why.trim_end().to_owned()
}

/// A configuration with nothing but where is listened.
fn listening(http: u16) -> (tempfile::TempDir, String) {
    config(&format!("[server]\nhttp = \"127.0.0.1:{http}\"\n{RESPOND}"))
}

#[test]
fn a_lowport_that_runs_is_healthy_whatever_it_serves() {
    for (server, rest) in [
        ("redirect_to_https = false", RESPOND),
        // Plaintext is redirected.
        ("", RESPOND),
        // Nothing is for it, not even a host.
        (
            "redirect_to_https = false",
            "[[route]]\nhost = \"a.test\"\nmethods = \"GET\"\npath = \"/a\"\nrespond = \"x\"\nstatus = 503\n",
        ),
        // Nobody may ask often.
        (
            "redirect_to_https = false",
            "[limits]\nrequest_rate = \"1/h\"\n[[route]]\nredirect = \"https://a.test/\"\n",
        ),
    ] {
        let lowport = Lowport::with(&Setup {
            server,
            rest,
            args: &[],
        });
        for _ in 0..3 {
            let told = done(&health(&lowport.config(), &[]));
            let place = format!("127.0.0.1:{}", lowport.http);
            assert_eq!(told, format!("healthy: lowport answers on {place}\n"));
        }
    }
}

#[test]
fn upstreams_are_asked_for_only_where_that_is_said() {
    let mut node = Node::start();
    let lowport = Lowport::start(&node.route());
    let place = format!("127.0.0.1:{}", lowport.http);
    let healthy = format!("healthy: lowport answers on {place}\n");
    assert_eq!(done(&health(&lowport.config(), &["--upstreams"])), healthy);
    node.kill();
    let error = why(&health(&lowport.config(), &["--upstreams"]));
    assert!(
        error.starts_with("nobody listens on 127.0.0.1:") && error.contains("(upstream "),
        "{error}"
    );
    assert_eq!(done(&health(&lowport.config(), &[])), healthy);
}

#[test]
fn an_app_that_is_down_is_another_matter() {
    let mut node = Node::start();
    let lowport = Lowport::start(&node.route());
    let url = format!("http://localhost:{}/health", lowport.http);
    assert_eq!(
        done(&health(&lowport.config(), &[&url])),
        format!("healthy: {url} answered 200 OK\n")
    );
    // So it is without a configuration.
    done(&run(&["health", &url]));
    node.kill();
    let error = why(&health(&lowport.config(), &[&url]));
    assert!(
        error.starts_with(&format!("{url} answered 502 Bad Gateway: ")),
        "{error}"
    );
    done(&health(&lowport.config(), &[]));
}

#[test]
fn a_url_is_healthy_unless_it_is_missing() {
    let lowport = Lowport::start(
        "[[route]]\npath = \"/there\"\nredirect = \"/x\"\n[[route]]\nhost = \"localhost\"\npath = \"/name\"\nrespond = \"x\"\n",
    );
    let at = |path: &str| format!("https://localhost:{}{path}", lowport.https);
    done(&run(&["health", &at("/there?a=b")]));
    done(&run(&["health", &at("/name")]));
    let error = why(&run(&["health", &at("/not")]));
    assert!(error.contains("answered 404 Not Found"), "{error}");
    let nowhere = format!("http://127.0.0.1:{}/", port());
    assert!(why(&run(&["health", &nowhere])).contains("nobody listens on 127.0.0.1:"));
}

#[test]
fn one_that_speaks_tls_alone_is_asked_so_and_no_key_is_read() {
    let lowport = Lowport::start(RESPOND);
    let (_folder, file) = config(&format!(
        "[server]\nhttp = []\nhttps = \"127.0.0.1:{}\"\n[[certificate]]\ncert = \"no.pem\"\nkey = \"no.key\"\n{RESPOND}",
        lowport.https
    ));
    let told = done(&health(Path::new(&file), &[]));
    assert!(told.contains(&lowport.https.to_string()), "{told}");
}

#[test]
fn one_that_is_told_whose_a_connection_is_is_told() {
    for trusted in ["127.0.0.1", "10.0.0.0/8"] {
        let lowport = Lowport::with(&Setup {
            server: &format!(
                "redirect_to_https = false\nproxy_protocol = true\ntrusted_proxies = [\"{trusted}\"]"
            ),
            rest: RESPOND,
            args: &[],
        });
        done(&health(&lowport.config(), &[]));
        for url in [
            format!("http://127.0.0.1:{}/", lowport.http),
            format!("https://127.0.0.1:{}/", lowport.https),
        ] {
            done(&health(&lowport.config(), &[&url]));
        }
        let lines = lowport.output();
        let refused = lines.iter().find(|line| line.contains("trusted proxy"));
        assert_eq!(refused, None);
    }
}

#[test]
fn one_that_drains_or_is_gone_is_not_listening() {
    let node = Node::start();
    let mut lowport = Lowport::start(&node.route());
    let mut slow = raw::connect(lowport.http);
    write!(
        slow,
        "GET /events HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    raw::read_head(&mut slow).unwrap();
    done(&health(&lowport.config(), &[]));
    lowport.signal(Signal::SIGTERM);
    lowport.wait_for("draining");
    let place = format!("nobody listens on 127.0.0.1:{}", lowport.http);
    until("it to stop listening", || {
        let output = health(&lowport.config(), &[]);
        (output.status.code() == Some(1)).then(|| assert_eq!(why(&output), place))
    });
    lowport.signal(Signal::SIGTERM);
    assert!(lowport.ended().success());
    assert_eq!(why(&health(&lowport.config(), &[])), place);
}

#[test]
fn one_that_stands_still_is_not_waited_for() {
    let lowport = Lowport::start(RESPOND);
    lowport.signal(Signal::SIGSTOP);
    let output = health(&lowport.config(), &["--timeout", "300ms"]);
    lowport.signal(Signal::SIGCONT);
    assert_eq!(
        why(&output),
        format!("no answer from 127.0.0.1:{} within 300ms", lowport.http)
    );
    done(&health(&lowport.config(), &[]));
}

#[test]
fn what_else_may_answer_is_told() {
    let page = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\r\n503 Service Unavailable\nToo much.\n";
    for (answer, said) in [
        (page, "answered 503 Service Unavailable: Too much."),
        ("SSH-2.0-x\r\n", "is not HTTP"),
        ("", "closed the connection without an answer"),
    ] {
        let upstream = RawUpstream::answering(answer);
        let (_folder, file) = listening(upstream.port);
        let told = why(&health(Path::new(&file), &[]));
        assert!(told.contains(said), "{told}");
        let asked = upstream.first();
        assert!(asked.starts_with("OPTIONS * HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("max-forwards: 0\r\n"), "{asked}");
    }
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", plain.local_addr().unwrap());
    let output = run(&["health", "--timeout", "100ms", &url]);
    assert!(why(&output).contains("no answer from 127.0.0.1:"));
}

#[test]
fn a_wrong_configuration_is_78_unless_the_one_before_is_served() {
    let lowport = Lowport::start(RESPOND);
    let good = std::fs::read_to_string(lowport.config()).unwrap();
    lowport.rewrite_raw(&format!("{good}respnd = \"x\"\n"));
    lowport.wait_for("reload refused");
    let told = done(&health(&lowport.config(), &[]));
    assert!(told.contains("`lowport check` tells why"), "{told}");

    let nobody = port();
    let (_folder, file) = config(&format!(
        "[server]\nhttp = \"127.0.0.1:{nobody}\"\n[[rout]]\n"
    ));
    let error = failed(&health(Path::new(&file), &[]), CONFIG);
    assert!(error.contains("rout"), "{error}");
    let error = failed(&health(Path::new("/no/such/file"), &[]), CONFIG);
    assert!(error.contains("cannot be read"), "{error}");
    // What only its `run` is told is not missed.
    let (_folder, file) = config(&format!("[server]\nhttp = \"127.0.0.1:{nobody}\"\n"));
    assert!(why(&health(Path::new(&file), &[])).contains("nobody listens"));
}

#[test]
fn without_a_configuration_it_is_asked_where_run_would_listen() {
    if !has_namespaces() {
        let name = "without_a_configuration_it_is_asked_where_run_would_listen";
        return skipped(name, "needs root and namespaces");
    }
    let app = "require('http').createServer((q, r) => r.end()).listen(process.env.PORT);";
    for (first_port, addr) in [(80, "127.0.0.1:80"), (1024, "127.0.0.1:8080")] {
        let mut room = Room::script(app);
        room.first_port = first_port;
        let mut command = room.command(Who::User, true, &["run", "--", "node", "server.js"]);
        let lowport = Lowport::spawn(command.current_dir(&room.app));
        lowport.wait_for(" ready ");
        let dev = Dev { lowport, room };
        let ask = || {
            let mut command = Command::new(BINARY);
            command.arg("health").current_dir(&dev.room.app).output()
        };
        let told = done(&dev.inside(ask).unwrap());
        assert_eq!(told, format!("healthy: lowport answers on {addr}\n"));
    }
    let room = Room::script("");
    let mut command = room.command(Who::User, true, &["health"]);
    let told = why(&command.current_dir(&room.app).output().unwrap());
    assert_eq!(
        told,
        "nobody listens on 127.0.0.1:80; nobody listens on 127.0.0.1:8080; there is no configuration"
    );
}

#[test]
fn misuse_is_2() {
    for (args, said) in [
        (&["--timeout", "2"][..], "write \"2s\""),
        (&["--timeout", "0s"], "1ms to 24h"),
        (&["localhost:80"], "http:// or https://"),
    ] {
        let output = run(&[&["health"], args].concat());
        assert!(
            failed(&output, USAGE).contains(said),
            "{}",
            text(&output.stderr)
        );
    }
}
