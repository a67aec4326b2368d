//! YAML as a tree that knows its lines, of files that nobody vouches for.
//!
//! The tree is an arena: an alias is a reference into it, never a copy, so a file of aliases on aliases takes no more
//! memory than it has bytes. Looking through it is bounded too: every look is counted, and there is a budget.

use std::cell::Cell;

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Nesting that no deployment file comes near.
const MAX_DEPTH: usize = 64;
/// Entries that one file's checks may look at; long texts count as several. A file of 1 MiB with no alias takes a fraction.
const BUDGET: usize = 2_000_000;

/// The documents of one file.
#[derive(Debug)]
pub(super) struct Yaml {
    nodes: Vec<Node>,
    documents: Vec<usize>,
    spent: Cell<usize>,
}

#[derive(Debug)]
struct Node {
    line: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Scalar { text: String, plain: bool },
    Sequence(Vec<usize>),
    Mapping(Vec<(usize, usize)>),
    Alias(usize),
}

/// Why a file is not read, and the line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) line: usize,
    pub(super) why: String,
}

impl Yaml {
    pub(super) fn parse(text: &str) -> Result<Self, Unreadable> {
        let mut builder = Builder::default();
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| Unreadable {
                line: error.marker().line(),
                why: error.info().to_owned(),
            })?;
            let line = span.start.line();
            builder.take(event, line).map_err(|why| Unreadable {
                line,
                why: why.into(),
            })?;
        }
        Ok(Self {
            nodes: builder.nodes,
            documents: builder.documents,
            spent: Cell::new(0),
        })
    }

    pub(super) fn documents(&self) -> impl Iterator<Item = Value<'_>> {
        self.documents.iter().map(|at| self.value(*at))
    }

    /// Whether the budget went, so that what was found may not be all.
    pub(super) fn is_exhausted(&self) -> bool {
        self.spent.get() >= BUDGET
    }

    fn spend(&self, entries: usize) -> bool {
        self.spent.set(self.spent.get().saturating_add(entries + 1));
        !self.is_exhausted()
    }

    /// An alias stands for what it names. Anchors come before their aliases, so one step of a chain leads to the next.
    fn value(&self, mut at: usize) -> Value<'_> {
        let line = self.nodes[at].line;
        while let Kind::Alias(target) = self.nodes[at].kind {
            at = target;
        }
        Value {
            yaml: self,
            at,
            line,
        }
    }
}

#[derive(Debug, Default)]
struct Builder {
    nodes: Vec<Node>,
    documents: Vec<usize>,
    open: Vec<Open>,
    /// Where the node of each anchor is, by the parser's number for it.
    anchors: Vec<Option<usize>>,
}

#[derive(Debug)]
struct Open {
    node: usize,
    key: Option<usize>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), &'static str> {
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let text = text.into_owned();
                self.put(line, Kind::Scalar { text, plain }, anchor)?;
            }
            Event::Alias(anchor) => {
                let target = self.anchors.get(anchor).copied().flatten();
                let target = target.ok_or("an alias of nothing")?;
                if self.open.iter().any(|open| open.node == target) {
                    return Err("an alias of what it stands in");
                }
                self.put(line, Kind::Alias(target), 0)?;
            }
            Event::SequenceStart(anchor, _) => {
                self.start(line, Kind::Sequence(Vec::new()), anchor)?;
            }
            Event::MappingStart(anchor, _) => {
                self.start(line, Kind::Mapping(Vec::new()), anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn start(&mut self, line: usize, kind: Kind, anchor: usize) -> Result<(), &'static str> {
        if self.open.len() == MAX_DEPTH {
            return Err("nested too deep");
        }
        let node = self.put(line, kind, anchor)?;
        self.open.push(Open { node, key: None });
        Ok(())
    }

    fn put(&mut self, line: usize, kind: Kind, anchor: usize) -> Result<usize, &'static str> {
        let node = self.nodes.len();
        self.nodes.push(Node { line, kind });
        if anchor > 0 {
            // Numbers are given out one by one; a gap would be a parser's mistake, not a reason to allocate.
            if anchor > self.nodes.len() + 1 {
                return Err("an anchor out of order");
            }
            if self.anchors.len() <= anchor {
                self.anchors.resize(anchor + 1, None);
            }
            self.anchors[anchor] = Some(node);
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(node);
        };
        match &mut self.nodes[open.node].kind {
            Kind::Sequence(items) => items.push(node),
            Kind::Mapping(entries) => match open.key.take() {
                Some(key) => entries.push((key, node)),
                None => open.key = Some(node),
            },
            Kind::Scalar { .. } | Kind::Alias(_) => {}
        }
        Ok(node)
    }
}

