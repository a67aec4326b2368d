//! SIGTERM to the app and to lowport, in the orders of those who send it: what is in flight is answered whole, and what comes
//! later is told why not.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::node::APP_UID;
use crate::support::script::Script;
use crate::support::{Lowport, is_root, port, raw, say, until};

/// An app that stops as Node's documentation has it: it takes no new connection and finishes what it has begun, which is
/// held until SIGUSR2 so that it is certain to be in flight.
const APP: &str = r#"
    const held = new Set();
    let stopping = false;
    const server = require('http').createServer((req, res) => {
      if (stopping) res.setHeader('connection', 'close');
      res.once('finish', () => stopping && req.socket.end());
      if (req.url === '/slow') {
        held.add(() => res.end('slow, whole'));
        console.log('began');
      } else if (req.url === '/stream') {
        res.write('stream, ');
        const tick = setInterval(() => res.write('more, '), 20);
        held.add(() => { clearInterval(tick); res.end('whole'); });
        console.log('began');
      } else if (req.url === '/upload') {
        let bytes = 0;
        req.on('data', (chunk) => { if (!bytes) console.log('began'); bytes += chunk.length; });
        req.on('end', () => res.end(`upload, ${bytes} bytes`));
      } else res.end('quick');
    });
    process.on('SIGTERM', () => { stopping = true; server.close(); console.log('stopping'); });
    process.on('SIGUSR2', () => { for (const end of held) end(); });
    server.listen(process.env.PORT, '127.0.0.1', () => console.log('listening'));"#;

/// Half of what is uploaded.
static HALF: [u8; 50_000] = [b'x'; 50_000];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Slow,
    Stream,
    Upload,
    Quick,
}

const LONG: [Kind; 3] = [Kind::Slow, Kind::Stream, Kind::Upload];

/// How curl asks: at which scheme, and which version.
const OVER: [(&str, &str); 3] = [
    ("http", "--http1.1"),
    ("https", "--http1.1"),
    ("https", "--http2"),
];

/// A request of curl's that has begun.
struct Request {
    kind: Kind,
    child: Child,
    /// The rest of the upload follows
    body: Option<ChildStdin>,
}

/// What became of requests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    /// By the app, to the last byte
    answered: usize,
    /// By lowport, with a reason
    refused: usize,
    /// Before anything was sent
    no_connection: usize,
    /// All else
    lost: Vec<String>,
}

