//! stub
use std::process::ExitCode;
pub fn test() -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
