//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};

use super::files::Files;
use super::types::Span;

/// A configuration file's name and text.
#[derive(Debug)]
pub struct Source {
    /// As the user named it; `<stdin>` for `-`
    pub name: String,
    /// Where it can be read again, and what relative paths in it are relative to the folder of; `None` for standard input
    /// and for text that lowport wrote itself
    pub path: Option<PathBuf>,
    /// The whole text
    pub text: String,
    /// The files that it names
    pub files: Files,
    /// What the command line adds to it, in every reload too
    pub app: Option<AppArgs>,
}

impl Source {
    /// A text that cannot be read again.
    pub fn of_text(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self::unread(name.into(), text.into()))
    }

    /// As [`of_text`](Self::of_text), with an app on the command line.
    pub fn of_app(name: impl Into<String>, text: impl Into<String>, app: AppArgs) -> Arc<Self> {
        Arc::new(Self {
            app: Some(app),
            ..Self::unread(name.into(), text.into())
        })
    }

    /// A text from nowhere in particular.
    pub(super) fn unread(name: String, text: String) -> Self {
        Self {
            name,
            path: None,
            text,
            files: Files::OnDisk,
            app: None,
        }
    }
}

/// An app on the command line: `lowport run -- node server.js`. The keys of `[app]` besides `command` have the last word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppArgs {
    /// Program and arguments
    pub command: Vec<String>,
    /// Where the command was given: the app's folder unless `[app]` has `dir`
    pub dir: PathBuf,
    /// Who runs it when lowport was started as root, unless `[app]` has `user`
    pub user: Option<String>,
}

/// One mistake: what, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong, in one line
    pub message: String,
    /// Where; `None` when it is nowhere in the file
    pub span: Span,
    /// What to say at that place; may be empty
    pub label: String,
    /// A second place that has to do with it, and what to say there
    pub other: Option<(std::ops::Range<usize>, String)>,
    /// The remedy
    pub help: Option<String>,
}

impl Mistake {
    /// A mistake with a message and a place.
    pub fn new(span: Span, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            span,
            label: String::new(),
            other: None,
            help: None,
        }
    }

    /// Says more at the place itself.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds the remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points at a second place.
    #[must_use]
    pub fn other(mut self, span: Span, label: impl Into<String>) -> Self {
        self.other = span.map(|span| (span, label.into()));
        self
    }
}

/// All mistakes found so far in one configuration. Stages add to it through a shared reference, so that one run reports
/// what parsing, certificates and routes have to say together.
#[derive(Debug)]
pub struct Mistakes {
    source: Arc<Source>,
    list: Mutex<Vec<Mistake>>,
}

impl Mistakes {
    /// None yet.
    pub fn new(source: Arc<Source>) -> Self {
        Self {
            source,
            list: Mutex::default(),
        }
    }

    /// Adds one.
    pub fn push(&self, mistake: Mistake) {
        let mut list = self
            .list
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !list.contains(&mistake) {
            list.push(mistake);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .len()
    }

    /// All of them, in the order of the file; those that are nowhere in it come last.
    pub fn list(&self) -> Vec<Mistake> {
        let mut list = self
            .list
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        list.sort_by_key(|mistake| mistake.span.as_ref().map_or(usize::MAX, |span| span.start));
        list
    }

    /// The file that they are about.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The same file, for a list of its own.
    pub fn shared_source(&self) -> Arc<Source> {
        Arc::clone(&self.source)
    }

    /// Adds all of another list about the same file.
    pub fn take(&self, other: Self) {
        for mistake in other
            .list
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            self.push(mistake);
        }
    }

    /// For a person to read: each with its file, line, column, an excerpt and the remedy, in the order of the file.
    pub fn render(&self, color: bool) -> String {
        let list = self.list();
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let end = self.source.text.len();
        let inside = |span: &std::ops::Range<usize>| span.start.min(end)..span.end.min(end);
        let mut out = String::new();
        for mistake in &list {
            let title = Level::ERROR.primary_title(mistake.message.as_str());
            let mut group = match &mistake.span {
                Some(span) => {
                    let mut primary = AnnotationKind::Primary.span(inside(span));
                    if !mistake.label.is_empty() {
                        primary = primary.label(mistake.label.as_str());
                    }
                    let mut snippet = Snippet::source(self.source.text.as_str())
                        .path(self.source.name.as_str())
                        .annotation(primary);
                    if let Some((span, label)) = &mistake.other {
                        snippet = snippet.annotation(
                            AnnotationKind::Context
                                .span(inside(span))
                                .label(label.as_str()),
                        );
                    }
                    title.element(snippet)
                }
                None => title.element(Origin::path(self.source.name.as_str())),
            };
            if let Some(help) = &mistake.help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        let count = list.len();
        out.push_str(&format!(
            "{}: {count} {}\n",
            self.source.name,
            if count == 1 { "mistake" } else { "mistakes" }
        ));
        out
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Mistakes {}
