//! What a string of the configuration means: pure functions, one kind of value a file.

mod address;
mod amount;
mod host;
mod path;
mod peer;
mod rate;
mod user;

pub(super) use address::{listen, network};
pub(super) use amount::{show_size, size, time};
pub(super) use host::host;
pub(super) use path::{exact, method, prefix, regex};
pub(super) use peer::{peer, upstream_name};
pub(super) use rate::{rate, speed};
pub(super) use user::{expect_user, user};

/// Why a string cannot be what it should be, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Short: it stands beside the value
    pub(super) why: String,
    /// The remedy; may be empty
    pub(super) help: String,
}

impl Wrong {
    /// With a reason and a remedy.
    pub(super) fn new(why: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            help: help.into(),
        }
    }
}

/// For tables of tests: each text is refused, and reason and remedy together say this.
#[cfg(test)]
fn refuses<T: std::fmt::Debug>(parse: impl Fn(&str) -> Result<T, Wrong>, table: &[(&str, &str)]) {
    for (text, said) in table {
        let wrong = parse(text).expect_err(text);
        let whole = format!("{}; {}", wrong.why, wrong.help);
        assert!(whole.contains(said), "{text}: {whole}");
    }
}
