//! Which route a request takes, over real connections.

use crate::support::client::{curl, empty, h1, h2, request, request_h2, text};
use crate::support::lowport::Setup;
use crate::support::raw::{self, RawUpstream};
use crate::support::{Lowport, until};

/// A route that says its name.
fn says(name: &str, matches: &str) -> String {
    format!("[[route]]\n{matches}\nrespond = \"{name}\"\n")
}

/// Status, head in lower case, and body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn of(answer: &str) -> Self {
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("an answer: {answer:?}"));
        let status = head.split(' ').nth(1).expect("a status");
        Self {
            status: status.parse().expect("a number"),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }
}

/// Asks in plaintext with exactly this target and Host.
fn ask(lowport: &Lowport, method: &str, target: &str, host: &str) -> Answer {
    let request =
        format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    Answer::of(&raw::exchange(lowport.http, request))
}

#[test]
fn the_most_specific_route_answers_whatever_the_order() {
    let lowport = Lowport::start(
        &[
            says("any", ""),
            says("any regex", "path_regex = \"/r/[0-9]+\""),
            says("wildcard", "host = \"*.example.test\""),
            says("deep", "host = \"*.deep.example.test\""),
            says("exact", "host = \"a.example.test\""),
            says("prefix", "host = \"a.example.test\"\npath = \"/api\""),
            says("longer", "host = \"a.example.test\"\npath = \"/api/v1\""),
            says(
                "path",
                "host = \"a.example.test\"\npath_exact = \"/api/v1\"",
            ),
            says("regex", "host = \"a.example.test\"\npath_regex = \"/ap.*\""),
            says(
                "post",
                "host = \"a.example.test\"\npath = \"/api\"\nmethods = [\"POST\", \"PURGE\"]",
            ),
        ]
        .concat(),
    );
    for (method, host, path, name) in [
        ("GET", "a.example.test", "/", "exact"),
        ("GET", "A.EXAMPLE.test.:8080", "/", "exact"),
        ("GET", "b.example.test", "/", "wildcard"),
        ("GET", "b.c.example.test", "/", "wildcard"),
        ("GET", "x.deep.example.test", "/", "deep"),
        ("GET", "deep.example.test", "/", "wildcard"),
        ("GET", "example.test", "/", "any"),
        ("GET", "127.0.0.1", "/", "any"),
        ("GET", "[::1]:80", "/", "any"),
        ("GET", "", "/", "any"),
        ("GET", "other.test", "/r/12", "any regex"),
        ("GET", "other.test", "/r/12/", "any"),
        ("GET", "other.test", "/x/r/12", "any"),
        ("GET", "a.example.test", "/r/12", "exact"),
        ("GET", "a.example.test", "/api", "prefix"),
        ("GET", "a.example.test", "/api/", "prefix"),
        ("GET", "a.example.test", "/api/v1", "path"),
        ("GET", "a.example.test", "/api/v1?x=/", "path"),
        ("GET", "a.example.test", "/api/v1/x", "longer"),
        ("GET", "a.example.test", "/api/v10", "prefix"),
        ("GET", "a.example.test", "/apix", "regex"),
        ("GET", "a.example.test", "/API", "exact"),
        ("POST", "a.example.test", "/api/x", "post"),
        ("PURGE", "a.example.test", "/api/x", "post"),
        ("POST", "a.example.test", "/api/v1/x", "longer"),
        ("DELETE", "a.example.test", "/api/x", "prefix"),
    ] {
        let answer = ask(&lowport, method, path, host);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, name),
            "{method} {host}{path}"
        );
    }
}

#[test]
fn head_goes_where_get_goes_and_other_methods_find_nothing() {
    let lowport = Lowport::start(
        &[
            says("get", "path = \"/get\"\nmethods = \"GET\""),
            says("both", "path = \"/both\"\nmethods = \"GET\""),
            says("the head's own", "path = \"/both\"\nmethods = \"HEAD\""),
        ]
        .concat(),
    );
    for (path, length) in [("/get", "3"), ("/both", "14")] {
        let answer = ask(&lowport, "HEAD", path, "localhost");
        assert_eq!(
            (answer.status, answer.field("content-length"), &*answer.body),
            (200, Some(length), "")
        );
    }
    assert_eq!(ask(&lowport, "POST", "/get", "localhost").status, 404);
    assert_eq!(ask(&lowport, "OPTIONS", "*", "localhost").status, 404);
    let nowhere = ask(&lowport, "GET", "/", "localhost");
    assert_eq!(nowhere.status, 404);
    assert!(!nowhere.body.contains("/get"), "{}", nowhere.body);
}

