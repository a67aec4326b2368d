//! One process of a running lowport: what it is there for, and what is to be seen of it.

use std::io;

use serde_json::{Value, json};

use super::check::{Check, checks};
use super::finding::Place;
use super::process::Process;
use super::socket::{Address, Listeners, addresses};
use crate::privilege::process::dumpable;
use crate::privilege::status::{TaskState, tasks, threads_json};
use crate::privilege::{Broker, Capability, Identity};

/// Why Landlock is not told: the kernel shows it to nobody.
pub(super) const LANDLOCK: &str = "not to be seen from outside: `lowport -v run` tells";

/// What a process of an instance is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Serves: nobody, with nothing
    Worker,
    /// Reads keys and binds ports for the worker: root, with two capabilities and nothing else
    Broker,
    /// Starts the app: the app's user, with nothing
    Supervisor,
    /// What the supervisor started, and what that started
    App,
}

impl Role {
    /// By its name. What those started is to be known by them.
    pub(super) fn of(process: &Process) -> Self {
        match process.name.as_str() {
            "lowport-broker" => Self::Broker,
            "lowport-app" => Self::Supervisor,
            _ => Self::Worker,
        }
    }

    /// Its name in either output.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Broker => "broker",
            Self::Supervisor => "supervisor",
            Self::App => "app",
        }
    }

    /// The capabilities that it may use.
    pub(super) fn allowed(self) -> u64 {
        match self {
            Self::Broker => u64::from(Capability::set(Broker::KEPT)),
            Self::Worker | Self::Supervisor | Self::App => 0,
        }
    }
}

/// One process of an instance.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) role: Role,
    pub(super) pid: u32,
    pub(super) name: String,
    /// Whether that is one of lowport's
    pub(super) is_lowport: bool,
    /// Whether its lowport is for developing: `lowport dev` keeps no system calls from the app
    pub(super) develops: bool,
    /// In the order of their ids; why not, where this user is not shown them
    pub(super) threads: Result<Vec<TaskState>, String>,
    /// Whether others of its user may read its memory; `None` where that is not to be seen
    pub(super) dumpable: Option<bool>,
    /// Why not, where this user may not look
    pub(super) listeners: Result<Vec<Address>, String>,
}

impl Member {
    /// Looks at a process; `None` if it ended in the meantime.
    pub(super) fn look(process: &Process, role: Role, listeners: &mut Listeners) -> Option<Self> {
        let threads = match tasks(process.pid) {
            Ok(threads) if threads.is_empty() => return None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            threads => threads.map_err(|error| error.to_string()),
        };
        let dumpable = dumpable(process.pid, process.state.uids[1]);
        let held = listeners.held_by(process);
        Some(Self {
            role,
            pid: process.pid,
            name: process.name.clone(),
            is_lowport: process.is_lowport(),
            develops: false,
            threads,
            dumpable,
            listeners: match held {
                Ok(held) => Ok(addresses(held.iter().map(|(_, listener)| listener))),
                Err(_) if dumpable == Some(false) => {
                    Err("it is undumpable, so only root may look".to_owned())
                }
                Err(error) => Err(error.to_string()),
            },
        })
    }

    /// One that is there and not shown.
    pub(super) fn hidden(pid: u32, why: &str) -> Self {
        Self {
            role: Role::Worker,
            pid,
            name: "hidden".to_owned(),
            is_lowport: true,
            develops: false,
            threads: Err(why.to_owned()),
            dumpable: None,
            listeners: Err(why.to_owned()),
        }
    }

    /// The state that is judged: its first thread's.
    pub(super) fn state(&self) -> Option<&TaskState> {
        self.threads.as_ref().ok()?.first()
    }

    /// Who runs it.
    pub(super) fn identity(&self) -> Option<Identity> {
        let state = self.state()?;
        Some(Identity::of(state.uids[1], state.gids[1]))
    }

    /// Where a finding about it is.
    pub(super) fn place(&self) -> Place {
        Place::Process {
            pid: self.pid,
            name: self.name.clone(),
        }
    }

    /// For programs: every fact; `open` with what is not as it should be.
    pub(super) fn to_json(&self) -> Value {
        let identity = self.identity();
        let open = checks(self)
            .iter()
            .filter_map(Check::wrong)
            .collect::<Value>();
        let mut json = json!({
            "role": self.role.name(),
            "pid": self.pid,
            "name": self.name,
            "user": identity.as_ref().and_then(|identity| identity.name.clone()),
            "uid": identity.as_ref().map(|identity| identity.uid),
            "gid": identity.as_ref().map(|identity| identity.gid),
            "threads": threads_json(&self.threads),
            "dumpable": self.dumpable,
            "listeners": match &self.listeners {
                Ok(addresses) => addresses.iter().map(Address::to_string).collect(),
                Err(why) => json!({ "unknown": why }),
            },
            "open": open,
        });
        if matches!(self.role, Role::Worker | Role::Broker) {
            json["landlock"] = json!({ "unknown": LANDLOCK });
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_looked_at_as_if_it_were_one() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let process = Process::read(std::process::id()).unwrap();
        let member = Member::look(&process, Role::App, &mut Listeners::here()).unwrap();
        assert!(member.listeners.as_ref().unwrap().contains(&address));
        let json = member.to_json();
        assert_eq!(json["role"], "app");
        assert_eq!(json["uid"], nix::unistd::geteuid().as_raw());
        assert_eq!(json["threads"][0]["tid"], std::process::id());
        assert!(json["landlock"].is_null());
        let gone = super::super::testing::process(u32::MAX, 1, "lowport");
        assert!(Member::look(&gone, Role::Worker, &mut Listeners::here()).is_none());
    }

    #[test]
    fn what_is_hidden_is_unknown_in_every_field() {
        let json = Member::hidden(9, "not shown").to_json();
        assert_eq!(json["threads"]["unknown"], "not shown");
        assert_eq!(json["listeners"]["unknown"], "not shown");
        assert!(json["uid"].is_null() && json["dumpable"].is_null());
        assert_eq!(json["open"].as_array().unwrap().len(), 1, "{json}");
    }
}
