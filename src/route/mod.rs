//! Which route answers a request: by how specific routes are, never by their order in the file.
//!
//! Hosts come first: the exact host, then the wildcards that the host is below, the longest first, then routes without a
//! host. Within one host: the exact path, then prefixes, the longest first, then regular expressions, then routes without
//! a path. Among routes of the same host and path: those with methods, then the one without. The first that matches wins.
//!
//! A host does not keep a request to itself: where none of its routes matches path and method, the wildcards and the
//! routes without a host are asked. So a route without a host, say for `/health`, is there on every host that has nothing
//! more specific for it.
//!
//! Whether two regular expressions overlap cannot be told in general. The one with the longer text is tried first, and of
//! two as long the one that comes first in the alphabet.
//!
//! A route for GET takes HEAD too (RFC 9110 section 9.3.2), unless another of the same host and path names HEAD.

mod explain;
mod order;
mod paths;
mod table;
mod tell;

pub use explain::{Explanation, Verdict};
pub use table::RouteTable;
pub use tell::{columns, matcher};
