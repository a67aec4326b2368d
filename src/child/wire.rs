//! What the supervisor and the proxy tell each other: one JSON object a line.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::unix::OwnedReadHalf;

use super::state::{AppState, End};

/// The longest line that is read; the supervisor runs as the app's user, so it is not trusted with more.
const LINE: usize = 1024 * 1024;

/// From the supervisor to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Report {
    /// The supervisor is there; always the first line, unless it is [`Report::Refused`]
    Supervisor {
        /// Its process
        pid: u32,
        /// How many filters it has, and the app after it; or why none
        filters: Result<usize, String>,
    },
    /// The app does something else now
    State(AppState),
    /// Something that whoever runs it should know
    Note(String),
    /// There will be no supervision, because of this; always the first line, and the last one
    Refused(String),
}

impl Report {
    /// As a line, with its end.
    pub(super) fn to_line(&self) -> String {
        let object = match self {
            Self::State(AppState::Starting { attempt }) => json!({"starting": attempt}),
            Self::State(AppState::Ready) => json!({"ready": true}),
            Self::State(AppState::Exited {
                end,
                stderr,
                restart_in,
            }) => {
                let mut object = json!({"stderr": stderr, "restart_ms": millis(*restart_in)});
                match end {
                    End::Code(code) => object["code"] = json!(code),
                    End::Signal(signal) => object["signal"] = json!(signal),
                    End::NotStarted(why) => object["not_started"] = json!(why),
                }
                object
            }
            Self::State(AppState::Stopped(why)) => json!({"stopped": why}),
            Self::Supervisor {
                pid,
                filters: Ok(filters),
            } => json!({"supervisor": pid, "filters": filters}),
            Self::Supervisor {
                pid,
                filters: Err(why),
            } => json!({"supervisor": pid, "no_filters": why}),
            Self::Note(note) => json!({"note": note}),
            Self::Refused(why) => json!({"refused": why}),
        };
        format!("{object}\n")
    }

    /// `None` for what is none.
    pub(super) fn from_line(line: &str) -> Option<Self> {
        let object: Value = serde_json::from_str(line).ok()?;
        let text = |name: &str| Some(object.get(name)?.as_str()?.to_owned());
        if let Some(note) = text("note") {
            return Some(Self::Note(note));
        }
        if let Some(why) = text("refused") {
            return Some(Self::Refused(why));
        }
        if let Some(why) = text("stopped") {
            return Some(Self::State(AppState::Stopped(why)));
        }
        if object.get("ready").is_some() {
            return Some(Self::State(AppState::Ready));
        }
        if let Some(attempt) = object.get("starting") {
            let attempt = attempt.as_u64()?.try_into().ok()?;
            return Some(Self::State(AppState::Starting { attempt }));
        }
        if let Some(pid) = object.get("supervisor") {
            let filters = match text("no_filters") {
                Some(why) => Err(why),
                None => Ok(object.get("filters")?.as_u64()?.try_into().ok()?),
            };
            let pid = pid.as_u64()?.try_into().ok()?;
            return Some(Self::Supervisor { pid, filters });
        }
        let number = |name: &str| object.get(name)?.as_i64()?.try_into().ok();
        let end = number("code")
            .map(End::Code)
            .or_else(|| number("signal").map(End::Signal))
            .or_else(|| text("not_started").map(End::NotStarted))?;
        let lines = object.get("stderr")?.as_array()?;
        Some(Self::State(AppState::Exited {
            end,
            stderr: lines
                .iter()
                .filter_map(|line| Some(line.as_str()?.to_owned()))
                .collect(),
            restart_in: Duration::from_millis(object.get("restart_ms")?.as_u64()?),
        }))
    }
}

/// From the proxy to the supervisor: stop the app within `deadline`, and end.
pub(super) fn stop_line(deadline: Duration) -> String {
    format!("{}\n", json!({"stop_ms": millis(deadline)}))
}

/// The deadline of a line that [`stop_line`] made.
pub(super) fn stop_of(line: &str) -> Option<Duration> {
    let object: Value = serde_json::from_str(line).ok()?;
    Some(Duration::from_millis(object.get("stop_ms")?.as_u64()?))
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Lines as they arrive.
#[derive(Debug)]
pub(super) struct Lines {
    socket: OwnedReadHalf,
    buffer: Vec<u8>,
}

impl Lines {
    /// From this socket.
    pub(super) fn new(socket: OwnedReadHalf) -> Self {
        Self {
            socket,
            buffer: Vec::new(),
        }
    }

    /// The next line without its end; `None` once the other side is gone. Nothing is lost if it is dropped in between.
    ///
    /// # Errors
    /// When reading fails, or the line is too long or not UTF-8.
    pub(super) async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                let line = String::from_utf8(line)
                    .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                return Ok(Some(line));
            }
            if self.buffer.len() > LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;

    #[test]
    fn reports_survive_the_way() {
        let exited = |end| {
            Report::State(AppState::Exited {
                end,
                stderr: vec!["a\n\"b\"".into(), "\u{fffd}ü".into()],
                restart_in: Duration::from_millis(1600),
            })
        };
        for report in [
            Report::State(AppState::Starting { attempt: 7 }),
            Report::State(AppState::Ready),
            exited(End::Code(0)),
            exited(End::Signal(11)),
            exited(End::NotStarted("no \"x\"".into())),
            Report::State(AppState::Stopped("why".into())),
            Report::Supervisor {
                pid: u32::MAX,
                filters: Ok(2),
            },
            Report::Supervisor {
                pid: 1,
                filters: Err("why \"x\"".into()),
            },
            Report::Note("a\nb".into()),
            Report::Refused("c".into()),
        ] {
            let line = report.to_line();
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert_eq!(Report::from_line(line.trim_end()), Some(report));
        }
    }

    #[test]
    fn nonsense_is_no_report() {
        for line in [
            "",
            "{",
            "[]",
            "3",
            "{}",
            r#"{"starting":-1}"#,
            r#"{"starting":"x"}"#,
            r#"{"supervisor":-1,"filters":2}"#,
            r#"{"supervisor":1}"#,
            r#"{"code":1}"#,
            r#"{"code":99999999999,"stderr":[],"restart_ms":1}"#,
        ] {
            assert_eq!(Report::from_line(line), None, "{line}");
        }
        assert_eq!(stop_of(r#"{"stop":1}"#), None);
        let second = Duration::from_secs(1);
        assert_eq!(stop_of(stop_line(second).trim_end()), Some(second));
    }

    #[tokio::test]
    async fn lines_are_cut_and_bounded() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut lines = Lines::new(ours.into_split().0);
        let (_read, mut write) = theirs.into_split();
        write.write_all(b"one\ntwo\nthr").await.unwrap();
        assert_eq!(lines.next().await.unwrap().as_deref(), Some("one"));
        assert_eq!(lines.next().await.unwrap().as_deref(), Some("two"));
        write.write_all(b"ee\n").await.unwrap();
        assert_eq!(lines.next().await.unwrap().as_deref(), Some("three"));
        let endless =
            tokio::spawn(async move { while write.write_all(&[b'x'; 4096]).await.is_ok() {} });
        assert!(lines.next().await.is_err());
        drop(lines);
        endless.abort();
    }
}
