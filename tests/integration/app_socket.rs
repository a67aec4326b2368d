//! An app on a Unix socket, started and watched.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::client::curl;
use crate::support::lowport::Setup;
use crate::support::node::{self, APP_UID};
use crate::support::{Lowport, is_root, open_to_all, process, raw, until};

/// As apps do it: whatever `PORT` is, and no word about who may connect.
const PLAIN: &str = "require('http').createServer((q, r) => r.end(String(process.pid)))
    .listen(process.env.PORT, () => console.log('listens'));";

/// A lowport whose app listens on a socket in a folder of its own.
struct Scene {
    lowport: Lowport,
    folder: tempfile::TempDir,
}

impl Scene {
    fn start(script: &str) -> Self {
        let folder = node::script(script);
        let run = folder.path().join("run");
        std::fs::create_dir(&run).expect("made");
        open_to_all(&run);
        if is_root() {
            let owner = Some(APP_UID);
            std::os::unix::fs::chown(&run, owner, owner).expect("given away");
        }
        let toml = format!(
            "[app]\ncommand = [\"node\", \"server.js\"]\ndir = \"{}\"\n{}\
             [upstream.app]\npeers = \"unix:{}\"\n",
            folder.path().display(),
            node::app_user(),
            socket(folder.path()).display()
        );
        let lowport = Lowport::with(&Setup {
            server: "redirect_to_https = false",
            rest: &toml,
            args: &[],
        });
        Self { lowport, folder }
    }

    fn pid(&self) -> u32 {
        curl(&self.lowport, "/", &[]).parse().expect("a pid")
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("run/app.sock")
}

#[test]
fn requests_wait_until_the_socket_accepts_and_the_proxy_may_connect() {
    let scene = Scene::start(&format!(
        "const look = setInterval(() => {{
           if (!require('fs').existsSync('run/go')) return;
           clearInterval(look);
           {PLAIN}
         }}, 10);"
    ));
    let mut waiting = raw::connect(scene.lowport.http);
    write!(
        waiting,
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    std::fs::write(scene.folder.path().join("run/go"), "").unwrap();
    let answer = raw::read_all(&mut waiting);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let pid = scene.pid();
    let ready = scene.lowport.wait_for("app ready in");
    let path = socket(scene.folder.path());
    assert!(
        ready.contains(&format!(" on unix:{}", path.display())),
        "{ready}"
    );
    // No port is reached for its sake.
    scene.lowport.wait_for("connects_to=none");
    let file = std::fs::metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    if is_root() {
        assert_ne!(process::uids(pid), process::uids(scene.lowport.pid()));
        assert_eq!(file.permissions().mode() & 0o222, 0o222);
    }
}

#[test]
fn a_socket_that_a_killed_app_left_is_no_obstacle_to_the_next_one() {
    let mut scene = Scene::start(PLAIN);
    let before = scene.pid();
    let seen = scene.lowport.output().len();
    kill(Pid::from_raw(before as i32), Signal::SIGKILL).unwrap();
    scene
        .lowport
        .wait_for_after(seen, "app was killed by SIGKILL");
    assert!(socket(scene.folder.path()).exists(), "nobody took it away");
    let after = until("the app to be back", || {
        curl(&scene.lowport, "/", &[]).parse::<u32>().ok()
    });
    assert_ne!(before, after);
    let output = scene.lowport.output();
    assert!(
        !output.iter().any(|line| line.contains("EADDRINUSE")),
        "{output:?}"
    );
    scene.lowport.signal(Signal::SIGTERM);
    assert!(scene.lowport.ended().success());
    assert!(process::is_gone(after));
}
