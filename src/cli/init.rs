//! `lowport init`

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use super::{Owner, failed, tell};
use crate::app::{EXIT_CONFIG, stderr_colors};
use crate::config::{self, LoadError, Mistakes, Source};
use crate::console;
use crate::init::{Images, Made, Package, Site, Target, Written};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What lowport is to run on
    #[arg(value_enum)]
    target: Target,
    /// The route table; `-` reads standard input [default: lowport.toml, then /etc/lowport/lowport.toml, else one for an
    /// app on port 3000 is written as well]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the files are written to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// lowport's image
    #[arg(long, value_name = "IMAGE", default_value = concat!("lowport:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// The app's image [default: name and version of package.json]
    #[arg(long, value_name = "IMAGE")]
    app_image: Option<String>,
    /// Print the files, and write none
    #[arg(long)]
    print: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, ExitCode> {
    let source = table(args)?;
    let mistakes = Mistakes::new(Arc::clone(&source));
    let config = config::parse(&source, &mistakes);
    refuse(&mistakes)?;
    let package = Package::of(Path::new(".")).map_err(failed)?;
    let images = Images {
        lowport: args.image.clone(),
        app: args.app_image.clone(),
    };
    let site = Site::new(source, config, package, images, args.out.clone());
    let made = args.target.files(&site);
    refuse(&site.mistakes)?;
    if args.print {
        tell(printed(&made))?;
        return Ok(ExitCode::SUCCESS);
    }
    let owner = Owner::invoking().map_err(failed)?;
    owner
        .act(|| write(&args.out, &made.files))
        .map_err(failed)?;
    tell(told(&args.out, &made))?;
    Ok(ExitCode::SUCCESS)
}

/// The route table, or one to begin with.
fn table(args: &Args) -> Result<Arc<Source>, ExitCode> {
    match config::load(args.config.as_deref(), None) {
        Ok(source) => Ok(source),
        Err(LoadError::NotFound(_)) => Ok(Source::of_text("lowport.toml", args.target.table())),
        Err(error) => {
            console::err(error);
            Err(ExitCode::from(EXIT_CONFIG))
        }
    }
}

fn refuse(mistakes: &Mistakes) -> Result<(), ExitCode> {
    if mistakes.is_empty() {
        return Ok(());
    }
    console::err(mistakes.render(stderr_colors()));
    Err(ExitCode::from(EXIT_CONFIG))
}

/// All files or none: what is there stays as it is.
fn write(out: &Path, files: &[Written]) -> Result<(), String> {
    let paths: Vec<PathBuf> = files.iter().map(|file| within(out, file)).collect();
    // A link that leads nowhere is in the way, too.
    let there = |path: &&PathBuf| path.symlink_metadata().is_ok();
    let there: Vec<String> = paths
        .iter()
        .filter(there)
        .map(|path| path.display().to_string())
        .collect();
    if !there.is_empty() {
        let (verb, them) = match there.len() {
            1 => ("is", "it"),
            _ => ("are", "them"),
        };
        return Err(format!(
            "{} {verb} there already, and nothing was written: move {them} away, or name another folder with --out (--print shows \
             what would be written)",
            there.join(", ")
        ));
    }
    let mut made = Undo::default();
    for (path, file) in paths.iter().zip(files) {
        let failed = |error: io::Error| format!("{} cannot be written: {error}", path.display());
        if let Some(folder) = path.parent() {
            made.folders(folder).map_err(failed)?;
        }
        let mut opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(failed)?;
        made.files.push(path.clone());
        opened.write_all(file.text.as_bytes()).map_err(failed)?;
    }
    made.keep();
    Ok(())
}

/// What was made so far, and goes again unless all of it could be.
#[derive(Debug, Default)]
struct Undo {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Undo {
    /// Makes a folder, and those above it.
    fn folders(&mut self, folder: &Path) -> io::Result<()> {
        let missing = folder.ancestors().take_while(|folder| {
            !folder.as_os_str().is_empty() && folder.symlink_metadata().is_err()
        });
        let mut missing: Vec<&Path> = missing.collect();
        missing.reverse();
        for folder in missing {
            fs::create_dir(folder)?;
            self.folders.push(folder.to_owned());
        }
        Ok(())
    }

    fn keep(mut self) {
        self.files.clear();
        self.folders.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        for folder in self.folders.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// As a person would call it.
fn within(out: &Path, file: &Written) -> PathBuf {
    match out == Path::new(".") {
        true => file.path.clone(),
        false => out.join(&file.path),
    }
}

fn told(out: &Path, made: &Made) -> String {
    let mut text = String::from("written:\n");
    for file in &made.files {
        text.push_str(&format!("  {}\n", within(out, file).display()));
    }
    text.push_str("\nnext:\n");
    for line in &made.next {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

fn printed(made: &Made) -> String {
    let mut text = String::new();
    for (number, file) in made.files.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        text.push_str(&format!("==> {} <==\n{}", file.path.display(), file.text));
    }
    text
}
