//! The environment that the app starts with.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::running::App;
use crate::config::AppAddr;

/// What our own service manager tells us, which is not for the app.
const OURS: [&str; 6] = [
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// `inherited`, and where to listen, who the app is, what it may trust, and whether its lines may have colours.
pub(super) fn environment(
    app: &App,
    inherited: impl Iterator<Item = (OsString, OsString)>,
    colorful: bool,
) -> BTreeMap<OsString, OsString> {
    let mut all: BTreeMap<OsString, OsString> = inherited
        .filter(|(name, _)| !OURS.iter().any(|ours| name == ours))
        .collect();
    if let Some(user) = &app.spec.user {
        all.retain(|name, _| {
            let name = name.as_encoded_bytes();
            !name.starts_with(b"SUDO_") && !name.starts_with(b"XDG_") && name != b"MAIL"
        });
        let home = user.home.as_deref().unwrap_or("/".as_ref());
        all.insert("HOME".into(), home.into());
        for name in ["USER", "LOGNAME"] {
            match &user.name {
                Some(user) => all.insert(name.into(), user.into()),
                None => all.remove(&OsString::from(name)),
            };
        }
    }
    all.insert("PATH".into(), app.path.clone());
    match &app.spec.listens {
        AppAddr::Port(port) => {
            all.insert("PORT".into(), port.to_string().into());
            all.insert("HOST".into(), "127.0.0.1".into());
        }
        AppAddr::Socket(path) => {
            all.insert("PORT".into(), path.into());
            // A name that was inherited has nothing to do with it.
            all.remove(&OsString::from("HOST"));
        }
    }
    // Node takes one file: if there is one already, the app may need it to reach the outside.
    if let Some(ca) = &app.spec.extra_ca {
        all.entry("NODE_EXTRA_CA_CERTS".into())
            .or_insert_with(|| ca.into());
    }
    // The app's outputs are pipes, so it cannot see for itself that they end at a terminal.
    if colorful {
        all.entry("FORCE_COLOR".into())
            .or_insert_with(|| "1".into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::supervisor::AppSpec;
    use super::*;
    use crate::privilege::Identity;

    fn of(user: Option<Identity>, inherited: &[&str]) -> Vec<String> {
        listening(AppAddr::Port(3000), user, inherited)
    }

    fn listening(listens: AppAddr, user: Option<Identity>, inherited: &[&str]) -> Vec<String> {
        let app = App {
            spec: AppSpec {
                command: vec!["node".into()],
                dir: "/".into(),
                user,
                listens,
                extra_ca: Some("/ca.pem".into()),
                longest_pause: std::time::Duration::from_secs(30),
            },
            path: "/bin".into(),
        };
        let inherited = inherited
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.into(), value.into()));
        environment(&app, inherited, true)
            .into_iter()
            .map(|(name, value)| format!("{}={}", name.to_str().unwrap(), value.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn the_app_is_told_where_to_listen_and_not_what_is_ours() {
        let inherited = [
            "A=b",
            "PORT=1",
            "HOME=/root",
            "LISTEN_FDS=2",
            "NOTIFY_SOCKET=/x",
        ];
        let expected = [
            "A=b",
            "FORCE_COLOR=1",
            "HOME=/root",
            "HOST=127.0.0.1",
            "NODE_EXTRA_CA_CERTS=/ca.pem",
            "PATH=/bin",
            "PORT=3000",
        ];
        assert_eq!(of(None, &inherited), expected);
    }

    #[test]
    fn a_socket_is_a_port_without_a_host() {
        let socket = AppAddr::Socket("/run/app.sock".into());
        let all = listening(socket, None, &["HOST=box", "PORT=1"]);
        assert!(all.contains(&"PORT=/run/app.sock".to_owned()), "{all:?}");
        assert!(!all.iter().any(|pair| pair.starts_with("HOST=")), "{all:?}");
    }

    #[test]
    fn another_user_gets_its_own_home_and_nothing_of_sudo() {
        let ada = Identity {
            uid: 5,
            gid: 5,
            name: Some("ada".into()),
            home: Some("/home/ada".into()),
        };
        let inherited = [
            "HOME=/root",
            "USER=root",
            "SUDO_UID=5",
            "XDG_RUNTIME_DIR=/run/user/0",
            "MAIL=/x",
            "NODE_EXTRA_CA_CERTS=/own.pem",
            "FORCE_COLOR=0",
        ];
        let expected = [
            "FORCE_COLOR=0",
            "HOME=/home/ada",
            "HOST=127.0.0.1",
            "LOGNAME=ada",
            "NODE_EXTRA_CA_CERTS=/own.pem",
            "PATH=/bin",
            "PORT=3000",
            "USER=ada",
        ];
        assert_eq!(of(Some(ada), &inherited), expected);
        let number = Identity {
            uid: 5,
            gid: 5,
            name: None,
            home: None,
        };
        let all = of(Some(number), &["USER=root", "LOGNAME=root", "HOME=/root"]);
        assert!(all.contains(&"HOME=/".to_owned()));
        assert!(!all.iter().any(|pair| pair.contains("root")), "{all:?}");
    }
}
