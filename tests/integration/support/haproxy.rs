//! HAProxy, which passes bytes on and says whose they are.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::{folder, port, skipped, until};

/// A running HAProxy. Killed when dropped.
pub(crate) struct Haproxy {
    child: Child,
    _folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Haproxy {
    /// Passes connections on to `to` on this machine, with these words on its `server` line. `None` where there is no
    /// HAProxy, which is said.
    pub(crate) fn start(test: &str, to: u16, words: &str) -> Option<Self> {
        let there = Command::new("haproxy").arg("-v").output().is_ok();
        if !there {
            skipped(test, "there is no haproxy (apt-get install haproxy)");
            return None;
        }
        let (folder, port) = (folder(), port());
        let file = folder.path().join("haproxy.cfg");
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n  timeout check 5s\n\
             frontend in\n  bind 127.0.0.1:{port}\n  default_backend out\n\
             backend out\n  server s 127.0.0.1:{to} {words}\n"
        );
        std::fs::write(&file, text).expect("written");
        let child = Command::new("haproxy")
            .args(["-db", "-q", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        until("haproxy to listen", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Some(Self {
            child,
            _folder: folder,
            port,
        })
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
