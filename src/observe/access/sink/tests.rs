//! Buffer, queue and writer together, with real files and pipes.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use http::Version;
use nix::sys::stat::Mode;

use super::super::super::IdSource;
use super::super::{AccessRecord, LogBuffer};
use std::fs::OpenOptions;
use std::path::Path;

use super::*;
use crate::privilege::open_log;

fn log(access: AccessLog) -> Log {
    Log {
        access,
        format: LogFormat::Combined,
    }
}

fn to(path: &Path) -> Log {
    log(AccessLog::File(path.to_owned()))
}

fn write(buffer: &LogBuffer, target: &str) -> bool {
    buffer.write(&AccessRecord {
        client: [192, 0, 2, 1].into(),
        method: "GET",
        target,
        version: Version::HTTP_11,
        host: b"h",
        status: 200,
        received: 0,
        sent: 0,
        referer: None,
        user_agent: None,
        id: &IdSource::new().next(),
        upstream: None,
        upstream_time: None,
        time: Duration::ZERO,
        reason: None,
    })
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    (folder, path)
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::yield_now();
    }
}

/// The targets in the file, once there are so many.
fn targets(path: &Path, count: usize) -> Vec<String> {
    let read = || fs::read_to_string(path).unwrap_or_default();
    until("enough lines", || read().lines().count() >= count);
    let target = |line: &str| line.split(' ').nth(6).unwrap_or("?").to_owned();
    read().lines().map(target).collect()
}

fn running(sink: &LogSink) -> bool {
    sink.0.queue().running
}

#[test]
fn the_file_is_opened_at_once_and_records_come_with_the_flush() {
    let (_folder, path) = folder();
    let sink = LogSink::new(&to(&path)).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7, 0, "not for others to read");
    let buffer = LogBuffer::new(sink.clone());
    assert!(buffer.is_on());
    assert!(write(&buffer, "/1"), "the first one asks for a flush");
    assert!(!write(&buffer, "/2"));
    assert!(!running(&sink), "no thread before records are handed over");
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    buffer.flush();
    assert_eq!(targets(&path, 2), ["/1", "/2"]);
    assert!(write(&buffer, "/3"), "and so does the first after a flush");
    buffer.flush();
    sink.shutdown();
    assert!(!running(&sink), "the thread has ended");
    assert_eq!(
        targets(&path, 3),
        ["/1", "/2", "/3"],
        "what came before is written"
    );
}

