//! lowport holds ports 80 and 443 so that a Node app never has to be root.
//!
//! # The map
//! In reading order, from the floor up; a module imports only from modules above it in this list.
//!
//! | module | what it is for |
//! |---|---|
//! | [`error`] | what can go wrong with one request, whose fault it is, which status says so |
//! | [`linger`], [`patience`], [`body`], [`stream`], [`exec`] | a client's body, how long it is waited for, and under its limits; a byte stream, whatever it runs over; where hyper's tasks run |
//! | [`console`] | what is said to whoever runs a command, also of a crash |
//! | [`bypass`] | bytes that go from one socket to another within the kernel |
//! | [`proxy_header`] | what a proxy in front says of a connection before the client does |
//! | [`http1`], [`http2`] | bytes on the wire: a client's looked at before hyper sees them, and HTTP/1.1 as an upstream speaks it |
//! | [`http`] | pure functions on messages: host, hop-by-hop fields, forwarded fields, targets, upgrades |
//! | [`config`] | TOML -> [`config::Config`], with every mistake and its place |
//! | [`privilege`] | who a process is, how it becomes somebody lesser, and what it can still do then |
//! | [`route`], [`policy`], [`upstream`], [`tls`], [`child`], [`observe`], [`audit`] | find a route; how often a client may ask; connections to peers, and who runs those; certificates; the supervised app; logs and counts; where Node is root on a machine |
//! | [`init`] | the files that put lowport before an app: containers, a cluster, a machine |
//! | [`snapshot`] | what runs: made whole from a configuration, swapped atomically |
//! | [`ctx`] | what is known of a worker, a connection, a request |
//! | [`proxy`] | **the request path**: begin with [`proxy::handle`] |
//! | [`server`] | listeners, workers, client connections |
//! | [`app`] | boot, serve, reload, drain |
//! | [`cli`] | the subcommands |
//!
//! # The journey of a request
//! [`server`] accepts, shakes hands and parses with hyper; [`proxy::handle`] loads the [`snapshot`], finds the route,
//! and forwards over a connection of the worker's own [`upstream::Pool`]; the response streams back, and the access
//! record is written when its last byte is gone.

// They end the process where nobody can be told anything: see [`console`].
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod app;
pub mod audit;
pub mod body;
pub mod bypass;
pub mod child;
pub mod cli;
pub mod config;
pub mod console;
pub mod ctx;
pub mod error;
pub mod exec;
pub mod http;
pub mod http1;
pub mod http2;
pub mod init;
pub mod linger;
pub mod observe;
pub mod patience;
pub mod policy;
pub mod privilege;
pub mod proxy;
pub mod proxy_header;
pub mod route;
pub mod server;
pub mod snapshot;
pub mod stream;
pub mod tls;
pub mod upstream;
