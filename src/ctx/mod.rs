//! What the request path knows: about its worker, about a client connection, about one request.

mod activity;
mod conn;
mod intake;
mod request;
mod uptake;
mod worker;

pub use activity::{Activity, Overdue};
pub use conn::Conn;
pub use intake::Intake;
pub use request::RequestCtx;
pub use uptake::Uptake;
pub use worker::Worker;
