//! The routes of one host, found by path and method.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use http::Method;
use regex::{Regex, RegexSet};

use crate::config::{PathMatch, Route};

/// A map whose keys are the operator's. Clients can only look up, so a fixed seed gives them nothing to collide.
pub(super) type Map<V> = HashMap<Box<str>, V, FixedState>;

/// The routes of one host. Small, since it lies in the map of hosts itself and a large map pays for each byte in cache misses.
#[derive(Debug)]
pub(super) enum Paths {
    /// None has a path, as it is with most hosts of a large table
    Any(Leaf),
    Tree(Box<Tree>),
}

impl Default for Paths {
    fn default() -> Self {
        Self::Any(Leaf::None)
    }
}

impl Paths {
    /// Adds the route at `index`. Routes must come in order of specificity.
    pub(super) fn add(&mut self, index: usize, route: &Route) {
        let leaf = match (&route.path, self) {
            (PathMatch::Any, Self::Any(leaf)) => leaf,
            (path, paths) => paths.tree().leaf(path),
        };
        leaf.add(index, &route.methods);
    }

    fn tree(&mut self) -> &mut Tree {
        if let Self::Any(any) = self {
            let any = std::mem::take(any);
            *self = Self::Tree(Box::new(Tree {
                any,
                ..Tree::default()
            }));
        }
        match self {
            Self::Tree(tree) => tree,
            Self::Any(_) => unreachable!("made a tree above"),
        }
    }

    /// To be called once all routes are added.
    pub(super) fn finish(&mut self) {
        if let Self::Tree(tree) = self {
            tree.exact.shrink_to_fit();
            tree.prefixes.shrink_to_fit();
            tree.regexes.finish();
        }
    }

    pub(super) fn find(&self, path: &str, method: &Method) -> Option<usize> {
        match self {
            Self::Any(leaf) => leaf.find(method),
            Self::Tree(tree) => tree.find(path, method),
        }
    }
}

/// The routes of a host where some have a path.
#[derive(Debug, Default)]
pub(super) struct Tree {
    exact: Map<Leaf>,
    prefixes: Map<Leaf>,
    /// Bytes of the longest prefix: no longer beginning of a path is worth a look, however long the path
    longest: usize,
    regexes: Regexes,
    any: Leaf,
}

impl Tree {
    fn leaf(&mut self, path: &PathMatch) -> &mut Leaf {
        match path {
            PathMatch::Exact(path) => self.exact.entry(path.as_str().into()).or_default(),
            PathMatch::Prefix(path) => {
                self.longest = self.longest.max(path.len());
                self.prefixes.entry(path.as_str().into()).or_default()
            }
            PathMatch::Regex(regex) => self.regexes.leaf(regex),
            PathMatch::Any => &mut self.any,
        }
    }

    fn find(&self, path: &str, method: &Method) -> Option<usize> {
        let exact = self.exact.get(path);
        exact
            .and_then(|leaf| leaf.find(method))
            .or_else(|| self.find_prefix(path, method))
            .or_else(|| self.regexes.find(path, method))
            .or_else(|| self.any.find(method))
    }

    /// Looks up the whole path, then what is before each of its slashes, from the last one on: at most one look a segment.
    fn find_prefix(&self, path: &str, method: &Method) -> Option<usize> {
        if self.prefixes.is_empty() {
            return None;
        }
        let mut end = path.len();
        loop {
            if end <= self.longest
                && let Some(leaf) = self.prefixes.get(&path[..end])
                && let Some(found) = leaf.find(method)
            {
                return Some(found);
            }
            let before = &path.as_bytes()[..end.min(self.longest + 1)];
            end = before.iter().rposition(|&byte| byte == b'/')?;
        }
    }
}

/// Regular expressions in the order in which they are tried.
#[derive(Debug, Default)]
struct Regexes {
    list: Vec<(Regex, Leaf)>,
    /// Tells in one pass that none matches. Its answer to which of them do would cost an allocation
    all: Option<RegexSet>,
}

/// Below this, trying one after the other is as fast.
const MANY_REGEXES: usize = 5;

impl Regexes {
    fn leaf(&mut self, regex: &Regex) -> &mut Leaf {
        let text = regex.as_str();
        if self
            .list
            .last()
            .is_none_or(|(last, _)| last.as_str() != text)
        {
            self.list.push((regex.clone(), Leaf::None));
        }
        // Not empty: the line above sees to it.
        let last = self.list.len() - 1;
        &mut self.list[last].1
    }

    fn finish(&mut self) {
        self.list.shrink_to_fit();
        if self.list.len() >= MANY_REGEXES {
            // Too large a set is no mistake: it only saves time.
            self.all = RegexSet::new(self.list.iter().map(|(regex, _)| regex.as_str())).ok();
        }
    }

    fn find(&self, path: &str, method: &Method) -> Option<usize> {
        if self.all.as_ref().is_some_and(|all| !all.is_match(path)) {
            return None;
        }
        self.list
            .iter()
            .filter(|(regex, _)| regex.is_match(path))
            .find_map(|(_, leaf)| leaf.find(method))
    }
}

/// The routes of one host and one path: they differ in methods only.
#[derive(Debug, Default)]
pub(super) enum Leaf {
    #[default]
    None,
    /// Of all methods, as nearly every route is
    All(usize),
    ByMethod(Box<ByMethod>),
}

#[derive(Debug, Default)]
pub(super) struct ByMethod {
    named: Vec<(Method, usize)>,
    others: Option<usize>,
}

impl Leaf {
    fn add(&mut self, index: usize, methods: &[Method]) {
        if matches!(self, Self::None) && methods.is_empty() {
            *self = Self::All(index);
            return;
        }
        let mut by = match std::mem::take(self) {
            Self::None => Box::default(),
            Self::All(others) => Box::new(ByMethod {
                named: Vec::new(),
                others: Some(others),
            }),
            Self::ByMethod(by) => by,
        };
        if methods.is_empty() {
            by.others.get_or_insert(index);
        }
        for method in methods {
            by.named.push((method.clone(), index));
        }
        *self = Self::ByMethod(by);
    }

    fn find(&self, method: &Method) -> Option<usize> {
        match self {
            Self::None => None,
            Self::All(index) => Some(*index),
            Self::ByMethod(by) => by.find(method),
        }
    }
}

impl ByMethod {
    fn find(&self, method: &Method) -> Option<usize> {
        let named = |method: &Method| {
            let found = self.named.iter().find(|(named, _)| named == method);
            found.map(|&(_, index)| index)
        };
        let found = named(method);
        // Whoever answers GET answers HEAD (RFC 9110 section 9.3.2).
        let found = found.or_else(|| (method == Method::HEAD).then(|| named(&Method::GET))?);
        found.or(self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_takes_half_a_cache_line() {
        assert!(size_of::<(Box<str>, Paths)>() <= 32);
        assert!(size_of::<(Box<str>, Leaf)>() <= 32);
    }
}
