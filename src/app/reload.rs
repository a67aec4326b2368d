//! Reloading: a new snapshot, or the reason why the old one stays.

use std::io;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::listeners::Listening;
use super::sandbox;
use crate::config::Mistakes;
use crate::privilege::{Bound, Link, Loaded, Needs};
use crate::server::{Shared, WorkerHandle};
use crate::snapshot::{Lasting, Snapshot};

/// Everything that a reload may change.
pub(super) struct Reloader {
    pub(super) lasting: Lasting,
    pub(super) listening: Listening,
    pub(super) shared: Arc<Shared>,
    /// `None` in dev mode, which reads everything anew each time it starts
    pub(super) broker: Option<Link>,
    /// What the sandbox lets through; `None` without one
    pub(super) needs: Option<Needs>,
}

impl Reloader {
    /// Waits until there is a reason to reload. Safe to cancel.
    ///
    /// # Errors
    /// The broker is gone.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        match &mut self.broker {
            Some(broker) => broker.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Reads everything again and swaps it in whole, or says why not and changes nothing.
    ///
    /// # Errors
    /// The broker is gone.
    pub(super) async fn reload(&mut self, workers: &[WorkerHandle]) -> io::Result<()> {
        let Some(broker) = &mut self.broker else {
            warn!("`lowport dev` has nothing to reload: start it again");
            return Ok(());
        };
        let refused = match broker.reload(self.listening.bound()).await? {
            Ok(loaded) => match self.prepare(&loaded) {
                Ok(next) => return self.swap(next, loaded, workers).await,
                Err(mistakes) => mistakes.to_string(),
            },
            Err(why) => why,
        };
        error!(
            "reload refused, the old configuration goes on serving:\n{}",
            refused.trim_end()
        );
        Ok(())
    }

    fn prepare(&self, loaded: &Loaded) -> Result<Snapshot, Mistakes> {
        let next = Snapshot::load(&loaded.source, &self.lasting)?;
        let mistakes = Mistakes::new(Arc::clone(&loaded.source));
        self.listening.check(&next.config, &mistakes);
        if let Some(needs) = &self.needs {
            sandbox::check(needs, &next.config, &mistakes);
        }
        if mistakes.is_empty() {
            Ok(next)
        } else {
            Err(mistakes)
        }
    }

    async fn swap(
        &mut self,
        next: Snapshot,
        loaded: Loaded,
        workers: &[WorkerHandle],
    ) -> io::Result<()> {
        needs_restart(&self.shared.live.load(), &next);
        let log = &next.config.log;
        if !self.shared.log.needs_file(log) {
            self.shared.log.configure(log, None);
        } else if let Some(broker) = &mut self.broker {
            match broker.log().await? {
                Ok(file) => self.shared.log.configure(log, Some(file)),
                Err(why) => error!("cannot open the access log, keeping the one before: {why}"),
            }
        }
        // First what answers, then who asks: a new listener never meets the old table.
        let next = Arc::new(next);
        self.shared.live.store(Arc::clone(&next));
        let bound = loaded.sockets.into_iter();
        let bound = bound.map(|(addr, tls, sockets)| Bound { addr, tls, sockets });
        self.listening.apply(&next.config, bound.collect(), workers);
        info!(listening = self.listening.describe(), "reloaded");
        Ok(())
    }

    /// Opens the access log anew, for when it was renamed.
    ///
    /// # Errors
    /// The broker is gone.
    pub(super) async fn reopen_log(&mut self) -> io::Result<()> {
        let log = &self.shared.log;
        if let Some(broker) = self.broker.as_mut().filter(|_| log.is_file()) {
            match broker.log().await? {
                Ok(file) => log.reopen(file),
                Err(why) => error!("cannot reopen the access log, keeping the renamed one: {why}"),
            }
        }
        Ok(())
    }
}

fn needs_restart(before: &Snapshot, next: &Snapshot) {
    if before.config.server.workers != next.config.server.workers {
        warn!("server.workers has changed: that takes a restart");
    }
    if before.config.server.user.name != next.config.server.user.name {
        warn!("server.user has changed: that takes a restart");
    }
    let command = |snapshot: &Snapshot| {
        let app = snapshot.config.app.as_ref();
        app.map(|app| (app.command.clone(), app.listens.clone()))
    };
    if command(before) != command(next) {
        warn!("[app] has changed: that takes a restart");
    }
}
