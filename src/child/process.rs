//! The supervisor's process, from the fork to its end, and its guardian's.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::sys::prctl;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::signal::unix::{self, SignalKind};

use super::guardian::{guard, kill_adopted};
use super::output::Console;
use super::reach;
use super::running::App;
use super::state::AppState;
use super::supervise::supervise;
use super::supervisor::AppSpec;
use super::wire::Report;
use crate::privilege::{self, Fork, Identity, not_for_helpers};

/// How often a thread that is about to end is looked after.
const LOOK: Duration = Duration::from_millis(2);
/// How long the last lines of output may take.
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
    not_for_helpers().thread_block()?;
    // The app has what it would have had without us.
    privilege::give_huge_pages_back()?;
    let split = prepare(spec, user)
        .and_then(|prepared| Ok((prepared, StdUnixStream::pair()?, privilege::fork()?)));
    let (Prepared { app, note, filters }, (lifeline, guardians), side) = match split {
        Ok(split) => split,
        Err(error) => {
            let refused = Report::Refused(error.to_string());
            return socket.write_all(refused.to_line().as_bytes());
        }
    };
    if let Fork::Parent(supervisor) = side {
        // What it kept open would not be seen to close when the other process ends.
        drop((socket, lifeline));
        guard(supervisor, guardians)
    }
    drop(guardians);
    let pid = std::process::id();
    let there = Report::Supervisor { pid, filters };
    socket.write_all(there.to_line().as_bytes())?;
    prctl::set_child_subreaper(true)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (console, printer) = Console::stdio()?;
    runtime.block_on(async {
        ignore_signals()?;
        tokio::spawn(follow(lifeline, socket.try_clone()?)?);
        socket.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(socket)?;
        if let Some(note) = note {
            // Not before the line that says that all is well.
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

/// Ready to be two processes, with the same privileges.
struct Prepared {
    app: App,
    /// What the user should know
    note: Option<String>,
    /// How many filters there are, or why none
    filters: Result<usize, String>,
}

/// Becomes the app's user, with everything in reach that the app needs.
fn prepare(mut spec: AppSpec, user: &Identity) -> io::Result<Prepared> {
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
    let filters = match &spec.sandbox {
        Ok(sandbox) => privilege::confine_app(sandbox)?,
        Err(why) => Err(why.clone()),
    };
    let app = App { spec, path };
    Ok(Prepared { app, note, filters })
}

/// Closes the connection to the proxy when the guardian is gone, which ends all as if the proxy were.
fn follow(lifeline: StdUnixStream, proxy: StdUnixStream) -> io::Result<impl Future<Output = ()>> {
    lifeline.set_nonblocking(true)?;
    let mut lifeline = UnixStream::from_std(lifeline)?;
    Ok(async move {
        // Nothing is ever sent.
        let _ = lifeline.read_u8().await;
        let _ = proxy.shutdown(Shutdown::Both);
    })
}

/// What becomes of the app is the proxy's decision. Not by blocking or ignoring the signals, which the app would inherit,
/// but with handlers that do nothing.
fn ignore_signals() -> io::Result<()> {
    for signal in &not_for_helpers() {
        // The handler stays when what listens to it is dropped.
        drop(unix::signal(SignalKind::from_raw(signal as i32))?);
    }
    not_for_helpers().thread_unblock()?;
    Ok(())
}
