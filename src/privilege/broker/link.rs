//! The worker's end of the broker: forking it, asking it, hearing of changes.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::process::Process;
use super::wire::{Ask, Payload, Tell, Up, receive, send};
use super::{Loaded, named, reach};
use crate::config::{self, Config, Files, Mistakes, Source};
use crate::privilege::landlock::LandlockState;
use crate::privilege::seccomp::{self, SeccompState};
use crate::privilege::status::{TaskState, understood};
use crate::privilege::trial::Tried;
use crate::privilege::{
    Adopted, Fork, Lesser, Needs, Walls, close_inherited, exit_now, fork, keep_only,
    not_for_helpers,
};

/// A broker that has just been forked.
#[derive(Debug)]
pub struct Broker {
    /// Its process
    pub pid: Pid,
    /// Its sandbox
    pub walls: Walls,
    socket: OwnedFd,
    source: Arc<Source>,
}

impl Broker {
    /// What reading and binding for a reload takes, to make a sandbox of.
    pub fn needs(source: &Source, config: &Config, mistakes: &Mistakes) -> Needs {
        reach::needs(source, config, mistakes)
    }

    /// Forks the broker and waits until its sandbox, for `needs` where there are any, is on. Call it with one thread and
    /// before the drop: as root it keeps what binding low ports and reading root's files takes, and as anybody else
    /// nothing. It calls `forget` first, on its copy of this process's memory: it has no use for keys between two reloads.
    ///
    /// # Errors
    /// Where there can be no process, or its sandbox cannot be had, or does not hold what it should when it is tried.
    pub fn spawn(
        source: &Arc<Source>,
        config: &Config,
        adopted: &[Adopted],
        needs: Option<Needs>,
        forget: impl FnOnce(),
    ) -> io::Result<Self> {
        let tried = match &needs {
            Some(needs) => Walls::try_out(needs, Lesser::Keeping(Self::KEPT), &config.sandbox)?,
            None => Vec::new(),
        };
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        let pid = match fork()? {
            Fork::Parent(pid) => pid,
            Fork::Child => {
                // First of all, for whoever looks on: strace misses a new name where the call before it failed.
                let _ = nix::sys::prctl::set_name(c"lowport-broker");
                forget();
                let knows = Process::new(theirs, Arc::clone(source), config.clone(), adopted);
                // A panic must not run into the parent's frames.
                let life = AssertUnwindSafe(|| live(knows, needs));
                exit_now(u8::from(!matches!(catch_unwind(life), Ok(Ok(())))))
            }
        };
        drop(theirs);
        let up = match receive(ours.as_fd())? {
            Some((text, fds)) => match Tell::decode(&text) {
                Some(Tell::Up) => Up::from_text(&payload(fds)?.text),
                Some(Tell::Refused) => return Err(io::Error::other(payload(fds)?.text)),
                _ => None,
            },
            None => return Err(gone()),
        };
        let up = up.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            pid,
            walls: match needs {
                Some(needs) => walls(up, needs, tried),
                None => Walls::none("--no-sandbox"),
            },
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
            pid: self.pid.as_raw().unsigned_abs(),
            walls: self.walls,
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

fn live(mut process: Process, needs: Option<Needs>) -> io::Result<()> {
    close_inherited(process.socket())?;
    // It ends when the worker does.
    not_for_helpers().thread_block()?;
    match ready(&mut process, needs) {
        Ok(up) => process.up(&up)?,
        Err(error) => return process.refuse(error.to_string()),
    }
    process.run()
}

/// Gives everything up that it does not need.
fn ready(process: &mut Process, needs: Option<Needs>) -> io::Result<Up> {
    keep_only(Broker::KEPT)?;
    let Some(needs) = needs else {
        let why = || Err(String::new());
        return Ok(Up {
            landlock: why(),
            seccomp: why(),
        });
    };
    let walls = Walls::put_on(needs, Vec::new(), &process.config.sandbox)?;
    let up = Up {
        landlock: walls
            .landlock
            .as_ref()
            .map(|state| state.abi)
            .map_err(Clone::clone),
        seccomp: match &walls.seccomp {
            Ok(state) => Ok(u32::try_from(state.filters).unwrap_or_default()),
            Err(why) => Err(why.clone()),
        },
    };
    process.needs = walls.stand().then_some(walls.needs);
    Ok(up)
}

/// What the broker has told, whole: the rest follows from its needs.
fn walls(up: Up, needs: Needs, tried: Vec<Tried>) -> Walls {
    Walls {
        landlock: up.landlock.map(|abi| LandlockState::of(abi, &needs)),
        seccomp: up.seccomp.map(|filters| SeccompState {
            filters: filters as usize,
            calls: seccomp::allowed(&needs),
        }),
        needs,
        tried,
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the broker is gone")
}

/// The connection to a running broker.
#[derive(Debug)]
pub struct Link {
    /// Its process
    pub pid: u32,
    /// Its sandbox
    pub walls: Walls,
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
        let (source, users) = self.source(&mut payload);
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
        Ok(Ok(Loaded {
            source,
            sockets,
            users,
        }))
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

    /// What the kernel says of the first thread of the process `pid`; `None` where that cannot be read.
    ///
    /// # Errors
    /// The broker is gone.
    pub async fn process(&mut self, pid: u32) -> io::Result<Option<TaskState>> {
        self.ask(&Ask::Process(pid))?;
        match self.answer().await? {
            (Tell::Process(text), _) => Ok(understood(pid, &text).ok()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The text with the files that it names, in the order in which the broker found them named; and the users.
    fn source(&self, payload: &mut Payload) -> (Arc<Source>, Vec<(String, u32)>) {
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
        let mut given = payload.files.drain(..);
        let files: HashMap<_, _> = named(&config).into_iter().zip(given.by_ref()).collect();
        let users = reach::users(&config).into_iter().zip(given);
        let users = users.filter_map(|(name, given)| {
            let uid = String::from_utf8_lossy(given.0.as_ref().ok()?)
                .parse()
                .ok()?;
            Some((name.to_owned(), uid))
        });
        let users = users.collect();
        (with(text, Files::Given(files)), users)
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
            return Err(gone());
        };
        let tell = Tell::decode(&text).ok_or(io::ErrorKind::InvalidData)?;
        Ok((tell, fds))
    }
}

fn payload(fds: Vec<OwnedFd>) -> io::Result<Payload> {
    let file = fds.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
    Payload::from_file(&mut file.into())
}
