//! Integration tests: real processes, real clients, real bytes. One binary; a file a subject.

mod app;
mod app_filter;
mod app_socket;
mod audit;
mod broker;
mod browser;
mod checking;
mod command_line;
mod denials;
mod deploy;
mod dev;
mod forwarding;
mod guard;
mod handshake;
mod health;
mod house;
mod image;
mod instance;
mod kernels;
mod ladder;
mod least;
mod lifecycle;
mod load;
mod pack;
mod privilege;
mod proxies;
mod refusals;
mod regression;
mod routing;
mod run;
mod secrets;
mod stopping;
mod supervision;
mod support;
// It knows the registers of these.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod taken_over;
mod upgrades;
mod waiting;
mod wire;
