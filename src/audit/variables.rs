//! `$NAME` and `${NAME:-WORD}`, as Dockerfiles and Compose files have them.

use std::collections::HashMap;

/// No image and no user has a longer name; values that double with each line get there soon.
const MAX_VALUE: usize = 512;

/// Names and their values; `None` where only the build knows.
pub(super) type Variables = HashMap<String, Option<String>>;

/// Puts values in for `$NAME`, `${NAME}`, `${NAME:-WORD}` and `${NAME:+WORD}`; `None` where only the build knows.
pub(super) fn expand(text: &str, variables: &Variables) -> Option<String> {
    let mut expanded = String::new();
    let mut rest = text.trim_matches(['"', '\'']);
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(braced) = rest.strip_prefix('{') {
            let end = braced.find('}')?;
            let (inner, after) = (&braced[..end], &braced[end + 1..]);
            rest = after;
            let name_end = name_end(inner);
            let value = variables.get(&inner[..name_end]).cloned().flatten();
            let value = value.filter(|value| !value.is_empty());
            let word = &inner[name_end..];
            if word.is_empty() {
                expanded.push_str(&value?);
            } else if let Some(default) = word.strip_prefix(":-").or(word.strip_prefix('-')) {
                expanded.push_str(value.as_deref().unwrap_or(default));
            } else if let Some(other) = word.strip_prefix(":+") {
                expanded.push_str(value.map_or("", |_| other));
            } else {
                return None;
            }
        } else {
            let end = name_end(rest);
            expanded.push_str(variables.get(&rest[..end])?.as_deref()?);
            rest = &rest[end..];
        }
        if expanded.len() > MAX_VALUE {
            return None;
        }
    }
    expanded.push_str(rest);
    (expanded.len() <= MAX_VALUE).then_some(expanded)
}

fn name_end(text: &str) -> usize {
    text.find(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_in() {
        let variables = Variables::from([
            ("A".to_owned(), Some("one".to_owned())),
            ("C".to_owned(), Some("three".to_owned())),
            ("D".to_owned(), None),
            ("E".to_owned(), Some(String::new())),
        ]);
        for (text, expected) in [
            ("$A", Some("one")),
            ("${A}:${C}", Some("one:three")),
            ("$D", None),
            ("${D:-x}", Some("x")),
            ("${E:-x}", Some("x")),
            ("${D-x}", Some("x")),
            ("${A:+y}${D:+z}", Some("y")),
            ("${X}", None),
            ("${X?}", None),
            ("${A", None),
            ("$", None),
            ("${A#o}", None),
            ("plain", Some("plain")),
        ] {
            assert_eq!(expand(text, &variables).as_deref(), expected, "{text}");
        }
    }
}
