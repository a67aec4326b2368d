//! The proxy's end of the supervisor: forking it, following what it reports, stopping it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::process;
use super::reaper::Reaper;
use super::state::{AppState, End, Seconds};
use super::wire::{Lines, Report, stop_line};
use crate::config::{AppAddr, Sandbox};
use crate::privilege::{self, Fork, Identity};

/// How much longer than the app's own deadline its supervisor may take to end.
const GRACE: Duration = Duration::from_secs(3);

/// The app to run, and how.
#[derive(Debug, Clone)]
pub struct AppSpec {
    /// Program and arguments; never empty
    pub command: Vec<String>,
    /// Working directory
    pub dir: PathBuf,
    /// Who runs it; `None` for whoever this process is, which must not be root then
    pub user: Option<Identity>,
    /// Where it is expected to listen. Where `user` is somebody else than the proxy, a socket is opened to all users
    pub listens: AppAddr,
    /// PEM file of an authority that Node trusts besides its own, unless `NODE_EXTRA_CA_CERTS` is set already
    pub extra_ca: Option<PathBuf>,
    /// How long it is at most until an app that crashes again and again is started again
    pub longest_pause: Duration,
    /// Where the filter of its system calls may be left out; why it is not even tried
    pub sandbox: Result<Sandbox, String>,
}

/// The process that runs the app, as the proxy sees it. Dropping it has the app stopped, too.
#[derive(Debug)]
pub struct Supervisor {
    pid: u32,
    /// Which ends as it does; our own child
    guardian: Pid,
    filters: Result<usize, String>,
    socket: StdUnixStream,
    state: watch::Sender<AppState>,
    listens: AppAddr,
}

impl Supervisor {
    /// Forks the supervisor, which becomes the app's user and starts the app.
    ///
    /// Call it while this process has one thread and no runtime, before privileges are dropped. The supervisor keeps
    /// this process's umask and environment, and none of its descriptors but the standard ones. It calls `forget` first,
    /// on its copy of this process's memory, so that no secret stays with the app's user.
    ///
    /// # Errors
    /// When the app would run as root, its user or folder cannot be used, or the process cannot be forked. That the
    /// command itself cannot be started is no error here but an [`AppState::Exited`].
    pub fn spawn(
        spec: AppSpec,
        forget: impl FnOnce(),
    ) -> io::Result<(Self, watch::Receiver<AppState>)> {
        let (spec, user) = checked(spec)?;
        // Or the child could print what is still in the buffer a second time.
        io::stdout().flush()?;
        let (ours, theirs) = StdUnixStream::pair()?;
        let guardian = match privilege::fork()? {
            Fork::Parent(pid) => pid,
            Fork::Child => {
                forget();
                process::run(spec, &user, theirs)
            }
        };
        drop(theirs);
        let (pid, filters, first) = match first_reports(&ours) {
            Ok(first) => first,
            Err(error) => {
                let _ = waitpid(guardian, None);
                return Err(error);
            }
        };
        let (state, receiver) = watch::channel(first);
        let supervisor = Self {
            pid,
            guardian,
            filters,
            socket: ours,
            state,
            listens: spec.listens,
        };
        Ok((supervisor, receiver))
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The process above it, which ends what it leaves when it is killed.
    pub fn guardian(&self) -> u32 {
        self.guardian.as_raw().unsigned_abs()
    }

    /// How many filters keep system calls from it and from the app; why none do.
    pub fn filters(&self) -> &Result<usize, String> {
        &self.filters
    }

    /// Publishes and logs what the supervisor reports, in a task of the current thread's runtime. `reaper` is whoever waits
    /// for this process's children.
    ///
    /// # Errors
    /// When the runtime does not take the socket.
    ///
    /// # Panics
    /// Outside a local runtime or a `LocalSet`.
    pub fn follow(self, reaper: &Reaper) -> io::Result<Following> {
        reaper.expect(self.guardian);
        self.socket.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(self.socket)?.into_split();
        let (stop, told) = oneshot::channel();
        let follower = Follower {
            guardian: self.guardian,
            listens: self.listens,
            state: self.state,
            orders: write,
            reaper: reaper.clone(),
            started: Instant::now(),
        };
        let task = tokio::task::spawn_local(follower.follow(Lines::new(read), told));
        Ok(Following { stop, task })
    }
}

/// The task that follows the supervisor. Dropping it has the app stopped, too, only that nobody waits for it.
#[derive(Debug)]
pub struct Following {
    stop: oneshot::Sender<Duration>,
    task: JoinHandle<()>,
}

impl Following {
    /// Has the app terminated, killed after `deadline`, and waits until it and its supervisor are gone.
    pub async fn stop(self, deadline: Duration) {
        // If nobody receives it, the supervisor is gone already.
        let _ = self.stop.send(deadline);
        let _ = self.task.await;
    }
}

struct Follower {
    guardian: Pid,
    listens: AppAddr,
    state: watch::Sender<AppState>,
    orders: OwnedWriteHalf,
    reaper: Reaper,
    /// When the app was last started
    started: Instant,
}

impl Follower {
    async fn follow(mut self, mut reports: Lines, mut told: oneshot::Receiver<Duration>) {
        let deadline = loop {
            tokio::select! {
                deadline = &mut told => match deadline {
                    Ok(deadline) => break deadline,
                    // Dropped: closing the socket has the app stopped as well, only that nobody waits for it.
                    Err(_) => return,
                },
                report = reports.next() => match report.ok().flatten() {
                    Some(line) => self.publish(&line),
                    None => return self.died().await,
                },
            }
        };
        debug!(deadline = %Seconds(deadline), "stopping the app");
        let why = "lowport is stopping, and the app with it.";
        self.state.send_replace(AppState::Stopped(why.into()));
        let _ = self.orders.write_all(stop_line(deadline).as_bytes()).await;
        let gone = async {
            while let Ok(Some(_)) = reports.next().await {}
            self.reaper.exit_of(self.guardian).await
        };
        match timeout(deadline + GRACE, gone).await {
            Ok(_) => info!("app stopped"),
            Err(_) => {
                error!(pid = %self.guardian, "the app's supervisor does not end: killing its guardian");
                let _ = kill(self.guardian, Signal::SIGKILL);
            }
        }
    }

