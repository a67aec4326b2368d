//! A running lowport.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::mode::{self, Mode};
use super::{certs, folder, port, process, until};

/// The binary under test: the build's, or another one that is named when the tests are built.
pub(crate) const BINARY: &str = match option_env!("LOWPORT_TEST_BINARY") {
    Some(path) => path,
    None => env!("CARGO_BIN_EXE_lowport"),
};

/// A process, its configuration's folder, and what it has written so far. Killed when dropped.
pub(crate) struct Lowport {
    child: Child,
    folder: tempfile::TempDir,
    lines: Arc<Mutex<Vec<String>>>,
    pub(crate) http: u16,
    pub(crate) https: u16,
}

/// What goes into a configuration besides its listeners.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    /// More lines of `[server]`
    pub(crate) server: &'a str,
    /// Everything after `[server]` and the certificate
    pub(crate) rest: &'a str,
    /// More arguments
    pub(crate) args: &'a [&'a str],
}

impl Lowport {
    /// Serves `routes` on plaintext and TLS ports of its own, with no redirect between them.
    pub(crate) fn start(routes: &str) -> Self {
        Self::with(&Setup {
            server: "redirect_to_https = false",
            rest: routes,
            args: &[],
        })
    }

    /// Serves a whole setup.
    pub(crate) fn with(setup: &Setup<'_>) -> Self {
        Self::within(&[], setup)
    }

    /// Serves a whole setup, started by `wrapper`: a command that runs the one in its last arguments.
    pub(crate) fn within(wrapper: &[&str], setup: &Setup<'_>) -> Self {
        let lowport = Self::tried(wrapper, setup);
        lowport.wait_for(" ready ");
        lowport
    }

    /// As [`within`](Self::within), and does not wait for it to serve: perhaps it refuses to.
    pub(crate) fn tried(wrapper: &[&str], setup: &Setup<'_>) -> Self {
        let (folder, http, https) = scene(setup, port());
        let file = folder.path().join("lowport.toml");
        let mut words = wrapper.iter().copied().chain([BINARY]);
        let mut command = Command::new(words.next().expect("the binary at least"));
        command.args(words);
        command
            .arg("run")
            .arg("-c")
            .arg(&file)
            .args(setup.args)
            .stdin(Stdio::null());
        let (child, lines) = spawn(&mut command);
        Self {
            child,
            folder,
            lines,
            http,
            https,
        }
    }

