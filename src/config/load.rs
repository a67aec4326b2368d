//! Finding and reading a configuration file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{AppArgs, Source};

/// Where a configuration is looked for when none is named, first come first served.
const PLACES: [&str; 2] = ["lowport.toml", "/etc/lowport/lowport.toml"];

/// Bytes of a configuration at most: it is written by hand, and whatever is larger is another file.
const MAX: u64 = 4 << 20;

/// Reads the configuration at `path`; `-` is standard input. Without a path, `lowport.toml` in the current folder or
/// else `/etc/lowport/lowport.toml`. `app` is what the command line adds to it.
///
/// # Errors
/// There is no file, or it cannot be read, or it is no text, or larger than 4 MiB.
pub fn load(path: Option<&Path>, app: Option<AppArgs>) -> Result<Arc<Source>, LoadError> {
    let source = match path {
        Some(path) if path == Path::new("-") => stdin(io::stdin().lock()),
        Some(path) => file(path),
        None => first(&PLACES.map(PathBuf::from)),
    }?;
    Ok(Arc::new(Source { app, ..source }))
}

/// Why there is no configuration to parse.
#[derive(Debug)]
pub enum LoadError {
    /// None was named and there is none where it is looked for
    NotFound(Vec<PathBuf>),
    /// It cannot be read
    Read(String, io::Error),
    /// It is larger than 4 MiB
    TooLarge(String),
    /// It is not UTF-8, from this line on (the first is 1)
    NotText(String, usize),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(places) => {
                f.write_str("error: there is no configuration; looked for\n")?;
                for place in places {
                    writeln!(f, "  {}", place.display())?;
                }
                f.write_str(
                    "help: `lowport dev` and `lowport run -- node server.js` need none; `lowport run -c FILE` names one. \
                     The shortest useful file:\n\n",
                )?;
                for line in super::parse::SHORTEST.lines() {
                    writeln!(f, "  {line}")?;
                }
                Ok(())
            }
            Self::Read(name, error) => writeln!(f, "error: {name} cannot be read: {error}"),
            Self::TooLarge(name) => writeln!(
                f,
                "error: {name} is larger than {} MiB: that is no configuration",
                MAX >> 20
            ),
            Self::NotText(name, line) => {
                writeln!(f, "error: {name} is not UTF-8 text: see line {line}")
            }
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, error) => Some(error),
            _ => None,
        }
    }
}

fn first(places: &[PathBuf]) -> Result<Source, LoadError> {
    for place in places {
        match file(place) {
            Err(LoadError::Read(_, error)) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
    }
    Err(LoadError::NotFound(places.to_vec()))
}

fn file(path: &Path) -> Result<Source, LoadError> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| LoadError::Read(name.clone(), error))?;
    let text = text(&name, file)?;
    Ok(Source {
        path: Some(path.to_owned()),
        ..Source::unread(name, text)
    })
}

fn stdin(from: impl Read) -> Result<Source, LoadError> {
    let name = "<stdin>".to_owned();
    let text = text(&name, from)?;
    Ok(Source::unread(name, text))
}

fn text(name: &str, from: impl Read) -> Result<String, LoadError> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a large file from one that just fits.
    from.take(MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| LoadError::Read(name.to_owned(), error))?;
    if bytes.len() as u64 > MAX {
        return Err(LoadError::TooLarge(name.to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        LoadError::NotText(name.to_owned(), line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_there_is_wins() {
        let dir = tempfile::tempdir().unwrap();
        let places = ["a.toml", "b.toml", "c.toml"].map(|name| dir.path().join(name));
        let told = first(&places).unwrap_err().to_string();
        for wanted in [
            "a.toml",
            "c.toml",
            "lowport dev",
            "run -- node",
            "-c FILE",
            "[[route]]",
        ] {
            assert!(told.contains(wanted), "{wanted} in {told}");
        }
        std::fs::write(&places[1], "b").unwrap();
        std::fs::write(&places[2], "c").unwrap();
        let source = first(&places).unwrap();
        assert_eq!(
            (source.text.as_str(), source.path.as_ref()),
            ("b", Some(&places[1]))
        );
        // A file that is there but cannot be read is not passed over.
        std::fs::create_dir(&places[0]).unwrap();
        assert!(matches!(first(&places), Err(LoadError::Read(..))));
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        let told = |path: &Path| load(Some(path), None).unwrap_err().to_string();
        assert!(told(&path).contains("x.toml cannot be read: No such file"));
        std::fs::write(&path, b"one\ntwo\xff").unwrap();
        assert!(told(&path).contains("x.toml is not UTF-8 text: see line 2"));
        std::fs::write(&path, vec![b'#'; MAX as usize]).unwrap();
        assert!(load(Some(&path), None).is_ok());
        std::fs::write(&path, vec![b'#'; MAX as usize + 1]).unwrap();
        assert!(told(&path).contains("x.toml is larger than 4 MiB"));
        assert!(told(dir.path()).contains("cannot be read"));
    }

    #[test]
    fn standard_input_has_a_name_and_no_path() {
        let source = stdin(&b"text"[..]).unwrap();
        assert_eq!((source.name.as_str(), &source.path), ("<stdin>", &None));
        assert_eq!(source.text, "text");
    }
}
