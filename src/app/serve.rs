//! Serving: signals, reloads, and the way out.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::boot::Ready;
use super::reload::Reloader;
use crate::child::Supervisor;
use crate::config::Watch;
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
    Changed,
    Drain,
    Stop,
    Reopen,
    WorkerDied,
}

struct Signals {
    hup: Signal,
    term: Signal,
    quit: Signal,
    int: Signal,
    usr1: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            term: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            int: signal(SignalKind::interrupt())?,
            usr1: signal(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.int.recv() => Event::Stop,
            _ = self.term.recv() => Event::Drain,
            _ = self.quit.recv() => Event::Drain,
            _ = self.hup.recv() => Event::Reload,
            _ = self.usr1.recv() => Event::Reopen,
        }
    }
}

async fn attend(ready: Ready) -> ExitCode {
    let Ready {
        mut reloader,
        workers,
        supervisor,
        on_ready,
    } = ready;
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "cannot listen to signals");
            return ExitCode::FAILURE;
        }
    };
    let mut watch = Watch::new(reloader.files());
    let app = match supervisor.map(Supervisor::follow).transpose() {
        Ok(app) => app,
        Err(error) => {
            error!(%error, "cannot follow the app's supervisor");
            return ExitCode::FAILURE;
        }
    };
    info!(
        listening = reloader.listening.describe(),
        workers = workers.len(),
        routes = reloader.shared.live.load().config.routes.len(),
        "ready"
    );
    on_ready();
    let code = loop {
        let event = tokio::select! {
            event = signals.next() => event,
            () = watch.changed() => Event::Changed,
            () = died(&workers) => Event::WorkerDied,
        };
        match event {
            Event::Reload | Event::Changed => {
                reloader.reload(&workers);
                watch.follow(reloader.files());
            }
            Event::Reopen => reloader.shared.log.reopen(),
            Event::Drain => {
                drain(&mut reloader, &mut signals, &workers).await;
                break ExitCode::SUCCESS;
            }
            Event::Stop => {
                info!("stopping at once");
                break ExitCode::SUCCESS;
            }
            Event::WorkerDied => {
                error!("a worker has died: stopping");
                break ExitCode::FAILURE;
            }
        }
    };
    end(&reloader, workers).await;
    // Last, so that it can answer what is still in flight.
    if let Some(app) = app {
        app.stop(APP_STOPS).await;
    }
    code
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
    let threads: Vec<_> = workers.into_iter().map(|worker| worker.thread).collect();
    let deadline = Instant::now() + Duration::from_secs(2);
    while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
        sleep(LOOK).await;
    }
    Arc::clone(&reloader.shared).log.shutdown();
}
