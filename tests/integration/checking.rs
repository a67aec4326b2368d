//! `lowport check` and `lowport explain`: what will be served, and what comes of a request.

use std::net::TcpListener;

use crate::support::lowport::{Setup, run};
use crate::support::terminal::{CONFIG, config, done, failed, server};
use crate::support::{Lowport, certs, port};

#[test]
fn a_port_that_somebody_holds_is_told_with_who_holds_it() {
    let held = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = held.local_addr().unwrap().port();
    let (folder, file) = config(&format!(
        "{}[[certificate]]\ncert = \"a.pem\"\nkey = \"a.key\"\n[[route]]\nrespond = \"x\"\n",
        server(port(), taken)
    ));
    certs::write(folder.path(), "a", &["a.test"]);
    for command in ["run", "check"] {
        let error = failed(&run(&[command, "-c", &file]), CONFIG);
        assert!(
            error.contains(&format!("server.https: 127.0.0.1:{taken} is in use")),
            "{error}"
        );
        assert!(error.contains(&format!("{file}:3:9")), "{error}");
        assert!(
            error.contains(&format!("(pid {})", std::process::id())),
            "{error}"
        );
        assert!(error.contains(": 1 mistake\n"), "{error}");
    }
    done(&run(&["check", "--no-ports", "-c", &file]));
}

#[test]
fn a_running_lowport_is_no_obstacle_to_a_check_of_what_it_will_reload() {
    let lowport = Lowport::start("[[route]]\nrespond = \"x\"\n");
    let file = lowport.config();
    let told = done(&run(&["check", "-c", file.to_str().unwrap()]));
    // It is undumpable, so only root sees which one it is.
    let holder = match crate::support::is_root() {
        true => format!("lowport (pid {})", lowport.pid()),
        false => "lowport (pid not to be seen by this user)".to_owned(),
    };
    for port in [lowport.http, lowport.https] {
        let note = format!("note: 127.0.0.1:{port} is held by {holder} already");
        assert!(told.contains(&note), "{note} in {told}");
    }
    // Another one would be an obstacle to it.
    let error = failed(&run(&["run", "-c", file.to_str().unwrap()]), CONFIG);
    assert!(error.contains(&holder), "{error}");
    lowport.rewrite(&Setup {
        server: "redirect_to_https = true",
        rest: "[[route]]\nrespond = \"x\"\n",
        args: &[],
    });
    let told = done(&run(&["check", "-c", file.to_str().unwrap()]));
    assert!(told.contains("all redirected to https"), "{told}");
}

/// Names that make a line long.
const NAMES: [&str; 5] = [
    "shop.example.test",
    "*.shop.example.test",
    "api.example.test",
    "downloads.example.test",
    "static.downloads.example.test",
];

#[test]
fn check_prints_what_will_be_served_as_it_is_matched() {
    let (http, https) = (port(), port());
    let (folder, file) = config(&format!(
        r#"{}[[certificate]]
cert = "a.pem"
key = "a.key"
[upstream.shop]
peers = ["127.0.0.1:3000", "upstream.invalid:3001", "unix:/run/shop.sock"]
[[route]]
respond = "no such site"
status = 404
[[route]]
path_regex = "/users/[0-9]+/avatar"
to = "h2c://127.0.0.1:4001"
[[route]]
host = "*.example.test"
redirect = "https://example.test{{path}}"
[[route]]
host = "example.test"
path = "/api"
strip_prefix = "/api"
upstream = "shop"
[[route]]
host = "example.test"
path = "/api"
methods = ["POST", "PUT"]
upstream = "shop"
"#,
        server(http, https)
    ));
    let (cert, _) = certs::write(folder.path(), "a", &NAMES);
    let told = done(&run(&["check", "-c", &file]));
    let start = format!(
        "{file}: no mistakes

listens on
  http   127.0.0.1:{http}, all redirected to https
  https  127.0.0.1:{https}

certificates
"
    );
    let end = "
upstreams
  shop  http://127.0.0.1:3000, http://upstream.invalid:3001, unix:/run/shop.sock

routes, as they are matched
  host example.test    path /api                        methods POST, PUT  -> shop
  host example.test    path /api                                           -> shop, strips /api
  host *.example.test  any path                                            -> 308 to https://example.test{path}
  any host             path_regex /users/[0-9]+/avatar                     -> h2c://127.0.0.1:4001
  any host             any path                                            -> 404 with 12 bytes

note: upstream.invalid (upstream shop) does not resolve now: ";
    let rest = told
        .strip_prefix(&start)
        .unwrap_or_else(|| panic!("{told}\n---\n{start}"));
    let (certificate, _) = rest
        .split_once(end)
        .unwrap_or_else(|| panic!("{told}\n---\n{end}"));
    // Where its lines break depends on how long the path is.
    let words: Vec<&str> = certificate.split_whitespace().collect();
    let expected = format!("{} until 4096-01-01 {}", cert.display(), NAMES.join(", "));
    assert_eq!(words.join(" "), expected);
    assert!(certificate.lines().count() > 1, "{certificate}");
    let ports = [http, https].map(|port| TcpListener::bind(("127.0.0.1", port)));
    assert!(
        ports.iter().all(Result::is_ok),
        "a check leaves nothing bound"
    );
    // A certificate that has expired is told like any other mistake.
    certs::write_expired(folder.path(), "a", &NAMES);
    failed(&run(&["check", "--no-ports", "-c", &file]), CONFIG);
}

