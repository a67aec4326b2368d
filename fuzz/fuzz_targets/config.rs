//! Any text is a configuration or a list of mistakes, each of which points into the text.
#![no_main]

use std::collections::HashMap;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use lowport::config::{self, Files, Mistakes, Source};
use lowport::route::RouteTable;

fuzz_target!(|text: &str| {
    let source = Arc::new(Source {
        name: "fuzz.toml".into(),
        path: None,
        text: text.into(),
        files: Files::Given(HashMap::new()),
        app: None,
    });
    let mistakes = Mistakes::new(Arc::clone(&source));
    let config = config::parse(&source, &mistakes);
    let table = RouteTable::build(&config.routes, &mistakes);
    for mistake in mistakes.list() {
        let other = mistake.other.as_ref().map(|(span, _)| span);
        for span in mistake.span.as_ref().into_iter().chain(other) {
            assert!(text.get(span.clone()).is_some(), "{mistake:?}");
        }
        assert!(!mistake.message.is_empty());
    }
    let told = mistakes.render(false);
    assert!(mistakes.is_empty() || told.contains("fuzz.toml"), "{told}");
    if mistakes.is_empty() {
        assert!(!config.routes.is_empty(), "there is something to serve");
        assert_eq!(table.ordered().len(), config.routes.len());
    }
});