    fn publish(&mut self, line: &str) {
        let state = match Report::from_line(line) {
            Some(Report::State(state)) => state,
            Some(Report::Note(note)) => return warn!("{note}"),
            Some(Report::Supervisor { .. } | Report::Refused(_)) | None => {
                return debug!("unknown report from the supervisor");
            }
        };
        match &state {
            AppState::Starting { attempt } => {
                self.started = Instant::now();
                debug!(attempt, "app starting");
            }
            AppState::Ready => info!(
                "app ready in {} ms on {}",
                self.started.elapsed().as_millis(),
                self.listens
            ),
            AppState::Exited {
                end: end @ End::NotStarted(_),
                restart_in,
                ..
            } => error!("app {end}; next try in {}", Seconds(*restart_in)),
            AppState::Exited {
                end, restart_in, ..
            } => warn!("app {end}, restart in {}", Seconds(*restart_in)),
            AppState::Stopped(why) => error!("{why}"),
        }
        self.state.send_replace(state);
    }

    async fn died(self) {
        let how = timeout(GRACE, self.reaper.exit_of(self.guardian))
            .await
            .ok()
            .flatten();
        let how = match how {
            Some(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
            Some(WaitStatus::Exited(_, code)) => format!("exited with code {code}"),
            _ => "is gone".into(),
        };
        error!("the app's supervisor {how}: the app is not started again until lowport is");
        let why = format!("The app's supervisor {how}. Restart lowport to start the app again.");
        self.state.send_replace(AppState::Stopped(why));
    }
}

/// What can be told before there is a second process.
fn checked(mut spec: AppSpec) -> io::Result<(AppSpec, Identity)> {
    let me = Identity::current();
    let user = spec.user.take().unwrap_or_else(|| me.clone());
    user.refuse_root()
        .map_err(|error| io::Error::other(format!("the app would run as root: {error}")))?;
    if user.uid != me.uid {
        if !privilege::is_root() {
            return Err(io::Error::other(format!(
                "only root can run the app as {user}; this is {me}"
            )));
        }
        spec.user = Some(user.clone());
    }
    if spec.command.is_empty() {
        return Err(io::Error::other("the app's command is empty"));
    }
    let dir = std::path::absolute(&spec.dir)?;
    if !dir.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("the app's folder {} does not exist", dir.display()),
        ));
    }
    spec.dir = dir;
    // A process that is not root keeps its group, whatever its entry says.
    let user = if spec.user.is_none() { me } else { user };
    Ok((spec, user))
}

/// The supervisor's process, its filters, and what it does first.
fn first_reports(socket: &StdUnixStream) -> io::Result<(u32, Result<usize, String>, AppState)> {
    let refused = |report| match report {
        Report::Refused(why) => io::Error::other(why),
        _ => io::ErrorKind::InvalidData.into(),
    };
    let (pid, filters) = match report(socket)? {
        Report::Supervisor { pid, filters } => (pid, filters),
        other => return Err(refused(other)),
    };
    match report(socket)? {
        Report::State(state) => Ok((pid, filters, state)),
        other => Err(refused(other)),
    }
}

