//! The configuration: written (TOML), then meant ([`Config`]).
//!
//! [`parse`] reads a whole file and reports all of its mistakes at once, each with its place.

mod mistake;
mod types;

pub use mistake::{Mistake, Mistakes, Source};
pub use types::*;