#[test]
fn explain_says_what_comes_of_a_request_and_why() {
    let (_folder, file) = config(
        "[server]\nhttps = []\n[[route]]\nrespond = \"any\"\n\
         [[route]]\nhost = \"a.test\"\npath = \"/admin\"\nmethods = \"POST\"\nrespond = \"no\"\nstatus = 403\n\
         [[route]]\nhost = \"a.test\"\npath = \"/api\"\nstrip_prefix = \"/api\"\nto = \"http://127.0.0.1:3000\"\n",
    );
    let explain = |args: &[&str]| done(&run(&[&["explain", "-c", &file], args].concat()));
    let told = explain(&["http://A.test:8080/api/x?y"]);
    let start = format!(
        "-> http://127.0.0.1:3000, strips /api  ({file}:11)\n\n\
         GET a.test/api/x goes to route 3 (host a.test, path /api): the host is a.test, the path is below /api.\n\
         It is the most specific of 2 routes that match.\n\n\
         Why not another, the nearest first:\n  route 1 (any host, any path): "
    );
    assert!(told.starts_with(&start), "{told}");
    assert!(told.contains(
        "route 2 (host a.test, path /admin, method POST): the path is neither /admin nor below it"
    ));
    let told = explain(&["-X", "POST", "a.test/admin"]);
    assert!(
        told.starts_with(&format!("-> 403 with 2 bytes  ({file}:5)\n")),
        "{told}"
    );
    let told = explain(&["a.test/admin"]);
    assert!(
        told.starts_with(&format!("-> 200 with 3 bytes  ({file}:3)\n")),
        "{told}"
    );
    assert!(told.contains("method GET is not among POST"), "{told}");
    let told = explain(&["--method", "POST", "a.test/x/../%61dmin"]);
    assert!(
        told.starts_with("-> 400: the path can also be read as /admin, which takes another route"),
        "{told}"
    );
    assert!(
        told.contains("\nAs written, POST a.test/x/../%61dmin goes to route 1 "),
        "{told}"
    );
}

#[test]
fn explain_knows_the_redirect_and_the_404_and_reads_no_certificate() {
    // The certificate need not be there: what routes do with a URL does not depend on it.
    let (_folder, file) = config(
        "[[certificate]]\ncert = \"none.pem\"\nkey = \"none.key\"\n[[route]]\nhost = \"a.test\"\nrespond = \"x\"\n",
    );
    let told = done(&run(&["explain", "http://a.test/", "-c", &file]));
    assert!(
        told.starts_with("Over plaintext it is redirected to https:// "),
        "{told}"
    );
    assert!(told.contains("\n\n-> 200 with 1 byte "), "{told}");
    assert!(!done(&run(&["explain", "https://a.test/", "-c", &file])).contains("redirected"));
    let told = done(&run(&["explain", "b.test", "-c", &file]));
    assert!(
        told.starts_with("-> 404\n\nGET b.test/: no route matches.\n"),
        "{told}"
    );
    assert!(told.contains("host a.test is another host"), "{told}");
    let (_folder, file) = config("[[route]]\nhost = \"a.test\"\n");
    let error = failed(&run(&["explain", "a.test", "-c", &file]), CONFIG);
    assert!(error.contains("this route does nothing"), "{error}");
}

#[test]
fn a_check_tells_that_proxies_begin_with_a_header() {
    let lines = |more: &str| {
        let (folder, file) = config(&format!(
            "{}{more}\n[[certificate]]\ncert = \"a.pem\"\nkey = \"a.key\"\n[[route]]\nrespond = \"x\"\n",
            server(port(), port())
        ));
        certs::write(folder.path(), "a", &["a.test"]);
        let told = done(&run(&["check", "-c", &file]));
        told.matches("behind a PROXY header from trusted_proxies")
            .count()
    };
    assert_eq!(lines("trusted_proxies = \"10.0.0.0/8\""), 0);
    assert_eq!(
        lines("trusted_proxies = \"10.0.0.0/8\"\nproxy_protocol = true"),
        2
    );
}