#[test]
fn fixed_responses_have_their_status_and_type() {
    let lowport = Lowport::start(
        "[[route]]\nrespond = \"plain\"\n\
         [[route]]\npath = \"/gone\"\nrespond = \"<p>gone\"\nstatus = 410\ncontent_type = \"text/html; charset=utf-8\"\n\
         [[route]]\npath = \"/none\"\nrespond = \"\"\nstatus = 204\n",
    );
    let told = |path| {
        let answer = ask(&lowport, "GET", path, "localhost");
        let kind = answer.field("content-type").unwrap_or_default().to_owned();
        (answer.status, kind, answer.body)
    };
    let expected = |status, kind: &str, body: &str| (status, kind.to_owned(), body.to_owned());
    assert_eq!(
        told("/"),
        expected(200, "text/plain; charset=utf-8", "plain")
    );
    assert_eq!(
        told("/gone/x"),
        expected(410, "text/html; charset=utf-8", "<p>gone")
    );
    let (status, _, body) = told("/none");
    assert_eq!((status, body.as_str()), (204, ""));
    for version in ["--http1.1", "--http2"] {
        let page = curl(&lowport, "/gone", &[version, "-w", " %{http_code}"]);
        assert_eq!(page, "<p>gone 410", "{version}");
    }
}

#[test]
fn redirects_fill_in_host_and_path() {
    let lowport = Lowport::start(
        "[[route]]\nredirect = \"https://www.example.test{path}\"\n\
         [[route]]\npath = \"/same\"\nredirect = \"https://{host}/new{path}\"\nstatus = 302\n\
         [[route]]\npath_exact = \"/old\"\nredirect = \"/new\"\nstatus = 301\n",
    );
    for (target, status, location) in [
        ("/a%2Fb?c=d&e", 308, "https://www.example.test/a%2fb?c=d&e"),
        ("/same/x?y", 302, "https://shop.test/new/same/x?y"),
        ("/old?x", 301, "/new"),
        ("*", 308, "https://www.example.test/"),
    ] {
        let method = if target == "*" { "OPTIONS" } else { "POST" };
        let answer = ask(&lowport, method, target, "Shop.test:8080");
        assert_eq!(
            (answer.status, answer.field("location")),
            (status, Some(location)),
            "{target}"
        );
        assert_eq!(answer.field("content-length"), Some("0"));
    }
    // Without a host there is nothing to fill in.
    let answer = Answer::of(&raw::exchange(lowport.http, "GET /same HTTP/1.0\r\n\r\n"));
    assert_eq!(answer.status, 400);
    let answer = Answer::of(&raw::exchange(lowport.http, "GET /x HTTP/1.0\r\n\r\n"));
    assert_eq!(answer.status, 308);
}

#[test]
fn plaintext_is_redirected_to_tls_where_both_listen() {
    let lowport = Lowport::with(&Setup {
        server: "",
        rest: &says("secret", ""),
        args: &[],
    });
    let port = lowport.https;
    for method in ["GET", "POST", "DELETE"] {
        let answer = ask(&lowport, method, "/a/../b?c=//d", "Shop.test:1234");
        assert_eq!(answer.status, 308, "308 keeps the method and the body");
        assert_eq!(
            answer.field("location"),
            Some(format!("https://shop.test:{port}/a/../b?c=//d").as_str())
        );
        assert!(!answer.body.contains("secret"));
    }
    let v6 = ask(&lowport, "GET", "/", "[::1]:80");
    assert_eq!(
        v6.field("location"),
        Some(format!("https://[::1]:{port}/").as_str())
    );
    // What cannot be redirected is not served in plaintext either.
    let without = Answer::of(&raw::exchange(lowport.http, "GET / HTTP/1.0\r\n\r\n"));
    assert_eq!(without.status, 400);
    // A browser gets there, with its method and its body.
    let url = format!("http://localhost:{}/x", lowport.http);
    let args = [
        "-L",
        "-w",
        " %{method} %{scheme} %{num_redirects}",
        "--data",
        "body",
    ];
    let followed = curl(&lowport, &url, &args).to_ascii_lowercase();
    assert_eq!(followed, "secret post https 1");
}

