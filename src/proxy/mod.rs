//! The request path.

mod forward;
mod handle;
mod hold;
mod refuse;
mod reply;
mod respond;
mod tunnel;

pub use handle::handle;
pub use refuse::{refuse, refused};
