//! The request path.

mod forward;
mod handle;
mod hold;
mod refuse;
mod reply;
mod respond;
mod tunnel;

pub use handle::handle;
pub use refuse::{cut_off, refuse, refused};

/// An error with all of its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
