//! The configuration: written (TOML), then meant ([`Config`]).
//!
//! [`load()`] finds and reads a file; [`parse()`] reads the whole of it and reports all of its mistakes at once, each with
//! its place.

mod app;
mod files;
mod keys;
mod limits;
mod load;
mod mistake;
mod parse;
mod reader;
mod route;
mod server;
mod table;
mod types;
mod upstream;
mod values;

#[cfg(test)]
mod tests;

pub use files::{Files, Given, MAX_FILE, wipe};
pub use load::{LoadError, load};
pub use mistake::{AppArgs, Mistake, Mistakes, Source};
pub use parse::parse;
pub use types::*;

/// Reads a time as the configuration has it, such as `250ms`, from somewhere else.
///
/// # Errors
/// Why it is none, and what to write instead.
pub fn time(text: &str) -> Result<std::time::Duration, String> {
    values::time(text).map_err(|values::Wrong { why, help }| match help.as_str() {
        "" => why,
        help => format!("{why}; {help}"),
    })
}
