//! Integration tests: real processes, real clients, real bytes. One binary; a file a subject.

mod app;
mod app_socket;
mod audit;
mod browser;
mod checking;
mod command_line;
mod dev;
mod forwarding;
mod guard;
mod handshake;
mod house;
mod instance;
mod ladder;
mod least;
mod lifecycle;
mod load;
mod privilege;
mod refusals;
mod regression;
mod routing;
mod run;
mod supervision;
mod support;
mod upgrades;
mod waiting;
mod wire;
