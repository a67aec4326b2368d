//! Which addresses are listened on, and how a reload changes that.

use std::net::SocketAddr;

use crate::config::{Config, Mistake, Mistakes};
use crate::privilege::Bound;
use crate::server::{Command, WorkerHandle};

/// The addresses that are bound, and whether TLS is spoken there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Listening(Vec<(SocketAddr, bool)>);

impl Listening {
    /// The addresses that are bound, and whether TLS is spoken there.
    pub(super) fn bound(&self) -> Vec<(SocketAddr, bool)> {
        self.0.clone()
    }

    /// Whether `config` could take over from what is bound.
    pub(super) fn check(&self, config: &Config, mistakes: &Mistakes) {
        for (listener, tls) in config.listeners() {
            // The same socket cannot be bound twice, and handing it over would mix the two protocols.
            if self
                .0
                .iter()
                .any(|(addr, was)| *addr == listener.addr && *was != tls)
            {
                mistakes.push(
                    Mistake::new(
                        listener.span.clone(),
                        format!("{} cannot change between plaintext and TLS in a reload", listener.addr),
                    )
                    .help("restart lowport, or take the address out and put it back in with two reloads"),
                );
            }
        }
    }

    /// Hands new sockets to the workers and has them close what `config` no longer wants.
    pub(super) fn apply(&mut self, config: &Config, bound: Vec<Bound>, workers: &[WorkerHandle]) {
        let gone: Vec<SocketAddr> = self
            .0
            .iter()
            .map(|(addr, _)| *addr)
            .filter(|addr| {
                !config
                    .listeners()
                    .any(|(listener, _)| listener.addr == *addr)
            })
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
