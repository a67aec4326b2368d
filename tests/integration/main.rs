//! Integration tests: real processes, real clients, real bytes. One binary; a file a subject.

mod app;
mod audit;
mod browser;
mod checking;
mod command_line;
mod denials;
mod dev;
mod forwarding;
mod guard;
mod handshake;
mod house;
mod kernels;
mod ladder;
mod lifecycle;
mod load;
mod privilege;
mod regression;
mod routing;
mod secrets;
mod support;
// It knows the registers of these.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod taken_over;
mod upgrades;
mod waiting;
