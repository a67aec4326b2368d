//! One run of the app: started, until it is gone.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::get_child_subreaper;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::environment::environment;
use super::listening;
use super::output::{Console, Stream, Tail, relay};
use super::reach;
use super::state::End;
use super::supervisor::AppSpec;
use crate::privilege;

/// How often a group that is about to end is looked after.
const LOOK: Duration = Duration::from_millis(5);
/// How long the last lines of an app that is gone may take; whatever it left running may keep its outputs open.
const LAST_LINES: Duration = Duration::from_millis(250);
/// How long a killed group may take to be gone.
const KILLED: Duration = Duration::from_secs(1);

/// What is started again and again.
#[derive(Debug)]
pub(super) struct App {
    pub(super) spec: AppSpec,
    /// `PATH`
    pub(super) path: OsString,
}

impl App {
    fn command(&self, colorful: bool) -> Result<Command, End> {
        let Some((program, arguments)) = self.spec.command.split_first() else {
            return Err(End::NotStarted("its command is empty".into()));
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&self.spec.dir)
            .env_clear()
            .envs(environment(self, std::env::vars_os(), colorful))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        privilege::tether(&mut command);
        Ok(command)
    }

    fn why_not(&self, error: &io::Error) -> String {
        let AppSpec { command, dir, .. } = &self.spec;
        let program = command.first().map_or("", String::as_str);
        let dir_shown = dir.display();
        if !dir.is_dir() {
            return format!("its folder {dir_shown} does not exist or cannot be reached");
        }
        match (reach::find_program(program, dir, &self.path), error.kind()) {
            (Some(_), io::ErrorKind::NotFound) => {
                return format!(
                    "{program} is a script, and the interpreter in its first line does not exist"
                );
            }
            // A folder of PATH that may not be entered turns "not found" into "denied".
            (None, io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
            _ => return format!("{program} in {dir_shown}: {error}"),
        }
        if program.contains('/') {
            return format!("there is no program {program} in {dir_shown} that may be run");
        }
        let hint = if std::env::var_os("SUDO_UID").is_some() {
            "; sudo changes PATH, which sudo env \"PATH=$PATH\" keeps"
        } else {
            ""
        };
        let path = self.path.to_string_lossy();
        format!("there is no program \"{program}\" in PATH ({path}){hint}")
    }
}

/// The app while it runs.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    /// The leader of its process group
    pid: Pid,
    /// SIGCHLD
    news: unix::Signal,
    tail: Tail,
    relays: [JoinHandle<()>; 2],
}

