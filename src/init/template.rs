//! Texts with gaps: `{{key}}` within a line, or alone on one, where it stands for any number of lines.

/// Fills the gaps of `template`. A gap that is alone on its line takes all lines of its value, each as far in as itself; one
/// without a value takes its line away.
pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len() * 2);
    for line in template.lines() {
        let inner = line.trim_start();
        let indent = &line[..line.len() - inner.len()];
        match alone(inner).and_then(|key| value(values, key)) {
            Some(block) => {
                for line in block.lines() {
                    push(&mut out, if line.is_empty() { "" } else { indent }, line);
                }
            }
            None => {
                let mut line = line.to_owned();
                for (key, value) in values {
                    line = line.replace(&format!("{{{{{key}}}}}"), value);
                }
                push(&mut out, "", &line);
            }
        }
    }
    // What a block that is the last one leaves behind it.
    while out.ends_with("\n\n") {
        out.pop();
    }
    out
}

fn push(out: &mut String, indent: &str, line: &str) {
    out.push_str(indent);
    out.push_str(line);
    out.push('\n');
}

/// The key of a line that is one gap and nothing else.
fn alone(line: &str) -> Option<&str> {
    let key = line.strip_prefix("{{")?.strip_suffix("}}")?;
    (!key.contains("}}")).then_some(key)
}

fn value<'a>(values: &[(&str, &'a str)], key: &str) -> Option<&'a str> {
    let found = values.iter().find(|(name, _)| *name == key);
    found.map(|(_, value)| *value)
}

/// One line each.
pub(super) fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

/// `title:` with `block` below it; nothing where there is nothing in it.
pub(super) fn section(title: &str, block: &str) -> String {
    if block.is_empty() {
        return String::new();
    }
    fill(&format!("{title}:\n  {{{{block}}}}\n"), &[("block", block)])
}

/// A text within YAML or JSON, or an argument of a Dockerfile's exec form.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_takes_a_word_or_lines_or_goes() {
        let template = "a: {{x}}-{{x}}\n  {{block}}\n  {{none}}\nz\n";
        let values = [("x", "1"), ("block", "- 1\n\n  - 2"), ("none", "")];
        assert_eq!(fill(template, &values), "a: 1-1\n  - 1\n\n    - 2\nz\n");
    }

    #[test]
    fn a_section_goes_with_what_is_in_it() {
        assert_eq!(section("a", "b\nc"), "a:\n  b\n  c\n");
        assert_eq!(section("a", ""), "");
    }
}
