//! Users, by name or by number.

use std::fmt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, getegid, geteuid};

/// The table of users that every system has, whatever others it may have besides.
pub(super) const PASSWD: &str = "/etc/passwd";

/// The number of the user `name` in [`PASSWD`] alone, for a process whose sandbox holds: what else the C library would
/// ask are modules, which take what they like and abort without it.
pub(super) fn uid_in_passwd(name: &str) -> Option<u32> {
    uid_in(&std::fs::read_to_string(PASSWD).ok()?, name)
}

/// See passwd(5).
fn uid_in(table: &str, name: &str) -> Option<u32> {
    let mut entries = table.lines().map(|line| line.split(':'));
    let mut entry = entries.find_map(|mut entry| (entry.next() == Some(name)).then_some(entry))?;
    entry.nth(1)?.parse().ok()
}

/// Who a process is or becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User number; never `u32::MAX`, which the kernel reads as "no change"
    pub uid: u32,
    /// Group number; never `u32::MAX`
    pub gid: u32,
    /// The login name; `None` for a number that the system has no entry for
    pub name: Option<String>,
    /// The home folder; `None` for a number that the system has no entry for
    pub home: Option<PathBuf>,
}

impl Identity {
    /// Looks up `name`, `uid` or `uid:gid`. A bare uid takes the group of its entry, else the same number.
    ///
    /// # Errors
    /// When there is no such name, a number does not fit, or the system's table of users cannot be read.
    pub fn lookup(written: &str) -> Result<Self, UserError> {
        let (user, group) = match written.split_once(':') {
            Some((user, group)) => (user, Some(number(written, group)?)),
            None => (written, None),
        };
        if group.is_none() && !user.bytes().all(|byte| byte.is_ascii_digit()) {
            return match User::from_name(user) {
                Ok(Some(entry)) => Ok(entry.into()),
                Ok(None) => Err(UserError::Unknown(user.to_owned())),
                Err(errno) => Err(UserError::Table(user.to_owned(), errno)),
            };
        }
        let mut identity = Self::of_uid(number(written, user)?);
        if let Some(group) = group {
            identity.gid = group;
        }
        Ok(identity)
    }

    /// Who this process is right now.
    pub fn current() -> Self {
        Self::of(geteuid().as_raw(), getegid().as_raw())
    }

    /// Who somebody with these numbers is.
    pub fn of(uid: u32, gid: u32) -> Self {
        Self {
            gid,
            ..Self::of_uid(uid)
        }
    }

    /// Refuses uid 0: nothing that faces the network or runs an app should be root.
    ///
    /// # Errors
    /// [`UserError::Root`] for uid 0.
    pub fn refuse_root(&self) -> Result<(), UserError> {
        if self.uid == 0 {
            Err(UserError::Root)
        } else {
            Ok(())
        }
    }

    /// A number needs no entry (containers have none), so a table that cannot be read is no obstacle either.
    fn of_uid(uid: u32) -> Self {
        match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(entry)) => entry.into(),
            _ => Self {
                uid,
                gid: uid,
                name: None,
                home: None,
            },
        }
    }
}

impl From<User> for Identity {
    fn from(entry: User) -> Self {
        Self {
            uid: entry.uid.as_raw(),
            gid: Gid::as_raw(entry.gid),
            name: Some(entry.name),
            home: Some(entry.dir).filter(|home| !home.as_os_str().is_empty()),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (uid {})", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

/// Why there is no such user to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserError {
    /// The system knows no such name
    Unknown(String),
    /// Neither `uid` nor `uid:gid` with numbers from 0 to 4294967294
    Number(String),
    /// The system's table of users cannot be read
    Table(String, Errno),
    /// The sandbox took the system's table of users away before anybody asked for this name
    Closed(String),
    /// It is uid 0
    Root,
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(
                f,
                "there is no user \"{name}\"; make one with: \
                 useradd --system --no-create-home --shell /usr/sbin/nologin {name}"
            ),
            Self::Number(written) => write!(
                f,
                "\"{written}\" is not a user: write a name, a uid or uid:gid, with numbers from 0 to 4294967294"
            ),
            Self::Table(name, errno) => {
                write!(
                    f,
                    "user \"{name}\" cannot be looked up: {errno}; uid:gid needs no look-up"
                )
            }
            Self::Closed(name) => write!(
                f,
                "user \"{name}\" cannot be looked up inside the sandbox, and no broker found it in {PASSWD}"
            ),
            Self::Root => f.write_str(
                "uid 0 is root, which is what lowport is there to avoid; make a user for it with: \
                 useradd --system --no-create-home --shell /usr/sbin/nologin lowport",
            ),
        }
    }
}

