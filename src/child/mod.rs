//! The supervised Node app: found, started as its user, watched, restarted, stopped.
//!
//! A second process does it, forked before the proxy gives its privileges up: it becomes the app's user for good, so a
//! restart takes no privilege, and the proxy can end in any way without leaving the app behind.

mod environment;
mod find;
mod listening;
mod output;
mod process;
mod reach;
mod running;
mod state;
mod supervise;
mod supervisor;
mod wire;

pub use find::{FindError, Found, find_app};
pub use state::{AppState, End};
pub use supervisor::{AppSpec, Following, Supervisor};