/// One value of the tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    yaml: &'a Yaml,
    at: usize,
    line: usize,
}

impl<'a> Value<'a> {
    /// The line that it begins on; of an alias, the alias's own.
    pub(super) fn line(self) -> usize {
        self.line
    }

    fn kind(self) -> &'a Kind {
        &self.yaml.nodes[self.at].kind
    }

    pub(super) fn is_mapping(self) -> bool {
        matches!(self.kind(), Kind::Mapping(_))
    }

    /// The value of a key, its own or one merged in by `<<`.
    pub(super) fn get(self, key: &str) -> Option<Self> {
        self.entries()
            .find(|(name, _)| name.str() == Some(key))
            .map(|(_, value)| value)
    }

    /// Follows keys down.
    pub(super) fn at(self, keys: &[&str]) -> Option<Self> {
        keys.iter().try_fold(self, |value, key| value.get(key))
    }

    /// The entries of a mapping: its own, then those merged in by `<<`, which a merged mapping may not do again.
    pub(super) fn entries(self) -> impl Iterator<Item = (Self, Self)> + use<'a> {
        let merged = self
            .own_entries()
            .filter(|(key, _)| key.is_merge())
            .flat_map(|(_, value)| match value.kind() {
                Kind::Sequence(_) => value.items().collect(),
                _ => vec![value],
            })
            .flat_map(Self::own_entries);
        self.own_entries()
            .chain(merged)
            .filter(|(key, _)| !key.is_merge())
    }

    fn own_entries(self) -> impl Iterator<Item = (Self, Self)> + use<'a> {
        let entries: &[(usize, usize)] = match self.kind() {
            Kind::Mapping(entries) if self.yaml.spend(entries.len()) => entries,
            _ => &[],
        };
        entries
            .iter()
            .map(move |(key, value)| (self.yaml.value(*key), self.yaml.value(*value)))
    }

    fn is_merge(self) -> bool {
        matches!(self.kind(), Kind::Scalar { text, plain: true } if text == "<<")
    }

    /// The items of a sequence; of anything else, none.
    pub(super) fn items(self) -> impl Iterator<Item = Self> + use<'a> {
        let items: &[usize] = match self.kind() {
            Kind::Sequence(items) if self.yaml.spend(items.len()) => items,
            _ => &[],
        };
        items.iter().map(move |at| self.yaml.value(*at))
    }

    /// A scalar's text, whatever its type; `None` for null too.
    pub(super) fn str(self) -> Option<&'a str> {
        /// Whoever asks may copy it, and aliases may name a long text often.
        const SHORT: usize = 64;
        match self.kind() {
            Kind::Scalar { text, .. }
                if text.len() > SHORT && !self.yaml.spend(text.len() / SHORT) =>
            {
                None
            }
            Kind::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null") => {
                None
            }
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// As YAML 1.1 readers read it, Compose's and Kubernetes's among them.
    pub(super) fn bool(self) -> Option<bool> {
        match self.kind() {
            Kind::Scalar { text, plain: true } => match text.as_str() {
                "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
                "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
                    Some(false)
                }
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn int(self) -> Option<i64> {
        self.str()?.parse().ok()
    }

    /// A command: a sequence of words, or one string.
    pub(super) fn words(self) -> Option<Vec<String>> {
        match self.kind() {
            Kind::Sequence(_) => Some(
                self.items()
                    .filter_map(|item| item.str().map(str::to_owned))
                    .collect(),
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn values_are_found_with_their_lines() {
        let yaml = Yaml::parse("a:\n  b: [1, two]\n  c: yes\n---\nd: ~\ne: 'yes'\n").unwrap();
        let [first, second] = yaml.documents().collect::<Vec<_>>()[..] else {
            panic!("two documents");
        };
        let b = first.at(&["a", "b"]).unwrap();
        assert_eq!(b.line(), 2);
        assert_eq!(b.words(), Some(vec!["1".into(), "two".into()]));
        assert_eq!(b.items().next().and_then(Value::int), Some(1));
        assert_eq!(first.at(&["a", "c"]).and_then(Value::bool), Some(true));
        assert_eq!(second.get("d").and_then(Value::str), None);
        let quoted = second.get("e").unwrap();
        assert_eq!((quoted.bool(), quoted.line()), (None, 6));
    }

    #[test]
    fn merges_give_way_to_own_keys() {
        let text = "x: &x {a: 1, b: 2}\ny: &y {c: 3}\nz:\n  <<: [*x, *y]\n  a: 4\n";
        let yaml = Yaml::parse(text).unwrap();
        let z = yaml.documents().next().unwrap().get("z").unwrap();
        let value = |key| z.get(key).and_then(Value::int);
        assert_eq!(
            (value("a"), value("b"), value("c"), value("<<")),
            (Some(4), Some(2), Some(3), None)
        );
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_line() {
        for (text, line) in [
            ("a: 1\nb: {{ .Values.x }}\n  c: 2\n", 2),
            ("a: [1\n", 2),
            ("a: *x\n", 1),
            ("a: &a [*a]\n", 1),
        ] {
            let error = Yaml::parse(text).unwrap_err();
            assert!(error.line >= line, "{text:?}: {error:?}");
        }
    }

    /// Every look at a bomb of aliases, not just the parse, comes to an end soon.
    #[test]
    fn hostile_files_cost_no_more_than_their_size() {
        let mut laughs = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for level in 1..40 {
            let alias = format!("*a{}", level - 1);
            let row = [alias.as_str(); 9].join(", ");
            laughs += &format!("a{level}: &a{level} [{row}]\n");
        }
        let mib = |unit: &str| unit.repeat((1 << 20) / unit.len());
        let wide = format!(
            "x: &x [{}]\ny: [{}]\n",
            "1, ".repeat(100_000),
            "*x, ".repeat(100_000)
        );
        let files = [
            laughs,
            wide,
            mib("["),
            mib("{"),
            mib("- "),
            mib("? "),
            mib("a: {"),
            mib("&a "),
            mib("&a x\n- "),
            mib("!!x "),
            mib("'"),
            mib("\""),
            mib("|\n"),
            mib("a: b: "),
            mib("*a "),
            mib("%TAG ! a\n"),
            mib("---\n"),
            mib("a\n"),
            mib(" "),
            mib("\t"),
            mib("#"),
            mib("a,"),
            mib("[a]: "),
            mib("x: &a\n<<: *a\n"),
            (0..400)
                .map(|depth| format!("{}a:\n", " ".repeat(depth)))
                .collect(),
        ];
        for text in files {
            let started = Instant::now();
            if let Ok(yaml) = Yaml::parse(&text) {
                let mut looks: Vec<Value<'_>> = yaml.documents().collect();
                while let Some(value) = looks.pop() {
                    looks.extend(value.items().take(50));
                    looks.extend(value.entries().map(|(_, value)| value).take(50));
                }
            }
            let took = started.elapsed();
            assert!(
                took < Duration::from_secs(20),
                "{:?} took {took:?}",
                &text[..text.len().min(40)]
            );
        }
    }
}
