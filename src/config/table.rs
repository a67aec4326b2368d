//! Tables of TOML: typed, every mistake at its place, going on with the default.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Known};
use super::reader::Reader;
use super::values::Wrong;
use super::{Mistake, Span};

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

type Entry<'a> = Spanned<DeValue<'a>>;

/// A table; an absent one is empty.
pub(super) struct Table<'a> {
    pub(super) reader: &'a Reader<'a>,
    known: &'static Known,
    entries: Option<&'a DeTable<'a>>,
    /// Its header, or the braces of an inline table
    pub(super) span: Span,
}

impl<'a> Table<'a> {
    /// The top level of a file.
    pub(super) fn top(reader: &'a Reader<'a>, root: &'a Spanned<DeTable<'a>>) -> Self {
        Self::new(reader, &keys::TOP, root.get_ref(), None)
    }

    fn new(
        reader: &'a Reader<'a>,
        known: &'static Known,
        entries: &'a DeTable<'a>,
        span: Span,
    ) -> Self {
        for (key, value) in entries.iter() {
            let name = key.get_ref().as_ref();
            if known.keys.contains(&name) {
                continue;
            }
            let message = match known.is_top() {
                true if is_table(value.get_ref()) => format!("unknown table `{name}`"),
                true => format!("`{name}` is not in a table"),
                false => format!("unknown key `{name}` in {}", known.header),
            };
            let mistake = Mistake::new(Some(key.span()), message).help(known.remedy(name));
            match known.is_top() {
                // It may belong to a table whose header cannot be read.
                true => reader.absent(mistake),
                false => reader.push(mistake),
            }
        }
        Self {
            reader,
            known,
            entries: Some(entries),
            span,
        }
    }

    fn get(&self, key: &str) -> Option<&'a Entry<'a>> {
        debug_assert!(self.known.keys.contains(&key), "{key} is in no list");
        self.entries?.get(key)
    }

    /// Where a key was written; `None` when it was not.
    pub(super) fn key(&self, key: &str) -> Span {
        self.entries?
            .get_key_value(key)
            .map(|(written, _)| written.span())
    }

