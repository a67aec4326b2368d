//! Integration tests: real processes, real clients, real bytes. One binary; a file a subject.

mod audit;
mod forwarding;
mod house;
mod lifecycle;
mod support;
mod upgrades;