impl Running {
    /// Starts the app, unless somebody else listens where it should.
    ///
    /// # Errors
    /// [`End::NotStarted`] with the reason.
    pub(super) async fn start(app: &App, console: &Console) -> Result<Self, End> {
        listening::make_way(&app.spec.listens)
            .await
            .map_err(End::NotStarted)?;
        let failed = |error: io::Error| End::NotStarted(error.to_string());
        let news = signal(SignalKind::child()).map_err(failed)?;
        let mut command = app.command(console.is_colorful())?;
        let mut child = command
            .spawn()
            .map_err(|error| End::NotStarted(app.why_not(&error)))?;
        // A pid is a positive i32 on Linux.
        let pid = Pid::from_raw(child.id().cast_signed());
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(End::NotStarted("its outputs are missing".into()));
        };
        let tail = Tail::default();
        let receiver = |pipe: OwnedFd| pipe::Receiver::from_owned_fd(pipe).map_err(failed);
        let stdout = relay(
            receiver(stdout.into())?,
            Stream::Stdout,
            console.clone(),
            None,
        );
        let stderr = relay(
            receiver(stderr.into())?,
            Stream::Stderr,
            console.clone(),
            Some(tail.clone()),
        );
        Ok(Self {
            child,
            pid,
            news,
            tail,
            relays: [tokio::spawn(stdout), tokio::spawn(stderr)],
        })
    }

    /// Waits until the app itself has ended, and reaps whatever was left to us in the meantime.
    pub(super) async fn exited(&mut self) {
        while !self.has_exited() {
            self.news.recv().await;
        }
    }

    fn has_exited(&self) -> bool {
        self.reap_orphans();
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.pid), flags) {
            Ok(status) => status.pid().is_some(),
            // A real-time signal killed it, which nix has no name for.
            Err(_) => true,
        }
    }

    /// Only where we adopt them; elsewhere it would take other people's children.
    fn reap_orphans(&self) {
        if !get_child_subreaper().unwrap_or(false) {
            return;
        }
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        loop {
            let next = match waitid(Id::All, flags) {
                Ok(status) => status.pid(),
                // As above, and it may be the app.
                Err(_) => None,
            };
            match next {
                Some(pid) if pid != self.pid => {
                    let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
                }
                _ => return,
            }
        }
    }

    /// Takes an app that has [`exited`](Self::exited) off the list, kills what it left behind in its group, and returns
    /// how it ended and its last lines.
    pub(super) async fn bury(mut self) -> (End, Vec<String>) {
        // Before it is reaped, so that its id cannot be somebody else's yet.
        let _ = killpg(self.pid, Signal::SIGKILL);
        let end = end(self.child.wait());
        let _ = timeout(KILLED, self.group_gone()).await;
        self.last_lines().await;
        (end, self.tail.lines())
    }

    /// Terminates the whole group; kills what is left of it after `deadline`, or when `hurry` ends.
    pub(super) async fn stop(mut self, deadline: Duration, hurry: impl Future<Output = ()>) {
        let _ = killpg(self.pid, Signal::SIGTERM);
        // A group that is stopped (SIGSTOP) would not see it.
        let _ = killpg(self.pid, Signal::SIGCONT);
        let gone = async {
            self.exited().await;
            let _ = self.child.wait();
            self.group_gone().await;
        };
        let in_time = tokio::select! {
            () = gone => true,
            () = sleep(deadline) => false,
            () = hurry => false,
        };
        if !in_time {
            let _ = killpg(self.pid, Signal::SIGKILL);
            let gone = async {
                self.exited().await;
                let _ = self.child.wait();
                self.group_gone().await;
            };
            let _ = timeout(KILLED, gone).await;
        }
        self.last_lines().await;
    }

    /// Waits until nobody is in the group any more.
    async fn group_gone(&mut self) {
        loop {
            self.reap_orphans();
            if kill(Pid::from_raw(-self.pid.as_raw()), None) == Err(Errno::ESRCH) {
                return;
            }
            // Not all of them are our children, so there is not always news.
            let _ = timeout(LOOK, self.news.recv()).await;
        }
    }

    async fn last_lines(&mut self) {
        let deadline = Instant::now() + LAST_LINES;
        for relay in &mut self.relays {
            let _ = tokio::time::timeout_at(deadline, relay).await;
        }
    }
}

fn end(status: io::Result<ExitStatus>) -> End {
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => End::Code(code),
            (None, signal) => End::Signal(signal.unwrap_or_default()),
        },
        Err(error) => End::NotStarted(format!("its exit status is lost ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::AppAddr;

    fn app(command: &[&str]) -> App {
        App {
            spec: AppSpec {
                command: command.iter().map(|&word| word.to_owned()).collect(),
                dir: "/".into(),
                user: None,
                listens: AppAddr::Port(3000),
                extra_ca: None,
                longest_pause: Duration::from_secs(30),
            },
            path: "/a:/usr/bin:/bin".into(),
        }
    }

    #[test]
    fn what_cannot_be_started_is_told() {
        let missing = io::Error::from(io::ErrorKind::NotFound);
        let why = |command: &str| app(&[command]).why_not(&missing);
        assert_eq!(
            why("nope"),
            "there is no program \"nope\" in PATH (/a:/usr/bin:/bin)"
        );
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(app(&["nope"]).why_not(&denied).contains("in PATH"));
        assert!(app(&["sh"]).why_not(&denied).contains("denied"));
        assert_eq!(
            why("./nope"),
            "there is no program ./nope in / that may be run"
        );
        assert!(why("sh").contains("interpreter"));
        let mut gone = app(&["sh"]);
        gone.spec.dir = PathBuf::from("/no/such/folder");
        assert!(gone.why_not(&missing).contains("/no/such/folder"));
        assert!(matches!(app(&[]).command(false), Err(End::NotStarted(_))));
    }
}
