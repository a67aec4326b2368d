//! HTTP/1.1 as bytes (RFC 9112): the rules that a lenient parser bends, and where one message ends and the next begins.
//!
//! hyper parses; this only looks. What it lets pass has one reading, so that no server behind can find another.

mod chunks;
mod inspector;
mod refusal;
pub mod request;
pub mod response;

pub use chunks::{Chunks, Piece};
pub use inspector::{Bounds, Inspector, Refused};
pub use refusal::Refusal;
