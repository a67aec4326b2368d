//! What lowport says to whoever ran it.

use std::process::Output;

use super::folder;
use super::lowport::USER;

/// Exit code for arguments that make no sense.
pub(crate) const USAGE: i32 = 2;
/// Exit code for a configuration that cannot be used.
pub(crate) const CONFIG: i32 = 78;

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Standard output of what must have succeeded with nothing to complain of.
pub(crate) fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    let out = text(&output.stdout);
    assert!(!out.contains(" \n") && !out.contains('\u{1b}'), "{out:?}");
    out
}

/// Standard error of what must have failed with this code and no other output.
pub(crate) fn failed(output: &Output, code: i32) -> String {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert_eq!(text(&output.stdout), "");
    assert!(!error.contains('\u{1b}'), "{error:?}");
    error
}

/// A folder with a configuration that says `toml`, and the configuration's path.
pub(crate) fn config(toml: &str) -> (tempfile::TempDir, String) {
    let folder = folder();
    let file = folder.path().join("site.toml");
    std::fs::write(&file, toml).expect("written");
    let file = file.to_str().expect("UTF-8").to_owned();
    (folder, file)
}

/// `[server]` on ports of its own.
pub(crate) fn server(http: u16, https: u16) -> String {
    format!(
        "[server]\nhttp = \"127.0.0.1:{http}\"\nhttps = \"127.0.0.1:{https}\"\nuser = \"{USER}\"\n"
    )
}
