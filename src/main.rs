//! The `lowport` command.

fn main() {}
