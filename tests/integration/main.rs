//! Integration tests: real processes, real clients.

fn main() {}
