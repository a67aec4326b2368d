//! Integration tests: real processes, real clients, real bytes. One binary; a file a subject.

mod forwarding;
mod house;
mod ladder;
mod lifecycle;
mod privilege;
mod support;
mod upgrades;