#[test]
fn a_full_buffer_hands_itself_over() {
    let (_folder, path) = folder();
    let sink = LogSink::new(&to(&path)).unwrap();
    let buffer = LogBuffer::new(sink.clone());
    let mut count = 0;
    while !running(&sink) {
        assert!(count < 1000);
        write(&buffer, "/some/path");
        count += 1;
    }
    assert!(count > 100);
    assert_eq!(targets(&path, count).len(), count);
    assert!(write(&buffer, "/first"), "it is empty now");
    sink.shutdown();
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_start() {
    let (folder, _) = folder();
    let missing = folder.path().join("no/such/folder/access.log");
    assert!(LogSink::new(&to(&missing)).is_err());
}

#[test]
fn a_reload_changes_file_format_and_whether_there_is_a_log() {
    let (folder, path) = folder();
    let sink = LogSink::new(&log(AccessLog::Off)).unwrap();
    let buffer = LogBuffer::new(sink.clone());
    assert!(!buffer.is_on());
    assert!(sink.needs_file(&to(&path)));
    sink.configure(&to(&path), open_log(&path).ok());
    assert!(buffer.is_on() && sink.is_file() && !sink.needs_file(&to(&path)));
    write(&buffer, "/1");
    buffer.flush();
    let other = folder.path().join("other.log");
    let next = Log {
        format: LogFormat::Json,
        ..to(&other)
    };
    sink.configure(&next, open_log(&other).ok());
    write(&buffer, "/2");
    buffer.flush();
    sink.configure(&log(AccessLog::Off), None);
    assert!(!buffer.is_on());
    sink.shutdown();
    assert_eq!(targets(&path, 1), ["/1"]);
    let line = fs::read(&other).unwrap();
    let object: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(object["target"], "/2");
}

#[test]
fn a_renamed_file_is_let_go_of_on_reopen() {
    let (folder, path) = folder();
    let sink = LogSink::new(&to(&path)).unwrap();
    let buffer = LogBuffer::new(sink.clone());
    let rotated = folder.path().join("access.log.1");
    write(&buffer, "/1");
    buffer.flush();
    fs::rename(&path, &rotated).unwrap();
    write(&buffer, "/2");
    buffer.flush();
    assert_eq!(targets(&rotated, 2), ["/1", "/2"]);
    sink.reopen(open_log(&path).unwrap());
    write(&buffer, "/3");
    buffer.flush();
    assert_eq!(targets(&path, 1), ["/3"]);
    assert_eq!(targets(&rotated, 2).len(), 2);
    sink.shutdown();
}

#[test]
fn a_blocked_pipe_costs_records_not_time_and_the_loss_is_counted() {
    let (folder, _) = folder();
    let path = folder.path().join("pipe");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    let mut reader = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let sink = LogSink::new(&to(&path)).unwrap();
    let buffer = LogBuffer::new(sink.clone());
    let target = format!("/{}", "x".repeat(1000));
    let count: u64 = 3 * WAITING as u64 / 1000;
    for _ in 0..count {
        write(&buffer, &target);
    }
    buffer.flush();
    let lost = sink.0.queue().lost;
    assert!(lost > count / 2, "{lost} of {count} lost");
    assert!(sink.0.queue().bytes <= WAITING + 2 * super::super::buffer::FULL);
    let began = Instant::now();
    sink.shutdown();
    assert!(running(&sink), "still stuck");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "shutting down is bounded"
    );
    // Everything that was not dropped is there, in whole lines.
    let mut lines = 0;
    let mut block = vec![0; 65536];
    while lines < count - lost {
        let read = reader.read(&mut block).unwrap();
        lines += super::lines(&block[..read]);
    }
    until("the writer's end", || !running(&sink));
    assert_eq!(lines, count - lost);
}

#[test]
fn what_a_full_disk_swallows_is_counted_and_a_torn_line_is_ended() {
    let mut writer = Writer {
        output: Some(OpenOptions::new().write(true).open("/dev/full").unwrap()),
        ..Writer::default()
    };
    writer.write(b"one\ntwo\n");
    assert_eq!(writer.lost, 2);
    assert_eq!(
        writer.why.as_ref().map(io::Error::kind),
        Some(io::ErrorKind::StorageFull)
    );
    assert_eq!(writer.until_warning(), Some(Duration::ZERO));
    writer.warn();
    assert_eq!(writer.until_warning(), None, "once");
    writer.write(b"three\n");
    assert!(
        writer.until_warning().unwrap() > Duration::ZERO,
        "not at once again"
    );

    let (_folder, path) = folder();
    fs::write(&path, "half a li").unwrap();
    let mut writer = Writer {
        output: open_log(&path).ok(),
        torn: true,
        ..Writer::default()
    };
    writer.write(b"whole\n");
    writer.write(b"another\n");
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "half a li\nwhole\nanother\n"
    );
}

#[test]
fn a_pipe_that_somebody_made_non_blocking_is_waited_for() {
    let (mut reader, end) = io::pipe().unwrap();
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&end, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    let mut writer = Writer {
        output: Some(File::from(std::os::fd::OwnedFd::from(end))),
        ..Writer::default()
    };
    let line = [b"x".repeat(999), b"\n".to_vec()].concat();
    let writing = thread::spawn(move || {
        for _ in 0..300 {
            writer.write(&line);
        }
        writer.lost
    });
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 300_000);
    assert_eq!(writing.join().unwrap(), 0);
}
