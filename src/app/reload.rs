//! Reloading: a new snapshot, or the reason why the old one stays.

use std::path::PathBuf;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::listeners::Listening;
use crate::config::{self, Mistakes, Source};
use crate::server::{Shared, WorkerHandle};
use crate::snapshot::{Lasting, Snapshot};

/// Everything that a reload may change.
pub(super) struct Reloader {
    pub(super) source: Arc<Source>,
    pub(super) lasting: Lasting,
    pub(super) listening: Listening,
    pub(super) shared: Arc<Shared>,
}

impl Reloader {
    /// Reads everything again and swaps it in whole, or says why not and changes nothing.
    pub(super) fn reload(&mut self, workers: &[WorkerHandle]) {
        let source = match &self.source.path {
            Some(path) => match config::load(Some(path)) {
                Ok(source) => source,
                Err(error) => return refuse(&error.to_string()),
            },
            // Certificates may have changed all the same.
            None => Arc::clone(&self.source),
        };
        match self.prepare(source, workers) {
            Ok(()) => info!(listening = self.listening.describe(), "reloaded"),
            Err(mistakes) => refuse(&mistakes.to_string()),
        }
    }

    fn prepare(&mut self, source: Arc<Source>, workers: &[WorkerHandle]) -> Result<(), Mistakes> {
        let next = Snapshot::load(&source, &self.lasting)?;
        let mistakes = Mistakes::new(Arc::clone(&source));
        let bound = self
            .listening
            .bind_missing(&next.config, workers.len(), &mistakes);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let before = self.shared.live.load_full();
        needs_restart(&before, &next);
        self.shared.log.configure(&next.config.log);
        self.source = source;
        // First what answers, then who asks: a new listener never meets the old table.
        let next = Arc::new(next);
        self.shared.live.store(Arc::clone(&next));
        self.listening.apply(&next.config, bound, workers);
        Ok(())
    }

    /// The files whose change is a reason to reload. None in dev mode, which reads everything anew each time it starts.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        if self.lasting.dev {
            return Vec::new();
        }
        let snapshot = self.shared.live.load();
        let certificates = snapshot
            .config
            .certificates
            .iter()
            .flat_map(|files| [files.cert.clone(), files.key.clone()]);
        self.source
            .path
            .iter()
            .cloned()
            .chain(certificates)
            .collect()
    }
}

fn refuse(why: &str) {
    error!(
        "reload refused, the old configuration goes on serving:\n{}",
        why.trim_end()
    );
}

fn needs_restart(before: &Snapshot, next: &Snapshot) {
    if before.config.server.workers != next.config.server.workers {
        warn!("server.workers has changed: that takes a restart");
    }
    if before.config.server.user.name != next.config.server.user.name {
        warn!("server.user has changed: that takes a restart");
    }
    let command = |snapshot: &Snapshot| {
        snapshot
            .config
            .app
            .as_ref()
            .map(|app| (app.command.clone(), app.port))
    };
    if command(before) != command(next) {
        warn!("[app] has changed: that takes a restart");
    }
}
