//! Lines for a terminal.

use super::finding::Severity;

/// How wide a line becomes before its next word goes below.
const WIDTH: usize = 80;

/// Whether to colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    fn code(self, code: &str, text: &str) -> String {
        if self.0 && !text.trim().is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.code("1", text)
    }

    /// Dims the rule's name at the end of `text`.
    pub(super) fn rule(self, text: &str, rule: &str) -> String {
        let name = format!("[{rule}]");
        match text.strip_suffix(&name) {
            Some(text) => format!("{text}{}", self.code("2", &name)),
            None => text.to_owned(),
        }
    }

    /// In the colour of how bad it is.
    pub(super) fn severity(self, severity: Severity, text: &str) -> String {
        let code = match severity {
            Severity::High => "31",
            Severity::Medium | Severity::Unknown => "33",
            Severity::Low => "36",
            Severity::Note => "2",
            Severity::Holds => "32",
        };
        self.code(code, text)
    }
}

/// Breaks `text`, which begins after `indent` columns, between words. What is longer than a line stays whole.
pub(super) fn wrapped(text: &str, indent: usize) -> String {
    let mut out = String::new();
    let mut column = indent;
    for (at, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if at > 0 && column + 1 + width > WIDTH {
            out.push_str(&format!("\n{:indent$}", ""));
            column = indent;
        } else if at > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out
}

/// Names and contents come from whoever wrote the files; no escape sequence of theirs may reach a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escaped = character.is_control().then(|| character.escape_default());
            let plain = escaped.is_none().then_some(character);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_below_and_stay_whole() {
        let word = "w".repeat(30);
        assert_eq!(
            wrapped(&format!("{word} {word} {word}"), 10),
            format!("{word} {word}\n{:10}{word}", "")
        );
        let long = "l".repeat(200);
        assert_eq!(
            wrapped(&format!("a {long} b"), 2),
            format!("a\n  {long}\n  b")
        );
        assert_eq!(wrapped("", 2), "");
    }
}
