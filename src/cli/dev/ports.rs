//! The ports of `lowport dev`: the usual ones where they can be had, others where not, and why.

use std::io;
use std::net::TcpListener;

use crate::privilege::holder;

/// Where `lowport dev` and the app listen.
#[derive(Debug)]
pub(super) struct Ports {
    pub(super) https: Choice,
    pub(super) http: Choice,
    /// The app's; nobody listened there a moment ago
    pub(super) app: u16,
}

/// A port, and why it is not the usual one.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) port: u16,
    pub(super) why: Option<String>,
}

impl Ports {
    /// 443 and 80, else 8443 and 8080, else any that are free.
    pub(super) fn choose() -> io::Result<Self> {
        Ok(Self {
            https: choose(443, 8443)?,
            http: choose(80, 8080)?,
            app: free()?,
        })
    }
}

fn choose(usual: u16, other: u16) -> io::Result<Choice> {
    let Err(error) = try_loopback(usual) else {
        return Ok(Choice {
            port: usual,
            why: None,
        });
    };
    let why = match error.kind() {
        // The same for both, so that it is said once.
        io::ErrorKind::PermissionDenied => {
            "Low ports are not open to this user. To have 443 and 80: `sudo lowport dev`, or \
             `sudo sysctl net.ipv4.ip_unprivileged_port_start=80`"
                .to_owned()
        }
        io::ErrorKind::AddrInUse => match holder(usual) {
            Some(holder) => format!("Port {usual} is held by {holder}"),
            None => {
                format!("Port {usual} is in use: `sudo ss -ltnp 'sport = :{usual}'` tells by whom")
            }
        },
        _ => format!("Port {usual} cannot be had: {error}"),
    };
    let port = if try_loopback(other).is_ok() {
        other
    } else {
        free()?
    };
    Ok(Choice {
        port,
        why: Some(why),
    })
}

/// Binds the port for a moment, on IPv6 too where the machine has it.
fn try_loopback(port: u16) -> io::Result<()> {
    TcpListener::bind(("127.0.0.1", port))?;
    match TcpListener::bind(("::1", port)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        _ => Ok(()),
    }
}

fn free() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_its_holder_and_another_is_taken() {
        let (held, other) = (
            TcpListener::bind(("127.0.0.1", 0)).unwrap(),
            free().unwrap(),
        );
        let port = held.local_addr().unwrap().port();
        let choice = choose(port, other).unwrap();
        assert_ne!(choice.port, port);
        let why = choice.why.unwrap();
        assert!(why.contains(&format!("Port {port} is held by ")), "{why}");
        drop(held);
        assert!(choose(port, other).unwrap().why.is_none());
    }
}
