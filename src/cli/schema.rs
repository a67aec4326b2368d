//! `lowport schema`

use std::process::ExitCode;

use super::tell;

/// What editors check a configuration by, and complete it from.
const SCHEMA: &str = include_str!("../../config/lowport.schema.json");

pub(super) fn run() -> Result<ExitCode, ExitCode> {
    tell(SCHEMA)?;
    Ok(ExitCode::SUCCESS)
}
