//! Who a process is and what it may do: users, the fork before a drop, the drop itself, and making folders reachable;
//! the sandbox after it (Landlock for files and ports, seccomp for system calls, both made of [`Needs`]), a trial of it,
//! and the report.
//!
//! The only folder with `unsafe` in it, each use with its reason. Everything here is for a process that has one thread.

mod calls;
mod drop;
mod fork;
pub mod landlock;
mod namespace;
mod needs;
pub mod report;
pub mod seccomp;
pub mod status;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tether;
pub mod trial;
mod user;

pub use drop::become_user;
pub use fork::{Fork, OneThread, close_inherited, exit_now, fork};
pub use namespace::{Exposed, expose};
pub use needs::{Needs, Ports};
pub use tether::tether;
pub use user::{Identity, UserError, is_root, sudo_user};
