//! The sample app in Node processes, of which some are killed.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::site::free_port;

/// A user that is nobody in particular, for when root runs this: the app does not run as root.
const UID: u32 = 61234;

/// A running app. Killed when dropped.
pub(crate) struct App {
    folder: PathBuf,
    child: Child,
    /// Where it listens, also after it was started anew
    pub(crate) port: u16,
}

impl App {
    /// Starts the app that is in `folder`.
    pub(crate) fn start(folder: &Path) -> Self {
        let port = free_port();
        let mut app = Self {
            child: spawn(folder, port),
            folder: folder.to_owned(),
            port,
        };
        app.wait();
        app
    }

    /// Ends it at once; returns when nothing is left of it.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it anew, on the same port.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.folder, self.port);
        self.wait();
    }

    fn wait(&mut self) {
        let patience = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let ended = self.child.try_wait().expect("waited");
            assert!(ended.is_none(), "the app ended: {ended:?}");
            assert!(Instant::now() < patience, "the app does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(folder: &Path, port: u16) -> Child {
    let mut command = Command::new("node");
    command
        .arg("server.js")
        .current_dir(folder)
        .env("PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if nix::unistd::Uid::effective().is_root() {
        use std::os::unix::process::CommandExt;
        command.uid(UID).gid(UID);
    }
    command.spawn().expect("node starts")
}

/// Copies the sample app to where every user can read it, which the clone's place may not allow.
pub(crate) fn copy_sample(to: &Path) -> PathBuf {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/node-app");
    let target = to.join("app");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(sample)
        .arg(&target)
        .status()
        .expect("cp runs");
    let opened = Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(to)
        .status()
        .expect("chmod runs");
    assert!(
        copied.success() && opened.success(),
        "the app is not copied"
    );
    target
}
