//! Listeners, workers and client connections.

mod conn;
mod listen;
mod watched;
mod worker;

pub use listen::{Bound, bind, holder};
pub use worker::{Command, Shared, WorkerHandle, start};
