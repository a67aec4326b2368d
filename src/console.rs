//! What is said to whoever runs a command. `println!` and `eprintln!` end the process where nobody can be told anything.

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
        err(report(
            thread.name().unwrap_or("a thread without a name"),
            place.as_deref().unwrap_or("an unknown place"),
            why.unwrap_or("no reason is known"),
            std::backtrace::Backtrace::capture(),
        ));
    }));
}

fn report(thread: &str, place: &str, why: &str, backtrace: impl Display) -> String {
    format!(
        "\nlowport {} crashed: {why}\n  in {thread}, at {place}\n  {backtrace}\n\
         This is a mistake in lowport, not in your configuration. Please report it with these lines:\n  {}/issues\n\n",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_REPOSITORY"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_says_what_where_and_what_to_do() {
        let text = report(
            "worker-1",
            "src/a.rs:1:2",
            "index out of bounds",
            "no backtrace",
        );
        for part in [
            concat!(
                "lowport ",
                env!("CARGO_PKG_VERSION"),
                " crashed: index out of bounds\n"
            ),
            "in worker-1, at src/a.rs:1:2\n",
            "Please report it",
            "https://",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
