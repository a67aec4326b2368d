//! Which addresses are listened on, and how a reload changes that.

use std::net::SocketAddr;

use crate::config::{Config, Listener, Mistakes};
use crate::server::{Bound, Command, WorkerHandle, bind};

/// The addresses that are bound, and whether TLS is spoken there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Listening(Vec<(SocketAddr, bool)>);

impl Listening {
    /// What `config` wants bound that is not yet. Every address that cannot be had is a mistake.
    pub(super) fn bind_missing(
        &self,
        config: &Config,
        workers: usize,
        mistakes: &Mistakes,
    ) -> Vec<Bound> {
        wanted(config)
            .filter(|(listener, tls)| !self.0.iter().any(|(addr, _)| *addr == listener.addr) || self.changes(listener, *tls))
            .filter_map(|(listener, tls)| {
                if self.changes(listener, tls) {
                    // The same socket cannot be bound twice, and handing it over would mix the two protocols.
                    mistakes.push(crate::config::Mistake::new(
                        listener.span.clone(),
                        format!("{} cannot change between plaintext and TLS in a reload", listener.addr),
                    ).help("restart lowport, or take the address out and put it back in with two reloads"));
                    return None;
                }
                bind(listener, tls, workers, mistakes)
            })
            .collect()
    }

    fn changes(&self, listener: &Listener, tls: bool) -> bool {
        self.0
            .iter()
            .any(|(addr, was)| *addr == listener.addr && *was != tls)
    }

    /// Hands new sockets to the workers and has them close what `config` no longer wants.
    pub(super) fn apply(&mut self, config: &Config, bound: Vec<Bound>, workers: &[WorkerHandle]) {
        let gone: Vec<SocketAddr> = self
            .0
            .iter()
            .filter(|(addr, _)| !wanted(config).any(|(listener, _)| listener.addr == *addr))
            .map(|(addr, _)| *addr)
            .collect();
        for addr in gone {
            self.0.retain(|(kept, _)| *kept != addr);
            for worker in workers {
                // A worker that is gone accepts nothing anyway.
                let _ = worker.commands.send(Command::Close(addr));
            }
        }
        for Bound { addr, tls, sockets } in bound {
            self.0.push((addr, tls));
            for (worker, socket) in workers.iter().zip(sockets) {
                let _ = worker.commands.send(Command::Listen { addr, tls, socket });
            }
        }
    }

    /// For people: `http://…, https://…`.
    pub(super) fn describe(&self) -> String {
        let list: Vec<String> = self
            .0
            .iter()
            .map(|(addr, tls)| format!("{}://{addr}", if *tls { "https" } else { "http" }))
            .collect();
        list.join(", ")
    }
}

fn wanted(config: &Config) -> impl Iterator<Item = (&Listener, bool)> {
    let http = config.server.http.iter().map(|listener| (listener, false));
    let https = config.server.https.iter().map(|listener| (listener, true));
    http.chain(https)
}
