//! `lowport dev` where nobody else is: a network of its own, so that 80 and 443 are free, and accounts of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};

use super::lowport::BINARY;
use super::{Lowport, client, folder, is_root, node, open_to_all, port_after};

/// The developer's account in a room.
pub(crate) const DEVELOPER: u32 = 12_345;

/// Who starts lowport.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// An ordinary user: the room's developer, or whoever runs the tests where that is not root
    User,
    /// The developer through sudo
    Sudo,
    /// Root itself
    Root,
}

/// A folder with an app and a home, and what the processes started from it see of the machine.
pub(crate) struct Room {
    folder: tempfile::TempDir,
    /// Where the app is
    pub(crate) app: PathBuf,
    /// More lines of /etc/passwd
    pub(crate) accounts: &'static str,
    /// From which port on everybody may listen
    pub(crate) first_port: u16,
}

/// Whether this process may make namespaces; an ordinary user has to do without.
pub(crate) fn has_namespaces() -> bool {
    is_root()
        && run(&[
            "unshare", "--net", "--mount", "ip", "link", "set", "lo", "up",
        ])
}

fn run(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What is done in the new namespaces before lowport takes the place of the shell. The binary may lie where the
/// developer may not go, so it is shown in the room.
const FURNISH: &str = r#"set -e
test -z "$OWN_NET" || { ip link set lo up; echo "$FIRST_PORT" > /proc/sys/net/ipv4/ip_unprivileged_port_start; }
mount --bind "$ROOM/passwd" /etc/passwd
mount -t tmpfs tmpfs /var/lib
mount --bind "$BINARY" "$ROOM/lowport"
unset ROOM BINARY OWN_NET FIRST_PORT
exec "$@""#;

impl Room {
    /// With an empty folder for the app.
    pub(crate) fn new() -> Self {
        let folder = folder();
        for name in ["app", "home"] {
            std::fs::create_dir(folder.path().join(name)).expect("made");
            open_to_all(&folder.path().join(name));
        }
        if is_root() {
            let owner = Some(DEVELOPER);
            std::os::unix::fs::chown(folder.path().join("home"), owner, owner).expect("given away");
        }
        Self {
            app: folder.path().join("app"),
            folder,
            accounts: "",
            first_port: 1024,
        }
    }

    /// With the sample app.
    pub(crate) fn sample() -> Self {
        let room = Self::new();
        node::copy(&node::sample(), &room.app);
        room
    }

    /// With one file, `server.js`.
    pub(crate) fn script(text: &str) -> Self {
        let room = Self::new();
        room.write("server.js", text);
        room
    }

    /// Writes a file of the app.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let file = self.app.join(name);
        std::fs::write(&file, text).expect("written");
        open_to_all(&file);
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The developer's.
    pub(crate) fn home(&self) -> PathBuf {
        self.path().join("home")
    }

    /// lowport with these arguments, in a network of its own unless `net` is false.
    pub(crate) fn command(&self, who: Who, net: bool, args: &[&str]) -> Command {
        let mut command = if is_root() {
            self.furnished(who, net)
        } else {
            assert!(who == Who::User, "it takes root to be root");
            Command::new(BINARY)
        };
        command.args(args);
        for name in [
            "NODE_EXTRA_CA_CERTS",
            "XDG_DATA_HOME",
            "SUDO_UID",
            "SUDO_GID",
            "SUDO_USER",
        ] {
            command.env_remove(name);
        }
        match who {
            Who::User => command.env("HOME", self.home()),
            Who::Sudo => command
                .env("SUDO_UID", DEVELOPER.to_string())
                .env("SUDO_GID", DEVELOPER.to_string())
                .env("SUDO_USER", "developer"),
            Who::Root => &mut command,
        };
        command
    }

    fn furnished(&self, who: Who, net: bool) -> Command {
        let passwd = format!(
            "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/sh\n\
             developer:x:{DEVELOPER}:{DEVELOPER}::{}:/bin/sh\n{}",
            self.home().display(),
            self.accounts
        );
        std::fs::write(self.path().join("passwd"), passwd).expect("written");
        File::create(self.path().join("lowport")).expect("made");
        let mut command = Command::new("unshare");
        if net {
            command.arg("--net").env("OWN_NET", "1");
        }
        command
            .args(["--mount", "sh", "-c", FURNISH, "sh"])
            .env("ROOM", self.path())
            .env("BINARY", BINARY)
            .env("FIRST_PORT", self.first_port.to_string());
        if who == Who::User {
            let (uid, gid) = (
                format!("--reuid={DEVELOPER}"),
                format!("--regid={DEVELOPER}"),
            );
            command.args(["setpriv", &uid, &gid, "--clear-groups"]);
        }
        command.arg(self.path().join("lowport"));
        command
    }

    /// Starts `lowport dev` and waits until it listens.
    pub(crate) fn dev(self, who: Who) -> Dev {
        let app = self.app.clone();
        let command = self.command(who, true, &["dev", app.to_str().expect("UTF-8")]);
        Dev::start(self, who, command)
    }
}

/// A running `lowport dev`.
pub(crate) struct Dev {
    pub(crate) lowport: Lowport,
    pub(crate) room: Room,
}

impl Dev {
    /// Starts it and reads the ports that it tells a person.
    pub(crate) fn start(room: Room, who: Who, mut command: Command) -> Self {
        let mut lowport = Lowport::spawn(&mut command);
        lowport.wait_for("cert trust");
        lowport.https = told(&lowport, "https", 443);
        lowport.http = told(&lowport, "http", 80);
        let ca = match who {
            Who::User | Who::Sudo => room.home().join(".local/share/lowport/ca.pem"),
            Who::Root => {
                let root = PathBuf::from(format!("/proc/{}/root", lowport.pid()));
                root.join("var/lib/lowport/dev/ca.pem")
            }
        };
        std::fs::copy(ca, lowport.folder().join("ca.pem")).expect("it has an authority");
        Self { lowport, room }
    }

    /// Does something in lowport's network, on a thread of its own.
    pub(crate) fn inside<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let pid = self.lowport.pid();
        let done = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                if is_root() {
                    let net = File::open(format!("/proc/{pid}/ns/net")).expect("it runs");
                    setns(net, CloneFlags::CLONE_NEWNET).expect("root may");
                }
                action()
            });
            thread.join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs [`client::curl`] in lowport's network.
    pub(crate) fn curl(&self, url: &str, args: &[&str]) -> String {
        self.inside(|| client::curl(&self.lowport, url, args))
    }

    /// The answer as JSON.
    pub(crate) fn json(&self, url: &str) -> serde_json::Value {
        let text = self.curl(url, &["-H", "accept: application/json"]);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// The port in the line with a URL.
fn told(lowport: &Lowport, scheme: &str, usual: u16) -> u16 {
    let line = lowport.wait_for(&format!("  {scheme}://localhost"));
    let url = line.split_whitespace().next().expect("a URL");
    if url.contains("localhost:") {
        port_after(url, "localhost:")
    } else {
        usual
    }
}
