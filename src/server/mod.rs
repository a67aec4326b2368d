//! Listeners, workers and client connections.

mod conn;
mod watched;
mod worker;

pub use worker::{Command, Shared, WorkerHandle, start};
