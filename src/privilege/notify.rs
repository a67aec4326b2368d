//! Telling the service manager how it goes (sd_notify(3)).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The way to the service manager, or nowhere. Opened before the sandbox closes that way.
#[derive(Debug)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// Connects to `NOTIFY_SOCKET`, if there is one, and reads `WATCHDOG_USEC`, if it is for this process.
    ///
    /// # Errors
    /// There is one, but it cannot be connected to.
    pub fn open() -> io::Result<Self> {
        let socket = match std::env::var("NOTIFY_SOCKET") {
            Ok(path) => Some(connect(&path)?),
            Err(_) => None,
        };
        let var = |name| std::env::var(name).ok();
        let ours = var("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let watchdog = var("WATCHDOG_USEC").filter(|_| ours && socket.is_some());
        let watchdog = watchdog.and_then(|micros| micros.parse().ok());
        Ok(Self {
            socket,
            watchdog: watchdog.map(Duration::from_micros),
        })
    }

    /// It serves.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// It reads its configuration again; [`ready`](Self::ready) ends that.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
        let micros = now.unwrap_or_default().as_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// It takes no more connections.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// It is alive.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// How often to say so: twice in the time after which the manager gives up. `None` where nobody asks.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    fn send(&self, text: &str) {
        if let Some(socket) = &self.socket {
            // A manager that does not listen is its own trouble.
            let _ = socket.send(text.as_bytes());
        }
    }
}

/// A path, or `@` and an abstract name.
fn connect(path: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let addr = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    socket.connect_addr(&addr)?;
    Ok(socket)
}