impl Request {
    fn begin(lowport: &Lowport, kind: Kind, (scheme, version): (&str, &str)) -> Self {
        let (path, upload) = match kind {
            Kind::Slow => ("slow", false),
            Kind::Stream => ("stream", false),
            Kind::Upload => ("upload", true),
            Kind::Quick => ("quick", false),
        };
        let port = if scheme == "http" {
            lowport.http
        } else {
            lowport.https
        };
        let mut command = Command::new("curl");
        command
            .args(["-sS", "--max-time", "30", "-4", version, "--cacert"])
            .arg(lowport.folder().join("ca.pem"))
            .args(["-w", "\n%{http_code}"]);
        if upload {
            command.args(["-XPOST", "-HExpect:", "-T", "-"]);
        }
        let mut child = command
            .arg(format!("{scheme}://localhost:{port}/{path}"))
            .stdin(if upload {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("curl is installed");
        let mut body = child.stdin.take();
        if let Some(body) = &mut body {
            body.write_all(&HALF).expect("curl reads");
        }
        Self { kind, child, body }
    }

    /// Sends the rest, if there is any.
    fn go_on(&mut self) {
        if let Some(mut body) = self.body.take() {
            // That curl has given up shows in the end.
            let _ = body.write_all(&HALF);
        }
    }

    /// Waits for the answer.
    fn end(mut self, count: &mut Count) {
        self.go_on();
        let output = self.child.wait_with_output().expect("waited");
        let told = String::from_utf8_lossy(&output.stdout);
        let (body, status) = told.rsplit_once('\n').unwrap_or_default();
        let whole = match self.kind {
            Kind::Slow => body == "slow, whole",
            Kind::Stream => body.starts_with("stream, more, ") && body.ends_with("more, whole"),
            Kind::Upload => body == format!("upload, {} bytes", 2 * HALF.len()),
            Kind::Quick => body == "quick",
        };
        match (output.status.code(), status) {
            (Some(0), "200") if whole => count.answered += 1,
            (Some(0), "502" | "503") if body.contains("request id") => count.refused += 1,
            // CURLE_COULDNT_CONNECT
            (Some(7), _) => count.no_connection += 1,
            _ => count.lost.push(format!("{:?}: {output:?}", self.kind)),
        }
    }
}

/// The app, lowport in front of it, and what is in flight.
struct Scene {
    app: Script,
    lowport: Lowport,
    requests: Vec<Request>,
    /// A connection between two requests
    idle: TcpStream,
}

impl Scene {
    fn new() -> Self {
        let port = port();
        let uid = is_root().then_some(APP_UID);
        let app = Script::start(uid, APP, &[("PORT", &port.to_string())], Stdio::null());
        let lowport = Lowport::start(&format!("[[route]]\nto = \"http://127.0.0.1:{port}\"\n"));
        let each = |_| {
            LONG.iter()
                .flat_map(|kind| OVER.iter().map(|over| (*kind, *over)))
        };
        let requests: Vec<Request> = (0..4)
            .flat_map(each)
            .map(|(kind, over)| Request::begin(&lowport, kind, over))
            .collect();
        until("all requests to be in flight", || {
            (app.count("began") == requests.len()).then_some(())
        });
        let mut idle = raw::connect(lowport.http);
        assert_eq!(ask(&mut idle), "200");
        Self {
            app,
            lowport,
            requests,
            idle,
        }
    }

    /// Requests that come now, each over a connection of its own.
    fn more(&self, count: &mut Count) {
        let requests: Vec<Request> = (0..4)
            .flat_map(|_| OVER)
            .map(|over| Request::begin(&self.lowport, Kind::Quick, over))
            .collect();
        for request in requests {
            request.end(count);
        }
    }

    /// What was in flight ends.
    fn finish(&mut self) -> Count {
        for request in &mut self.requests {
            request.go_on();
        }
        self.app.signal(Signal::SIGUSR2);
        let mut count = Count::default();
        for request in self.requests.drain(..) {
            request.end(&mut count);
        }
        count
    }
}

/// Asks once more over a connection that stays open, and returns the status.
fn ask(stream: &mut TcpStream) -> String {
    write!(stream, "GET /quick HTTP/1.1\r\nHost: a\r\n\r\n").expect("written");
    let head = String::from_utf8(raw::read_head(stream).expect("a head")).expect("text");
    let lower = head.to_ascii_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let body = match length {
        Some(length) => length.parse().expect("a number"),
        None => panic!("no length: {head}"),
    };
    stream
        .read_exact(&mut vec![0; body])
        .expect("the whole body");
    head.split(' ').nth(1).expect("a status").to_owned()
}

#[test]
fn an_app_that_stops_first_loses_nothing_and_lowport_answers_for_it() {
    let mut scene = Scene::new();
    let all = scene.requests.len();
    // As Kubernetes stops a pod whose lowport is a sidecar: the app first, and lowport when that is gone.
    scene.app.signal(Signal::SIGTERM);
    until("the app to stop", || {
        (scene.app.count("stopping") == 1).then_some(())
    });
    let mut later = Count::default();
    scene.more(&mut later);
    assert_eq!(ask(&mut scene.idle), "502");
    let earlier = scene.finish();
    assert!(scene.app.ended().success());
    scene.more(&mut later);
    assert_eq!(ask(&mut scene.idle), "502");
    scene.lowport.signal(Signal::SIGTERM);
    assert!(scene.lowport.ended().success());
    assert_eq!(raw::read_all(&mut scene.idle), "");
    scene.lowport.wait_for("drained");
    say(&format!(
        "app first: in flight {earlier:?}; later {later:?}"
    ));
    assert_eq!(
        earlier,
        Count {
            answered: all,
            ..Count::default()
        }
    );
    assert_eq!(
        later,
        Count {
            refused: 24,
            ..Count::default()
        }
    );
}

#[test]
fn an_app_and_a_lowport_that_stop_at_once_lose_nothing_that_was_in_flight() {
    let mut scene = Scene::new();
    let all = scene.requests.len();
    // As Docker and Compose stop what belongs together.
    scene.lowport.signal(Signal::SIGTERM);
    scene.app.signal(Signal::SIGTERM);
    until("the app to stop", || {
        (scene.app.count("stopping") == 1).then_some(())
    });
    scene.lowport.wait_for("draining");
    until("lowport to take nothing new", || {
        TcpStream::connect(("127.0.0.1", scene.lowport.http)).err()
    });
    // Whoever was between two requests is told to go elsewhere.
    assert_eq!(raw::read_all(&mut scene.idle), "");
    let mut later = Count::default();
    scene.more(&mut later);
    let earlier = scene.finish();
    assert!(scene.app.ended().success());
    assert!(scene.lowport.ended().success());
    scene.lowport.wait_for("drained");
    say(&format!(
        "both at once: in flight {earlier:?}; later {later:?}"
    ));
    assert_eq!(
        earlier,
        Count {
            answered: all,
            ..Count::default()
        }
    );
    assert_eq!(
        later,
        Count {
            no_connection: 12,
            ..Count::default()
        }
    );
}
