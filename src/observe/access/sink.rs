//! Where access records go: a queue with a bound, and the thread that writes.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{error, warn};

use crate::config::{AccessLog, Log, LogFormat};
use crate::privilege::open_log;

/// Bytes that may wait for the writer; records beyond are dropped, since neither memory nor clients can wait for a disk.
const WAITING: usize = 4 * 1024 * 1024;
/// Emptied buffers that are kept for the workers, and how large one may be.
const SPARE: usize = 16;
const SPARE_BYTES: usize = 128 * 1024;
/// How often lost records are warned about.
const WARN_EVERY: Duration = Duration::from_secs(10);
/// How long shutting down waits for the writer.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long the writer rests when a pipe that somebody made non-blocking is full.
const REST: Duration = Duration::from_millis(10);

/// Where the workers' access records go. Clones are the same sink.
#[derive(Debug, Clone)]
pub struct LogSink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    on: AtomicBool,
    json: AtomicBool,
    access: Mutex<AccessLog>,
    queue: Mutex<Queue>,
    /// Told when there is something for the writer
    work: Condvar,
    /// Told when the writer has ended
    ended: Condvar,
}

/// What the writer has yet to do.
#[derive(Debug, Default)]
struct Queue {
    orders: VecDeque<Order>,
    /// Of records that are not yet written
    bytes: usize,
    spare: Vec<Vec<u8>>,
    lost: u64,
    running: bool,
    closing: bool,
}

/// In a queue with the records, so that each is written to what was configured when it was made.
#[derive(Debug)]
enum Order {
    Write(Vec<u8>),
    Output(Option<File>),
}

impl LogSink {
    /// Opens what `log` names, so that it happens while the process may. Starts no thread: none may exist before
    /// privileges are dropped.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub fn new(log: &Log) -> io::Result<Self> {
        let output = open(&log.access)?;
        let queue = Queue {
            orders: VecDeque::from([Order::Output(output)]),
            ..Queue::default()
        };
        Ok(Self(Arc::new(Shared {
            on: AtomicBool::new(log.access != AccessLog::Off),
            json: AtomicBool::new(log.format == LogFormat::Json),
            access: Mutex::new(log.access.clone()),
            queue: Mutex::new(queue),
            work: Condvar::new(),
            ended: Condvar::new(),
        })))
    }

    /// Whether changing to `log` takes a file that is not open yet.
    pub fn needs_file(&self, log: &Log) -> bool {
        matches!(log.access, AccessLog::File(_)) && *self.access() != log.access
    }

    /// Changes to what `log` says. `file` is its file, where it has one that was not open.
    pub fn configure(&self, log: &Log, file: Option<File>) {
        let mut access = self.access();
        self.0
            .json
            .store(log.format == LogFormat::Json, Ordering::Relaxed);
        if *access == log.access {
            return;
        }
        let output = match (&log.access, file) {
            (AccessLog::File(_), file) => Ok(file),
            (other, _) => open(other),
        };
        match output {
            Ok(output) => {
                self.0.queue().orders.push_back(Order::Output(output));
                self.0.work.notify_one();
                self.0
                    .on
                    .store(log.access != AccessLog::Off, Ordering::Relaxed);
                *access = log.access.clone();
            }
            Err(error) => {
                error!(log = ?log.access, %error, "cannot open the access log: keeping the one before")
            }
        }
    }

    /// Whether the log is a file, which may be renamed and opened anew.
    pub fn is_file(&self) -> bool {
        matches!(*self.access(), AccessLog::File(_))
    }

    /// Goes on in `file`: the one before was renamed.
    pub fn reopen(&self, file: File) {
        self.0.queue().orders.push_back(Order::Output(Some(file)));
        self.0.work.notify_one();
    }

    fn access(&self) -> MutexGuard<'_, AccessLog> {
        self.0.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the writer if it does not run. Called by itself when the first records are handed over.
    pub fn start(&self) {
        self.0.start(&mut self.0.queue());
    }

    /// Writes what has been handed over, waiting for at most two seconds, and ends the writer. What comes later is lost.
    pub fn shutdown(&self) {
        let mut queue = self.0.queue();
        queue.closing = true;
        self.0.work.notify_one();
        let ended = self
            .0
            .ended
            .wait_timeout_while(queue, LAST_WORDS, |queue| queue.running);
        drop(ended.unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.on.load(Ordering::Relaxed)
    }

    pub(super) fn is_json(&self) -> bool {
        self.0.json.load(Ordering::Relaxed)
    }

    /// Takes whole lines and leaves an empty buffer. When too much waits already, they are dropped and counted.
    pub(super) fn take(&self, bytes: &mut Vec<u8>) {
        let mut queue = self.0.queue();
        if queue.closing || queue.bytes >= WAITING {
            queue.lost += lines(bytes);
            bytes.clear();
            return;
        }
        self.0.start(&mut queue);
        let spare = queue.spare.pop().unwrap_or_default();
        queue.bytes += bytes.len();
        queue
            .orders
            .push_back(Order::Write(mem::replace(bytes, spare)));
        drop(queue);
        self.0.work.notify_one();
    }
}

