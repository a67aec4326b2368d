//! Listeners, workers and client connections.

mod admission;
mod balance;
mod clients;
mod conn;
mod door;
mod farewell;
mod hibernation;
mod introduction;
mod outbox;
mod streams;
mod watched;
mod worker;

pub use worker::{Command, Shared, WorkerHandle, start};
