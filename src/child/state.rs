//! What the app is doing.

use std::fmt;
use std::time::Duration;

use nix::sys::signal::Signal;

/// What the app is doing, for requests that wait for it and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppState {
    /// It has been started, or is about to be, and does not accept connections yet
    Starting {
        /// From 1; counts the tries since it last worked
        attempt: u32,
    },
    /// It accepts connections
    Ready,
    /// It is down, and started again in a while
    Exited {
        /// How it went down
        end: End,
        /// The last lines of its standard error, at most 40
        stderr: Vec<String>,
        /// From now to the next start
        restart_in: Duration,
    },
    /// It is down for good: lowport stops, or its supervisor has died. The text says which
    Stopped(String),
}

/// How the app went down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It ended by itself with this exit code, 0 to 255
    Code(i32),
    /// It was killed by this signal
    Signal(i32),
    /// It did not even start; the text is a clause that says why
    NotStarted(String),
}

impl fmt::Display for AppState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting { attempt: 0 | 1 } => f.write_str("The app is starting."),
            Self::Starting { attempt } => write!(f, "The app is starting (attempt {attempt})."),
            Self::Ready => f.write_str("The app is ready."),
            Self::Exited {
                end, restart_in, ..
            } => write!(
                f,
                "The app {end}. It is started again in {}.",
                Seconds(*restart_in)
            ),
            Self::Stopped(why) => f.write_str(why),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "was killed by {signal}"),
                Err(_) => write!(f, "was killed by signal {number}"),
            },
            Self::NotStarted(why) => write!(f, "cannot be started: {why}"),
        }
    }
}

/// `0.1 s`, `2 s`: no more digits than a person needs.
pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (self.0.as_millis() + 50) / 100;
        if tenths.is_multiple_of(10) || tenths >= 100 {
            write!(f, "{} s", tenths / 10)
        } else {
            write!(f, "{}.{} s", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_can_read_it() {
        let exited = |end, millis| {
            AppState::Exited {
                end,
                stderr: Vec::new(),
                restart_in: Duration::from_millis(millis),
            }
            .to_string()
        };
        for (text, expected) in [
            (
                AppState::Starting { attempt: 1 }.to_string(),
                "The app is starting.",
            ),
            (
                AppState::Starting { attempt: 3 }.to_string(),
                "The app is starting (attempt 3).",
            ),
            (
                exited(End::Code(1), 2000),
                "The app exited with code 1. It is started again in 2 s.",
            ),
            (
                exited(End::Signal(9), 100),
                "The app was killed by SIGKILL. It is started again in 0.1 s.",
            ),
            (
                exited(End::Signal(40), 25_600),
                "The app was killed by signal 40. It is started again in 25 s.",
            ),
            (
                exited(End::NotStarted("no".into()), 1600),
                "The app cannot be started: no. It is started again in 1.6 s.",
            ),
        ] {
            assert_eq!(text, expected);
        }
    }
}