impl Shared {
    /// Held for moments only, never while something is written.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        queue: MutexGuard<'a, Queue>,
        rest: Option<Duration>,
    ) -> MutexGuard<'a, Queue> {
        match rest {
            None => self
                .work
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner),
            Some(rest) => {
                self.work
                    .wait_timeout(queue, rest)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        }
    }

    fn start(self: &Arc<Self>, queue: &mut Queue) {
        if queue.running || queue.closing {
            return;
        }
        let shared = Arc::clone(self);
        match thread::Builder::new()
            .name("access-log".into())
            .spawn(move || Writer::default().run(&shared))
        {
            Ok(_) => queue.running = true,
            Err(error) => error!(%error, "cannot start the writer of the access log"),
        }
    }
}

/// The thread that writes.
#[derive(Debug, Default)]
struct Writer {
    output: Option<File>,
    /// Whether the last line was cut off, by a full disk for example
    torn: bool,
    lost: u64,
    why: Option<io::Error>,
    warned: Option<Instant>,
}

impl Writer {
    fn run(mut self, shared: &Shared) {
        let mut queue = shared.queue();
        loop {
            self.lost += mem::take(&mut queue.lost);
            let rest = self.until_warning();
            if rest == Some(Duration::ZERO) {
                drop(queue);
                self.warn();
                queue = shared.queue();
                continue;
            }
            match queue.orders.pop_front() {
                Some(Order::Output(output)) => {
                    self.output = output;
                    self.torn = false;
                }
                Some(Order::Write(mut bytes)) => {
                    drop(queue);
                    self.write(&bytes);
                    let done = bytes.len();
                    bytes.clear();
                    queue = shared.queue();
                    queue.bytes -= done;
                    if queue.spare.len() < SPARE && bytes.capacity() <= SPARE_BYTES {
                        queue.spare.push(bytes);
                    }
                }
                None if queue.closing => break,
                None => queue = shared.wait(queue, rest),
            }
        }
        drop(queue);
        if self.lost > 0 {
            self.warn();
        }
        shared.queue().running = false;
        shared.ended.notify_all();
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if let Err(error) = self.put(&mut rest) {
            self.lost += lines(rest);
            self.why = Some(error);
        }
    }

    /// Writes all, or leaves what was not written.
    fn put(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.output else {
            return Ok(());
        };
        if self.torn {
            put(file, &mut &b"\n"[..])?;
            self.torn = false;
        }
        let before = *rest;
        let result = put(file, rest);
        let written = &before[..before.len() - rest.len()];
        self.torn = written.last().is_some_and(|last| *last != b'\n');
        result
    }

    /// How long until lost records may be warned about; `None` when there are none.
    fn until_warning(&self) -> Option<Duration> {
        let rest = |warned: Instant| WARN_EVERY.saturating_sub(warned.elapsed());
        (self.lost > 0).then(|| self.warned.map_or(Duration::ZERO, rest))
    }

    fn warn(&mut self) {
        let records = mem::take(&mut self.lost);
        match self.why.take() {
            Some(error) => warn!(records, %error, "access records lost: they could not be written"),
            None => warn!(
                records,
                "access records lost: the log takes them more slowly than they come"
            ),
        }
        self.warned = Some(Instant::now());
    }
}

fn put(file: &mut File, bytes: &mut &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => *bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(REST),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn open(access: &AccessLog) -> io::Result<Option<File>> {
    match access {
        AccessLog::Off => Ok(None),
        // Not through std's handle, whose lock a writer that is stuck would hold against everybody.
        AccessLog::Stdout => duplicate(io::stdout()),
        AccessLog::Stderr => duplicate(io::stderr()),
        AccessLog::File(path) => open_log(path).map(Some),
    }
}

fn duplicate(stream: impl AsFd) -> io::Result<Option<File>> {
    let owned = stream.as_fd().try_clone_to_owned()?;
    Ok(Some(File::from(owned)))
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

#[cfg(test)]
mod tests;
