//! What a bench with a bound ends with.

use std::process::ExitCode;

/// Says `good` or, where what was measured does not hold, `bad`, with which it fails.
pub(crate) fn verdict(holds: bool, good: &str, bad: &str) -> ExitCode {
    if holds {
        println!("\n{good}");
        ExitCode::SUCCESS
    } else {
        println!("\n{bad}");
        ExitCode::FAILURE
    }
}
