//! Integration tests: real processes, real clients, real bytes. One binary; a file a subject.

mod app;
mod browser;
mod dev;
mod forwarding;
mod house;
mod lifecycle;
mod support;
mod upgrades;
mod waiting;
