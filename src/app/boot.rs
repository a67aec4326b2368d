//! From a configuration to workers that serve, in the order that keeps privilege short.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::EXIT_CONFIG;
use super::sandbox;
use crate::child::{AppSpec, Reaper, Supervisor};
use crate::config::{self, App, Config, Mistake, Mistakes, Sandbox, Source, User};
use crate::observe::{Footprint, LogSink};
use crate::privilege::{
    self, Adopted, Bound, Broker, Identity, Inherited, Inquirer, Lesser, Mode, Notify, OneThread,
    Question, SockDiag, Walls, Witness,
};
use crate::server::{self, Shared, WorkerHandle};
use crate::snapshot::{Lasting, Snapshot};

/// What to run.
pub struct Boot {
    /// The configuration
    pub source: Arc<Source>,
    /// Whether this is development: errors say what only a developer should see, and a crashed app is soon tried again
    pub dev: bool,
    /// Whether to put the sandbox on
    pub sandbox: bool,
    /// A certificate authority that the supervised app is told to trust
    pub app_ca: Option<PathBuf>,
    /// Called when everything listens
    pub on_ready: Box<dyn FnOnce()>,
}

/// What serves once booted.
pub(super) struct Ready {
    pub(super) mode: Mode,
    pub(super) user: Identity,
    pub(super) walls: Walls,
    pub(super) lasting: Lasting,
    /// Not yet served
    pub(super) bound: Vec<Bound>,
    pub(super) shared: Arc<Shared>,
    pub(super) broker: Option<Broker>,
    /// Of the workers, to be passed on to the broker
    pub(super) questions: mpsc::UnboundedReceiver<Question>,
    pub(super) notify: Notify,
    pub(super) workers: Vec<WorkerHandle>,
    pub(super) supervisor: Option<Supervisor>,
    pub(super) reaper: Reaper,
    pub(super) on_ready: Box<dyn FnOnce()>,
}

/// Why nothing serves.
pub(super) struct Failed {
    pub(super) message: String,
    pub(super) code: ExitCode,
}

impl Failed {
    fn config(mistakes: &Mistakes) -> Self {
        Self {
            message: mistakes.render(super::stderr_colors()),
            code: ExitCode::from(EXIT_CONFIG),
        }
    }

    fn running(what: &str, error: &io::Error) -> Self {
        Self {
            message: format!("lowport: {what}: {error}\n"),
            code: ExitCode::FAILURE,
        }
    }
}

