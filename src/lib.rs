//! lowport holds ports 80 and 443 so that a Node app never has to be root.

pub mod config;
