//! Serving: signals, reloads, and the way out.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, interval, sleep};
use tracing::{debug, error, info, warn};

use super::boot::Ready;
use super::listeners::Listening;
use super::reload::Reloader;
use super::sandbox;
use crate::child::{Following, Reaper};
use crate::observe::Totals;
use crate::privilege::report::{AppReport, Helper, PrivilegeReport};
use crate::privilege::{self, Broker, Link, Notify, Question};
use crate::server::{Command, WorkerHandle};

/// How often the main thread looks whether the workers have ended.
const LOOK: Duration = Duration::from_millis(20);
/// How long the app may take from SIGTERM until it is killed.
const APP_STOPS: Duration = Duration::from_secs(5);

/// Serves until told to stop.
pub(super) fn serve(ready: Ready) -> ExitCode {
    let runtime = match Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
    {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot make a runtime");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(attend(ready))
}

/// What the main thread was woken by.
enum Event {
    Reload,
    Drain,
    Stop,
    Reopen,
    Ask(Question),
    WorkerDied,
    Beat,
}

struct Signals {
    hup: Signal,
    term: Signal,
    quit: Signal,
    int: Signal,
    usr1: Signal,
    child: Signal,
    reaper: Reaper,
}

impl Signals {
    fn new(reaper: Reaper) -> std::io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            term: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            int: signal(SignalKind::interrupt())?,
            usr1: signal(SignalKind::user_defined1())?,
            child: signal(SignalKind::child())?,
            reaper,
        })
    }

    async fn next(&mut self) -> Event {
        loop {
            return tokio::select! {
                _ = self.int.recv() => Event::Stop,
                _ = self.term.recv() => Event::Drain,
                _ = self.quit.recv() => Event::Drain,
                _ = self.hup.recv() => Event::Reload,
                _ = self.usr1.recv() => Event::Reopen,
                _ = self.child.recv() => {
                    self.reaper.reap();
                    continue;
                }
            };
        }
    }
}

async fn attend(ready: Ready) -> ExitCode {
    match Attendant::new(ready).await {
        Ok(attendant) => attendant.run().await,
        Err(error) => {
            error!(%error, "cannot serve");
            ExitCode::FAILURE
        }
    }
}

/// The main thread's work while the workers serve.
struct Attendant {
    reloader: Reloader,
    workers: Vec<WorkerHandle>,
    signals: Signals,
    notify: Notify,
    /// When to tell the service manager that all is well
    beat: Option<Interval>,
    app: Option<Following>,
    questions: mpsc::UnboundedReceiver<Question>,
}

impl Attendant {
    async fn new(ready: Ready) -> io::Result<Self> {
        let signals = Signals::new(ready.reaper.clone())?;
        privilege::signals_are_followed();
        let mut reloader = Reloader {
            lasting: ready.lasting,
            listening: Listening::default(),
            shared: ready.shared,
            broker: ready.broker.map(Broker::follow).transpose()?,
            needs: ready.walls.stand().then(|| ready.walls.needs.clone()),
        };
        // Read back before the first connection is taken: what does not hold does not serve.
        let report = match &mut reloader.broker {
            Some(broker) => {
                let app = match &ready.supervisor {
                    Some(supervisor) => Some(AppReport {
                        guardian: read_back(broker, supervisor.guardian()).await?,
                        supervisor: read_back(broker, supervisor.pid()).await?,
                        filters: supervisor.filters().clone(),
                    }),
                    None => None,
                };
                Some(PrivilegeReport {
                    mode: ready.mode,
                    identity: ready.user,
                    threads: broker.tasks().await?,
                    walls: ready.walls.clone(),
                    broker: Some((read_back(broker, broker.pid).await?, broker.walls.clone())),
                    app,
                    degraded: Vec::new(),
                })
            }
            None => None,
        };
        sandbox::tell(&ready.walls, report.as_ref())?;
        let live = reloader.shared.live.load_full();
        reloader
            .listening
            .apply(&live.config, ready.bound, &ready.workers);
        let app = ready
            .supervisor
            .map(|supervisor| supervisor.follow(&ready.reaper))
            .transpose()?;
        // Those that have ended since this process began.
        ready.reaper.reap();
        info!(
            listening = reloader.listening.describe(),
            workers = ready.workers.len(),
            routes = reloader.shared.live.load().config.routes.len(),
            "ready"
        );
        ready.notify.ready();
        (ready.on_ready)();
        Ok(Self {
            beat: ready.notify.watchdog().map(interval),
            notify: ready.notify,
            reloader,
            workers: ready.workers,
            signals,
            app,
            questions: ready.questions,
        })
    }

