//! Watching the files of a configuration.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tracing::warn;

/// How long the files must be at rest: editors and certbot write in several steps.
const REST: Duration = Duration::from_millis(200);

/// Tells when the contents of files have changed.
///
/// Their folders are watched, not they themselves: editors and certbot put a new file in the old one's place, and
/// Kubernetes swaps a symbolic link beside it.
#[derive(Debug)]
pub struct Watch {
    /// `None` where the kernel would not have it; a signal still reloads
    watcher: Option<RecommendedWatcher>,
    events: mpsc::UnboundedReceiver<()>,
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    seen: u64,
}

impl Watch {
    /// Watches `files` from now on.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let (tell, events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // The receiver is gone only when the process is about to be.
                let _ = tell.send(());
            }
        });
        let watcher = watcher
            .inspect_err(|error| warn!(%error, "files cannot be watched: reload with SIGHUP"))
            .ok();
        let mut watch = Self {
            watcher,
            events,
            files: Vec::new(),
            folders: Vec::new(),
            seen: 0,
        };
        watch.follow(files);
        watch
    }

    /// Watches these files instead, as they are now.
    pub fn follow(&mut self, files: Vec<PathBuf>) {
        self.seen = fingerprint(&files);
        let mut folders: Vec<PathBuf> = files.iter().flat_map(|file| folders(file)).collect();
        folders.sort();
        folders.dedup();
        if let Some(watcher) = &mut self.watcher {
            for gone in self
                .folders
                .iter()
                .filter(|folder| !folders.contains(folder))
            {
                // It may have been deleted, which ended the watch already.
                let _ = watcher.unwatch(gone);
            }
            for new in folders
                .iter()
                .filter(|folder| !self.folders.contains(folder))
            {
                if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                    warn!(folder = %new.display(), %error, "cannot be watched: reload with SIGHUP");
                }
            }
        }
        self.files = files;
        self.folders = folders;
    }

    /// Waits until the files' contents differ from what they were, and are at rest. Safe to cancel.
    pub async fn changed(&mut self) {
        loop {
            if self.events.recv().await.is_none() {
                return std::future::pending().await;
            }
            while let Ok(Some(())) = tokio::time::timeout(REST, self.events.recv()).await {}
            let now = fingerprint(&self.files);
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

/// The folder of a file, and that of what it links to.
fn folders(file: &Path) -> Vec<PathBuf> {
    let folder = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => PathBuf::from("."),
    };
    let target = std::fs::canonicalize(file).ok();
    std::iter::once(folder(file))
        .chain(target.as_deref().map(folder))
        .collect()
}

fn fingerprint(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(watch: &mut Watch) -> bool {
        tokio::time::timeout(Duration::from_secs(10), watch.changed())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn a_file_put_in_the_place_of_another_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("a.toml"), dir.path().join("b.toml"));
        std::fs::write(&file, "one").unwrap();
        let mut watch = Watch::new(vec![file.clone()]);
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert!(told(&mut watch).await);
    }

    #[tokio::test]
    async fn a_neighbour_is_none_and_a_swapped_link_is_one() {
        let dir = tempfile::tempdir().unwrap();
        for (folder, text) in [("v1", "one"), ("v2", "two")] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
            std::fs::write(dir.path().join(folder).join("a.toml"), text).unwrap();
        }
        let (data, next) = (dir.path().join("data"), dir.path().join("next"));
        std::os::unix::fs::symlink("v1", &data).unwrap();
        let file = dir.path().join("a.toml");
        std::os::unix::fs::symlink("data/a.toml", &file).unwrap();
        let mut watch = Watch::new(vec![file]);
        std::fs::write(dir.path().join("neighbour"), "x").unwrap();
        let quiet = tokio::time::timeout(Duration::from_secs(1), watch.changed()).await;
        assert!(quiet.is_err(), "a neighbour's change is none");
        std::os::unix::fs::symlink("v2", &next).unwrap();
        std::fs::rename(&next, &data).unwrap();
        assert!(told(&mut watch).await);
    }
}
