//! The broker's process, from the fork to its end.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::named;
use super::reach::{check_ports, remedy, users};
use super::wire::{Ask, MOST_FDS, Payload, Tell, Up, receive, send};
use crate::config::{
    self, AccessLog, Config, Files, Given, LoadError, Mistake, Mistakes, Source, Span,
};
use crate::privilege::status::{essence, texts};
use crate::privilege::user::uid_in_passwd;
use crate::privilege::{Adopted, Bound, Needs, bind, open_log};

/// How often the files are looked at. No notification of the kernel's is used: those miss network file systems and
/// mounts from outside a container, and this costs a few stat(2).
const LOOK: u16 = 500;

/// What the broker knows.
pub(super) struct Process {
    socket: OwnedFd,
    /// Its process id
    worker: u32,
    source: Arc<Source>,
    pub(super) config: Config,
    adopted: Vec<Adopted>,
    /// What its own sandbox lets through; `None` without one
    pub(super) needs: Option<Needs>,
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
            worker: nix::unistd::getppid().as_raw().unsigned_abs(),
            source,
            config,
            adopted: adopted.to_vec(),
            needs: None,
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
                Some(Ask::Process(pid)) => self.process(pid)?,
                None => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// What the worker is told first: which sandbox is on.
    pub(super) fn up(&self, up: &Up) -> io::Result<()> {
        let payload = Payload {
            text: up.to_text(),
            files: Vec::new(),
        };
        self.tell(&Tell::Up, &[payload.into_file()?.as_raw_fd()])
    }

    fn tell(&self, tell: &Tell, fds: &[RawFd]) -> io::Result<()> {
        send(self.socket.as_fd(), &tell.encode(), fds)
    }

    pub(super) fn refuse(&self, why: String) -> io::Result<()> {
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
                    return self.refuse(self.explained(&error));
                }
            },
            // Certificates may have changed all the same.
            None => Arc::clone(&self.source),
        };
        let mistakes = Mistakes::new(Arc::clone(&source));
        let mut config = config::parse(&source, &mistakes);
        Adopted::adopt(&self.adopted, &mut config);
        let mut files = Vec::new();
        let mut missing = Vec::new();
        if mistakes.is_empty() {
            files = self.files(&config, &mistakes);
            self.check(&config, bound, &mistakes);
        }
        if mistakes.is_empty() {
            missing = bind_missing(&config, bound, &mistakes);
        }
        if !mistakes.is_empty() {
            // The certificates of the old configuration are still watched, and this text is not tried again.
            self.read = self.look();
            return self.refuse(mistakes.to_string());
        }
        (self.source, self.config) = (source, config);
        self.read = self.look();
        files.extend(users(&self.config).into_iter().map(number));
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

    /// What reading the configuration failed with, and what to do where that was the sandbox.
    fn explained(&self, error: &LoadError) -> String {
        match (&self.needs, error) {
            (Some(needs), LoadError::Read(_, read)) if is_denied(read) => {
                format!("{error}help: {}\n", remedy(needs))
            }
            _ => error.to_string(),
        }
    }

    /// The files that `config` names, in the order of [`named`]. One that the sandbox denies is a mistake; what else may
    /// be wrong with them is found by who reads them.
    fn files(&self, config: &Config, mistakes: &Mistakes) -> Vec<Given> {
        let read = |path: &PathBuf| {
            let read = Files::OnDisk.read(path);
            if let (Some(needs), Err(error)) = (&self.needs, &read)
                && is_denied(error)
            {
                let message = format!("{} cannot be read: {error}", path.display());
                let mistake = Mistake::new(written(config, path), message);
                mistakes.push(mistake.help(remedy(needs)));
            }
            Given(read.map_err(|error| error.raw_os_error().unwrap_or(nix::libc::EIO)))
        };
        named(config).iter().map(read).collect()
    }

    /// Whether the sandbox lets this process do what `next` takes besides reading files.
    fn check(&self, next: &Config, bound: &[(SocketAddr, bool)], mistakes: &Mistakes) {
        let Some(needs) = &self.needs else {
            return;
        };
        let is_bound = |addr| bound.iter().any(|(bound, _)| *bound == addr);
        check_ports(needs, next, is_bound, mistakes);
        if let AccessLog::File(path) = &next.log.access
            && next.log.access != self.config.log.access
            && let Err(error) = open_log(path)
            && is_denied(&error)
        {
            let message = format!("log.access: {}: {error}", path.display());
            mistakes.push(Mistake::new(None, message).help(remedy(needs)));
        }
    }

    fn log(&self) -> io::Result<()> {
        match &self.config.log.access {
            AccessLog::File(path) => match open_log(path) {
                Ok(file) => self.tell(&Tell::Log, &[file.as_raw_fd()]),
                Err(error) => {
                    let why = format!("{}: {error}", path.display());
                    self.refuse(match &self.needs {
                        Some(needs) if is_denied(&error) => format!("{why}: {}", remedy(needs)),
                        _ => why,
                    })
                }
            },
            _ => self.refuse("the access log is no file".to_owned()),
        }
    }

    fn tasks(&self) -> io::Result<()> {
        let texts = match texts(self.worker) {
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

    fn process(&self, pid: u32) -> io::Result<()> {
        self.tell(&Tell::Process(essence(pid).unwrap_or_default()), &[])
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

/// Refused by Landlock or by the file's mode.
fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

/// The number of a user, as text, in place of a file's contents.
fn number(name: &str) -> Given {
    let found = uid_in_passwd(name).map(|uid| uid.to_string().into_bytes());
    Given(found.ok_or(nix::libc::ENOENT))
}

/// Where a file that `config` names is named there.
fn written(config: &Config, path: &Path) -> Span {
    let certificates = config.certificates.iter().flat_map(|files| {
        [
            (&files.cert, &files.cert_span),
            (&files.key, &files.key_span),
        ]
    });
    let authorities = config
        .upstreams
        .iter()
        .filter_map(|upstream| upstream.ca.as_ref());
    certificates
        .chain(authorities.map(|(path, span)| (path, span)))
        .find_map(|(named, span)| (named == path).then(|| span.clone()))
        .flatten()
}

fn bind_missing(config: &Config, bound: &[(SocketAddr, bool)], mistakes: &Mistakes) -> Vec<Bound> {
    // Its sandbox shows it nobody's descriptors.
    let holder = |_| None;
    config
        .listeners()
        .filter(|(listener, _)| !bound.iter().any(|(addr, _)| *addr == listener.addr))
        .filter_map(|(listener, tls)| bind(listener, tls, config.server.workers, holder, mistakes))
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