impl Boot {
    pub(super) fn start(self) -> Result<Ready, Failed> {
        // 0. Alone, or what is given up would not be given up by all of the process.
        OneThread::check().map_err(|error| Failed::running("not started", &error))?;
        let reaper = Reaper::new();

        // 1. Nothing is bound before the whole configuration is valid.
        let inherited = privilege::inherited()
            .map_err(|error| Failed::running("socket activation", &io::Error::other(error)))?;
        let mode = Mode::of(!inherited.is_empty());
        let mut lasting = Lasting::new(self.dev);
        lasting.adopted = self.adopted(&inherited)?;
        let mut snapshot =
            Snapshot::load(&self.source, &lasting).map_err(|mistakes| Failed::config(&mistakes))?;
        let mistakes = Mistakes::new(Arc::clone(&self.source));
        let users = Users::of(&snapshot.config, &mistakes);
        // Looked at again when the log is there.
        Broker::needs(&self.source, &snapshot.config, &mistakes);
        let no_mistakes = || {
            if mistakes.is_empty() {
                Ok(())
            } else {
                Err(Failed::config(&mistakes))
            }
        };
        no_mistakes()?;

        // 2. What takes privilege: the ports, and the log's file. Keys have been read with the configuration.
        let descriptors = raise_descriptor_limit();
        let workers = snapshot.config.server.workers;
        let bound = bind(&snapshot.config, &inherited, &mistakes)
            .map_err(|error| Failed::running("cannot share a passed socket", &error))?;
        no_mistakes()?;
        drop(inherited);
        let log = LogSink::new(&snapshot.config.log)
            .map_err(|error| Failed::running("cannot open the access log", &error))?;
        let notify = Notify::open()
            .map_err(|error| Failed::running("cannot reach the service manager", &error))?;

        let needs = Broker::needs(&self.source, &snapshot.config, &mistakes);
        let broker_needs = self.sandbox.then_some(needs);

        // 3. Who stays behind: the broker, which keeps what a reload takes, and the app's supervisor, so that a restart of
        //    the app takes no privilege.
        let broker = (!self.dev)
            .then(|| {
                let adopted = &lasting.adopted;
                let forget = || snapshot.keys.forget();
                Broker::spawn(
                    &self.source,
                    &snapshot.config,
                    adopted,
                    broker_needs,
                    forget,
                )
            })
            .transpose()
            .map_err(|error| Failed::running("cannot start the broker", &error))?;
        let mut supervisor = None;
        if let Some(app) = &snapshot.config.app {
            let spec = AppSpec {
                command: app.command.clone(),
                dir: app.dir.clone(),
                user: users.app,
                listens: app.listens.clone(),
                extra_ca: self.app_ca.clone(),
                longest_pause: longest_pause(self.dev),
                sandbox: self.app_sandbox(&snapshot.config, app),
            };
            let (started, state) = Supervisor::spawn(spec, || snapshot.keys.forget())
                .map_err(|error| Failed::running("cannot start the app's supervisor", &error))?;
            supervisor = Some(started);
            lasting.app = Some(state);
            snapshot.watch_app(&lasting);
        }

        // 4. Whatever this process could do beyond serving is over before the first byte from the network is read. The app
        //    keeps the umask that it would have had without us.
        stat::umask(stat::Mode::from_bits_truncate(0o077));
        let user = users.proxy.unwrap_or_else(Identity::current);
        let sandbox = &snapshot.config.sandbox;
        let needs = self.sandbox.then(|| sandbox::needs(&snapshot.config));
        let tried = match &needs {
            Some(needs) => Walls::try_out(needs, Lesser::User(&user), sandbox)
                .map_err(|error| Failed::running("not proved, so not served", &error))?,
            None => Vec::new(),
        };
        let began = Instant::now();
        privilege::become_user(&user)
            .map_err(|error| Failed::running(&format!("cannot become {user}"), &error))?;
        info!(%mode, %user, "privileges given up");
        let (processes, questions) = Inquirer::new();
        // In dev mode there is nobody to answer.
        let processes = broker.is_some().then_some(processes);
        if !privilege::has_small_pages() {
            debug!("the kernel may hand out huge pages");
        }
        let witness = |_| Witness {
            sockets: sock_diag(),
            processes: processes.clone(),
        };
        let witnesses: Vec<Witness> = (0..workers).map(witness).collect();
        let footprint = Footprint::open()
            .map_err(|error| Failed::running("memory cannot be counted", &error))?;
        let walls = match needs {
            Some(needs) => Walls::put_on(needs, tried, sandbox)
                .map_err(|error| Failed::running("the sandbox", &error))?,
            None => Walls::none("--no-sandbox"),
        };
        if walls.stand() {
            lasting.close_users();
        }
        let micros = began.elapsed().as_micros();
        debug!(micros, "the drop and the sandbox took this long");

        // 5. Threads.
        log.start();
        let live = Arc::new(ArcSwap::from_pointee(snapshot));
        let shared = Arc::new(Shared::new(live, log, descriptors, footprint));
        let workers: Vec<WorkerHandle> = witnesses
            .into_iter()
            .enumerate()
            .map(|(number, witness)| server::start(number, Arc::clone(&shared), witness))
            .collect::<io::Result<_>>()
            .map_err(|error| Failed::running("cannot start a worker", &error))?;
        Ok(Ready {
            mode,
            user,
            walls,
            lasting,
            bound,
            shared,
            broker,
            questions,
            notify,
            workers,
            supervisor,
            reaper,
            on_ready: self.on_ready,
        })
    }
}

fn sock_diag() -> Option<SockDiag> {
    SockDiag::open()
        .inspect_err(|error| warn!(%error, "who runs an upstream cannot be found out"))
        .ok()
}

