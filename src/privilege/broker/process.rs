//! The broker's process, from the fork to its end.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::getppid;

use super::named;
use super::wire::{Ask, MOST_FDS, Payload, Tell, receive, send};
use crate::config::{self, AccessLog, Config, Files, Given, Mistakes, Source};
use crate::privilege::status::texts;
use crate::privilege::{Adopted, Bound, bind, open_log};

/// How often the files are looked at. No notification of the kernel's is used: those miss network file systems and
/// mounts from outside a container, and this costs a few stat(2).
const LOOK: u16 = 500;

/// What the broker knows.
pub(super) struct Process {
    socket: OwnedFd,
    source: Arc<Source>,
    config: Config,
    adopted: Vec<Adopted>,
    /// What the files looked like when they were read last
    read: Fingerprint,
    /// And when they were looked at last: a change counts once they are at rest, since editors and certbot write in steps
    seen: Fingerprint,
}

impl Process {
    pub(super) fn new(
        socket: OwnedFd,
        source: Arc<Source>,
        config: Config,
        adopted: &[Adopted],
    ) -> Self {
        let mut process = Self {
            socket,
            source,
            config,
            adopted: adopted.to_vec(),
            read: Vec::new(),
            seen: Vec::new(),
        };
        process.read = process.look();
        process.seen.clone_from(&process.read);
        process
    }

    /// The one descriptor that it needs.
    pub(super) fn socket(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Serves the worker until that is gone.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let ready = match poll(&mut fds, PollTimeout::from(LOOK)) {
                Err(nix::errno::Errno::EINTR) => continue,
                ready => ready?,
            };
            if ready == 0 {
                self.look_for_changes()?;
                continue;
            }
            let Some((text, _)) = receive(self.socket.as_fd())? else {
                return Ok(());
            };
            match Ask::decode(&text) {
                Some(Ask::Reload(bound)) => self.reload(&bound)?,
                Some(Ask::Log) => self.log()?,
                Some(Ask::Tasks) => self.tasks()?,
                None => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    fn tell(&self, tell: &Tell, fds: &[RawFd]) -> io::Result<()> {
        send(self.socket.as_fd(), &tell.encode(), fds)
    }

    fn refuse(&self, why: String) -> io::Result<()> {
        let payload = Payload {
            text: why,
            files: Vec::new(),
        };
        self.tell(&Tell::Refused, &[payload.into_file()?.as_raw_fd()])
    }

    fn reload(&mut self, bound: &[(SocketAddr, bool)]) -> io::Result<()> {
        let source = match &self.source.path {
            Some(path) => match config::load(Some(path), self.source.app.clone()) {
                Ok(source) => source,
                Err(error) => {
                    self.read = self.look();
                    return self.refuse(error.to_string());
                }
            },
            // Certificates may have changed all the same.
            None => Arc::clone(&self.source),
        };
        let mistakes = Mistakes::new(Arc::clone(&source));
        let mut config = config::parse(&source, &mistakes);
        Adopted::adopt(&self.adopted, &mut config);
        let missing = if mistakes.is_empty() {
            bind_missing(&config, bound, &mistakes)
        } else {
            Vec::new()
        };
        if !mistakes.is_empty() {
            // The certificates of the old configuration are still watched, and this text is not tried again.
            self.read = self.look();
            return self.refuse(mistakes.to_string());
        }
        (self.source, self.config) = (source, config);
        self.read = self.look();
        let files = named(&self.config).iter().map(|path| given(path)).collect();
        let payload = Payload {
            text: self.source.text.clone(),
            files,
        };
        let packets: Vec<(SocketAddr, bool, bool, Vec<RawFd>)> =
            missing.iter().flat_map(packets).collect();
        let file = payload.into_file()?;
        self.tell(&Tell::Loaded(packets.len()), &[file.as_raw_fd()])?;
        for (addr, tls, more, fds) in packets {
            self.tell(&Tell::Listener { addr, tls, more }, &fds)?;
        }
        Ok(())
    }

    fn log(&self) -> io::Result<()> {
        match &self.config.log.access {
            AccessLog::File(path) => match open_log(path) {
                Ok(file) => self.tell(&Tell::Log, &[file.as_raw_fd()]),
                Err(error) => self.refuse(format!("{}: {error}", path.display())),
            },
            _ => self.refuse("the access log is no file".to_owned()),
        }
    }

    /// The worker is this process's parent.
    fn tasks(&self) -> io::Result<()> {
        let texts = match texts(getppid().as_raw().unsigned_abs()) {
            Ok(texts) => texts,
            Err(error) => return self.refuse(error.to_string()),
        };
        let ids: Vec<String> = texts.iter().map(|(tid, _)| tid.to_string()).collect();
        let payload = Payload {
            text: ids.join(" "),
            files: texts
                .into_iter()
                .map(|(_, text)| Given(Ok(text.into_bytes())))
                .collect(),
        };
        self.tell(&Tell::Tasks, &[payload.into_file()?.as_raw_fd()])
    }

    fn look_for_changes(&mut self) -> io::Result<()> {
        let now = self.look();
        let rests = now == self.seen;
        self.seen = now;
        if rests && self.seen != self.read {
            self.read.clone_from(&self.seen);
            self.tell(&Tell::Changed, &[])?;
        }
        Ok(())
    }

    fn look(&self) -> Fingerprint {
        let paths = named(&self.config);
        self.source
            .path
            .iter()
            .chain(&paths)
            .map(|path| fingerprint(path))
            .collect()
    }
}

/// What tells a file from a later one: device, inode, size, and when it was written, to the nanosecond. Links are
/// followed, so that the swap of a link that Kubernetes makes shows.
type Fingerprint = Vec<Option<[i128; 4]>>;

fn fingerprint(path: &Path) -> Option<[i128; 4]> {
    let file = fs::metadata(path).ok()?;
    let written = i128::from(file.mtime()) * 1_000_000_000 + i128::from(file.mtime_nsec());
    Some([
        i128::from(file.dev()),
        i128::from(file.ino()),
        i128::from(file.size()),
        written,
    ])
}

fn given(path: &Path) -> Given {
    Given(
        Files::OnDisk
            .read(path)
            .map_err(|error| error.raw_os_error().unwrap_or(nix::libc::EIO)),
    )
}

fn bind_missing(config: &Config, bound: &[(SocketAddr, bool)], mistakes: &Mistakes) -> Vec<Bound> {
    config
        .listeners()
        .filter(|(listener, _)| !bound.iter().any(|(addr, _)| *addr == listener.addr))
        .filter_map(|(listener, tls)| bind(listener, tls, config.server.workers, mistakes))
        .collect()
}

/// The packets for one address: no more descriptors in each than the kernel takes.
fn packets(bound: &Bound) -> Vec<(SocketAddr, bool, bool, Vec<RawFd>)> {
    let fds: Vec<RawFd> = bound.sockets.iter().map(AsRawFd::as_raw_fd).collect();
    let count = fds.len().div_ceil(MOST_FDS);
    fds.chunks(MOST_FDS)
        .enumerate()
        .map(|(index, chunk)| (bound.addr, bound.tls, index + 1 < count, chunk.to_vec()))
        .collect()
}
