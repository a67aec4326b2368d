//! A Dockerfile's instructions, as BuildKit cuts them.

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instruction {
    /// The line that it begins on, from 1
    pub(super) line: usize,
    /// The line that it ends on, with what it continues on and its here-documents
    pub(super) end: usize,
    /// In upper case
    pub(super) keyword: String,
    /// What follows, on one line
    pub(super) rest: String,
    /// Its here-documents
    pub(super) documents: String,
}

impl Instruction {
    /// `keyword rest`; `None` for an empty line.
    pub(super) fn new(text: &str, line: usize, end: usize) -> Option<Self> {
        let text = text.trim();
        let (keyword, rest) = text
            .split_once(|character: char| character.is_whitespace())
            .unwrap_or((text, ""));
        (!keyword.is_empty()).then(|| Self {
            line,
            end,
            keyword: keyword.to_ascii_uppercase(),
            rest: rest.trim().to_owned(),
            documents: String::new(),
        })
    }
}

/// All instructions, in order.
pub(super) fn instructions(text: &str) -> Vec<Instruction> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.lines().collect();
    let escape = escape(&lines);
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let first = at;
        let mut text = String::new();
        let mut end = first;
        while at < lines.len() {
            let line = lines[at].trim_end();
            at += 1;
            // A comment and an empty line leave a continued instruction open.
            if is_comment(line) || (line.is_empty() && !text.is_empty()) {
                continue;
            }
            end = at;
            match line.strip_suffix(escape) {
                Some(line) => text.push_str(line),
                None => {
                    text.push_str(line);
                    break;
                }
            }
        }
        let begins = lines[first..]
            .iter()
            .position(|line| !is_comment(line) && !line.trim().is_empty());
        let Some(mut instruction) = Instruction::new(&text, first + 1 + begins.unwrap_or(0), end)
        else {
            continue;
        };
        if matches!(instruction.keyword.as_str(), "RUN" | "COPY" | "ADD") {
            for (name, strips_tabs) in here_documents(&instruction.rest) {
                let ends = lines[at..].iter().position(|line| {
                    let line = if strips_tabs {
                        line.trim_start_matches('\t')
                    } else {
                        line
                    };
                    line == name
                });
                // Without its end BuildKit refuses the file; the lines are then read as if it were none.
                let Some(ends) = ends else { break };
                for line in &lines[at..at + ends] {
                    instruction.documents.push_str(line);
                    instruction.documents.push('\n');
                }
                at += ends + 1;
                instruction.end = at;
            }
        }
        found.push(instruction);
    }
    found
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The parser directive `# escape=`, which stands before anything else.
fn escape(lines: &[&str]) -> char {
    lines
        .iter()
        .map_while(|line| line.trim_start().strip_prefix('#')?.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("escape"))
        .map_or(
            '\\',
            |(_, value)| {
                if value.trim() == "`" { '`' } else { '\\' }
            },
        )
}

/// The names of the here-documents, and whether leading tabs do not count.
fn here_documents(rest: &str) -> Vec<(String, bool)> {
    rest.split_whitespace()
        .filter_map(|word| {
            let word = word.trim_start_matches(|character: char| character.is_ascii_digit());
            let name = word.strip_prefix("<<")?;
            let (name, strips_tabs) = match name.strip_prefix('-') {
                Some(name) => (name, true),
                None => (name, false),
            };
            let name = name.trim_matches(['"', '\'']);
            let is_name = !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            is_name.then(|| (name.to_owned(), strips_tabs))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<(usize, usize, String)> {
        instructions(text)
            .into_iter()
            .map(|one| (one.line, one.end, format!("{} {}", one.keyword, one.rest)))
            .collect()
    }

    #[test]
    fn lines_are_continued_over_comments_and_empty_lines() {
        let text =
            "# syntax=docker/dockerfile:1\n\nfrom a\nRUN x \\\n  # why\n\n  y \\  \n  z\nUSER b\n";
        assert_eq!(
            cut(text),
            [
                (3, 3, "FROM a".into()),
                (4, 8, "RUN x   y   z".into()),
                (9, 9, "USER b".into()),
            ]
        );
    }

    #[test]
    fn here_documents_are_no_instructions() {
        let text = "RUN <<EOF\nUSER root\nEOF\nCOPY <<-\"A\" <<B /x/\n\tUSER one\n\tA\nUSER two\nB\nUSER node\n";
        assert_eq!(
            cut(text),
            [
                (1, 3, "RUN <<EOF".into()),
                (4, 8, "COPY <<-\"A\" <<B /x/".into()),
                (9, 9, "USER node".into()),
            ]
        );
        assert_eq!(instructions(text)[0].documents, "USER root\n");
        assert_eq!(cut("RUN echo <<EOF\nUSER a\n").len(), 2);
        assert_eq!(cut("RUN cat <<< x\nUSER a\n").len(), 2);
    }

    #[test]
    fn the_escape_character_may_be_another() {
        let text = "# escape=`\nFROM a`\n:b\nRUN c:\\\nUSER d\n";
        assert_eq!(
            cut(text),
            [
                (2, 3, "FROM a:b".into()),
                (4, 4, "RUN c:\\".into()),
                (5, 5, "USER d".into()),
            ]
        );
    }

    #[test]
    fn anything_is_cut_without_a_panic() {
        for text in [
            "",
            "\\",
            "\\\n",
            "#",
            "RUN <<",
            "RUN <<-",
            "\u{feff}FROM a",
            "FROM",
            "\r\n\r\n",
        ] {
            let _ = instructions(text);
        }
        assert_eq!(cut("\u{feff}FROM a\r\nUSER b\r\n").len(), 2);
    }
}