    /// Whether a key was written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.key(key).is_some()
    }

    /// Reports that a value is of another type.
    fn not(&self, key: &str, value: &Entry<'_>, wanted: &str, help: &str) {
        let mistake = Mistake::new(Some(value.span()), format!("`{key}` must be {wanted}"))
            .label(format!("this is {}", kind(value.get_ref())));
        self.reader.push(match help {
            "" => mistake,
            help => mistake.help(help),
        });
    }

    /// Reports that a value is of its type and yet cannot be.
    pub(super) fn wrong(&self, key: &str, span: Range<usize>, wrong: Wrong) {
        let mistake = Mistake::new(Some(span), format!("invalid `{key}`")).label(wrong.why);
        self.reader.push(match wrong.help.as_str() {
            "" => mistake,
            help => mistake.help(help),
        });
    }

    /// Reports that a key is needed and absent.
    pub(super) fn missing(&self, key: &str, help: &str) {
        let message = format!("{} needs `{key}`", self.known.header);
        self.missing_one(&[key], Mistake::new(self.span.clone(), message).help(help));
    }

    /// Reports that one of several keys is needed and none is there; not when one was misspelt, which is told already.
    pub(super) fn missing_one(&self, keys: &[&str], mistake: Mistake) {
        let meant = |name| keys::nearest(name, self.known.keys.iter().copied());
        let mut names = self.entries.iter().flat_map(|entries| entries.keys());
        let misspelt = names.any(|name| {
            let name = name.get_ref().as_ref();
            !self.known.keys.contains(&name) && meant(name).is_some_and(|key| keys.contains(&key))
        });
        if !misspelt {
            self.reader.absent(mistake);
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        let value = self.get(key)?;
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.not(key, value, "true or false", "write it without quotes");
        }
        flag
    }

    /// A whole number within a range.
    pub(super) fn number(&self, key: &str, range: RangeInclusive<u64>) -> Option<Placed<u64>> {
        let value = self.get(key)?;
        let span = value.span();
        let Some(integer) = value.get_ref().as_integer() else {
            let help = match value.get_ref().as_str() {
                Some(text) if text.parse::<u64>().is_ok() => format!("write {key} = {text}"),
                _ => String::new(),
            };
            self.not(key, value, "a whole number", &help);
            return None;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) if range.contains(&value) => Some(Placed { value, span }),
            _ => {
                let (min, max) = range.into_inner();
                let why = format!("must be {min} to {max}");
                self.wrong(key, span, Wrong::new(why, ""));
                None
            }
        }
    }

    /// A string.
    pub(super) fn text(&self, key: &str) -> Option<Placed<&'a str>> {
        self.parsed(key, Ok)
    }

    /// A string that means a `T`.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        parse: impl Fn(&'a str) -> Result<T, Wrong>,
    ) -> Option<Placed<T>> {
        let value = self.get(key)?;
        let Some(text) = value.get_ref().as_str() else {
            let help = match value.get_ref() {
                DeValue::Array(_) => "only one is taken here",
                _ => "",
            };
            self.not(key, value, "a string", help);
            return None;
        };
        self.parse(key, text, value.span(), parse)
    }

    /// A string or a whole number that means a `T`.
    pub(super) fn scalar<T>(
        &self,
        key: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Placed<T>> {
        self.one(key, self.get(key)?, wanted, &parse)
    }

    /// As [`scalar`](Self::scalar), or a list of such. Those that mean nothing are left out.
    pub(super) fn scalars<T>(
        &self,
        key: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<Placed<T>>> {
        let value = self.get(key)?;
        let entries = match value.get_ref() {
            DeValue::Array(array) => array.iter().collect(),
            _ => vec![value],
        };
        let each = |entry: &'a Entry<'a>| self.one(key, entry, wanted, &parse);
        Some(entries.into_iter().filter_map(each).collect())
    }

    fn one<T>(
        &self,
        key: &str,
        value: &Entry<'_>,
        wanted: &str,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Placed<T>> {
        let text = match value.get_ref() {
            DeValue::String(text) => Cow::Borrowed(text.as_ref()),
            DeValue::Integer(integer) => Cow::Owned(integer.to_string()),
            _ => {
                self.not(key, value, wanted, "");
                return None;
            }
        };
        self.parse(key, &text, value.span(), parse)
    }

    fn parse<'t, T>(
        &self,
        key: &str,
        text: &'t str,
        span: Range<usize>,
        parse: impl Fn(&'t str) -> Result<T, Wrong>,
    ) -> Option<Placed<T>> {
        match parse(text) {
            Ok(value) => Some(Placed { value, span }),
            Err(wrong) => {
                self.wrong(key, span, wrong);
                None
            }
        }
    }

    /// A string, or a list of them, each of which means a `T`. Those that do not are left out.
    pub(super) fn list<T>(
        &self,
        key: &str,
        parse: impl Fn(&'a str) -> Result<T, Wrong>,
    ) -> Option<Vec<Placed<T>>> {
        let value = self.get(key)?;
        let entries = match value.get_ref() {
            DeValue::Array(array) => array.iter().collect(),
            DeValue::String(_) => vec![value],
            _ => {
                self.not(key, value, "a string or a list of strings", "");
                return None;
            }
        };
        let each = |entry: &'a Entry<'a>| match entry.get_ref().as_str() {
            Some(text) => self.parse(key, text, entry.span(), &parse),
            None => {
                self.not(key, entry, "a list of strings", "");
                None
            }
        };
        Some(entries.into_iter().filter_map(each).collect())
    }

    /// Where the value of a key was written.
    pub(super) fn value(&self, key: &str) -> Span {
        self.get(key).map(Spanned::span)
    }

    /// Whether `[]` was written.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        let value = self.get(key).map(Spanned::get_ref);
        matches!(value, Some(DeValue::Array(array)) if array.is_empty())
    }

    /// The table `[key]`; empty when it is absent.
    pub(super) fn table(&self, key: &str, known: &'static Known) -> Table<'a> {
        let empty = Table {
            reader: self.reader,
            known,
            entries: None,
            span: None,
        };
        let Some(value) = self.get(key) else {
            return empty;
        };
        match value.get_ref() {
            DeValue::Table(table) => Table::new(self.reader, known, table, Some(value.span())),
            _ => {
                self.not_a_table(key, value, known);
                empty
            }
        }
    }

    /// The tables `[[key]]`, in the order of the file.
    pub(super) fn tables(&self, key: &str, known: &'static Known) -> Vec<Table<'a>> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let DeValue::Array(array) = value.get_ref() else {
            self.not_a_table(key, value, known);
            return Vec::new();
        };
        let each = |entry: &'a Entry<'a>| match entry.get_ref() {
            DeValue::Table(table) => {
                Some(Table::new(self.reader, known, table, Some(entry.span())))
            }
            _ => {
                self.not_a_table(key, entry, known);
                None
            }
        };
        array.iter().filter_map(each).collect()
    }

    /// The tables `[key.NAME]`, in the order of the file.
    pub(super) fn named(
        &self,
        key: &str,
        known: &'static Known,
    ) -> Vec<(Placed<&'a str>, Table<'a>)> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let DeValue::Table(tables) = value.get_ref() else {
            self.not_a_table(key, value, known);
            return Vec::new();
        };
        let mut named = Vec::new();
        for (name, entry) in tables.iter() {
            let DeValue::Table(table) = entry.get_ref() else {
                let message = format!("`{}` is not in {}", name.get_ref(), known.header);
                let help = format!("choose a NAME and write it below {}", known.header);
                self.reader
                    .push(Mistake::new(Some(name.span()), message).help(help));
                continue;
            };
            let table = Table::new(self.reader, known, table, Some(entry.span()));
            let (value, span) = (name.get_ref().as_ref(), name.span());
            named.push((Placed { value, span }, table));
        }
        named.sort_by_key(|(name, _)| name.span.start);
        named
    }

    fn not_a_table(&self, key: &str, value: &Entry<'_>, known: &Known) {
        let mistake = Mistake::new(
            Some(value.span()),
            format!("`{key}` must be written as {}", known.header),
        );
        self.reader
            .push(mistake.label(match is_table(value.get_ref()) {
                true => "the brackets differ".to_owned(),
                false => format!("this is {}", kind(value.get_ref())),
            }));
    }
}

fn is_table(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(array) => array.iter().any(|entry| entry.get_ref().is_table()),
        _ => false,
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time of day",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
