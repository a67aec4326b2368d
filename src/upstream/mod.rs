//! Upstreams: groups of peers, the connections to them, and who runs them.

mod body;
mod connect;
mod far_end;
mod group;
mod guard;
mod h1;
mod peer;
mod pool;
mod standing;

pub use body::{Body, BodyError};
pub use far_end::Why;
pub use group::Upstream;
pub use guard::{Expect, Guard, REMEDY, Verdict};
pub use peer::{Peer, Registry};
pub use pool::{Answer, Lease, Pool, SendError, SendFault};
