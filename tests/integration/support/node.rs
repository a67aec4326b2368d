//! The sample app, in a real Node process.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::{folder, is_root, lowport, open_to_all, port, until};

/// A user that is nobody in particular, for when root runs the tests: the app does not run as root. Not 65534, which
/// stands for all users whom nobody knows.
pub(crate) const APP_UID: u32 = 61234;

/// A running app. Killed when dropped.
pub(crate) struct Node {
    child: Child,
    _folder: tempfile::TempDir,
    lines: Arc<Mutex<Vec<String>>>,
    pub(crate) port: u16,
}

impl Node {
    /// The sample app on a port of its own.
    pub(crate) fn start() -> Self {
        Self::start_with(port(), &[])
    }

    /// The sample app on this port, with more environment.
    pub(crate) fn start_with(port: u16, env: &[(&str, &str)]) -> Self {
        let folder = folder();
        copy(&sample(), folder.path());
        let mut command = Command::new("node");
        command
            .arg("server.js")
            .current_dir(folder.path())
            .env("PORT", port.to_string())
            .envs(env.iter().copied());
        if is_root() {
            use std::os::unix::process::CommandExt;
            command.uid(APP_UID).gid(APP_UID);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("node starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        lowport::follow(child.stdout.take().expect("piped"), &lines);
        lowport::follow(child.stderr.take().expect("piped"), &lines);
        let mut node = Self {
            child,
            _folder: folder,
            lines,
            port,
        };
        until("the sample app to listen", || {
            let ended = node.child.try_wait().expect("waited");
            assert!(ended.is_none(), "the app ended: {:?}", node.output());
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        node
    }

    /// A route to it and nothing else.
    pub(crate) fn route(&self) -> String {
        format!("[[route]]\nto = \"http://127.0.0.1:{}\"\n", self.port)
    }

    pub(crate) fn output(&self) -> Vec<String> {
        self.lines.lock().expect("unpoisoned").clone()
    }

    /// Ends it at once, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the app wrote:\n{}\n---", self.output().join("\n"));
        }
    }
}

/// The line of `[app]` that says who it runs as; none where lowport may not choose.
pub(crate) fn app_user() -> String {
    if is_root() {
        format!("user = \"{APP_UID}:{APP_UID}\"\n")
    } else {
        String::new()
    }
}

/// A folder with this as `server.js`, for every user to read.
pub(crate) fn script(text: &str) -> tempfile::TempDir {
    let folder = folder();
    let file = folder.path().join("server.js");
    std::fs::write(&file, text).expect("written");
    open_to_all(&file);
    folder
}

/// Where the sample app is.
pub(crate) fn sample() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/node-app")
}

/// Copies a folder so that every user can read the copy, which the clone's place may not allow.
pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("readable").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&target).expect("made");
            open_to_all(&target);
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("copied");
            open_to_all(&target);
        }
    }
}
