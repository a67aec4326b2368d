//! The files that a configuration names: read from disk, or handed over by a process that may.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes of one file at most; more than any chain of certificates has.
pub const MAX_FILE: u64 = 1024 * 1024;

/// Where the contents of named files come from.
#[derive(Debug, Default)]
pub enum Files {
    /// This process opens them itself
    #[default]
    OnDisk,
    /// They were read by a process that may, and no others are there
    Given(HashMap<PathBuf, Given>),
}

/// A file's contents, or the error number with which reading it failed. Wiped when it drops: there may be a key in it.
pub struct Given(pub Result<Vec<u8>, i32>);

impl Files {
    /// The contents of a file, up to one byte more than [`MAX_FILE`], so that the caller sees what is too large.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self {
            Self::OnDisk => from_disk(path),
            Self::Given(files) => match files.get(path) {
                Some(Given(Ok(bytes))) => Ok(bytes.clone()),
                Some(Given(Err(errno))) => Err(io::Error::from_raw_os_error(*errno)),
                None => Err(io::ErrorKind::NotFound.into()),
            },
        }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Ok(bytes) = &mut self.0 {
            wipe(bytes);
        }
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(bytes) => write!(f, "{} bytes", bytes.len()),
            Err(errno) => write!(f, "error {errno}"),
        }
    }
}

fn from_disk(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len().min(MAX_FILE) + 1;
    // Enough at once: growing would leave copies behind that are not wiped.
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default() + 32);
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Overwrites secrets, in a way that the compiler does not take for useless.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_files_stand_for_those_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        std::fs::write(&path, "secret").unwrap();
        assert_eq!(Files::OnDisk.read(&path).unwrap(), b"secret");
        let denied = PathBuf::from("/denied");
        let files = Files::Given(HashMap::from([
            (path.clone(), Given(Ok(b"other".to_vec()))),
            (denied.clone(), Given(Err(nix::libc::EACCES))),
        ]));
        assert_eq!(files.read(&path).unwrap(), b"other");
        assert_eq!(
            files.read(&denied).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
        assert_eq!(
            files.read(folder.path()).unwrap_err().kind(),
            io::ErrorKind::NotFound,
            "nothing is opened behind the back of what was given"
        );
        assert!(!format!("{files:?}").contains("other"));
    }

    #[test]
    fn a_file_past_the_bound_shows_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        std::fs::write(&path, vec![0; MAX_FILE as usize + 9]).unwrap();
        assert_eq!(
            Files::OnDisk.read(&path).unwrap().len() as u64,
            MAX_FILE + 1
        );
    }
}
