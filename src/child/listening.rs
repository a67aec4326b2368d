//! Whether the app listens where it should: before it is started, until it does, and why it may not.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use crate::config::AppAddr;

/// How often it is tried at first, and at most.
const PROBE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// How long a connection to this machine may take.
const CONNECT: Duration = Duration::from_secs(1);
/// What connecting to a Unix socket takes: to write to it.
const ALL_WRITE: u32 = 0o222;

/// Makes sure that the app can listen at `addr`: nobody else does, and a socket that a killed app has left is gone.
///
/// # Errors
/// A clause that says why it cannot.
pub(super) async fn make_way(addr: &AppAddr) -> Result<(), String> {
    match (addr, accepts(addr).await) {
        (AppAddr::Port(port), true) => Err(format!(
            "port {port} on 127.0.0.1 is taken by another process; see which with: ss -ltnp 'sport = :{port}'"
        )),
        (AppAddr::Socket(path), true) => Err(format!(
            "{addr} is taken by another process; see which with: ss -lxp src {}",
            path.display()
        )),
        (AppAddr::Port(_), false) => Ok(()),
        (AppAddr::Socket(path), false) => clear(path),
    }
}

/// Listening on a path fails where there is anything already, and a killed process does not take its socket away.
fn clear(path: &Path) -> Result<(), String> {
    let folder = path.parent().unwrap_or(path);
    if !folder.is_dir() {
        return Err(format!(
            "{}, where its socket belongs, does not exist: make that folder, and give it to the app's user",
            folder.display()
        ));
    }
    if access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        return Err(format!(
            "its user may not make a socket in {}: give that folder to the app's user",
            folder.display()
        ));
    }
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(file) if file.file_type().is_socket() => fs::remove_file(path)
            .map_err(|error| format!("the old socket {} stays: {error}", path.display())),
        Ok(_) => Err(format!(
            "{} is there already and is no socket",
            path.display()
        )),
    }
}

/// Waits until connections to `addr` are accepted.
pub(super) async fn opens(addr: &AppAddr) {
    let (mut pause, longest) = PROBE;
    while !accepts(addr).await {
        sleep(pause).await;
        pause = longest.min(pause * 2);
    }
}

/// Lets every user connect to the socket, for a proxy that is somebody else. Who gets that far, its folder decides.
///
/// # Errors
/// It is not ours to open, or gone again.
pub(super) fn share(socket: &Path) -> io::Result<()> {
    let mode = fs::symlink_metadata(socket)?.permissions().mode() | ALL_WRITE;
    fs::set_permissions(socket, Permissions::from_mode(mode))
}

/// Why an app that runs may not listen at `addr`.
pub(super) async fn hint(addr: &AppAddr) -> String {
    match addr {
        AppAddr::Port(port) if tcp((Ipv6Addr::LOCALHOST, *port).into()).await => format!(
            "the app listens on [::1]:{port} but not on 127.0.0.1:{port}: have it listen on process.env.HOST, \
             or start it with --host 127.0.0.1"
        ),
        AppAddr::Port(port) => format!(
            "the app runs but does not listen on 127.0.0.1:{port} yet: does it listen on process.env.PORT?"
        ),
        AppAddr::Socket(_) => format!(
            "the app runs but does not listen on {addr} yet: does it listen on process.env.PORT, without making a number of it?"
        ),
    }
}

async fn accepts(addr: &AppAddr) -> bool {
    match addr {
        AppAddr::Port(port) => tcp((Ipv4Addr::LOCALHOST, *port).into()).await,
        AppAddr::Socket(path) => match timeout(CONNECT, UnixStream::connect(path)).await {
            // So many wait to be accepted that there is no room for one more.
            Ok(Err(error)) => error.kind() == io::ErrorKind::WouldBlock,
            connected => connected.is_ok(),
        },
    }
}

async fn tcp(addr: SocketAddr) -> bool {
    matches!(timeout(CONNECT, TcpStream::connect(addr)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn an_app_on_the_other_loopback_gets_a_hint() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = hint(&AppAddr::Port(port)).await;
        assert!(told.contains(&format!("[::1]:{port}")), "{told}");
        drop(listener);
        let told = hint(&AppAddr::Port(port)).await;
        assert!(told.contains("process.env.PORT"), "{told}");
    }

    #[tokio::test]
    async fn a_socket_is_taken_or_left_over_or_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let addr = AppAddr::Socket(path.clone());
        assert_eq!(make_way(&addr).await, Ok(()));
        let listener = UnixListener::bind(&path).unwrap();
        opens(&addr).await;
        let why = make_way(&addr).await.unwrap_err();
        assert!(why.contains("is taken by another process"), "{why}");
        assert!(path.exists());
        // As after a kill.
        drop(listener);
        assert!(path.exists());
        assert_eq!(make_way(&addr).await, Ok(()));
        assert!(!path.exists());
        // Whatever else it is stays where it is.
        fs::write(&path, "precious").unwrap();
        let why = make_way(&addr).await.unwrap_err();
        assert!(why.contains("is no socket"), "{why}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let nowhere = AppAddr::Socket(folder.path().join("none/app.sock"));
        let why = make_way(&nowhere).await.unwrap_err();
        assert!(why.contains("/none, where its socket belongs"), "{why}");
        assert!(hint(&addr).await.contains("unix:/"));
    }

    #[test]
    fn a_shared_socket_is_everybodys_to_connect_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        share(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o777);
        assert!(share(&folder.path().join("none")).is_err());
    }
}
