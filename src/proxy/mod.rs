//! The request path.

mod admit;
mod forward;
mod handle;
mod hold;
mod refuse;
mod reply;
mod respond;
mod tunnel;

pub use handle::handle;
pub use refuse::{cut_off, refuse, refused};
