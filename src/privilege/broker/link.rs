//! The worker's end of the broker: forking it, asking it, hearing of changes.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::process::Process;
use super::wire::{Ask, Payload, Tell, receive, send};
use super::{Loaded, named};
use crate::config::{self, Config, Files, Mistakes, Source};
use crate::privilege::status::{TaskState, understood};
use crate::privilege::{Adopted, Fork, Kept, close_inherited, exit_now, fork, keep_only};

/// A broker that has just been forked.
#[derive(Debug)]
pub struct Broker {
    /// Its process
    pub pid: Pid,
    socket: OwnedFd,
    source: Arc<Source>,
}

impl Broker {
    /// Forks the broker. Call it with one thread and before the drop: as root it keeps what binding low ports and reading
    /// root's files takes, and as anybody else nothing.
    ///
    /// # Errors
    /// Where there can be no process.
    pub fn spawn(source: &Arc<Source>, config: &Config, adopted: &[Adopted]) -> io::Result<Self> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        let pid = match fork()? {
            Fork::Parent(pid) => pid,
            Fork::Child => {
                let knows = Process::new(theirs, Arc::clone(source), config.clone(), adopted);
                exit_now(u8::from(live(knows).is_err()))
            }
        };
        Ok(Self {
            pid,
            socket: ours,
            source: Arc::clone(source),
        })
    }

    /// Goes on in a runtime.
    ///
    /// # Errors
    /// Where the runtime cannot watch the socket.
    pub fn follow(self) -> io::Result<Link> {
        nix::fcntl::fcntl(
            &self.socket,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )?;
        Ok(Link {
            socket: watch(self.socket)?,
            source: self.source,
            changed: false,
        })
    }
}

#[expect(unsafe_code, reason = "tokio wants a promise about the descriptor")]
fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stays open and the same for as long as it lives, and only the AsyncFd has it.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

fn live(process: Process) -> io::Result<()> {
    close_inherited(process.socket())?;
    nix::sys::prctl::set_name(c"lowport-broker")?;
    ignore_signals()?;
    keep_only(&[Kept::NetBindService, Kept::DacReadSearch])?;
    process.run()
}

/// A Ctrl-C reaches the whole foreground group: it is the worker who decides, and the broker ends with that.
fn ignore_signals() -> io::Result<()> {
    use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGQUIT,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        set.add(signal);
    }
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    Ok(())
}

/// The connection to a running broker.
#[derive(Debug)]
pub struct Link {
    socket: AsyncFd<OwnedFd>,
    source: Arc<Source>,
    changed: bool,
}

impl Link {
    /// Waits until the configuration or a file that it names has changed and is at rest. Safe to cancel.
    ///
    /// # Errors
    /// The broker is gone.
    pub async fn changed(&mut self) -> io::Result<()> {
        while !self.changed {
            match self.next().await? {
                (Tell::Changed, _) => self.changed = true,
                // What a cancelled question brought.
                _ => continue,
            }
        }
        self.changed = false;
        Ok(())
    }

    /// Has everything read again. `bound` are the addresses that need no new sockets.
    ///
    /// # Errors
    /// The broker is gone, or the text of why there is nothing new.
    pub async fn reload(
        &mut self,
        bound: Vec<(SocketAddr, bool)>,
    ) -> io::Result<Result<Loaded, String>> {
        self.ask(&Ask::Reload(bound))?;
        let (packets, mut payload) = match self.answer().await? {
            (Tell::Loaded(packets), fds) => (packets, payload(fds)?),
            (Tell::Refused, fds) => return Ok(Err(payload(fds)?.text)),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let source = self.source(&mut payload);
        let mut sockets: Vec<(SocketAddr, bool, Vec<TcpListener>)> = Vec::new();
        let mut open = false;
        for _ in 0..packets {
            let (Tell::Listener { addr, tls, more }, fds) = self.answer().await? else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            let fds = fds.into_iter().map(TcpListener::from);
            match sockets.last_mut().filter(|_| open) {
                Some((_, _, sockets)) => sockets.extend(fds),
                None => sockets.push((addr, tls, fds.collect())),
            }
            open = more;
        }
        Ok(Ok(Loaded { source, sockets }))
    }

    /// Has the access log opened anew, where the configuration that was read last has it.
    ///
    /// # Errors
    /// The broker is gone, or the text of why it cannot be opened.
    pub async fn log(&mut self) -> io::Result<Result<File, String>> {
        self.ask(&Ask::Log)?;
        match self.answer().await? {
            (Tell::Log, fds) => match fds.into_iter().next() {
                Some(fd) => Ok(Ok(fd.into())),
                None => Err(io::ErrorKind::InvalidData.into()),
            },
            (Tell::Refused, fds) => Ok(Err(payload(fds)?.text)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// What the kernel says of this process's threads.
    ///
    /// # Errors
    /// The broker is gone, or the text of why they cannot be read.
    pub async fn tasks(&mut self) -> io::Result<Result<Vec<TaskState>, String>> {
        self.ask(&Ask::Tasks)?;
        let payload = match self.answer().await? {
            (Tell::Tasks, fds) => payload(fds)?,
            (Tell::Refused, fds) => return Ok(Err(payload(fds)?.text)),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let ids = payload.text.split(' ').filter_map(|tid| tid.parse().ok());
        let states = ids.zip(&payload.files).map(|(tid, given)| match &given.0 {
            Ok(text) => understood(tid, &String::from_utf8_lossy(text)),
            Err(errno) => Err(io::Error::from_raw_os_error(*errno)),
        });
        Ok(states
            .collect::<io::Result<_>>()
            .map_err(|error| error.to_string()))
    }

    /// The text with the files that it names, in the order in which the broker found them named.
    fn source(&self, payload: &mut Payload) -> Arc<Source> {
        let text = std::mem::take(&mut payload.text);
        let with = |text: String, files: Files| {
            Arc::new(Source {
                name: self.source.name.clone(),
                path: self.source.path.clone(),
                text,
                files,
                app: self.source.app.clone(),
            })
        };
        // Parsed once only for the names.
        let bare = with(text.clone(), Files::OnDisk);
        let config = config::parse(&bare, &Mistakes::new(Arc::clone(&bare)));
        let files: HashMap<_, _> = named(&config)
            .into_iter()
            .zip(payload.files.drain(..))
            .collect();
        with(text, Files::Given(files))
    }

    fn ask(&self, ask: &Ask) -> io::Result<()> {
        // A few hundred bytes to a process that has nothing else to do: there is room for them.
        send(self.socket.get_ref().as_fd(), &ask.encode(), &[])
    }

    async fn answer(&mut self) -> io::Result<(Tell, Vec<OwnedFd>)> {
        loop {
            match self.next().await? {
                (Tell::Changed, _) => self.changed = true,
                answer => return Ok(answer),
            }
        }
    }

    async fn next(&mut self) -> io::Result<(Tell, Vec<OwnedFd>)> {
        let packet = self
            .socket
            .async_io(Interest::READABLE, |socket| receive(socket.as_fd()))
            .await?;
        let Some((text, fds)) = packet else {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the broker is gone",
            ));
        };
        let tell = Tell::decode(&text).ok_or(io::ErrorKind::InvalidData)?;
        Ok((tell, fds))
    }
}

fn payload(fds: Vec<OwnedFd>) -> io::Result<Payload> {
    let file = fds.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
    Payload::from_file(&mut file.into())
}
