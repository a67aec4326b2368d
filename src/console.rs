//! What is said to whoever runs a command. `println!` and `eprintln!` end the process where nobody can be told anything.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, Write};

/// Writes to standard output. That a reader has seen enough, such as head(1), is no failure.
///
/// # Errors
/// Why it could not be written: it must not be taken for done.
pub fn out(text: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Writes to standard error, where that can be.
pub fn err(text: impl Display) {
    let _ = write!(io::stderr().lock(), "{text}");
}

/// Has what is said of a panic say whose mistake it is, and what to do about it.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let payload = panic.payload();
        let why = (payload.downcast_ref::<&str>().copied())
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let thread = std::thread::current();
        let backtrace = Backtrace::capture();
        let captured = backtrace.status() == BacktraceStatus::Captured;
        err(report(
            thread.name().unwrap_or("a thread without a name"),
            place.as_deref().unwrap_or("an unknown place"),
            why.unwrap_or("no reason is known"),
            captured.then_some(&backtrace),
        ));
    }));
}

fn report(thread: &str, place: &str, why: &str, backtrace: Option<&Backtrace>) -> String {
    let more = backtrace.map_or_else(
        || "RUST_BACKTRACE=1 tells more".to_owned(),
        Backtrace::to_string,
    );
    format!(
        "\nlowport {} crashed: {why}\n  in {thread}, at {place}\n  {more}\n\
         This is a mistake in lowport, not in your configuration. Please report it with these lines:\n  {}/issues\n\n",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_REPOSITORY"),
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Runs itself again, to crash.
    #[test]
    fn a_crash_says_what_where_and_what_to_do() {
        const AGAIN: &str = "LOWPORT_TEST_CRASH";
        if std::env::var_os(AGAIN).is_some() {
            report_panics();
            panic!("on {}", "purpose");
        }
        for (backtrace, more) in [("0", "RUST_BACKTRACE=1 tells more"), ("1", "console.rs")] {
            let output = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "console::tests::a_crash_says_what_where_and_what_to_do",
                ])
                .arg("--nocapture")
                .env(AGAIN, "1")
                .env("RUST_BACKTRACE", backtrace)
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            for part in [
                concat!(
                    "lowport ",
                    env!("CARGO_PKG_VERSION"),
                    " crashed: on purpose\n"
                ),
                "in console::tests::a_crash_says_what_where_and_what_to_do, at src/console.rs:",
                more,
                "Please report it with these lines:\n  https://",
            ] {
                assert!(told.contains(part), "{part} in {told}");
            }
        }
    }
}