#[test]
fn no_spelling_of_a_path_gets_around_a_route() {
    let open = RawUpstream::answering(
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nopen",
    );
    let lowport = Lowport::start(&format!(
        "{}[[route]]\npath = \"/admin\"\nrespond = \"no\"\nstatus = 403\n",
        open.route()
    ));
    assert_eq!(ask(&lowport, "GET", "/admin/x", "localhost").status, 403);
    for target in [
        "/%61dmin",
        "/%61%64min/x",
        "//admin",
        "/x/../admin",
        "/x/%2e%2E/admin",
        "/x%2F..%2fadmin",
        "/./admin",
        "/x/..\\admin",
        "/admin/../x",
        "/admin%2fx",
        "http://localhost//admin",
    ] {
        let answer = ask(&lowport, "GET", target, "localhost");
        assert!(
            answer.status == 400 || answer.status == 403 && target == "/admin%2fx",
            "{target}: {} {}",
            answer.status,
            answer.body
        );
    }
    assert!(open.seen().is_empty(), "{:?}", open.seen());
    // Where both readings take the same route, the app gets what the client wrote.
    let odd = [
        "/%61",
        "//x",
        "/x/../y?z=../admin",
        "/a%2Fb",
        "/ADMIN",
        "/administrator",
    ];
    for (index, target) in odd.into_iter().enumerate() {
        assert_eq!(
            ask(&lowport, "GET", target, "localhost").body,
            "open",
            "{target}"
        );
        let seen = until("it to arrive", || open.seen().get(index).cloned());
        assert!(
            seen.starts_with(&format!("GET {target} HTTP/1.1\r\n")),
            "{seen}"
        );
    }
    // A target without a path has the path `/`.
    let target = "http://localhost?x";
    assert_eq!(ask(&lowport, "GET", target, "localhost").body, "open");
    let seen = until("it to arrive", || open.seen().get(odd.len()).cloned());
    assert!(seen.starts_with("GET /?x HTTP/1.1\r\n"), "{seen}");
}

#[test]
fn the_target_says_which_host_and_the_field_must_be_there_all_the_same() {
    let lowport = Lowport::start(
        &[
            says("a", "host = \"a.test\""),
            says("b", "host = \"b.test\""),
            says("none of them", ""),
        ]
        .concat(),
    );
    for (target, host, name) in [
        ("/", "a.test", "a"),
        ("http://a.test/", "b.test", "a"),
        ("http://A.test:81", "b.test", "a"),
        ("http://b.test?x", "a.test", "b"),
    ] {
        let answer = ask(&lowport, "GET", target, host);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, name),
            "{target} {host}"
        );
    }
    let fields = |version: &str, target: &str, fields: &[&str]| {
        let fields: String = fields
            .iter()
            .map(|host| format!("host: {host}\r\n"))
            .collect();
        Answer::of(&raw::exchange(
            lowport.http,
            format!("GET {target} HTTP/{version}\r\n{fields}connection: close\r\n\r\n"),
        ))
    };
    for (target, hosts) in [
        ("/", &[][..]),
        ("/", &["a.test", "a.test"]),
        ("/", &["a.test", "b.test"]),
        ("/", &["a test"]),
        ("/", &["a.test/x"]),
        ("/", &["me@a.test"]),
        ("/", &["a.test:x"]),
        ("/", &["[::1"]),
        ("http://a.test/", &[]),
        ("http://a.test/", &["a.test", "a.test"]),
        ("http://a.test/", &["b test"]),
        ("http://me@a.test/", &["a.test"]),
        ("a.test", &["a.test"]),
        ("a.test:80", &["a.test"]),
        ("*", &["a.test"]),
    ] {
        let answer = fields("1.1", target, hosts);
        assert_eq!(answer.status, 400, "{target} {hosts:?}: {}", answer.body);
    }
    for (hosts, name) in [(&[][..], "none of them"), (&["a.test"], "a")] {
        let answer = fields("1.0", "/", hosts);
        assert_eq!((answer.status, answer.body.as_str()), (200, name));
    }
    assert_eq!(fields("1.0", "/", &["a.test", "b.test"]).status, 400);
}

#[tokio::test]
async fn routes_are_the_same_for_both_versions_of_http() {
    let lowport = Lowport::start(
        &[
            says("api", "host = \"localhost\"\npath = \"/api\""),
            says("post", "methods = \"POST\""),
        ]
        .concat(),
    );
    let mut two = h2(lowport.https).await;
    for (method, path, status, body) in [
        ("GET", "/api/x", 200, "api"),
        ("POST", "/", 200, "post"),
        ("GET", "/", 404, ""),
        ("GET", "/x/../api", 400, ""),
        ("GET", "/%61pi", 400, ""),
    ] {
        // A 400 ends a connection of HTTP/1.
        let mut one = h1(lowport.http).await;
        let answers = [
            one.send_request(request(method, path, empty())).await,
            two.send_request(request_h2(method, path, empty())).await,
        ];
        for answer in answers.map(|answer| answer.expect("an answer")) {
            assert_eq!(answer.status(), status, "{method} {path}");
            let text = text(answer).await;
            assert!(text == body || status >= 400, "{method} {path}: {text}");
        }
    }
}
