//! A proxy in a process of its own, for benches.

use std::ffi::{OsStr, OsString};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::site::{Site, write};

/// What a proxy writes to its standard error, in its folder.
pub(crate) const LOG: &str = "stderr";
/// Where lowport's configuration is, in its folder.
pub(crate) const CONFIG: &str = "lowport.toml";

/// The lowport that is measured: the build's, or another one that `$LOWPORT` names.
pub(crate) fn lowport() -> OsString {
    std::env::var_os("LOWPORT").unwrap_or_else(|| env!("CARGO_BIN_EXE_lowport").into())
}

/// A proxy. Ended when dropped.
pub(crate) struct Proxy {
    /// Its process
    pub(crate) child: Child,
    /// Where it listens
    pub(crate) site: Site,
}

impl Proxy {
    /// Runs lowport, as `program`, with this configuration, which stays at [`CONFIG`], and with these arguments.
    pub(crate) fn lowport(program: &OsStr, site: Site, config: &str, args: &[&str]) -> Self {
        write(site.path(), CONFIG, config);
        let mut command = Command::new(program);
        command
            .args(["run", "-c"])
            .arg(site.path().join(CONFIG))
            .args(args);
        Self::start(command, site)
    }

    /// Runs `command`, which must listen where `site` says.
    pub(crate) fn start(mut command: Command, site: Site) -> Self {
        let log = site.path().join(LOG);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("made"))
            .spawn()
            .expect("started");
        let mut proxy = Self { child, site };
        let patience = Instant::now() + Duration::from_secs(10);
        for port in [proxy.site.http, proxy.site.https] {
            while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
                let ended = proxy.child.try_wait().expect("waited");
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                assert!(ended.is_none(), "it ended: {log}");
                assert!(Instant::now() < patience, "it does not listen");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM, so that one with children ends those.
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let patience = Instant::now() + Duration::from_secs(3);
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() > patience {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
