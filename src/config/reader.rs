//! The TOML of one file: what can be read of it, and where it is none.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeTable;

use super::{Mistake, Mistakes, Source};

/// What all tables of one file share.
pub(super) struct Reader<'a> {
    mistakes: &'a Mistakes,
    /// Lines where the text is no TOML, their ends by their starts: what is read there is a guess
    broken: BTreeMap<usize, usize>,
    /// What relative paths are relative to
    folder: PathBuf,
}

impl<'a> Reader<'a> {
    /// Reads the text as TOML as far as it is, and reports where it is not.
    pub(super) fn new(source: &'a Source, mistakes: &'a Mistakes) -> (Self, Spanned<DeTable<'a>>) {
        let (root, errors) = DeTable::parse_recoverable(&source.text);
        // By their starts. The parser reports brackets and commas of the whole text first, then its values.
        let mut broken: BTreeMap<usize, usize> = BTreeMap::new();
        let mut told = 0;
        for error in errors {
            let span = error.span().unwrap_or_default();
            let line = line(&source.text, &span);
            // What follows the first error of a line is mostly its echo, and so are all lines of a list left open.
            let list = error.message().starts_with(UNCLOSED)
                && broken.values().next_back() == Some(&line.start.saturating_sub(1));
            let echo = broken.insert(line.start, line.end).is_some() || list;
            if !echo && told < SYNTAX_MAX {
                mistakes.push(syntax(span, error.message()));
                told += 1;
            }
        }
        let folder = source.path.as_deref().and_then(Path::parent);
        let reader = Self {
            mistakes,
            broken,
            folder: folder.map(Path::to_owned).unwrap_or_default(),
        };
        (reader, root)
    }

    /// Whether some of the text is no TOML, so that what seems to be absent may only be unreadable.
    pub(super) fn is_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    /// Reports a mistake, unless it is an echo of one in the TOML itself.
    pub(super) fn push(&self, mistake: Mistake) {
        let echo = mistake.span.as_ref().is_some_and(|span| {
            let before = self.broken.range(..=span.end).next_back();
            before.is_some_and(|(_, end)| span.start <= *end)
        });
        if !echo {
            self.mistakes.push(mistake);
        }
    }

    /// Reports what may seem so only because some of the text cannot be read: that something is absent.
    pub(super) fn absent(&self, mistake: Mistake) {
        if !self.is_broken() {
            self.push(mistake);
        }
    }

    /// How many mistakes there are so far.
    pub(super) fn count(&self) -> usize {
        self.mistakes.len()
    }

    /// A path as the file means it: relative ones begin at the file's folder.
    pub(super) fn path(&self, written: &str) -> PathBuf {
        self.folder.join(written)
    }
}

/// Lines that are told to be no TOML. Where there are more, it is another kind of file.
const SYNTAX_MAX: usize = 20;

/// How the TOML parser begins to say that a list goes on where it should have ended.
const UNCLOSED: &str = "missing comma between array elements";

fn syntax(span: Range<usize>, message: &str) -> Mistake {
    let begins = |starts: &[&str]| starts.iter().any(|start| message.starts_with(start));
    let (label, help) = if begins(&["string values must be quoted"]) && span.is_empty() {
        ("there is no value", "write one after the `=`")
    } else if begins(&[
        "string values must be quoted",
        "invalid float",
        "invalid integer",
    ]) {
        (message, "put it in \"quotes\" if it is no number")
    } else if begins(&["duplicate key"]) {
        (message, "it is there already: keep one of the two")
    } else if begins(&["missing escaped value"]) {
        let help =
            "in \"quotes\" a backslash is written twice; in 'single quotes' it stands for itself";
        ("no such character follows a backslash", help)
    } else if begins(&["key with no value"]) {
        (message, "a key and its value are written: key = \"value\"")
    } else if begins(&[UNCLOSED]) {
        (
            "the list before this goes on",
            "a `]` or a `,` is missing before this",
        )
    } else {
        (message, "")
    };
    let mistake = Mistake::new(Some(span), "not valid TOML").label(label);
    match help {
        "" => mistake,
        help => mistake.help(help),
    }
}

/// The whole lines that a span touches.
fn line(text: &str, span: &Range<usize>) -> Range<usize> {
    let bytes = text.as_bytes();
    let start = span.start.min(bytes.len());
    let end = span.end.clamp(start, bytes.len());
    let before = bytes[..start].iter().rposition(|byte| *byte == b'\n');
    let after = bytes[end..].iter().position(|byte| *byte == b'\n');
    before.map_or(0, |at| at + 1)..after.map_or(bytes.len(), |at| end + at)
}
