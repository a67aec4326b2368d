//! Upstreams: groups of peers, and the connections to them.

mod connect;
mod group;
mod peer;
mod pool;

pub use group::Upstream;
pub use peer::{Peer, Registry};
pub use pool::{Lease, Pool, SendError};
