//! The `lowport` command.

use std::process::ExitCode;

/// Measured against the system's on HTTP/2, where it takes an eighth off; level elsewhere.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lowport::cli::main()
}
