//! What a report says of the machine and of how it was measured.

use std::time::Duration;

use serde_json::{Value, json};

use crate::proxies::Which;

/// What is the same for all rows.
pub(crate) struct Facts {
    date: String,
    cores: usize,
    processor: String,
    kernel: String,
    versions: Vec<(Which, String)>,
    rounds: usize,
    seconds: Duration,
}

impl Facts {
    /// Of this machine; to be asked before anything is pinned to a processor.
    pub(crate) fn gather(rounds: usize, seconds: Duration) -> Self {
        let read = |file| std::fs::read_to_string(file).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let processor = processors
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split_once(": "));
        let versions = Which::ALL
            .into_iter()
            .filter(|which| *which != Which::Pasted)
            .filter_map(|which| Some((which, which.version()?)));
        Self {
            date: time::OffsetDateTime::now_utc().date().to_string(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor.map_or("unknown", |(_, name)| name).to_owned(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            versions: versions.collect(),
            rounds,
            seconds,
        }
    }

    fn versions(&self) -> String {
        let versions = self.versions.iter().map(|(_, version)| version.as_str());
        versions.collect::<Vec<_>>().join("; ")
    }

    /// In a paragraph.
    pub(crate) fn text(&self) -> String {
        format!(
            "{}; {} cores, {}; Linux {}; {}; rounds: {} of {:?}.",
            self.date,
            self.cores,
            self.processor,
            self.kernel,
            self.versions(),
            self.rounds,
            self.seconds
        )
    }

    /// In a line.
    pub(crate) fn short(&self) -> String {
        format!("{}; {} cores; {}", self.date, self.cores, self.versions())
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let versions: serde_json::Map<String, Value> = self
            .versions
            .iter()
            .map(|(which, version)| {
                let name = if *which == Which::Tuned {
                    "nginx"
                } else {
                    which.name()
                };
                (name.to_owned(), version.as_str().into())
            })
            .collect();
        json!({
            "date": self.date,
            "cores": self.cores,
            "processor": self.processor,
            "kernel": self.kernel,
            "versions": versions,
            "rounds": self.rounds,
            "seconds": self.seconds.as_secs(),
        })
    }
}
