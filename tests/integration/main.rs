//! Integration tests: real processes, real clients, real bytes. One binary; a file a subject.

mod forwarding;
mod guard;
mod house;
mod lifecycle;
mod support;
mod upgrades;
