//! Integration tests: real processes, real clients, real bytes. One binary; a file a subject.

mod forwarding;
mod house;
mod lifecycle;
mod load;
mod support;
mod upgrades;
