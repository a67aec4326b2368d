//! Listeners, workers and client connections.

mod conn;
mod listen;
mod watched;
mod worker;

pub use listen::{Bound, bind};
pub use worker::{Command, Shared, WorkerHandle, start};
