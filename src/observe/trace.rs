//! lowport's own log: one line an event, to standard error.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};

use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Begins to log. `RUST_LOG` says what, else it is `info` and above, with `verbose` 1 lowport's own `debug` and with 2
/// its `trace`. Colours only for a terminal, and not with `NO_COLOR`. Calling it again does nothing.
pub fn init(verbose: u8) {
    let wanted = std::env::var("RUST_LOG").unwrap_or_default();
    let (filter, complaint) = filter(&wanted, verbose);
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let format = Format {
        color: io::stderr().is_terminal() && !no_color,
    };
    let begun = tracing_subscriber::fmt()
        // They would be reported with `eprintln!`, which panics where standard error is broken.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .event_format(format)
        .with_writer(|| Stderr)
        .try_init();
    if let (Ok(()), Some(complaint)) = (begun, complaint) {
        warn!(
            error = complaint,
            "RUST_LOG is not understood and has no effect"
        );
    }
}

/// What is logged, and what is wrong with `wanted`, if anything.
fn filter(wanted: &str, verbose: u8) -> (EnvFilter, Option<String>) {
    let usual = match verbose {
        0 => "info",
        1 => "info,lowport=debug",
        _ => "info,lowport=trace",
    };
    if wanted.is_empty() {
        return (EnvFilter::new(usual), None);
    }
    match EnvFilter::try_new(wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(usual), Some(error.to_string())),
    }
}

/// Standard error, one system call a line, so that lines of several threads do not mix. That nobody reads it any more is
/// no reason to stop serving.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `2026-11-24T14:53:51.042Z INFO  message field=value field="other value"`
struct Format {
    color: bool,
}

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (dim, color, off) = match (self.color, *event.metadata().level()) {
            (false, _) => ("", "", ""),
            (true, Level::ERROR) => (DIM, "\x1b[31m", OFF),
            (true, Level::WARN) => (DIM, "\x1b[33m", OFF),
            (true, Level::INFO) => (DIM, "\x1b[32m", OFF),
            (true, _) => (DIM, "\x1b[34m", OFF),
        };
        let level = event.metadata().level();
        write!(
            out,
            "{dim}{}{off} {color}{level:<5}{off} ",
            Now(OffsetDateTime::now_utc())
        )?;
        let mut line = Line::default();
        event.record(&mut line);
        out.write_str(&line.message)?;
        for (name, value) in line.fields {
            write!(out, " {dim}{name}={off}{value}")?;
        }
        writeln!(out)
    }
}

const DIM: &str = "\x1b[2m";
const OFF: &str = "\x1b[0m";

/// UTC, to the millisecond.
struct Now(OffsetDateTime);

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.0.to_calendar_date();
        let (hour, minute, second, millis) = self.0.to_hms_milli();
        let month = u8::from(month);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
        )
    }
}

/// An event's parts, with nothing left in them that commands a terminal.
#[derive(Default)]
struct Line {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Line {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            // Ours, and at times of several lines.
            self.message = clean(value, |character| character == '\n' || character == '\t');
        } else {
            self.fields.push((field.name(), word(value)));
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// One word, in quotes where it would not look like one. Values come from clients, too.
fn word(value: &str) -> String {
    let value = clean(value, |_| false);
    let odd = |character: char| character.is_whitespace() || matches!(character, '"' | '=');
    if value.is_empty() || value.contains(odd) {
        format!("\"{}\"", value.replace('"', "\\\""))
    } else {
        value
    }
}

fn clean(value: &str, keep: fn(char) -> bool) -> String {
    let mut cleaned = String::with_capacity(value.len());
    for character in value.chars() {
        if character.is_control() && !keep(character) {
            // Writing to memory does not fail.
            let _ = write!(cleaned, "{}", character.escape_default());
        } else {
            cleaned.push(character);
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::sync::{Arc, Mutex};
    use tracing::{debug, error, info, trace};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: EnvFilter, color: bool, work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .event_format(Format { color })
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_has_time_level_message_and_fields() {
        let line = logged(EnvFilter::new("info"), false, || {
            info!(id = %"abc", status = 502, limit = ?std::time::Duration::from_secs(5), why = "timed out", "failed");
        });
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(time.len(), "2026-11-24T14:53:51.042Z".len());
        assert!(time.starts_with("20") && time.ends_with('Z') && time.as_bytes()[19] == b'.');
        assert_eq!(
            rest,
            "INFO  failed id=abc status=502 limit=5s why=\"timed out\"\n"
        );
        let then = OffsetDateTime::from_unix_timestamp_nanos(1_795_532_031_042_000_000).unwrap();
        assert_eq!(Now(then).to_string(), "2026-11-24T14:53:51.042Z");
    }

    #[test]
    fn a_hostile_value_stays_in_its_field() {
        let line = logged(EnvFilter::new("info"), false, || {
            warn!(reason = %"a\"\nb\x1b[2J level=x", empty = "", "two\nlines\x1b[2J");
        });
        let (_, rest) = line.split_once(' ').unwrap();
        assert_eq!(
            rest,
            "WARN  two\nlines\\u{1b}[2J reason=\"a\\\"\\nb\\u{1b}[2J level=x\" empty=\"\"\n"
        );
    }

    #[test]
    fn colours_mark_the_level() {
        let line = logged(EnvFilter::new("info"), true, || error!("x"));
        assert!(line.contains("\x1b[31mERROR\x1b[0m x\n"), "{line:?}");
    }

    #[test]
    fn verbosity_is_for_lowport_and_rust_log_goes_before_it() {
        let levels = |wanted, verbose| {
            let (filter, complaint) = filter(wanted, verbose);
            let lines = logged(filter, false, || {
                trace!("own-trace");
                debug!("own-debug");
                info!("own-info");
                debug!(target: "other", "other-debug");
                info!(target: "other", "other-info");
            });
            let words: Vec<String> = lines
                .lines()
                .map(|line| line.rsplit(' ').next().unwrap().to_owned())
                .collect();
            (words.join(" "), complaint)
        };
        assert_eq!(levels("", 0).0, "own-info other-info");
        assert_eq!(levels("", 1).0, "own-debug own-info other-info");
        assert_eq!(levels("", 2).0, "own-trace own-debug own-info other-info");
        assert_eq!(
            levels("other=debug", 2),
            ("other-debug other-info".to_owned(), None)
        );
        let (words, complaint) = levels("lowport=loud", 0);
        assert_eq!(words, "own-info other-info");
        assert!(complaint.is_some());
    }

    /// Runs itself again with a standard error that nobody reads.
    #[test]
    fn a_closed_standard_error_is_no_reason_to_panic() {
        const AGAIN: &str = "LOWPORT_TEST_CLOSED_STDERR";
        if std::env::var_os(AGAIN).is_some() {
            init(0);
            init(0);
            for _ in 0..10 {
                error!("nobody reads this");
            }
            println!("survived");
            return;
        }
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "observe::trace::tests::a_closed_standard_error_is_no_reason_to_panic",
            ])
            .env(AGAIN, "1")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stderr(writer)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && said.contains("survived"),
            "{said}"
        );
    }
}
