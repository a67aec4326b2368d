//! Opening the access log, which takes the right to do so.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a log to append to, or makes it, for nobody but its owner and group: clients' addresses are nobody else's
/// business.
///
/// # Errors
/// Where it can neither be opened nor made.
pub fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}
