//! Who a process is and what it may do: users, the fork before a drop, the drop itself, and making folders reachable.
//!
//! The only folder with `unsafe` in it, each use with its reason. All but [`SockDiag`] is for a process that has one
//! thread.

mod activation;
mod bind;
mod broker;
mod drop;
mod fork;
mod log_file;
mod mode;
mod namespace;
mod notify;
mod proc_net;
mod sock_diag;
mod tether;
mod user;

pub use activation::{Adopted, InheritError, Inherited, inherited};
pub use bind::{Bound, bind, holder};
pub use broker::{Broker, Link, Loaded};
pub use drop::{Kept, become_user, keep_only};
pub use fork::{Fork, close_inherited, exit_now, fork};
pub use log_file::open_log;
pub use mode::Mode;
pub use namespace::{Exposed, expose};
pub use notify::Notify;
pub use sock_diag::{SockDiag, socket_inode};
pub use tether::tether;
pub use user::{Identity, UserError, is_root, sudo_user};
