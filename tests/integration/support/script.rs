//! Node with a few lines of its own, as any user.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{lowport, until};

/// A running script. Killed when dropped.
pub(crate) struct Script {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Script {
    /// Runs `code` as `uid`, which only root can choose; `None` for who runs the tests. Waits for it to print `listening`.
    /// `env` is its environment, and `input` its standard input.
    pub(crate) fn start(
        uid: Option<u32>,
        code: &str,
        env: &[(&str, &str)],
        input: impl Into<Stdio>,
    ) -> Self {
        let mut command = Command::new("node");
        command.arg("-e").arg(code).envs(env.iter().copied());
        // Where no user is kept out.
        command.current_dir("/");
        if let Some(uid) = uid {
            use std::os::unix::process::CommandExt;
            command.uid(uid).gid(uid);
        }
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("node starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        lowport::follow(child.stdout.take().expect("piped"), &lines);
        lowport::follow(child.stderr.take().expect("piped"), &lines);
        let mut script = Self { child, lines };
        until("the script to listen", || {
            let ended = script.child.try_wait().expect("waited");
            assert!(ended.is_none(), "the script ended: {:?}", script.output());
            (script.count("listening") > 0).then_some(())
        });
        script
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("signalled");
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        until("the script to end", || {
            self.child.try_wait().expect("waited")
        })
    }

    /// How often it has printed this line.
    pub(crate) fn count(&self, line: &str) -> usize {
        let lines = self.output();
        lines.iter().filter(|printed| *printed == line).count()
    }

    fn output(&self) -> Vec<String> {
        self.lines.lock().expect("unpoisoned").clone()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the script wrote:\n{}\n---", self.output().join("\n"));
        }
    }
}
