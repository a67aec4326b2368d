//! The supervised Node app: found, started as its user, watched, restarted, stopped.
//!
//! A second process does it, forked before the proxy gives its privileges up: it becomes the app's user for good, so a
//! restart takes no privilege, and the proxy can end in any way without leaving the app behind. Between the two stands a
//! third, so that the same holds for the supervisor.

mod environment;
mod find;
mod guardian;
mod listening;
mod output;
mod process;
mod reach;
mod reaper;
mod running;
mod state;
mod supervise;
mod supervisor;
mod wire;

pub use find::{FindError, Found, find_app, find_production_app, package};
pub use reaper::Reaper;
pub use state::{AppState, End};
pub use supervisor::{AppSpec, Following, Supervisor};
