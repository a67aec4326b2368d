//! Headless Chromium, driven over its DevTools protocol.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::{PATIENCE, until};

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,900",
    "--remote-debugging-port=0",
];
/// How often a page is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// A browser with one tab. Killed when dropped.
pub(crate) struct Browser {
    child: Child,
    socket: WebSocketStream<TcpStream>,
    session: String,
    next: u64,
    problems: Vec<String>,
}

impl Browser {
    /// Starts one whose home is `home`, where it finds the authorities that its user trusts. `None` where there is no
    /// Chromium.
    pub(crate) async fn start(home: &Path) -> Option<Self> {
        let profile = home.join("profile");
        let mut command = Command::new("chromium");
        command
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .env("HOME", home)
            // What a browser leaves behind when it is killed goes with the rest.
            .env("TMPDIR", home)
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = Started(Some(command.spawn().ok()?));
        let told = until("Chromium to listen", || {
            let told = std::fs::read_to_string(profile.join("DevToolsActivePort")).ok()?;
            let (port, path) = told.split_once('\n')?;
            Some((port.parse::<u16>().ok()?, path.trim().to_owned()))
        });
        let stream = TcpStream::connect(("127.0.0.1", told.0))
            .await
            .expect("connected");
        let url = format!("ws://127.0.0.1:{}{}", told.0, told.1);
        let (socket, _) = tokio_tungstenite::client_async(url, stream)
            .await
            .expect("an upgrade");
        let mut browser = Self {
            child: child.0.take().expect("it was started"),
            socket,
            session: String::new(),
            next: 0,
            problems: Vec::new(),
        };
        browser.attach().await;
        Some(browser)
    }

    async fn attach(&mut self) {
        let target = self
            .call("Target.createTarget", json!({ "url": "about:blank" }))
            .await;
        let attached = self
            .call(
                "Target.attachToTarget",
                json!({ "targetId": target["targetId"], "flatten": true }),
            )
            .await;
        self.session = attached["sessionId"]
            .as_str()
            .expect("a session")
            .to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            self.call(&format!("{domain}.enable"), json!({})).await;
        }
    }

    /// Loads a page.
    ///
    /// # Errors
    /// What the browser says instead, such as `net::ERR_CERT_AUTHORITY_INVALID`.
    pub(crate) async fn open(&mut self, url: &str) -> Result<(), String> {
        let done = self.call("Page.navigate", json!({ "url": url })).await;
        if let Some(error) = done["errorText"].as_str() {
            return Err(error.to_owned());
        }
        self.wait("document.readyState === 'complete'").await;
        Ok(())
    }

    /// What an expression amounts to, once its promise is kept.
    pub(crate) async fn eval(&mut self, expression: &str) -> Value {
        let done = self
            .call(
                "Runtime.evaluate",
                json!({ "expression": expression, "awaitPromise": true, "returnByValue": true }),
            )
            .await;
        assert!(done["exceptionDetails"].is_null(), "{expression}: {done}");
        done["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) async fn wait(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.eval(&format!("!!({expression})")).await != true {
            if Instant::now() > deadline {
                let page = self.eval("document.body.innerText").await;
                panic!("waited in vain for: {expression}; the page reads {page}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What went to the console as an error so far, and exceptions that nobody caught.
    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.socket
            .send(Message::text(message.to_string()))
            .await
            .expect("Chromium listens");
        loop {
            let next = timeout(PATIENCE, self.socket.next())
                .await
                .unwrap_or_else(|_| panic!("Chromium did not answer {method}"));
            let text = next.expect("Chromium runs").expect("a message");
            let mut answer: Value =
                serde_json::from_slice(&text.into_data()).expect("Chromium speaks JSON");
            if answer["id"] != id {
                self.problems.extend(problem(&answer));
                continue;
            }
            assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
            return answer["result"].take();
        }
    }
}

/// An event that should not be.
fn problem(event: &Value) -> Option<String> {
    let params = &event["params"];
    let bad = match event["method"].as_str()? {
        "Runtime.exceptionThrown" => true,
        "Runtime.consoleAPICalled" => params["type"] == "error",
        "Log.entryAdded" => params["entry"]["level"] == "error",
        _ => false,
    };
    bad.then(|| params.to_string())
}

/// Killed unless taken out: a browser that never got as far as listening.
struct Started(Option<Child>);

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            end(child);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        end(&mut self.child);
        if std::thread::panicking() {
            eprintln!("--- the browser said:\n{}\n---", self.problems.join("\n"));
        }
    }
}

/// All of its processes.
fn end(child: &mut Child) {
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    let _ = child.wait();
}