/// One line, and not a byte more: the rest belongs to the follower.
fn report(mut socket: &StdUnixStream) -> io::Result<Report> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    loop {
        if socket.read(&mut byte)? == 0 {
            return Err(io::Error::other(
                "the app's supervisor ended before it had begun",
            ));
        }
        if byte == *b"\n" {
            break;
        }
        line.extend(byte);
    }
    std::str::from_utf8(&line)
        .ok()
        .and_then(Report::from_line)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use nix::errno::Errno;
    use tokio::task::LocalSet;

    use super::*;

    /// A shell that speaks the supervisor's part; the fork itself cannot be made in a process with threads.
    #[expect(clippy::zombie_processes, reason = "it is waited for by its id")]
    fn played_by(script: &str) -> (Supervisor, watch::Receiver<AppState>) {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        let child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::from(OwnedFd::from(theirs.try_clone().unwrap())))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        let (pid, filters, first) = first_reports(&ours).unwrap();
        let (state, receiver) = watch::channel(first);
        let supervisor = Supervisor {
            pid,
            guardian: Pid::from_raw(child.id().cast_signed()),
            filters,
            socket: ours,
            state,
            listens: AppAddr::Port(3000),
        };
        (supervisor, receiver)
    }

    #[tokio::test]
    async fn states_are_published_until_the_app_is_stopped() {
        let (supervisor, mut state) = played_by(
            r#"echo '{"supervisor":9,"filters":2}'; echo '{"starting":1}'; echo '{"note":"x"}'; echo '{"ready":true}'; read order; test "$order" = '{"stop_ms":5000}'"#,
        );
        assert_eq!(*state.borrow(), AppState::Starting { attempt: 1 });
        let guardian = supervisor.guardian;
        assert_eq!((supervisor.pid(), supervisor.filters()), (9, &Ok(2)));
        assert_eq!(supervisor.guardian(), guardian.as_raw().unsigned_abs());
        LocalSet::new()
            .run_until(async {
                let following = supervisor.follow(&Reaper::new()).unwrap();
                state
                    .wait_for(|state| *state == AppState::Ready)
                    .await
                    .unwrap();
                following.stop(Duration::from_secs(5)).await;
            })
            .await;
        assert!(matches!(*state.borrow(), AppState::Stopped(_)));
        assert_eq!(
            waitpid(guardian, None),
            Err(Errno::ECHILD),
            "it was waited for"
        );
    }

    #[tokio::test]
    async fn a_supervisor_that_dies_is_told() {
        let (supervisor, mut state) =
            played_by(r#"echo '{"supervisor":9,"filters":2}'; echo '{"starting":1}'; kill -9 $$"#);
        LocalSet::new()
            .run_until(async {
                let _following = supervisor.follow(&Reaper::new()).unwrap();
                let stopped = state
                    .wait_for(|state| matches!(state, AppState::Stopped(_)))
                    .await;
                assert!(stopped.unwrap().to_string().contains("SIGKILL"));
            })
            .await;
    }

    #[test]
    fn the_first_reports_take_no_byte_too_many() {
        let (ours, mut theirs) = StdUnixStream::pair().unwrap();
        theirs
            .write_all(b"{\"refused\":\"why\"}\n{\"ready\":true}\n")
            .unwrap();
        assert_eq!(report(&ours).unwrap(), Report::Refused("why".into()));
        assert_eq!(report(&ours).unwrap(), Report::State(AppState::Ready));
        theirs
            .write_all(b"{\"supervisor\":9,\"filters\":2}\n{\"refused\":\"later\"}\n")
            .unwrap();
        assert_eq!(first_reports(&ours).unwrap_err().to_string(), "later");
        theirs.write_all(b"{\"ready\":true}\n").unwrap();
        assert!(first_reports(&ours).is_err(), "nobody is named");
        drop(theirs);
        assert!(report(&ours).is_err());
    }

    #[test]
    fn what_cannot_be_supervised_is_refused_before_the_fork() {
        let spec = |user: &str, dir: &str, command: &[&str]| AppSpec {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            dir: dir.into(),
            user: Some(Identity::lookup(user).unwrap()),
            listens: AppAddr::Port(3000),
            extra_ca: None,
            longest_pause: Duration::from_secs(30),
            sandbox: Err("a test".to_owned()),
        };
        let refused = |spec| checked(spec).unwrap_err().to_string();
        assert!(refused(spec("0", "/", &["node"])).contains("would run as root"));
        let me = Identity::current();
        let who = if me.uid == 0 {
            "nobody".to_owned()
        } else {
            me.uid.to_string()
        };
        assert!(refused(spec(&who, "/", &[])).contains("empty"));
        assert!(refused(spec(&who, "/no/such", &["node"])).contains("/no/such"));
        let (spec, user) = checked(spec(&who, "/", &["node"])).unwrap();
        assert_eq!(spec.user.is_some(), me.uid == 0);
        assert_ne!(user.uid, 0);
    }
}
