//! HTTP/2 as frames (RFC 9113): what costs more than it is worth, and requests that hyper's library lets pass.
//!
//! The library parses, and bounds what it can tell by itself: continuations, lists of fields, small and empty DATA, streams
//! that it resets. It does not know which frames came of anything; this does.

mod gauge;
mod message;
mod misuse;

pub use gauge::{Gauge, Look};
pub use message::check;
pub use misuse::Misuse;
