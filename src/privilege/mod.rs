//! Who a process is and what it may do: users, the fork before a drop, the drop itself, and making folders reachable.
//!
//! The only folder with `unsafe` in it, each use with its reason. All but [`SockDiag`] is for a process that has one
//! thread.

mod drop;
mod fork;
mod namespace;
mod proc_net;
mod sock_diag;
mod tether;
mod user;

pub use drop::become_user;
pub use fork::{Fork, close_inherited, exit_now, fork};
pub use namespace::{Exposed, expose};
pub use sock_diag::{SockDiag, socket_inode};
pub use tether::tether;
pub use user::{Identity, UserError, is_root, sudo_user};