/// A socket for each worker and listener: those that were passed, and others of our own.
fn bind(config: &Config, inherited: &[Inherited], mistakes: &Mistakes) -> io::Result<Vec<Bound>> {
    let workers = config.server.workers;
    let mut all = Vec::new();
    for (listener, tls) in config.listeners() {
        let addr = listener.addr;
        match inherited.iter().find(|passed| passed.addr == addr) {
            Some(passed) => all.push(Bound {
                addr,
                tls,
                sockets: passed.sockets(workers)?,
            }),
            None => all.extend(privilege::bind(
                listener,
                tls,
                workers,
                privilege::holder,
                mistakes,
            )),
        }
    }
    Ok(all)
}

/// Whoever has just mended the app waits for it; in production nobody does, and a crash may be costly.
fn longest_pause(dev: bool) -> Duration {
    Duration::from_secs(if dev { 2 } else { 30 })
}

/// Finds the users and the folders that `run` would need, or says what is wrong with them.
pub fn check_surroundings(source: &Source, config: &Config, mistakes: &Mistakes) {
    Users::of(config, mistakes);
    Broker::needs(source, config, mistakes);
}

impl Boot {
    /// What the app's filter may do without, or why it has none.
    fn app_sandbox(&self, config: &Config, app: &App) -> Result<Sandbox, String> {
        let why = if !self.sandbox {
            "--no-sandbox"
        } else if !app.sandbox {
            "[app] has `sandbox = false`"
        } else if self.dev {
            // Whoever develops an app may want to trace and to contain what it starts.
            "lowport dev"
        } else {
            return Ok(config.sandbox.clone());
        };
        Err(why.to_owned())
    }

    /// What the passed sockets are for.
    fn adopted(&self, inherited: &[Inherited]) -> Result<Vec<Adopted>, Failed> {
        if inherited.is_empty() {
            return Ok(Vec::new());
        }
        let mistakes = Mistakes::new(Arc::clone(&self.source));
        let config = config::parse(&self.source, &mistakes);
        if !mistakes.is_empty() {
            return Err(Failed::config(&mistakes));
        }
        let purposes = inherited.iter().map(|passed| passed.purpose(&config));
        purposes
            .collect::<Result<_, _>>()
            .map_err(|error| Failed::running("socket activation", &io::Error::other(error)))
    }
}

/// Who the processes become; `None` for who they are.
struct Users {
    proxy: Option<Identity>,
    app: Option<Identity>,
}

impl Users {
    /// Only root can become somebody else, and root must.
    fn of(config: &Config, mistakes: &Mistakes) -> Self {
        if !privilege::is_root() {
            return Self {
                proxy: None,
                app: None,
            };
        }
        let proxy = identity("server.user", &config.server.user, mistakes);
        let app = config.app.as_ref().and_then(|app| match &app.user {
            Some(user) => identity("app.user", user, mistakes),
            None => {
                mistakes.push(nobody(app));
                None
            }
        });
        Self { proxy, app }
    }
}

/// Nobody was named for the app, and it must not run as root.
fn nobody(app: &App) -> Mistake {
    match &app.span {
        Some(_) => Mistake::new(
            app.span.clone(),
            "[app] has no user, and lowport was started as root",
        )
        .help("add `user = \"node\"`: the app must not run as root"),
        // Who called sudo, and a user of that name, would have been taken.
        None => Mistake::new(None, "the app must not run as root, as lowport was started")
            .help("make a user for it: `useradd --create-home node`; or name one in a configuration: [app] user = \"...\""),
    }
}

fn identity(key: &str, user: &User, mistakes: &Mistakes) -> Option<Identity> {
    let found = Identity::lookup(&user.name).and_then(|found| found.refuse_root().map(|()| found));
    found
        .inspect_err(|error| {
            mistakes.push(Mistake::new(user.span.clone(), format!("{key}: {error}")))
        })
        .ok()
}

/// Each connection takes a descriptor or two; the soft limit of 1024 is for programs that use select(2). Returns what it
/// comes to.
fn raise_descriptor_limit() -> u64 {
    let limits = getrlimit(Resource::RLIMIT_NOFILE);
    let raised = limits.and_then(|(_, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(hard)
    });
    raised.unwrap_or_else(|error| {
        warn!(%error, "the limit of open descriptors stays as it is");
        limits.map_or(1024, |(soft, _)| soft)
    })
}