    /// Serves a whole setup in this mode, on a plaintext port that takes a right to bind where the mode has one. Whoever
    /// it becomes may write into its folder.
    pub(crate) fn in_mode(mode: Mode, setup: &Setup<'_>) -> Self {
        let (folder, http, https) = scene(setup, mode.port());
        mode::bring_binary(folder.path());
        let all = PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder.path(), all).expect("permissions");
        let mut command = mode.command(folder.path(), http);
        let (child, lines) = spawn(command.args(setup.args));
        let lowport = Self {
            child,
            folder,
            lines,
            http,
            https,
        };
        lowport.wait_for(" ready ");
        lowport.wait_for(&format!(" mode={} ", mode.name()));
        lowport
    }

    /// Starts whatever `command` is; for `dev`, which has no configuration. Its ports are to be read from its output.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::spawn_with_stdin(command.stdin(Stdio::null()))
    }

    /// As [`spawn`](Self::spawn), with the standard input that the command has.
    pub(crate) fn spawn_with_stdin(command: &mut Command) -> Self {
        let (child, lines) = spawn(command);
        Self {
            child,
            folder: folder(),
            lines,
            http: 0,
            https: 0,
        }
    }

    /// Replaces the configuration's file the way editors do; the file watch sees it.
    pub(crate) fn rewrite(&self, setup: &Setup<'_>) {
        self.rewrite_raw(&toml(self.http, self.https, setup));
    }

    pub(crate) fn rewrite_raw(&self, text: &str) {
        let next = self.folder.path().join("next.toml");
        std::fs::write(&next, text).expect("written");
        super::open_to_all(&next);
        std::fs::rename(&next, self.config()).expect("renamed");
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("lowport.toml")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("signalled");
    }

    /// lowport itself where the wrapper stays in front of it, as unshare(1) does.
    pub(crate) fn inner(&self) -> Option<u32> {
        let children = process::children(self.pid());
        let lowport = |pid: &u32| process::name(*pid).is_some_and(|name| name == "lowport");
        children.into_iter().find(lowport)
    }

    /// All that it has written to either output so far.
    pub(crate) fn output(&self) -> Vec<String> {
        self.lines.lock().expect("unpoisoned").clone()
    }

    /// The first line that contains `text`, as soon as there is one.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        self.wait_for_after(0, text)
    }

    /// As [`wait_for`](Self::wait_for), leaving out the first `seen` lines.
    pub(crate) fn wait_for_after(&self, seen: usize, text: &str) -> String {
        let mut lines = Vec::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(text, || {
                lines = self.output();
                lines
                    .iter()
                    .skip(seen)
                    .find(|line| line.contains(text))
                    .cloned()
            })
        }));
        found.unwrap_or_else(|_| panic!("no line with {text:?} in:\n{}", lines.join("\n")))
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        until("lowport to end", || self.child.try_wait().expect("waited"))
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that was ever resident, in KiB.
    pub(crate) fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .expect("the field");
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number")
    }

    /// Open descriptors; always 0 where that cannot be seen, which is said.
    pub(crate) fn descriptors(&self) -> usize {
        match std::fs::read_dir(format!("/proc/{}/fd", self.child.id())) {
            Ok(descriptors) => descriptors.count(),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                super::skipped(
                    "a look at lowport's descriptors",
                    "only root may: it is undumpable",
                );
                0
            }
            Err(error) => panic!("lowport has ended: {error}"),
        }
    }
}

impl Drop for Lowport {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // It does not end with a wrapper: what ties it to that is undone when it becomes somebody else.
            if let Some(inner) = self.inner() {
                let _ = kill(Pid::from_raw(inner as i32), Signal::SIGKILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- lowport wrote:\n{}\n---", self.output().join("\n"));
        }
    }
}

/// Runs lowport to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    Command::new(BINARY)
        .args(args)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .expect("it runs")
}

/// Who lowport becomes in tests: no account is needed for it.
pub(crate) const USER: &str = "65532:65532";

/// A folder with the configuration and the certificate, and the two ports.
fn scene(setup: &Setup<'_>, http: u16) -> (tempfile::TempDir, u16, u16) {
    let (folder, https) = (folder(), port());
    certs::write(
        folder.path(),
        "site",
        &["localhost", "*.example.test", "127.0.0.1"],
    );
    let file = folder.path().join("lowport.toml");
    std::fs::write(&file, toml(http, https, setup)).expect("written");
    super::open_to_all(&file);
    (folder, http, https)
}

fn toml(http: u16, https: u16, setup: &Setup<'_>) -> String {
    let workers = if setup.server.contains("workers") {
        ""
    } else {
        "workers = 2\n"
    };
    format!(
        "[server]\nhttp = \"127.0.0.1:{http}\"\nhttps = \"127.0.0.1:{https}\"\nuser = \"{USER}\"\n{workers}{}\n\
         [[certificate]]\ncert = \"site.pem\"\nkey = \"site.key\"\n{}\n",
        setup.server, setup.rest
    )
}

fn spawn(command: &mut Command) -> (Child, Arc<Mutex<Vec<String>>>) {
    command
        .env("NO_COLOR", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("lowport starts");
    let lines = Arc::new(Mutex::new(Vec::new()));
    follow(child.stdout.take().expect("piped"), &lines);
    follow(child.stderr.take().expect("piped"), &lines);
    (child, lines)
}

/// Collects lines until the end, so that the process never blocks on its output.
pub(super) fn follow(output: impl std::io::Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            lines
                .lock()
                .expect("unpoisoned")
                .push(String::from_utf8_lossy(&line).into_owned());
        }
    });
}
