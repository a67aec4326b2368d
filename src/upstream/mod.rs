//! Upstreams: groups of peers, the connections to them, and who runs them.

mod connect;
mod far_end;
mod group;
mod guard;
mod peer;
mod pool;
mod standing;

pub use far_end::Why;
pub use group::Upstream;
pub use guard::{Expect, Guard, REMEDY, Verdict};
pub use peer::{Peer, Registry};
pub use pool::{Lease, Pool, SendError};
