//! Pure functions on HTTP messages: no I/O, no state, nothing of the configuration.

pub mod forwarded;
pub mod hop;
pub mod host;
pub mod origin;
pub mod target;
pub mod trailers;
pub mod upgrade;
