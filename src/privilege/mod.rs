//! Who a process is and what it may do: users, the fork before a drop, the drop itself, and making folders reachable;
//! the sandbox after it (Landlock for files and ports, seccomp for system calls, both made of [`Needs`]), a trial of it,
//! and the report.
//!
//! The only folder with `unsafe` in it, each use with its reason. What forks, becomes somebody or puts a sandbox on is for a
//! process that has one thread, and looks whether it has.

mod activation;
mod allocator;
mod bind;
mod broker;
mod calls;
pub mod capability;
mod confined;
mod drop;
mod fork;
mod init;
mod landlock;
mod log_file;
mod mode;
mod namespace;
mod needs;
mod notify;
mod proc_net;
pub mod process;
pub mod report;
mod seccomp;
mod sock_diag;
pub mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tether;
mod trial;
mod user;
mod walls;
mod witness;

pub use activation::{Adopted, InheritError, Inherited, inherited};
pub use allocator::{give_huge_pages_back, give_memory_back, has_small_pages};
pub use bind::{Bound, Holder, bind, has_ipv6, holder};
pub use broker::{Broker, Link, Loaded};
pub use capability::Capability;
pub use confined::confine_app;
pub use drop::{Lesser, become_user, keep_only};
pub use fork::{Fork, OneThread, close_inherited, exit_now, fork, not_for_helpers};
pub use init::{heed_signals, signals_are_followed};
pub use log_file::open_log;
pub use mode::{Mode, remedy};
pub use namespace::{Exposed, expose};
pub use needs::{Needs, Ports, Work};
pub use notify::Notify;
pub use proc_net::{Listening, listening};
pub use sock_diag::{SockDiag, socket_inode};
pub use tether::tether;
pub use user::{Identity, UserError, is_root, sudo_user};
pub use walls::Walls;
pub use witness::{Inquirer, Question, Witness};