impl std::error::Error for UserError {}

/// Whether this process acts as root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Who called sudo, when this is root by way of sudo; `None` when that was root as well.
pub fn sudo_user() -> Option<Identity> {
    let var = |name| std::env::var(name).ok();
    if !is_root() {
        return None;
    }
    from_sudo(&var("SUDO_UID")?, &var("SUDO_GID")?, var("SUDO_USER"))
}

fn from_sudo(uid: &str, gid: &str, name: Option<String>) -> Option<Identity> {
    let identity = Identity::lookup(&format!("{uid}:{gid}")).ok()?;
    let named = identity.name.clone().or(name);
    identity.refuse_root().ok()?;
    Some(Identity {
        name: named,
        ..identity
    })
}

/// `u32::MAX` is left out: setresuid(2) would take it for "leave as it is", which is root.
fn number(written: &str, digits: &str) -> Result<u32, UserError> {
    Some(digits)
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .filter(|number| *number != u32::MAX)
        .ok_or_else(|| UserError::Number(written.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_in_the_table_by_the_whole_name() {
        let table = "root:x:0:0:root:/root:/bin/sh\nnod\nnode:x:1000:1000::/:\nbad:x:y:0\n";
        assert_eq!(uid_in(table, "node"), Some(1000));
        for name in ["nod", "bad", "x", "", "nobody"] {
            assert_eq!(uid_in(table, name), None, "{name}");
        }
        assert_eq!(uid_in_passwd("root"), Some(0));
    }

    #[test]
    fn names_and_numbers_are_found() {
        let nobody = Identity::lookup("nobody").unwrap();
        assert_eq!(nobody.name.as_deref(), Some("nobody"));
        assert!(nobody.home.is_some());
        assert_eq!(Identity::lookup(&nobody.uid.to_string()).unwrap(), nobody);
        let other = Identity::lookup(&format!("{}:7", nobody.uid)).unwrap();
        assert_eq!((other.gid, other.name), (7, nobody.name));
    }

    #[test]
    fn a_number_without_an_entry_is_its_own_group() {
        let identity = Identity::lookup("3123456789").unwrap();
        assert_eq!((identity.uid, identity.gid), (3_123_456_789, 3_123_456_789));
        assert_eq!((identity.name, identity.home), (None, None));
    }

    #[test]
    fn what_is_no_user_is_told_with_the_remedy() {
        let unknown = Identity::lookup("no-such-user-here").unwrap_err();
        assert!(unknown.to_string().contains(
            "useradd --system --no-create-home --shell /usr/sbin/nologin no-such-user-here"
        ));
        for wrong in [
            "",
            ":",
            "1:",
            ":1",
            "1:2:3",
            "+1",
            "+1:2",
            "-1:1",
            "4294967295",
            "1:4294967295",
            "a:b",
        ] {
            assert!(Identity::lookup(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn root_is_refused_by_number() {
        assert_eq!(
            Identity::lookup("0").unwrap().refuse_root(),
            Err(UserError::Root)
        );
        assert_eq!(
            Identity::lookup("0:5").unwrap().refuse_root(),
            Err(UserError::Root)
        );
        assert_eq!(Identity::lookup("nobody").unwrap().refuse_root(), Ok(()));
    }

    #[test]
    fn sudo_names_whoever_is_not_root() {
        let who = from_sudo("3123456789", "20", Some("ada".into())).unwrap();
        assert_eq!(
            (who.uid, who.gid, who.name.as_deref()),
            (3_123_456_789, 20, Some("ada"))
        );
        assert_eq!(from_sudo("0", "0", Some("root".into())), None);
        assert_eq!(from_sudo("x", "20", None), None);
    }
}
