//! On whose behalf lowport runs: whose authority `dev` uses, who runs the app, and who the proxy becomes.

use std::path::PathBuf;

use nix::sys::wait::{WaitStatus, waitpid};

use crate::console;
use crate::privilege::{self, Fork, Identity};

/// The proxy's own identity without a configuration where the machine has no user for it. Numbers need no account.
const NOBODY_ELSE: &str = "65532:65532";
/// Root's own authority is the machine's.
const ROOT_DATA: &str = "/var/lib/lowport/dev";

/// The invoking user.
#[derive(Debug)]
pub(super) enum Owner {
    /// An ordinary user, who is also who runs everything
    User,
    /// Somebody through sudo
    Sudo(Identity),
    /// Root itself
    Root,
}

impl Owner {
    /// Who started this process.
    ///
    /// # Errors
    /// Where sudo names a user that is not there.
    pub(super) fn invoking() -> Result<Self, String> {
        if !privilege::is_root() {
            return Ok(Self::User);
        }
        Ok(privilege::sudo_user().map_or(Self::Root, Self::Sudo))
    }

    /// Where the authority is kept.
    ///
    /// # Errors
    /// Where nobody says where home is.
    pub(super) fn data_folder(&self) -> Result<PathBuf, String> {
        let home = match self {
            Self::Root => return Ok(PathBuf::from(ROOT_DATA)),
            Self::Sudo(identity) => identity.home.clone(),
            Self::User => {
                let absolute = |name| {
                    std::env::var_os(name)
                        .map(PathBuf::from)
                        .filter(|path| path.is_absolute())
                };
                if let Some(data) = absolute("XDG_DATA_HOME") {
                    return Ok(data.join("lowport"));
                }
                absolute("HOME")
            }
        };
        let home = home.ok_or(
            "there is no home folder to keep the certificate authority in: set XDG_DATA_HOME",
        )?;
        Ok(home.join(".local/share/lowport"))
    }

    /// The browsers' certificate stores: Chromium's and Firefox's.
    pub(super) fn nss_stores(&self) -> Vec<PathBuf> {
        let home = match self {
            Self::Sudo(identity) => identity.home.clone(),
            _ => std::env::var_os("HOME").map(PathBuf::from),
        };
        let Some(home) = home else { return Vec::new() };
        let profiles = std::fs::read_dir(home.join(".mozilla/firefox"));
        let profiles = profiles
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        [".pki/nssdb", ".local/share/pki/nssdb"]
            .into_iter()
            .map(|store| home.join(store))
            .chain(profiles)
            .filter(|store| store.join("cert9.db").is_file())
            .collect()
    }

    /// Does something to the owner's files as the owner, not as root: a link in a user's home must not lead root
    /// anywhere.
    ///
    /// # Errors
    /// What `action` says, or that there can be no process for it.
    pub(super) fn act(&self, action: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let Self::Sudo(identity) = self else {
            return action();
        };
        match privilege::fork().map_err(|error| format!("cannot fork: {error}"))? {
            Fork::Parent(child) => match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) => Ok(()),
                // It has said why.
                Ok(_) => Err(format!("that failed as {identity}")),
                Err(error) => Err(format!("cannot wait for a child: {error}")),
            },
            Fork::Child => {
                let done = privilege::become_user(identity)
                    .map_err(|error| format!("cannot become {identity}: {error}"));
                let done = done.and_then(|()| action());
                if let Err(error) = &done {
                    console::err(format_args!("lowport: {error}\n"));
                }
                privilege::exit_now(u8::from(done.is_err()))
            }
        }
    }

    /// Who the proxy becomes; `None` where it stays who it is.
    pub(super) fn proxy_user(&self) -> Option<String> {
        match self {
            Self::User => None,
            Self::Sudo(_) | Self::Root if Identity::lookup("lowport").is_ok() => {
                Some("lowport".to_owned())
            }
            Self::Sudo(_) | Self::Root => Some(NOBODY_ELSE.to_owned()),
        }
    }

    /// Who runs the app in development: never root.
    ///
    /// # Errors
    /// Where root has no other user to give it to.
    pub(super) fn app_user(&self) -> Result<Option<String>, String> {
        match self {
            Self::User => Ok(None),
            Self::Sudo(_) | Self::Root => match self.app_user_if_any().or_else(|| user("nobody")) {
                Some(user) => Ok(Some(user)),
                None => {
                    Err("there is no user to run the app: `useradd --create-home node`".to_owned())
                }
            },
        }
    }

    /// Who runs an app that nobody was named for: never root, and never somebody who runs other things as well.
    /// `None` where it stays who it is, and where root has nobody.
    pub(super) fn app_user_if_any(&self) -> Option<String> {
        match self {
            Self::User => None,
            Self::Sudo(identity) => Some(
                identity
                    .name
                    .clone()
                    .unwrap_or_else(|| format!("{}:{}", identity.uid, identity.gid)),
            ),
            Self::Root => user("node"),
        }
    }
}

/// The name, if it is somebody's who is not root.
fn user(name: &str) -> Option<String> {
    let found = Identity::lookup(name).is_ok_and(|identity| identity.refuse_root().is_ok());
    found.then(|| name.to_owned())
}
