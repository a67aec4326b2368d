//! The supervisor's process, from the fork to its end.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, gettid};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use super::output::Console;
use super::reach;
use super::running::App;
use super::state::AppState;
use super::supervise::supervise;
use super::supervisor::AppSpec;
use super::wire::Report;
use crate::privilege::{self, Identity};

/// How often a thread or process that is about to end is looked after.
const LOOK: Duration = Duration::from_millis(2);
/// How long the last lines of output, and killing what is left, may take.
const FLUSH: Duration = Duration::from_secs(1);

/// The whole life of the process that was forked; `user` is who it becomes.
pub(super) fn run(spec: AppSpec, user: &Identity, socket: StdUnixStream) -> ! {
    // A panic must not run into the parent's frames.
    let life = AssertUnwindSafe(|| live(spec, user, socket));
    privilege::exit_now(if matches!(catch_unwind(life), Ok(Ok(()))) {
        0
    } else {
        1
    })
}

fn live(spec: AppSpec, user: &Identity, mut socket: StdUnixStream) -> io::Result<()> {
    privilege::close_inherited(socket.as_raw_fd())?;
    let (app, note) = match prepare(spec, user) {
        Ok(prepared) => prepared,
        Err(error) => {
            let refused = Report::Refused(error.to_string());
            return socket.write_all(refused.to_line().as_bytes());
        }
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (console, printer) = Console::stdio()?;
    runtime.block_on(async {
        ignore_signals()?;
        socket.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(socket)?;
        if let Some(note) = note {
            // Not as the first line, which says that all is well.
            let first = Report::State(AppState::Starting { attempt: 1 });
            let lines = first.to_line() + &Report::Note(note).to_line();
            socket.write_all(lines.as_bytes()).await?;
        }
        supervise(&app, console, socket).await;
        io::Result::Ok(())
    })?;
    kill_adopted();
    // Relays that still wait for a stray writer hold the console.
    runtime.shutdown_background();
    let deadline = Instant::now() + FLUSH;
    while !printer.is_finished() && Instant::now() < deadline {
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Becomes the app's user, with everything in reach that the app needs.
fn prepare(mut spec: AppSpec, user: &Identity) -> io::Result<(App, Option<String>)> {
    prctl::set_name(c"lowport-app")?;
    prctl::set_child_subreaper(true)?;
    let mut path = reach::search_path(&spec.dir, &[]);
    let mut note = None;
    if spec.user.is_some() {
        // Before anything is covered, and links with it.
        let dir = spec.dir.canonicalize()?;
        let extra_ca = spec.extra_ca.as_ref().map(|ca| ca.canonicalize());
        let programs = reach::program_folders(&spec, &path);
        let exposed = privilege::expose(&reach::needed(&spec, &path), user)?;
        if !exposed.covered.is_empty() {
            spec.dir = dir;
            spec.extra_ca = extra_ca.transpose()?;
            path = reach::search_path(&spec.dir, &programs);
            let covered: Vec<String> = exposed
                .covered
                .iter()
                .map(|folder| folder.display().to_string())
                .collect();
            note = Some(format!(
                "{user} may not enter {}: the app is shown only what it needs of it",
                covered.join(", ")
            ));
        }
    }
    privilege::become_user(user)?;
    if let Some(sandbox) = &spec.sandbox {
        privilege::confine_app(sandbox)?;
    }
    Ok((App { spec, path }, note))
}

/// Ctrl-C and the like reach the whole foreground group, and what becomes of the app is the proxy's decision. Not by
/// ignoring them, which the app would inherit, but with handlers that do nothing.
fn ignore_signals() -> io::Result<()> {
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ] {
        // The handler stays when what listens to it is dropped.
        drop(signal(kind)?);
    }
    Ok(())
}

/// Kills what left the app's group and was handed to us when its parent ended.
fn kill_adopted() {
    let children = format!("/proc/self/task/{}/children", gettid());
    let deadline = Instant::now() + FLUSH;
    while Instant::now() < deadline {
        let list = std::fs::read_to_string(&children).unwrap_or_default();
        let mut pids = list
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .peekable();
        if pids.peek().is_none() {
            return;
        }
        for pid in pids.map(Pid::from_raw) {
            // Its own children come to us with that, so look again.
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
        std::thread::sleep(LOOK);
    }
}