    /// Until told to stop, or until something is gone that cannot be replaced.
    async fn run(mut self) -> ExitCode {
        let code = loop {
            match self.next().await {
                Ok(Event::Drain) => {
                    self.drain().await;
                    break ExitCode::SUCCESS;
                }
                Ok(Event::Stop) => {
                    info!("stopping at once");
                    break ExitCode::SUCCESS;
                }
                Ok(Event::WorkerDied) => {
                    error!("a worker has died: stopping");
                    break ExitCode::FAILURE;
                }
                Ok(event) => {
                    if let Err(error) = self.follow(event).await {
                        self.broker_died(&error).await;
                        break ExitCode::FAILURE;
                    }
                }
                Err(error) => {
                    self.broker_died(&error).await;
                    break ExitCode::FAILURE;
                }
            }
        };
        self.notify.stopping();
        end(&self.reloader, self.workers).await;
        // Last, so that it can answer what is still in flight.
        if let Some(app) = self.app {
            app.stop(APP_STOPS).await;
        }
        code
    }

    async fn next(&mut self) -> io::Result<Event> {
        tokio::select! {
            event = self.signals.next() => Ok(event),
            changed = self.reloader.changed() => changed.map(|()| Event::Reload),
            () = died(&self.workers) => Ok(Event::WorkerDied),
            () = beat(&mut self.beat) => Ok(Event::Beat),
            // Not once all workers are gone, nor where they have nobody to ask.
            Some(question) = self.questions.recv() => Ok(Event::Ask(question)),
        }
    }

    async fn follow(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Reload => {
                self.notify.reloading();
                let done = self.reloader.reload(&self.workers).await;
                self.notify.ready();
                done
            }
            Event::Reopen => self.reloader.reopen_log().await,
            Event::Ask(question) => self.reloader.answer(question).await,
            Event::Beat => {
                self.notify.alive();
                Ok(())
            }
            Event::Drain | Event::Stop | Event::WorkerDied => Ok(()),
        }
    }

    /// Nothing could be reloaded any more, and nobody would notice: whoever started lowport starts it again, whole.
    async fn broker_died(&mut self, error: &io::Error) {
        error!(%error, "the broker has died: draining, then stopping");
        self.drain().await;
    }

    async fn drain(&mut self) {
        self.notify.stopping();
        drain(&mut self.reloader, &mut self.signals, &self.workers).await;
    }
}

/// What the kernel says of a process beside this one.
async fn read_back(broker: &mut Link, pid: u32) -> io::Result<Helper> {
    let state = broker.process(pid).await?;
    Ok(state.ok_or_else(|| format!("nothing is known of process {pid}")))
}

async fn beat(beat: &mut Option<Interval>) {
    match beat {
        Some(beat) => drop(beat.tick().await),
        None => std::future::pending().await,
    }
}

async fn died(workers: &[WorkerHandle]) {
    while !workers.iter().any(|worker| worker.thread.is_finished()) {
        sleep(Duration::from_secs(1)).await;
    }
}

/// Takes no more connections, and waits for those that are there; the second signal ends the wait.
async fn drain(reloader: &mut Reloader, signals: &mut Signals, workers: &[WorkerHandle]) {
    let limit = reloader.shared.live.load().config.timeouts.drain;
    info!(
        ?limit,
        "draining: no new connections, what is in flight may finish"
    );
    for worker in workers {
        let _ = worker.commands.send(Command::Drain);
    }
    let deadline = Instant::now() + limit;
    loop {
        if workers.iter().all(|worker| worker.thread.is_finished()) {
            return info!("drained");
        }
        if Instant::now() >= deadline {
            return warn!(
                ?limit,
                "timeouts.drain has passed: cutting off what is left"
            );
        }
        tokio::select! {
            event = signals.next() => if matches!(event, Event::Drain | Event::Stop) {
                return warn!("told to stop again: cutting off what is left");
            },
            () = sleep(LOOK) => {}
        }
    }
}

/// Ends the workers and writes the last access records.
async fn end(reloader: &Reloader, workers: Vec<WorkerHandle>) {
    let counted = Totals::of(workers.iter().map(|worker| &worker.counters));
    debug!(%counted, "ending");
    let threads: Vec<_> = workers.into_iter().map(|worker| worker.thread).collect();
    let deadline = Instant::now() + Duration::from_secs(2);
    while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
        sleep(LOOK).await;
    }
    Arc::clone(&reloader.shared).log.shutdown();
}
