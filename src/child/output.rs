//! What the app prints, line by line, told apart from what lowport prints.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

/// Bytes of a line before it goes on in a line of its own.
const LINE: usize = 16 * 1024;
/// Lines of standard error that an error page shows.
const TAIL: usize = 40;
/// Characters of each.
const TAIL_LINE: usize = 1000;
/// Lines on the way to the terminal; then the app waits for whoever reads.
const QUEUE: usize = 256;

/// One of the app's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// Where the app's lines go.
#[derive(Debug, Clone)]
pub(super) struct Console {
    lines: mpsc::Sender<(Stream, String)>,
    /// Whether colours are wanted on standard output, and on standard error
    color: [bool; 2],
}

impl Console {
    /// Standard output and error of this process. A thread writes them, so that a terminal or pipe that nobody reads
    /// holds up the app and not its supervisor. The thread ends when every copy of the console is gone.
    pub(super) fn stdio() -> io::Result<(Self, JoinHandle<()>)> {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let color = [io::stdout().is_terminal(), io::stderr().is_terminal()]
            .map(|terminal| terminal && wanted);
        let (console, mut lines) = Self::channel(color);
        let thread = std::thread::Builder::new()
            .name("app-output".into())
            .spawn(move || {
                while let Some((stream, line)) = lines.blocking_recv() {
                    // Nobody reads any more: the app goes on all the same.
                    let _ = match stream {
                        Stream::Stdout => io::stdout().lock().write_all(line.as_bytes()),
                        Stream::Stderr => io::stderr().lock().write_all(line.as_bytes()),
                    };
                }
            })?;
        Ok((console, thread))
    }

    /// Into a channel, finished lines with their ends.
    pub(super) fn channel(color: [bool; 2]) -> (Self, mpsc::Receiver<(Stream, String)>) {
        let (sender, lines) = mpsc::channel(QUEUE);
        (
            Self {
                lines: sender,
                color,
            },
            lines,
        )
    }

    /// Whether both outputs show colours.
    pub(super) fn is_colorful(&self) -> bool {
        self.color == [true; 2]
    }

    fn color(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.color[0],
            Stream::Stderr => self.color[1],
        }
    }
}

/// The last lines of standard error.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL {
            lines.pop_front();
        }
        lines.push_back(line.chars().take(TAIL_LINE).collect());
    }

    /// What there is so far, oldest first.
    pub(super) fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}

/// Copies `from` to the console until its end, and keeps its last lines in `tail`.
pub(super) async fn relay(
    mut from: impl AsyncRead + Unpin,
    stream: Stream,
    console: Console,
    tail: Option<Tail>,
) {
    let color = console.color(stream);
    let print = async |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        if let Some(tail) = &tail {
            tail.push(&clean(&line, false));
        }
        let prefix = if color {
            "\x1b[2mapp |\x1b[0m"
        } else {
            "app |"
        };
        let text = clean(&line, color);
        let reset = if text.contains('\x1b') { "\x1b[0m" } else { "" };
        // Whoever wrote the lines is gone: read on, or the app would block.
        let _ = console
            .lines
            .send((stream, format!("{prefix} {text}{reset}\n")))
            .await;
    };
    let mut buffer = Vec::with_capacity(LINE);
    loop {
        let ended = !matches!(from.read_buf(&mut buffer).await, Ok(1..));
        let mut rest = buffer.as_slice();
        while let Some(end) = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .or_else(|| (rest.len() > LINE).then(|| cut(rest)))
        {
            print(&rest[..end]).await;
            rest = &rest[end..];
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        if ended {
            if !rest.is_empty() {
                print(rest).await;
            }
            return;
        }
        let done = buffer.len() - rest.len();
        buffer.drain(..done);
    }
}

/// Where to cut a line of more than [`LINE`] bytes without tearing a character of UTF-8.
fn cut(line: &[u8]) -> usize {
    let starts = |at: &usize| line.get(*at).is_some_and(|byte| byte & 0xc0 != 0x80);
    (LINE - 3..=LINE).rev().find(starts).unwrap_or(LINE)
}

/// The line without what could move the cursor, rename the window or hide other lines; colours only when wanted.
fn clean(line: &str, color: bool) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(character) = rest.next() {
        match character {
            '\x1b' => escape(&mut rest, color, &mut out),
            '\t' => out.push('\t'),
            control if control.is_control() => {}
            other => out.push(other),
        }
    }
    out
}

