//! Reloading: a new snapshot, or the reason why the old one stays.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::listeners::Listening;
use super::sandbox;
use crate::config::{App, Config, Mistakes, Sandbox};
use crate::privilege::{Bound, Link, Loaded, Needs, Question};
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
        self.lasting.learn(&loaded.users);
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
        for what in needs_restart(&self.shared.live.load().config, &next.config) {
            warn!("{what} has changed: that takes a restart");
        }
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

    /// Answers a worker's question about a process.
    ///
    /// # Errors
    /// The broker is gone.
    pub(super) async fn answer(&mut self, question: Question) -> io::Result<()> {
        let known = match &mut self.broker {
            Some(broker) => broker.process(question.pid).await?,
            None => None,
        };
        // Whoever asked may be gone.
        let _ = question.answer.send(known);
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

/// What has changed and does not change with a reload. Where something is written makes no difference.
fn needs_restart(before: &Config, next: &Config) -> Vec<&'static str> {
    let app = |config: &Config| {
        let App {
            command,
            dir,
            user,
            listens,
            sandbox,
            span: _,
        } = config.app.clone()?;
        let user = user.map(|user| user.name);
        Some((command, dir, user, listens, sandbox))
    };
    let sandbox = |config: &Config| {
        let Sandbox {
            connect,
            bind,
            read,
            allow_degraded,
        } = config.sandbox.clone();
        let read: Vec<PathBuf> = read.into_iter().map(|(folder, _)| folder).collect();
        (connect, bind, read, allow_degraded)
    };
    [
        (
            "server.workers",
            before.server.workers != next.server.workers,
        ),
        (
            "server.user",
            before.server.user.name != next.server.user.name,
        ),
        ("[app]", app(before) != app(next)),
        ("[sandbox]", sandbox(before) != sandbox(next)),
    ]
    .into_iter()
    .filter_map(|(what, has_changed)| has_changed.then_some(what))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, parse};

    fn config(text: &str) -> Config {
        let source = Source::of_text("t", text);
        let mistakes = Mistakes::new(Arc::clone(&source));
        let config = parse(&source, &mistakes);
        assert!(mistakes.is_empty(), "{mistakes}");
        config
    }

    #[test]
    fn what_a_reload_does_not_change_is_told() {
        let app = "[app]\ncommand = \"node\"\n";
        let before = config(app);
        for (text, told) in [
            (app.to_owned(), None),
            (format!("\n{app}[limits]\nstreams = 10\n"), None),
            (
                format!("[server]\nworkers = 77\n{app}"),
                Some("server.workers"),
            ),
            (
                format!("[server]\nuser = \"7\"\n{app}"),
                Some("server.user"),
            ),
            ("[app]\ncommand = \"bun\"\n".to_owned(), Some("[app]")),
            (format!("{app}port = 3001\n"), Some("[app]")),
            (format!("{app}dir = \"app\"\n"), Some("[app]")),
            (format!("{app}user = \"7\"\n"), Some("[app]")),
            (format!("{app}sandbox = false\n"), Some("[app]")),
            ("[[route]]\nrespond = \"\"\n".to_owned(), Some("[app]")),
            (
                format!("{app}[sandbox]\nconnect = 3001\n"),
                Some("[sandbox]"),
            ),
            (format!("{app}[sandbox]\nbind = 8080\n"), Some("[sandbox]")),
            (
                format!("{app}[sandbox]\nread = [\"/x\"]\n"),
                Some("[sandbox]"),
            ),
            (
                format!("{app}[sandbox]\nallow_degraded = [\"seccomp\"]\n"),
                Some("[sandbox]"),
            ),
        ] {
            let found = needs_restart(&before, &config(&text));
            assert_eq!(found, Vec::from_iter(told), "{text}");
        }
    }
}