/// What follows ESC (ECMA-48 section 5.4): kept only when it is a colour, `CSI ... m`.
fn escape(rest: &mut std::str::Chars<'_>, color: bool, out: &mut String) {
    match rest.next() {
        Some('[') => {
            let (mut parameters, mut standard) = (String::new(), true);
            for character in rest.by_ref() {
                match character {
                    '0'..='9' | ';' | ':' => parameters.push(character),
                    'm' => {
                        if color && standard {
                            let _ = write!(out, "\x1b[{parameters}m");
                        }
                        return;
                    }
                    // The final byte of another sequence, or nothing that belongs into one.
                    '@'..='~' | '\0'..='\x1f' => return,
                    _ => standard = false,
                }
            }
        }
        // A string, such as a window title or a link: up to BEL or ESC \.
        Some(']' | 'P' | '^' | '_' | 'X') => {
            while let Some(character) = rest.next() {
                match character {
                    '\x07' => return,
                    '\x1b' => {
                        rest.next();
                        return;
                    }
                    _ => {}
                }
            }
        }
        // Intermediate bytes, then a final one.
        Some(' '..='/') => {
            rest.by_ref()
                .find(|character| !(' '..='/').contains(character));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn relayed(bytes: &[u8], color: bool) -> (Vec<String>, Vec<String>) {
        let (console, mut lines) = Console::channel([color; 2]);
        let tail = Tail::default();
        let relay = relay(bytes, Stream::Stderr, console, Some(tail.clone()));
        let collect = async {
            let mut all = Vec::new();
            while let Some((stream, line)) = lines.recv().await {
                assert_eq!(stream, Stream::Stderr);
                all.push(line);
            }
            all
        };
        let ((), all) = tokio::join!(relay, collect);
        (all, tail.lines())
    }

    #[tokio::test]
    async fn every_line_is_prefixed_the_last_one_too() {
        let (lines, _) = relayed(b"one\r\n\ntwo", false).await;
        assert_eq!(lines, ["app | one\n", "app | \n", "app | two\n"]);
        let (lines, _) = relayed(b"one\n", true).await;
        assert_eq!(lines, ["\x1b[2mapp |\x1b[0m one\n"]);
    }

    #[tokio::test]
    async fn long_lines_go_on_in_the_next_and_lose_nothing() {
        let long = "ü".repeat(LINE);
        let (lines, tail) = relayed(format!("x{long}\nend\n").as_bytes(), false).await;
        assert!(lines.iter().all(|line| line.len() <= LINE + 8));
        assert!(lines.len() >= 3);
        let joined: String = lines
            .iter()
            .map(|line| line.trim_end().trim_start_matches("app | "))
            .collect();
        assert_eq!(joined, format!("x{long}end"));
        assert!(tail.iter().all(|line| line.chars().count() <= TAIL_LINE));
    }

    #[tokio::test]
    async fn the_tail_is_the_last_forty_lines_without_colours() {
        let text: String = (0..50).map(|n| format!("\x1b[31m{n}\x1b[0m\n")).collect();
        let (_, tail) = relayed(text.as_bytes(), true).await;
        let expected: Vec<String> = (10..50).map(|n| n.to_string()).collect();
        assert_eq!(tail, expected);
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_do_no_harm() {
        let (lines, _) = relayed(b"a\xff\xfe\0\x07b\n", true).await;
        assert_eq!(lines, ["\x1b[2mapp |\x1b[0m a\u{fffd}\u{fffd}b\n"]);
    }

    #[test]
    fn only_colours_are_kept_and_only_when_wanted() {
        for (line, colored, plain) in [
            ("\x1b[1;31mred\x1b[m", "\x1b[1;31mred\x1b[m", "red"),
            ("\x1b[38:2:1:2:3mx", "\x1b[38:2:1:2:3mx", "x"),
            ("a\x1b[2J\x1b[Hb\x1b[?25lc", "abc", "abc"),
            ("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y", "xy", "xy"),
            ("a\x1b(Bb\x1bcd\x1b", "abd", "abd"),
            ("a\tb\x08\x7f\u{9b}31mc", "a\tb31mc", "a\tb31mc"),
            ("\x1b[31", "", ""),
            ("\x1b[>4mx", "x", "x"),
        ] {
            assert_eq!(clean(line, true), colored, "{line:?}");
            assert_eq!(clean(line, false), plain, "{line:?}");
        }
    }
}
